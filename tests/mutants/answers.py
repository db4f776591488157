"""Answers in which a field is missing, null, of another type, or not what it says it is."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .client import MODEL, Client, body, path_of
from .mutant import About, Mutant, either, field, rule
from .wrapped import Where, edited, on, results, submits, tasks, wrapped

_PLACES: dict[str, Where] = {
    "submits": submits,
    "v3 results": on("v3", results),
    "v2 results": on("v2", results),
    "answers": tasks,
    "v2 answers": on("v2", tasks),
}
_TYPED: dict[str, list[Any]] = {
    "data.id": [7],
    "data.model": [None, ["wavespeed-ai/flux-schnell-lora"], "flux-schnell-lora"],
    "data.outputs": ["", {}, [1], [["x"]]],
    "data.urls": ["http://127.0.0.1:8080/x", []],
    "data.urls.get": [["x"], ""],
    "data.has_nsfw_contents": [False, [0], ["false"], {}],
    "data.status": [1, "", "CREATED"],
    "data.created_at": [1_775_046_896, "", "01/04/2026 12:34", "2026-04-01", "2026-04-01 12:34:56"],
    "data.error": [{}, [], False],
    "data.timings": [[], 1480, {}],
    "data.timings.inference": [1.5, "0", -1],
    "code": ["200", 0, 201, 200.0],
    "message": [1, {"text": "success"}, []],
}
_LAWS = {
    "data.outputs": rule("count"),
    "data.has_nsfw_contents": rule("count"),
    "data.status": rule("status", "order"),
    "data.created_at": rule("timestamp", "stays"),
    "data.error": rule("error"),
    "data.urls": rule("url", "stays"),
    "data.urls.get": rule("url", "stays"),
    "code": rule("envelope"),
    "message": rule("envelope"),
    "data.model": rule("stays"),
}


def mutants() -> Iterator[Mutant]:
    for turn, name in enumerate(_TYPED):
        yield _fault(name, "missing", turn, partial(_remove, name), family="answer field missing")
        yield _fault(name, "null", turn + 1, partial(_set, name, None), family="answer field null")
        for extra, value in enumerate(_TYPED[name]):
            if value is not None:
                label = f"{value!r}"
                yield _fault(
                    name, label, turn + extra, partial(_set, name, value), family="answer field mistyped"
                )
    yield _fault(
        "data.executionTime",
        "missing",
        0,
        partial(_remove, "data.executionTime"),
        family="answer field missing",
        edition="flux-lora",
    )
    yield _fault(
        "data.executionTime",
        "'0'",
        1,
        partial(_set, "data.executionTime", "0"),
        family="answer field mistyped",
        edition="flux-lora",
    )
    yield _fault(
        "data.executionTime",
        "1.5",
        2,
        partial(_set, "data.executionTime", 1.5),
        family="answer field mistyped",
        edition="flux-lora",
    )
    yield from _extra()
    yield from _renamed()
    yield from _other_forms()


def about(name: str) -> About:
    """A finding about a field of an answer, or by a law that speaks of it."""
    return either(field(name), _LAWS[name]) if name in _LAWS else field(name)


def _fault(
    name: str,
    label: str,
    turn: int,
    change: Callable[[dict[str, Any]], Any],
    *,
    family: str,
    edition: str = "current",
) -> Mutant:
    place = list(_PLACES)[turn % len(_PLACES)]
    model = MODEL if edition == "current" else "v2/flux-schnell-lora"
    return wrapped(
        f"{name} is {label} in {place}",
        family,
        about(name),
        edited(_PLACES[place], change),
        partial(envelopes, model=model, keys=name),
        edition=edition,
    )


def envelopes(client: Client, *, model: str = MODEL, keys: str = "") -> list[Any]:
    """What submits and both results say at a place: of a date only how long it is."""
    submitted = [client.post({"prompt": "a text"}, each) for each in (model, "v2/flux-schnell-lora")]
    name = (body(submitted[0]) or {}).get("data", {}).get("id")
    # Whatever became of the id, the first one of this server is always the same.
    first = name if isinstance(name, str) else "c" * 32
    polled = [client.ask("GET", f"/api/{version}/predictions/{first}/result") for version in ("v3", "v2")]
    found = [body(answer) for answer in (*submitted, *polled)]
    return [_masked(keys, _at(each, keys)) if keys else each for each in found]


def _masked(keys: str, value: Any) -> Any:
    return len(value) if keys == "data.created_at" and isinstance(value, str) else value


def _at(envelope: Any, keys: str) -> Any:
    for key in keys.split("."):
        if not isinstance(envelope, dict) or key not in envelope:
            return "nothing"
        envelope = envelope[key]
    return envelope


def _holder(envelope: dict[str, Any], keys: str) -> tuple[dict[str, Any], str]:
    *outer, last = keys.split(".")
    for key in outer:
        envelope = envelope[key]
    return envelope, last


def _remove(keys: str, envelope: dict[str, Any]) -> None:
    holder, last = _holder(envelope, keys)
    holder.pop(last)


def _set(keys: str, value: Any, envelope: dict[str, Any]) -> None:
    holder, last = _holder(envelope, keys)
    holder[last] = value


def _extra() -> Iterator[Mutant]:
    """Fields that nobody documents: the schemas of the answers are closed."""
    wrong = {
        "success": True,
        "data.progress": 0,
        "data.urls.cancel": "http://x/y",
        "data.timings.queue": 0,
        "error": "",
    }
    for turn, (name, value) in enumerate(wrong.items()):
        outer = name.rpartition(".")[0]
        yield wrapped(
            f"{name} is added to {list(_PLACES)[turn]}",
            "answer field invented",
            either(field(name, *([outer] if outer else [])), rule("answer", "envelope")),
            edited(list(_PLACES.values())[turn], partial(_set, name, value)),
            partial(envelopes, keys=name),
        )


def _renamed() -> Iterator[Mutant]:
    """Fields under the names that other APIs have for them."""
    wrong = {
        "data.id": "prediction_id",
        "data.created_at": "createdAt",
        "data.outputs": "output",
        "data.has_nsfw_contents": "nsfw",
        "data.error": "errors",
        "message": "msg",
        "code": "status",
    }
    for turn, (name, other) in enumerate(wrong.items()):
        place = list(_PLACES)[turn % len(_PLACES)]
        yield wrapped(
            f"{name} is called {other} in {place}",
            "answer field renamed",
            about(name),
            edited(_PLACES[place], partial(_rename, name, other)),
            partial(envelopes, keys=f"{name.rpartition('.')[0]}.{other}".lstrip(".")),
        )


def _rename(keys: str, other: str, envelope: dict[str, Any]) -> None:
    holder, last = _holder(envelope, keys)
    holder[other] = holder.pop(last)


def _other_forms() -> Iterator[Mutant]:
    """The right thing in a wrong wrapping."""
    bare = either(field("data", "code", "message", "data.id"), rule("envelope", "json", "answer"))

    def unwrap(envelope: dict[str, Any]) -> None:
        data = envelope.pop("data")
        envelope.clear()
        envelope.update(data)

    def listed(envelope: dict[str, Any]) -> None:
        envelope["data"] = [envelope["data"]]

    def flattened(envelope: dict[str, Any]) -> None:
        envelope.update(envelope.pop("data"))

    for name, change in (("without its envelope", unwrap), ("in a list", listed), ("beside code", flattened)):
        yield wrapped(
            f"a task is answered {name}",
            "answer in another form",
            bare,
            edited(tasks if change is listed else results, change),
            partial(_forms, path=path_of(MODEL)),
        )


def _forms(client: Client, *, path: str) -> list[Any]:
    submitted = body(client.ask("POST", path, json={"prompt": "a text"}))
    name = "c" * 32 if isinstance(submitted["data"], list) else submitted["data"]["id"]
    polled = body(client.ask("GET", f"/api/v3/predictions/{name}/result"))
    return [sorted(submitted), type(submitted["data"]).__name__, sorted(polled)]
