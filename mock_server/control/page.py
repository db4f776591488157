"""The page at `/_mock/`: a fixed table of files, and the outputs as it shows them."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mock_server.body import header
from mock_server.desk import Desk, Desks
from mock_server.downloads import check_retention
from mock_server.errors import Refusal
from mock_server.outputs import media_type

PATH = "/_mock"
"""Where the page is; its files are below `/_mock/page/`, outputs below `/_mock/outputs/`."""

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_NAMES = (
    "actions.js",
    "api.js",
    "app.js",
    "asked.js",
    "audit.js",
    "base.css",
    "clock.js",
    "curl.js",
    "dom.js",
    "faults.js",
    "favicon.svg",
    "index.html",
    "journal.js",
    "layout.css",
    "list.js",
    "outputs.js",
    "parts.css",
    "poll.js",
    "scenarios.js",
    "sessions.js",
    "tabs.js",
    "task.js",
    "tasks.js",
    "theme.js",
    "timeline.js",
    "token.js",
    "webhooks.js",
    "words.js",
    "world.js",
)
_OUTPUT = re.compile(r"/_mock/outputs/(?P<id>[0-9a-f]{32})/(?P<name>[0-9]+\.[a-z]+)")
# What clients send is shown here. Were it ever taken for markup, it could still do nothing.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """One file of the page: its bytes, what they are, and a name that changes with them."""

    content: bytes
    media_type: str
    etag: str


def is_page(path: str) -> bool:
    """Whether a path is that of the page itself, which holds no secret and asks for the token."""
    return path == PATH or path in _addresses()


async def serve_page(desks: Desks, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers GET and HEAD of the page, of its files, and of an output without noting that it was fetched.

    Raises Refusal 404 for any other path, 405 for any other method.
    """
    path = scope["path"]
    output = _OUTPUT.fullmatch(path)
    if output is None and not is_page(path):
        raise Refusal(404, f"There is nothing at {path[:200]}. What there is, /_mock/docs lists.")
    if scope["method"] not in {"GET", "HEAD"}:
        raise Refusal(405, "This can be read, no more.", headers={"Allow": "GET, HEAD"})
    if output is not None:
        answer = await run_in_threadpool(_output, desks.of(scope), output["id"], output["name"])
    elif path == PATH:
        # Relative, for whatever stands before it: a session, or the prefix of a proxy.
        answer = Response(status_code=307, headers={"location": "_mock/", **_SAFE})
    else:
        answer = _file(scope, _addresses()[path])
    await answer(scope, receive, send)


def _file(scope: Scope, file: _File) -> Response:
    headers = {"etag": file.etag, "cache-control": "no-cache", "content-security-policy": _POLICY, **_SAFE}
    told = header(scope, b"if-none-match").decode("latin-1")
    if {each.strip().removeprefix("W/") for each in told.split(",")} & {file.etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)


def _output(desk: Desk, prediction_id: str, name: str) -> Response:
    content = desk.outputs.read(prediction_id, name)
    prediction = desk.store.get(prediction_id)
    if content is None or prediction is None:
        raise Refusal(404, "There is no such output, or not yet.")
    check_retention(desk, prediction.seen_at(desk.clock.now())[-1].at)
    headers = {
        "cache-control": "no-store",
        "content-security-policy": "default-src 'none'; sandbox",
        **_SAFE,
    }
    return Response(content, headers=headers, media_type=media_type(name))


@cache
def _addresses() -> dict[str, _File]:
    """The files by their paths; read when the page is first asked for."""
    directory = Path(__file__).with_name("page")
    found = {}
    for name in _NAMES:
        content = (directory / name).read_bytes()
        etag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
        path = f"{PATH}/" if name == "index.html" else f"{PATH}/page/{name}"
        suffix = Path(name).suffix
        found[path] = _File(content=content, media_type=_MEDIA_TYPES[suffix], etag=etag)
    return found
