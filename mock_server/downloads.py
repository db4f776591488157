"""Serves files, with no key, as a CDN would: whole, in ranges, as unchanged, or as a fault has them."""

import hashlib
import re
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from mock_server.answering import send_in_a_manner
from mock_server.body import header
from mock_server.desk import Answer, Call, Desk, Desks, visit_of
from mock_server.errors import Refusal
from mock_server.faulting import struck_task, under
from mock_server.faults import OUTPUT, Fault, text_of
from mock_server.outputs import ADDRESS, media_type
from mock_server.prediction import Prediction

_RANGE = rb"(?:[0-9]{1,40}-[0-9]{0,40}|-[0-9]{1,40})"
_RANGES = re.compile(rb"bytes=((?:\s*,)*\s*%s(?:\s*,(?:\s*%s)?)*\s*)" % (_RANGE, _RANGE), re.IGNORECASE)
_MOST_RANGES = 16


async def serve_output(desks: Desks, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers GET and HEAD of an output."""
    desk, visit = desks.of(scope), visit_of(scope)
    visit.place = OUTPUT
    if scope["method"] not in {"GET", "HEAD"}:
        raise Refusal(405, "An output can be read, no more.", headers={"Allow": "GET, HEAD"})
    match = ADDRESS.fullmatch(scope["path"])
    visit.prediction = match["id"] if match else ""
    found = await run_in_threadpool(_read, desk, match["id"], match["name"]) if match else None
    if match is None or found is None:
        raise Refusal(404, "There is no such output, or not yet.")
    prediction, content = found
    fault = await desk.run(struck_task, desk, OUTPUT, prediction)
    await send_file(
        desk,
        fault,
        scope,
        receive,
        send,
        content=content,
        path=desk.outputs.path_of(prediction, match["name"]),
        media=media_type(match["name"]),
    )


def _read(desk: Desk, prediction_id: str, name: str) -> tuple[Prediction, bytes] | None:
    content = desk.outputs.read(prediction_id, name)
    prediction = desk.store.get(prediction_id)
    if content is None or prediction is None:
        return None
    check_retention(desk, prediction.seen_at(desk.clock.now())[-1].at)
    return prediction, content


def check_retention(desk: Desk, since: int) -> None:
    """Refuses with 410 what has been kept for long enough; `since` is when it came to be."""
    if desk.clock.now() >= since + desk.retention:
        days = desk.retention / 86_400_000
        raise Refusal(410, f"This was kept for {days:g} days, which are over.")


async def send_file(
    desk: Desk,
    fault: Fault | None,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    content: bytes,
    path: Path,
    media: str,
) -> None:
    """Sends a file that has been read, or what a fault makes of it."""
    if fault is not None:
        if fault.kind == "expired":
            visit_of(scope).fault = text_of(fault)
            raise Refusal(410, "This output is no longer kept (simulated).")

        async def whole() -> Answer:
            return Answer(body=content, media_type=media.encode())

        answer = await under(fault, desk, Call(scope=scope, receive=receive), whole)
        await send_in_a_manner(desk, scope, receive, send, answer)
        return
    await _send_plain(scope, receive, send, content=content, path=path, media=media)


async def _send_plain(
    scope: Scope, receive: Receive, send: Send, *, content: bytes, path: Path, media: str
) -> None:
    etag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
    headers = {"etag": etag, "cache-control": "no-cache", "x-content-type-options": "nosniff"}
    wanted = [
        each.strip().removeprefix("W/")
        for each in header(scope, b"if-none-match").decode("latin-1").split(",")
    ]
    if etag in wanted or "*" in wanted:
        await Response(status_code=304, headers=headers)(scope, receive, send)
        return
    satisfiable = _satisfiable(header(scope, b"range"), len(content))
    others = [(name, value) for name, value in scope["headers"] if name != b"range"]
    scope["headers"] = [*others, (b"range", satisfiable)] if satisfiable else others
    await FileResponse(path, media_type=media, headers=headers)(scope, receive, send)


def _satisfiable(wanted: bytes, size: int) -> bytes:
    """The ranges of a `Range` header that can be had; all of them where none can, which is then an error.

    Nothing where the header is not to be heard: it is malformed, or asks for more parts than anybody needs
    (RFC 9110, section 14.2).
    """
    match = _RANGES.fullmatch(wanted)
    parts = [part.strip() for part in match[1].split(b",") if part.strip()] if match else []
    if not 0 < len(parts) <= _MOST_RANGES:
        return b""
    good = []
    for part in parts:
        first, _, last = part.partition(b"-")
        if first and last and int(first) > int(last):
            return b""
        if int(first) < size if first else int(last) > 0:
            good.append(part)
    return b"bytes=" + b",".join(good or parts)
