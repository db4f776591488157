"""How a body is written: its media type, and JSON to the letter."""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from contract_tests.case import Broken
from contract_tests.exchange import Exchange, Request
from contract_tests.layers.boundary import REFUSALS
from contract_tests.layers.claims import Claim
from contract_tests.session import JSON, Session, smallest
from contract_tests.table import Model

_DEEP = 100_000
_EMPTY = 2


def json_of(body: Any) -> bytes:
    """A body as JSON."""
    return json.dumps(body).encode()


def submit(model: Model, session: Session, *, paid: bool = False, **more: Any) -> Exchange:
    """Sends the smallest request, or one that differs from it by `more`. Raises as `Session.require` does."""
    session.require(model)
    given = {"headers": (JSON,), "body": json_of(smallest(model)), **more}
    return session.send(Request(method="POST", path=model.path, paid=paid, **given))


def expect(exchange: Exchange, *statuses: int) -> None:
    """Raises Broken where the answer has another status, or its envelope says otherwise."""
    if exchange.status not in statuses:
        wanted = " or ".join(str(status) for status in statuses)
        raise Broken(f"answered with HTTP {exchange.status} instead of {wanted}")
    if exchange.status != 200 and isinstance(exchange.json, dict) and exchange.json.get("code") == 200:
        raise Broken("refused, yet with the envelope of a success")


def _wrong_media_type(kind: str | None, model: Model, session: Session) -> None:
    headers = () if kind is None else (("Content-Type", kind),)
    expect(submit(model, session, headers=headers), 415, 400)


def _right_media_type(kind: str, model: Model, session: Session) -> None:
    expect(submit(model, session, headers=(("Content-Type", kind),), paid=True), 200)


def _checked_whatever_the_type(kind: str, model: Model, session: Session) -> None:
    bad = json_of({each.name: {} for each in model.request if "[]" not in each.name})
    expect(submit(model, session, headers=(("Content-Type", kind),), body=bad), *REFUSALS)


def _malformed(body: bytes, model: Model, session: Session) -> None:
    expect(submit(model, session, body=body), *REFUSALS)


_BODIES: Mapping[str, bytes] = {
    "no body": b"",
    "half an object": b'{"prompt": "x"',
    "an array": b"[]",
    "a text": b'"x"',
    "null": b"null",
    "a number": b"1",
    "a form": b"prompt=x&data=x&images_data_url=x",
    "invalid UTF-8": b'{"prompt": "\xff", "data": "\xff", "images_data_url": "\xff"}',
}
_KEPT_TYPES = ("application/json", "application/json; charset=utf-8", "APPLICATION/JSON")
_OTHER_TYPES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None)


def of_bodies(model: Model) -> Iterator[Claim]:
    """Claims about media types, and about what is JSON and what is not."""
    for kind in _KEPT_TYPES:
        says = "a body is JSON, however its media type is written"
        yield Claim(
            label=f"as {kind}",
            rule="media type",
            says=says,
            check=partial(_right_media_type, kind),
            source="reading",
        )
        says = "a body is checked, however its media type is written"
        check = partial(_checked_whatever_the_type, kind)
        yield Claim(
            label=f"a bad body as {kind}", rule="media type", says=says, check=check, source="reading"
        )
    for other in _OTHER_TYPES:
        says = "a body of another media type is refused"
        check = partial(_wrong_media_type, other)
        yield Claim(
            label=f"as {other or 'no type'}", rule="media type", says=says, check=check, source="reading"
        )
    for label, body in _BODIES.items():
        says = "the body is one JSON object"
        check = partial(_malformed, body)
        yield Claim(label=f"{label} as the body", rule="json", says=says, check=check)
    for label, made in _not_quite_json(model).items():
        says = "the body is JSON to the letter, of a depth that one can read"
        yield Claim(label=label, rule="json", says=says, check=partial(_malformed, made), source="reading")


def _not_quite_json(model: Model) -> Mapping[str, bytes]:
    """Bodies that a lenient reader takes for good ones."""
    good = json_of(smallest(model))
    text = next(each.name for each in model.request if each.kind == "string")
    numbers = (each.name for each in model.request if each.kind == "number" and "[]" not in each.name)
    number = next(numbers, "x")
    others = {name: value for name, value in smallest(model).items() if name != text}

    def with_fields(fields: str) -> bytes:
        return (json_of(others)[:-1] + (b", " if others else b"")) + fields.encode() + b"}"

    deep = "[" * _DEEP + "]" * _DEEP
    return {
        "a key twice": with_fields(f'"{text}": "x", "{text}": "y"'),
        "a key twice, wrong at first": with_fields(f'"{text}": 1, "{text}": "x"'),
        "a key twice, wrong at last": with_fields(f'"{text}": "x", "{text}": 1'),
        "half a surrogate pair": with_fields(f'"{text}": "\\ud800"'),
        "NaN": with_fields(f'"{text}": "x", "{number}": NaN'),
        "Infinity": with_fields(f'"{text}": "x", "{number}": Infinity'),
        "a number beyond all": with_fields(f'"{text}": "x", "{number}": 1e999'),
        "a byte order mark": b"\xef\xbb\xbf" + good,
        "a letter behind": good + b"x",
        "an object behind": good + good,
        "a comma too many": good[:-1] + b",}" if len(good) > _EMPTY else b"{,}",
        "a comment": b"/**/" + good,
        "an object in an array": b"[" + good + b"]",
        "brackets that do not end": b"[" * _DEEP,
        "deep in a field": with_fields(f'"{text}": {deep}'),
        "deep in an unknown field": with_fields(f'"{text}": "x", "a_field_that_no_page_shows": {deep}'),
    }
