"""Bodies that are no JSON, and are taken for some, or that the server breaks over."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .client import Client
from .mutant import About, Mutant, either, message, rule
from .names import GOOD
from .server import Answer, Ask, Between, Request
from .strictness import refusing, texts_of
from .wrapped import submits, wrapped

_JSON = either(
    rule("json", "* as the body", "byte*", "*JSON*"), message("*accepted, although*", "*HTTP 200 instead of*")
)
_BROKEN = either(message("*500*", "*server error*"), rule("*deep*", "*UTF-8*", "json"))


def mutants() -> Iterator[Mutant]:
    yield from _lenient()
    yield from _crashes()


def _text(body: bytes) -> str:
    """What a lenient reader sees."""
    return body.decode("utf-8", "replace")


def _read(text: str, **how: Any) -> Any:
    try:
        return json.loads(text, **how)
    except (ValueError, RecursionError):
        return None


def _reader(read: Callable[[bytes], Any]) -> Callable[[], Between]:
    """Reads what is no JSON in a way of its own; None where it cannot either."""

    async def handler(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if not submits(request) or answer.status != 400:
            return answer
        value = read(request.body)
        return answer if value is None else await ask(request.with_body(value))

    return lambda: handler


def _lenient() -> Iterator[Mutant]:
    nan = {"NaN": 0.5, "Infinity": 1.0, "-Infinity": 0.0}
    wrong: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
        "NaN is a number": (lambda body: _constants(body, {"NaN"}), b'{"prompt": "x", "strength": NaN}'),
        "Infinity is a number": (
            lambda body: _constants(body, set(nan) - {"NaN"}),
            b'{"prompt": "x", "strength": Infinity}',
        ),
        "the last of two keys counts": (
            lambda body: _twice(body, last=True),
            b'{"prompt": "x", "prompt": "y"}',
        ),
        "the first of two keys counts": (
            lambda body: _twice(body, last=False),
            b'{"prompt": "x", "prompt": 1}',
        ),
        "1e400 is a large number": (_beyond, b'{"prompt": "x", "strength": 1e400}'),
        "a byte order mark is passed over": (
            lambda body: _read(_text(body[3:])) if body.startswith(b"\xef\xbb\xbf") else None,
            b"\xef\xbb\xbf" + GOOD,
        ),
        "UTF-16 is read": (_utf16, GOOD.decode().encode("utf-16")),
        "bytes that are no UTF-8 are read as Latin-1": (
            lambda body: _read(body.decode("latin-1")) if not _is_utf8(body) else None,
            b'{"prompt": "\xe9", "data": "\xe9"}',
        ),
        "bytes that are no UTF-8 are replaced": (
            lambda body: _read(_text(body)) if not _is_utf8(body) else None,
            b'{"prompt": "\xff", "num_images": 1}',
        ),
        "half a surrogate pair is a character": (
            _surrogates,
            b'{"prompt": "\\ud800"}',
        ),
        "a comma too many is passed over": (
            lambda body: _read(re.sub(r",\s*([}\]])", r"\1", _text(body))),
            b'{"prompt": "x",}',
        ),
        "comments are passed over": (
            lambda body: _read(re.sub(r"/\*.*?\*/", "", _text(body))),
            b'{"prompt": "x"/**/}',
        ),
        "single quotes are read": (lambda body: _read(_text(body).replace("'", '"')), b"{'prompt': 'x'}"),
        "what stands behind an object is passed over": (lambda body: _first(_text(body)), GOOD + b"x"),
        "half an object is completed": (lambda body: _read(_text(body) + "}"), b'{"prompt": "x"'),
        "an array of one object is that object": (lambda body: _only(_text(body)), b"[" + GOOD + b"]"),
        "a form is read": (lambda body: _form(_text(body)), b"prompt=x&data=x&images_data_url=x"),
        "control characters are read": (lambda body: _read(_text(body), strict=False), b'{"prompt": "a\nb"}'),
        "no body is the smallest one": (lambda body: None if body.strip() else json.loads(GOOD), b""),
        "null is the smallest body": (
            lambda body: json.loads(GOOD) if body.strip() == b"null" else None,
            b"null",
        ),
        "what is no JSON is the smallest body": (
            lambda body: json.loads(GOOD) if _read(_text(body)) is None else None,
            b"{",
        ),
        "what is no object is the smallest body": (lambda body: _no_object(_text(body)), b"[]"),
        "a JSON text is a prompt": (lambda body: _prompt(_text(body)), b'"x"'),
        "whatever is deep is cut off": (
            lambda body: json.loads(GOOD) if body.count(b"[") > 500 else None,
            b"[" * 100_000,
        ),
    }
    for name, (read, body) in wrong.items():
        yield wrapped(
            name,
            "JSON read leniently",
            _about_reading(name),
            _reader(read),
            partial(_status, body=body),
            over_http=True,
        )


def _about_reading(name: str) -> About:
    words = {
        "NaN": "*NaN*",
        "Infinity": "*Infinity*",
        "two keys": "*twice*",
        "1e400": "*beyond*",
        "surrogate": "*surrogate*",
    }
    return either(_JSON, *(message(pattern) for word, pattern in words.items() if word in name))


def _status(client: Client, body: bytes) -> int:
    return client.post(body).status_code


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _constants(body: bytes, which: set[str]) -> Any:
    found = []

    def constant(name: str) -> float:
        found.append(name)
        if name not in which:
            raise ValueError(name)
        return 0.5

    value = _read(body.decode("utf-8", "replace"), parse_constant=constant)
    return value if found else None


def _twice(body: bytes, *, last: bool) -> Any:
    found = []

    def pairs(each: list[tuple[str, Any]]) -> dict[str, Any]:
        found.extend([True] * (len(dict(each)) < len(each)))
        return dict(each) if last else dict(reversed(each))

    value = _read(body.decode("utf-8", "replace"), object_pairs_hook=pairs)
    return value if found else None


def _beyond(body: bytes) -> Any:
    found = []

    def number(text: str) -> float:
        value = float(text)
        if abs(value) == float("inf"):
            found.append(text)
            return 1.0
        return value

    value = _read(body.decode("utf-8", "replace"), parse_float=number)
    return value if found else None


def _utf16(body: bytes) -> Any:
    try:
        return _read(body.decode("utf-16"))
    except UnicodeDecodeError:
        return None


def _surrogates(body: bytes) -> Any:
    if not re.search(rb"\\u[dD][89a-fA-F]", body):
        return None
    return _read(re.sub(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}", "?", body.decode("utf-8", "replace")))


def _first(text: str) -> Any:
    try:
        value, end = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return None
    return value if text.lstrip()[end:].strip() else None


def _only(text: str) -> Any:
    value = _read(text)
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) else None


def _form(text: str) -> Any:
    pairs = [part.split("=", 1) for part in text.split("&")]
    return (
        {pair[0]: pair[1] for pair in pairs}
        if all(len(pair) == 2 and pair[0].isidentifier() for pair in pairs)
        else None
    )


def _no_object(text: str) -> Any:
    value = _read(text)
    return None if value is None or isinstance(value, dict) else json.loads(GOOD)


def _prompt(text: str) -> Any:
    value = _read(text)
    return dict.fromkeys(("prompt", "data", "images_data_url"), value) if isinstance(value, str) else None


def _crashes() -> Iterator[Mutant]:
    wrong: dict[str, tuple[Callable[[Request], bool], bytes]] = {
        "bytes that are no UTF-8": (lambda each: not _is_utf8(each.body), b'{"prompt": "\xff"}'),
        "a body that is no object": (
            lambda each: each.json is not None and not isinstance(each.json, dict),
            b"[]",
        ),
        "no body": (lambda each: not each.body, b""),
        "half an object": (lambda each: each.json is None and each.body.startswith(b"{"), b'{"prompt": "x"'),
        "a body of many levels": (
            lambda each: each.body.count(b"[") > 1000 or each.body.count(b"{") > 1000,
            b"[" * 100_000,
        ),
        "a number of many digits": (
            lambda each: re.search(rb"[0-9]{20}", each.body) is not None,
            b'{"prompt": "x", "seed": 100000000000000000000}',
        ),
        "a body of more than 16 kB": (
            lambda each: len(each.body) > 16_384,
            b'{"prompt": "%s"}' % (b"x" * 20_000),
        ),
        "texts beyond Latin-1": (
            lambda each: (
                isinstance(each.json, dict)
                and any(ord(c) > 255 for text in texts_of(each.json) for c in text)
            ),
            b'{"prompt": "\\u4e2d"}',
        ),
        "half a surrogate pair": (
            lambda each: (
                isinstance(each.json, dict)
                and any("\ud800" <= c <= "\udfff" for text in texts_of(each.json) for c in text)
            ),
            b'{"prompt": "\\ud800"}',
        ),
        "a LoRA that is a text": (
            lambda each: (
                isinstance(each.json, dict)
                and isinstance(each.json.get("loras"), list)
                and any(isinstance(lora, str) for lora in each.json["loras"])
            ),
            b'{"prompt": "x", "loras": ["x"]}',
        ),
        "a size without an asterisk": (
            lambda each: (
                isinstance(each.json, dict)
                and isinstance(each.json.get("size"), str)
                and "*" not in each.json["size"]
            ),
            b'{"prompt": "x", "size": "1024"}',
        ),
        "null": (
            lambda each: isinstance(each.json, dict) and None in each.json.values(),
            b'{"prompt": null}',
        ),
    }
    for name, (where, body) in wrong.items():
        yield wrapped(
            f"{name} breaks the server",
            "crash",
            _BROKEN,
            refusing(where, 500),
            partial(_status, body=body),
            over_http=True,
        )
