"""Tasks that are lost, invented, or taken for one another."""

from collections.abc import Callable, Iterator
from typing import Any

from .client import Client
from .lifecycle import story, with_data
from .mutant import Mutant, either, field, rule
from .server import Answer, Ask, Between, Request, refusal
from .wrapped import on, refused, shortly, submits, tasks, wrapped

_LOST = either(
    field("data.status", "data.id"), rule("lost", "found", "poll*", "result*", "*404*", "*lifecycle*")
)


def mutants() -> Iterator[Mutant]:
    yield from _lost()
    yield from _identity()


def _lost() -> Iterator[Mutant]:
    """Tasks that were accepted and are not there."""

    def forgets(which: Callable[[int, str], bool]) -> Callable[[], Between]:
        def fresh() -> Between:
            numbers: dict[str, int] = {}

            async def handler(request: Request, ask: Ask) -> Answer:
                answer = await ask(request)
                if submits(request) and answer.data:
                    numbers[answer.data["id"]] = len(numbers) + 1
                if request.task and which(numbers.get(request.task, 0), answer.data.get("status", "")):
                    return refusal(404, "There is no such prediction.")
                return answer

            return handler

        return fresh

    wrong: dict[str, Callable[[int, str], bool]] = {
        "every task is lost": lambda _number, _status: True,
        "every third task is lost": lambda number, _: number > 0 and number % 3 == 0,
        "a task is lost when it has completed": lambda _, status: status == "completed",
        "a task is lost while it is created": lambda _, status: status == "created",
    }
    for name, which in wrong.items():
        yield wrapped(name, "lost", _LOST, forgets(which), story)
    for version, other in (("v2", "v3"), ("v3", "v2")):
        yield wrapped(
            f"tasks of {version} are not found on {other}",
            "stores split",
            either(_LOST, rule("version*", "*store*", "*other version*")),
            _split(version),
            _across,
        )
    yield wrapped(
        "the short address finds nothing",
        "lost",
        either(_LOST, rule("versions", "*short*")),
        refused(shortly, 404, "There is nothing here."),
        _short,
    )
    yield wrapped("unknown ids are found", "invented", _UNKNOWN, _found, _unknown)
    yield wrapped("unknown ids are empty successes", "invented", _UNKNOWN, _empty, _unknown)


_UNKNOWN = either(field("id"), rule("unknown*", "*404*", "*unknown*", "not found*", "id"))


def _split(version: str) -> Callable[[], Between]:
    def fresh() -> Between:
        mine: set[str] = set()

        async def handler(request: Request, ask: Ask) -> Answer:
            answer = await ask(request)
            if submits(request) and answer.data and request.version == version:
                mine.add(answer.data["id"])
            if request.task in mine and request.version != version:
                return refusal(404, "There is no such prediction.")
            return answer

        return handler

    return fresh


def _template(request: Request) -> dict[str, Any]:
    return {
        "id": request.task,
        "model": "wavespeed-ai/flux-dev-lora",
        "outputs": [],
        "urls": {"get": f"http://127.0.0.1:8080{request.path}"},
        "has_nsfw_contents": [],
        "status": "created",
        "created_at": "2026-04-01T12:34:56.789Z",
        "error": "",
        "executionTime": 0,
        "timings": {"inference": 0},
    }


def _found() -> Between:
    async def handler(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if request.task and answer.status == 404:
            good = {"code": 200, "message": "success", "data": _template(request)}
            return refusal(200).with_json(good)
        return answer

    return handler


def _empty() -> Between:
    async def handler(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if request.task and answer.status == 404:
            return refusal(200).with_json({"code": 200, "message": "success", "data": None})
        return answer

    return handler


def _across(client: Client) -> list[bool]:
    return [
        bool(client.poll(client.submit(f"{first}/flux-schnell-lora")["id"], version=second))
        for first in ("v2", "v3")
        for second in ("v2", "v3")
    ]


def _short(client: Client) -> bool:
    return bool(client.poll(client.submit()["id"], short=True))


def _unknown(client: Client) -> list[Any]:
    answer = client.ask("GET", "/api/v3/predictions/0000/result")
    return [answer.status_code, answer.json()]


def _identity() -> Iterator[Mutant]:
    """Tasks that are taken for one another."""
    ids = either(field("data.id"), rule("*unique*", "*id*", "stays"))

    def reused() -> Between:
        first: list[Answer] = []

        async def handler(request: Request, ask: Ask) -> Answer:
            answer = await ask(request)
            if submits(request) and answer.data:
                first.append(answer)
                return answer.with_data(id=first[0].data["id"])
            return answer

        return handler

    yield wrapped("every submit gets the first one's id", "identity", ids, reused, _ids)

    def same_body() -> Between:
        known: dict[bytes, Answer] = {}

        async def handler(request: Request, ask: Ask) -> Answer:
            if submits(request) and request.body in known:
                return known[request.body]
            answer = await ask(request)
            if submits(request) and answer.data:
                known[request.body] = answer
            return answer

        return handler

    yield wrapped("the same body again is the same task", "identity", ids, same_body, _ids)
    urls = either(field("data.urls.get"), rule("url", "stays", "*urls*"))
    model = either(field("data.model"), rule("stays", "*model*"))
    yield with_data(
        "identity",
        "model is always that of the dev page",
        model,
        tasks,
        lambda data: data.update(model="wavespeed-ai/flux-dev-lora"),
    )
    yield with_data(
        "identity",
        "model lacks its vendor",
        model,
        on("v2", tasks),
        lambda data: data.update(model=data["model"].partition("/")[2]),
    )
    yield with_data(
        "identity",
        "urls.get is of another id",
        urls,
        tasks,
        lambda data: data["urls"].update(get=data["urls"]["get"].replace(data["id"], "f" * 32)),
    )
    yield with_data(
        "identity",
        "urls.get is relative",
        urls,
        on("v3", tasks),
        lambda data: data["urls"].update(get=f"/api/v3/predictions/{data['id']}/result"),
    )
    yield with_data(
        "identity",
        "urls.get leads nowhere",
        urls,
        submits,
        lambda data: data["urls"].update(get=data["urls"]["get"] + "s"),
    )
    yield with_data(
        "identity",
        "urls.get is of another host",
        urls,
        on("v2", tasks),
        lambda data: data["urls"].update(get=data["urls"]["get"].replace("127.0.0.1:8080", "internal:9000")),
    )
    yield with_data(
        "identity",
        "urls.get has no scheme",
        urls,
        submits,
        lambda data: data["urls"].update(get=data["urls"]["get"].removeprefix("http:")),
    )
    yield with_data(
        "identity",
        "id has a slash in it",
        either(ids, _LOST),
        submits,
        lambda data: data.update(id=f"task/{data['id']}"),
    )


def _ids(client: Client) -> list[Any]:
    return [client.submit(prompt=text).get("id") for text in ("one", "one", "another")]
