"""Tasks that do not live as the pages say: they go back, never end, get lost, or say what is not so."""

from collections.abc import Callable, Iterator
from typing import Any

from .client import Client
from .mutant import About, Mutant, either, field, rule
from .server import Answer, Ask, Between, Request
from .wrapped import Where, edited, on, results, submits, tasks, wrapped

_STATUS = either(field("data.status"), rule("order", "status", "final", "ends", "lifecycle*"))
_SIX_HOURS = 21_600


def mutants() -> Iterator[Mutant]:
    yield from _statuses()
    yield from _after_the_end()
    yield from _changing()


def with_data(
    family: str, name: str, about: About, where: Where, change: Callable[[dict[str, Any]], Any]
) -> Mutant:
    return wrapped(name, family, about, edited(where, lambda envelope: change(envelope["data"])), story)


def story(client: Client) -> list[Any]:
    """All that is said of some tasks from beginning to end."""
    told = []
    for model in ("v3/flux-schnell-lora", "v2/flux-dev-lora-trainer"):
        for wait in (60, _SIX_HOURS):
            first = client.submit(model, **({"num_images": 2} if "schnell" in model else {}))
            told.append(first)
            name = str(first.get("id", ""))
            told += [client.poll(name, version=version) for version in ("v3", "v2")]
            client.clock(advance=0.6)
            told += [client.poll(name, version=version) for version in ("v2", "v3", "v3")]
            client.clock(advance=wait)
            told += [
                client.poll(name, version=version, short=short)
                for version in ("v3", "v2")
                for short in (True, False)
            ]
            told += [client.poll(name) for _ in range(6)]
    # Dates are those of the day on which this runs; which of them are the same is not.
    dates = list(dict.fromkeys(str(each.get("created_at")) for each in told))
    return [{**each, "created_at": dates.index(str(each.get("created_at")))} for each in told]


def _statuses() -> Iterator[Mutant]:
    renamed = {
        "queued for created": ("created", "queued"),
        "pending for created": ("created", "pending"),
        "running for processing": ("processing", "running"),
        "succeeded for completed": ("completed", "succeeded"),
        "Completed for completed": ("completed", "Completed"),
        "created for processing": ("processing", "created"),
    }
    for name, (old, new) in renamed.items():
        if new == "created":
            continue  # a server may well be asked too late to be seen processing
        yield with_data("status invented", f"status is {name}", _STATUS, tasks, _replaced(old, new))
    yield with_data(
        "status invented",
        "status is succeeded on v2 alone",
        _STATUS,
        on("v2", tasks),
        _replaced("completed", "succeeded"),
    )
    yield with_data("never ends", "status never gets beyond processing", _STATUS, results, _unfinished)
    yield with_data(
        "never ends", "status never gets beyond created on v2", _STATUS, on("v2", results), _still_created
    )

    def failed(data: dict[str, Any]) -> None:
        if data["status"] == "completed":
            data.update(status="failed", outputs=[], has_nsfw_contents=[])

    yield with_data(
        "outcome", "failed without an error", either(field("data.error"), rule("error")), results, failed
    )

    def blamed(data: dict[str, Any]) -> None:
        if data["status"] == "completed":
            data["error"] = "none"

    errors = either(field("data.error"), rule("error"))
    yield with_data("outcome", "an error although it completed", errors, results, blamed)
    yield with_data(
        "outcome", "an error while it goes on", errors, results, _while_running("error", "not yet finished")
    )
    yield with_data(
        "outcome", "an error on the submit", errors, submits, lambda data: data.update(error="pending")
    )
    outputs = either(field("data.outputs"), rule("count"))
    early = ["http://127.0.0.1:8080/outputs/x/0.png"]
    yield with_data("outcome", "outputs before the end", outputs, results, _while_running("outputs", early))
    yield with_data(
        "outcome", "outputs on the submit", outputs, submits, lambda data: data.update(outputs=early)
    )
    flags = either(field("data.has_nsfw_contents"), rule("count"))
    yield with_data(
        "outcome", "flags before the end", flags, results, _while_running("has_nsfw_contents", [False])
    )
    yield with_data(
        "outcome",
        "timings before the end",
        field("data.timings.inference"),
        results,
        _while_running("timings", {"inference": -5}),
    )


def _replaced(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        if data["status"] == old:
            data["status"] = new

    return change


def _unfinished(data: dict[str, Any]) -> None:
    if data["status"] in {"completed", "failed"}:
        data.update(status="processing", outputs=[], has_nsfw_contents=[])


def _still_created(data: dict[str, Any]) -> None:
    data.update(status="created", outputs=[], has_nsfw_contents=[])


def _while_running(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        if data["status"] in {"created", "processing"}:
            data[name] = value

    return change


def _counted(change: Callable[[dict[str, Any], int], Any], where: Where = results) -> Callable[[], Between]:
    """Changes the answers about a task, knowing how often it was seen at its end before."""

    def fresh() -> Between:
        seen: dict[str, int] = {}

        async def handler(request: Request, ask: Ask) -> Answer:
            answer = await ask(request)
            data = answer.data
            if not data or not where(request):
                return answer
            if data["status"] in {"completed", "failed"}:
                seen[data["id"]] = seen.get(data["id"], 0) + 1
            change(data, seen.get(data["id"], 0))
            return answer.with_data(**data)

        return handler

    return fresh


def _after_the_end() -> Iterator[Mutant]:
    final = either(_STATUS, rule("final", "stays"))

    def later(more: dict[str, Any], *, every: int = 1) -> Callable[[dict[str, Any], int], None]:
        def change(data: dict[str, Any], times: int) -> None:
            if times > 1 and times % every == 0:
                data.update(more)

        return change

    back = {"status": "processing", "outputs": [], "has_nsfw_contents": []}
    wrong = {
        "goes back to processing": (later(back), final),
        "goes back to created": (later({**back, "status": "created"}), final),
        "is unfinished at every third look": (later(back, every=3), final),
        "fails after it completed": (later({**back, "status": "failed", "error": "out of memory"}), final),
        "loses its outputs": (
            later({"outputs": [], "has_nsfw_contents": []}),
            either(field("data.outputs"), rule("final", "count")),
        ),
        "gets an error": (later({"error": "expired"}), either(field("data.error"), rule("final", "error"))),
        "loses its flags": (
            later({"has_nsfw_contents": []}),
            either(field("data.has_nsfw_contents"), rule("final", "count")),
        ),
        "gets other timings": (
            _ever_longer,
            either(field("data.timings.inference", "data.timings"), rule("final")),
        ),
        "gets other outputs": (_other_outputs, either(field("data.outputs"), rule("final"))),
    }
    for name, (change, about) in wrong.items():
        yield wrapped(
            f"a task that has ended {name}", "changes after its end", about, _counted(change), story
        )


def _ever_longer(data: dict[str, Any], times: int) -> None:
    data["timings"] = {"inference": data["timings"]["inference"] + times}


def _other_outputs(data: dict[str, Any], times: int) -> None:
    if times > 1:
        data["outputs"] = [f"{each}{times}" for each in data["outputs"]]


def _changing() -> Iterator[Mutant]:
    """What ought to stay while a task goes on."""

    def each_time(name: str, value: Callable[[int, dict[str, Any]], Any]) -> Callable[[], Between]:
        def fresh() -> Between:
            polls = [0]

            async def handler(request: Request, ask: Ask) -> Answer:
                answer = await ask(request)
                if not answer.data or not results(request):
                    return answer
                polls[0] += 1
                return answer.with_data(**{name: value(polls[0], answer.data)})

            return handler

        return fresh

    wrong: dict[str, tuple[str, Callable[[int, dict[str, Any]], Any]]] = {
        "created_at moves on": ("created_at", lambda count, _: f"2026-04-01T12:00:{count % 60:02}Z"),
        "model becomes another": ("model", lambda _, data: data["model"].replace("lora", "lara")),
        "id becomes longer": ("id", lambda _, data: data["id"] + "0"),
        "id is in capitals": ("id", lambda _, data: data["id"].upper()),
        "urls.get becomes another": ("urls", lambda count, data: {"get": f"{data['urls']['get']}?{count}"}),
        "status is chosen at random": ("status", lambda count, _: ("created", "processing")[count % 2]),
    }
    for name, (key, value) in wrong.items():
        about = _STATUS if key == "status" else either(field(f"data.{key}"), rule("stays", "url"))
        yield wrapped(f"{name} from poll to poll", "does not stay", about, each_time(key, value), story)
