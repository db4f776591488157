"""Media types that are not looked at, or looked at too closely."""

import re
from collections.abc import Callable, Iterator
from functools import partial

from .client import MODEL, Client, path_of
from .mutant import Mutant, either, message, rule
from .names import GOOD
from .server import Answer, Ask, Between, Request
from .wrapped import Where, asked, submits, wrapped

_TYPE = either(rule("media type"), message("*media type*"))
_REFUSED = message("*HTTP 400*", "*HTTP 415*", "*refused*")


def _typed(request: Request, kind: bytes = b"application/json") -> Request:
    return request.with_header(b"content-type", kind)


def _kind(request: Request) -> bytes:
    return request.header(b"content-type").lower()


def _is_shouted(request: Request) -> bool:
    return re.search(rb"[A-Z]", request.header(b"content-type")) is not None


def _submits_as(where: Where) -> Where:
    return lambda request: submits(request) and where(request)


def mutants() -> Iterator[Mutant]:
    wrong: dict[str, tuple[Callable[[Request], bool], str | None]] = {
        "any media type will do": (lambda _: True, "application/xml"),
        "no media type will do": (lambda each: not _kind(each), None),
        "text/plain will do": (lambda each: _kind(each).startswith(b"text/plain"), "text/plain"),
        "a form's media type will do": (
            lambda each: b"urlencoded" in _kind(each),
            "application/x-www-form-urlencoded",
        ),
        "multipart will do": (
            lambda each: _kind(each).startswith(b"multipart"),
            "multipart/form-data; boundary=x",
        ),
    }
    for name, (where, said) in wrong.items():
        change = asked(_submits_as(where), _typed)
        yield wrapped(name, "media type", _TYPE, change, partial(_as, kind=said))
    unchecked = _unchecked(_is_shouted)
    yield wrapped(
        "nothing is checked as APPLICATION/JSON",
        "media type",
        _TYPE,
        unchecked,
        partial(_as, kind="APPLICATION/JSON", body=b"{}"),
    )
    unchecked = _unchecked(lambda each: b"charset" in _kind(each))
    yield wrapped(
        "nothing is checked with a charset",
        "media type",
        _TYPE,
        unchecked,
        partial(_as, kind="application/json; charset=utf-8", body=b"{}"),
    )
    strict: dict[str, tuple[Callable[[Request], bool], str]] = {
        "capitals in the media type are refused": (
            _is_shouted,
            "APPLICATION/JSON",
        ),
        "a charset is refused": (lambda each: b"charset" in _kind(each), "application/json; charset=utf-8"),
    }
    for name, (where, said) in strict.items():
        yield wrapped(
            name,
            "media type",
            either(_TYPE, _REFUSED),
            asked(where, lambda each: _typed(each, b"text/plain")),
            partial(_as, kind=said),
        )


def _unchecked(where: Callable[[Request], bool]) -> Callable[[], Between]:
    async def handler(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if submits(request) and answer.status == 400 and where(request):
            return await ask(request.with_body(GOOD))
        return answer

    return lambda: handler


def _as(client: Client, kind: str | None, body: bytes = GOOD) -> int:
    if kind is None:
        return client.ask("POST", path_of(MODEL), content=body).status_code
    return client.post(body, headers={"Content-Type": kind}).status_code
