"""Refusals with another status, in another form, or none at all; successes that do not look like one."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from .client import MODEL, Client, path_of
from .mutant import Mutant, either, field, message, rule
from .server import Answer, Request, refusal
from .wrapped import answered, results, submits, tasks, wrapped

_FORM = either(
    rule("error*", "envelope", "json", "media type", "error media type", "error json", "error envelope"),
    field("code", "message"),
    message("*envelope*", "*not JSON*", "*no JSON*"),
)


def mutants() -> Iterator[Mutant]:
    for old, new in _STATUSES:
        yield _other_status(old, new)
    for old in (400, 401, 404):
        yield _said_only_inside(old)
    for turn, (name, change) in enumerate(_BODIES.items()):
        status = (400, 401, 404, 405, 415)[turn % 5]
        yield wrapped(
            f"a {status} {name}",
            "error in another form",
            _FORM,
            answered(_of(status), change),
            refusals,
        )
    yield from _successes()


_STATUSES = (
    (400, 200),
    (400, 404),
    (400, 409),
    (400, 422),
    (400, 500),
    (401, 400),
    (401, 402),
    (401, 403),
    (401, 404),
    (401, 500),
    (404, 200),
    (404, 400),
    (404, 401),
    (404, 410),
    (404, 500),
    (405, 200),
    (405, 404),
    (405, 400),
    (405, 501),
    (415, 200),
    (415, 500),
    (415, 422),
)
_TOPICS = {
    400: ("range", "type", "required", "json", "form", "null", "integer", "items", "example", "judged"),
    401: ("key",),
    404: ("id", "path"),
    405: ("method",),
    415: ("media type",),
}


def _other_status(old: int, new: int) -> Mutant:
    def change(answer: Answer) -> Answer:
        if new != 200:
            return replace(answer, status=new).with_json({**answer.json, "code": new})
        return refusal(200).with_json({"code": 200, "message": "success", "data": {}})

    return wrapped(
        f"{new} instead of {old}",
        "error with another status",
        either(rule(*_TOPICS[old]), message(f"*{new}*")),
        answered(_of(old), change),
        refusals,
    )


def _of(status: int) -> Callable[[Request, Answer], bool]:
    return lambda _, answer: answer.status == status


def _said_only_inside(status: int) -> Mutant:
    return wrapped(
        f"200 with the code {status} inside",
        "error with another status",
        either(rule(*_TOPICS[status], "envelope"), field("code")),
        answered(_of(status), lambda answer: replace(answer, status=200)),
        refusals,
    )


def refusals(client: Client) -> list[Any]:
    """What a server says to requests that it has to refuse, each in another way."""
    path = path_of(MODEL)
    answers = [
        client.post({"prompt": 1}),
        client.post(b"{"),
        client.post({"prompt": "x"}, keyed=False),
        client.ask("GET", "/api/v3/predictions/0000/result", keyed=False),
        client.ask("GET", "/api/v3/predictions/0000/result"),
        client.ask("POST", f"{path}x", json={}),
        client.ask("GET", path),
        client.ask("PUT", path, json={"prompt": "x"}),
        client.ask("POST", path, content=b"x", headers={"Content-Type": "text/plain"}),
    ]
    return [
        (each.status_code, each.headers.get("content-type"), each.headers.get("allow"), each.content)
        for each in answers
    ]


def _json(change: Callable[[dict[str, Any]], Any]) -> Callable[[Answer], Answer]:
    def changed(answer: Answer) -> Answer:
        envelope = answer.json
        change(envelope)
        return answer.with_json(envelope)

    return changed


def _text(make: Callable[[Answer], bytes]) -> Callable[[Answer], Answer]:
    return lambda answer: replace(answer, body=make(answer))


_HTML = b"<html><body><h1>Bad Request</h1></body></html>"
_BODIES: dict[str, Callable[[Answer], Answer]] = {
    "is a text": _text(lambda answer: answer.json["message"].encode()),
    "is a page": lambda answer: replace(answer, body=_HTML).with_type(b"text/html"),
    "is a page that is called JSON": _text(lambda _: _HTML),
    "has no body": _text(lambda _: b""),
    "is cut off": _text(lambda answer: answer.body[:-2]),
    "has a second answer behind it": _text(lambda answer: answer.body * 2),
    "has a byte order mark": _text(lambda answer: b"\xef\xbb\xbf" + answer.body),
    "is in Latin-1": _text(
        lambda answer: (
            answer.body[:-1] + b', "data": {"violations": [{"pointer": "\xe9", "rule": "", "message": ""}]}}'
        )
    ),
    "has no code": _json(lambda each: each.pop("code")),
    "has a text as its code": _json(lambda each: each.update(code=str(each["code"]))),
    "has the code 0": _json(lambda each: each.update(code=0)),
    "has the code 200": _json(lambda each: each.update(code=200)),
    "has the code 500": _json(lambda each: each.update(code=500)),
    "has a fraction as its code": _json(lambda each: each.update(code=each["code"] + 0.5)),
    "has no message": _json(lambda each: each.pop("message")),
    "has an empty message": _json(lambda each: each.update(message="")),
    "has null as its message": _json(lambda each: each.update(message=None)),
    "has a list as its message": _json(lambda each: each.update(message=[each["message"]])),
    "says error instead of message": _json(lambda each: each.update(error=each.pop("message"))),
    "says detail instead of message": _json(lambda each: each.update(detail=each.pop("message"))),
    "is wrapped in error": lambda answer: answer.with_json({"error": answer.json}),
    "is in a list": lambda answer: answer.with_json([answer.json]),
    "is a JSON text": lambda answer: answer.with_json(answer.json["message"]),
    "is null": lambda answer: answer.with_json(None),
    "is called plain text": lambda answer: answer.with_type(b"text/plain"),
    "is called a problem": lambda answer: answer.with_type(b"application/problem+json"),
    "has no media type": lambda answer: answer.with_type(b""),
    "has a key twice": _text(lambda answer: b'{"code": 1, ' + answer.body[1:]),
    "has its own fields": _json(lambda each: each.update(request_id="x", timestamp=1)),
}


def _successes() -> Iterator[Mutant]:
    for status, what, where in (
        (201, "a submit", submits),
        (202, "a submit", submits),
        (202, "a result", results),
        (206, "an answer", tasks),
    ):
        yield wrapped(
            f"{status} for {what}",
            "success with another status",
            either(rule("answer", "status", "envelope", "answer*"), message(f"*{status}*")),
            _good(where, partial(replace, status=status)),
            successes,
        )
    form = either(rule("media type", "json", "answer", "answer*"), message("*not JSON*", "*no JSON*"))
    wrong: dict[str, Callable[[Answer], Answer]] = {
        "called plain text": lambda answer: answer.with_type(b"text/plain"),
        "called a page": lambda answer: answer.with_type(b"text/html; charset=utf-8"),
        "called octets": lambda answer: answer.with_type(b"application/octet-stream"),
        "of no media type": lambda answer: answer.with_type(b""),
        "behind a byte order mark": _text(lambda answer: b"\xef\xbb\xbf" + answer.body),
        "cut off": _text(lambda answer: answer.body[:-1]),
        "with a key twice": _text(lambda answer: b'{"code": 200, ' + answer.body[1:]),
        "with NaN in it": _text(
            lambda answer: answer.body.replace(b'"inference": 0', b'"inference": NaN').replace(
                b'"inference":0', b'"inference":NaN'
            )
        ),
        "with a byte that is not UTF-8": _text(lambda answer: answer.body.replace(b"success", b"succ\xe9s")),
        "in UTF-16": _text(lambda answer: answer.body.decode().encode("utf-16")),
        "with single quotes": _text(lambda answer: str(answer.json).encode()),
        "as a script": _text(lambda answer: b")]}',\n" + answer.body),
        "empty": _text(lambda _: b""),
    }
    for turn, (name, change) in enumerate(wrong.items()):
        what, where = (("a submit", submits), ("a result", results))[turn % 2]
        yield wrapped(
            f"{what} is answered {name}", "success in another form", form, _good(where, change), successes
        )
    yield wrapped(
        "a success has the code 0",
        "success in another form",
        either(field("code"), rule("envelope")),
        _good(tasks, _json(lambda each: each.update(code=0))),
        successes,
    )


def _good(where: Callable[[Request], bool], change: Callable[[Answer], Answer]) -> Any:
    return answered(lambda request, answer: where(request) and answer.status == 200, change)


def successes(client: Client) -> list[Any]:
    """How a submit and a result are answered, but for what changes by itself."""
    submitted = client.post({"prompt": "x"})
    try:
        name = json.loads(submitted.content)["data"]["id"]
    except (ValueError, TypeError, KeyError):
        name = _FIRST
    answers = [submitted, client.ask("GET", f"/api/v3/predictions/{name}/result")]
    return [(each.status_code, each.headers.get("content-type"), _undated(each.content)) for each in answers]


_FIRST = "1bd6bd0f7d6b7ca6ecdd7a79a3b3e3c2"


def _undated(text: bytes) -> bytes:
    start, found, rest = text.partition(b"created_at")
    return start + found + rest[30:] if found else text
