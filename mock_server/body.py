"""Request bodies: read under a limit, and parsed as JSON without leniency."""

import json
import re
from typing import Any, NoReturn

from starlette.types import Receive, Scope

from mock_server.errors import Refusal

_JSON_MEDIA_TYPE = re.compile(
    rb'\s*application/json\s*(?:;\s*charset\s*=\s*"?utf-?8"?\s*)?;?\s*', re.IGNORECASE
)
MOST_LEVELS = 100
"""How deep a body may be nested; the contracts need three levels."""

_TOO_DEEP = f"the body is nested too deeply; {MOST_LEVELS} levels are taken"

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


class ClientGone(Exception):
    """The client closed the connection before its request had arrived."""


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a request header, or nothing."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


def check_media_type(scope: Scope) -> None:
    """Refuses with 415 what is not sent as uncompressed UTF-8 `application/json`."""
    content_type = header(scope, b"content-type")
    if not _JSON_MEDIA_TYPE.fullmatch(content_type):
        said = repr(content_type.decode("latin-1")[:80]) if content_type else "nothing"
        raise Refusal(415, f"The body has to be application/json in UTF-8; Content-Type says {said}.")
    encoding = header(scope, b"content-encoding").strip().lower()
    if encoding not in {b"", b"identity"}:
        said = repr(encoding.decode("latin-1")[:80])
        raise Refusal(415, f"The body has to be sent uncompressed; Content-Encoding says {said}.")


async def read_body(scope: Scope, receive: Receive, *, limit: int) -> bytes:
    """The whole body.

    Raises Refusal 413 as soon as it is known to be longer than `limit` bytes, ClientGone when the client
    left.
    """
    too_large = Refusal(
        413, f"The body is larger than the {limit} bytes that this server takes (--max-body)."
    )
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise too_large
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise too_large
        return body
    chunks = bytearray()
    while True:
        if message["type"] != "http.request":
            raise ClientGone
        chunks += message.get("body", b"")
        if len(chunks) > limit:
            raise too_large
        if not message.get("more_body"):
            return bytes(chunks)
        message = await receive()


def parse_json(body: bytes) -> tuple[str, Any]:
    """The text of a JSON body and the value in it.

    Stricter than `json.loads`, as JSON itself is: UTF-8 without a byte order mark, each key once, no NaN or
    Infinity, no number beyond a double's range, no half of a surrogate pair.
    Raises Refusal 400 that says what is wrong and where.
    """
    if not body.strip():
        _refuse("there is no body; a JSON object is expected")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(f"the body is not UTF-8: byte {error.start} cannot be read")
    if text.startswith("\ufeff"):
        _refuse("the body begins with a byte order mark; JSON has none")
    try:
        value = _DECODER.decode(text)
        if _SURROGATE_ESCAPE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        _refuse(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    except RecursionError:
        _refuse(_TOO_DEEP)
    except UnicodeEncodeError:
        _refuse("a text holds half of a surrogate pair, which is no character")
    except ValueError as error:
        _refuse(str(error) if isinstance(error, _NotJson) else "the body holds a number with too many digits")
    if body.count(b"[") + body.count(b"{") > MOST_LEVELS and _depth(value) > MOST_LEVELS:
        _refuse(_TOO_DEEP)
    return text, value


class _NotJson(ValueError):
    """A value that Python's JSON reader would take although JSON has no such thing."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value] # add returns None
        raise _NotJson(f"the key {twice[:80]!r} stands twice in one object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise _NotJson(f"{name} is not a JSON value")


def _finite(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise _NotJson(f"the number {text[:40]} is too large")
    return value


def _depth(value: Any) -> int:
    """How many levels deep a value is nested, counted without recursion."""
    depth, level = 0, [value] if isinstance(value, list | dict) else []
    while level:
        level = [
            item
            for each in level
            for item in (each.values() if isinstance(each, dict) else each)
            if isinstance(item, list | dict)
        ]
        depth += 1
    return depth


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)


def _refuse(what: str) -> NoReturn:
    message = what[0].upper() + what[1:] + "."
    raise Refusal(
        400, message, data={"violations": [{"pointer": "", "rule": "json", "message": what}]}
    ) from None
