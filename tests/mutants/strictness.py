"""Good requests that are refused."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

from .client import MODEL, Client, path_of
from .mutant import Mutant, either, message, rule
from .names import GOOD
from .server import Answer, Ask, Between, Request, contracts_of, refusal
from .wrapped import Where, asked, submits, wrapped

_REFUSED = message("*HTTP 400*", "*HTTP 413*", "*refused*")
_FULL = {
    "prompt": "x",
    "image": "",
    "strength": 0.5,
    "loras": [],
    "size": "512*512",
    "num_inference_steps": 1,
    "guidance_scale": 1,
    "num_images": 1,
    "seed": 1,
    "enable_base64_output": False,
    "enable_safety_checker": True,
}


def refusing(where: Where, status: int = 400) -> Callable[[], Between]:
    """Refuses some submits."""

    async def handler(request: Request, ask: Ask) -> Answer:
        return (
            refusal(status, "This is not taken.")
            if submits(request) and where(request)
            else await ask(request)
        )

    return lambda: handler


def texts_of(value: Any) -> Iterator[str]:
    """All texts in a value but for the names of fields."""
    if isinstance(value, str):
        yield value
    for each in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        yield from texts_of(each)


def _known() -> set[str]:
    """All fields that any model knows."""
    return {name for contract in contracts_of().values() for name in contract.schema["properties"]}


def _holding(where: Callable[[dict[str, Any]], bool]) -> Where:
    return lambda request: isinstance(request.json, dict) and where(request.json)


def _posted(client: Client, *, body: Any) -> int:
    return client.post(body).status_code


def _is_chunked(request: Request) -> bool:
    return b"chunked" in request.header(b"transfer-encoding")


def mutants() -> Iterator[Mutant]:
    wrong: dict[str, tuple[Callable[[Any], bool], int, Any]] = {
        "unknown fields are refused": (
            lambda body: bool(body.keys() - _known()),
            400,
            {"prompt": "x", "extra": 1},
        ),
        "a body of more than 16 kB is too large": (
            lambda body: len(json.dumps(body)) > 16_384,
            413,
            {"prompt": "x" * 20_000},
        ),
        "emoji are refused": (
            lambda body: any(ord(c) > 0xFFFF for text in texts_of(body) for c in text),
            400,
            {"prompt": "\N{GRINNING FACE}"},
        ),
        "quotation marks are refused": (
            lambda body: any('"' in text for text in texts_of(body)),
            400,
            {"prompt": 'a "b"'},
        ),
        "an empty text is refused": (
            lambda body: any(text == "" for text in texts_of(body)),
            400,
            {"prompt": ""},
        ),
        "more than ten fields are refused": (lambda body: len(body) > 10, 400, _FULL),
    }
    for name, (where, status, body) in wrong.items():
        yield wrapped(
            name,
            "good request refused",
            _REFUSED,
            refusing(_holding(where), status),
            partial(_posted, body=body),
        )
    framing = either(rule("*chunk*", "framing"), message("*chunk*"))
    yield wrapped(
        "a body in chunks is refused",
        "framing",
        framing,
        refusing(_is_chunked, 411),
        _in_chunks,
        over_http=True,
    )
    emptied = asked(
        lambda request: submits(request) and _is_chunked(request), lambda request: request.with_body(b"")
    )
    yield wrapped("a body in chunks is not read", "framing", framing, emptied, _in_chunks, over_http=True)


def _in_chunks(client: Client) -> int:
    async def pieces() -> AsyncIterator[bytes]:
        yield GOOD[:9]
        yield GOOD[9:]

    return client.ask(
        "POST",
        path_of(MODEL),
        content=pieces(),
        headers={"Content-Type": "application/json"},
    ).status_code
