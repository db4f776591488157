"""Uploads: announced and sent to an address of their own, or sent as a form; and fetched again."""

import re
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Receive, Scope, Send

from mock_server.answering import send_in_a_manner
from mock_server.contents import OCTETS
from mock_server.desk import Answer, Call, Desk, Desks, base_url, visit_of
from mock_server.downloads import check_retention, send_file
from mock_server.errors import Refusal, StoreUnavailable, envelope
from mock_server.faulting import struck, under
from mock_server.faults import OUTPUT, UPLOAD
from mock_server.platform.forms import FormFile, pieces
from mock_server.uploads import ADDRESS, Upload, Uploads, url_of, write

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}")
_METHODS = {"Allow": "GET, HEAD, PUT"}


def announce(limit: int, desk: Desk, call: Call) -> dict[str, Any]:
    """Says where a file of up to `limit` bytes can be sent, and where it will be.

    Raises Refusal 413 for a larger one.
    """
    given = call.given
    if given["size"] > limit:
        raise Refusal(413, f"The file is larger than the {limit} bytes that this server takes; give its URL.")
    upload = desk.uploads.announce(filename=given["filename"], size=given["size"])
    media = given.get("content_type", "")
    url = url_of(base_url(desk, call.scope), upload)
    return {
        "download_url": url,
        "upload": {
            "method": "PUT",
            "url": f"{url}?ticket={upload.ticket}",
            "headers": {"Content-Type": media} if _MEDIA_TYPE.fullmatch(media) else {},
        },
    }


async def take_form(limit: int, desk: Desk, call: Call) -> Answer:
    """Keeps the file of a form."""
    uploads = desk.uploads
    form = FormFile(call.scope)
    part = await run_in_threadpool(uploads.part)
    visit = visit_of(call.scope)
    base = base_url(desk, call.scope)

    def keep() -> bytes:
        upload = uploads.keep(uploads.announce(filename=form.filename, size=visit.size), part)
        return envelope(200, "success", _told(upload, base))

    async def work() -> Answer:
        return Answer(body=await run_in_threadpool(keep))

    try:
        visit.size = await write(part, form.content(call.scope, call.receive, limit=limit))
        fault = await desk.run(struck, desk, UPLOAD)
        return await under(fault, desk, call, work)
    finally:
        part.unlink(missing_ok=True)


def _told(upload: Upload, base: str) -> dict[str, Any]:
    kind = upload.media.partition("/")[0]
    return {
        "type": kind if kind in {"image", "video", "audio"} else "file",
        "download_url": url_of(base, upload),
        "filename": upload.filename,
        "size": upload.size,
    }


async def serve_upload(desks: Desks, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers GET and HEAD of an upload, and the PUT that brings an announced one."""
    desk = desks.of(scope)
    match = ADDRESS.fullmatch(scope["path"])
    visit_of(scope).place = UPLOAD if scope["method"] == "PUT" else OUTPUT
    if scope["method"] not in {"GET", "HEAD", "PUT"}:
        raise Refusal(405, "An upload can be read, and sent once.", headers=_METHODS)
    uploads = desk.uploads
    upload = await run_in_threadpool(uploads.find, match["id"]) if match else None
    if match is None or upload is None or upload.suffix != match["suffix"]:
        raise Refusal(404, "There is no such upload.")
    if scope["method"] == "PUT":
        await _take(desk, uploads, upload, Call(scope=scope, receive=receive), send)
    else:
        await _give(desk, uploads, upload, Call(scope=scope, receive=receive), send)


async def _take(desk: Desk, uploads: Uploads, upload: Upload, call: Call, send: Send) -> None:
    scope, visit = call.scope, visit_of(call.scope)
    query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
    await run_in_threadpool(uploads.check_ticket, upload, query.get("ticket", ""))
    part = await run_in_threadpool(uploads.part)

    async def work() -> Answer:
        if visit.size != upload.size:
            raise Refusal(400, f"{upload.size} bytes were announced, and {visit.size} came.")
        await run_in_threadpool(uploads.keep, upload, part)
        return Answer(body=envelope(200, "success"))

    try:
        visit.size = await write(part, pieces(scope, call.receive, limit=upload.size))
        fault = await desk.run(struck, desk, UPLOAD)
        answer = await under(fault, desk, call, work)
    finally:
        part.unlink(missing_ok=True)
    await send_in_a_manner(desk, scope, call.receive, send, answer)


async def _give(desk: Desk, uploads: Uploads, upload: Upload, call: Call, send: Send) -> None:
    if upload.at is None:
        raise Refusal(404, "This upload was announced, and has not been sent.")
    await desk.run(check_retention, desk, upload.at)
    path = uploads.path_of(upload)
    try:
        content = await run_in_threadpool(path.read_bytes)
    except FileNotFoundError as error:
        raise Refusal(404, "There is no such upload any more.") from error
    except OSError as error:
        raise StoreUnavailable(f"an upload cannot be read: {error.strerror}") from error
    fault = await desk.run(struck, desk, OUTPUT)
    # What a browser would show can only be what its first bytes are; anything else is for saving.
    shown = upload.media != OCTETS and not upload.media.startswith("application/")
    safely = send if shown else partial(_as_attachment, send, upload.name)
    await send_file(
        desk, fault, call.scope, call.receive, safely, content=content, path=path, media=upload.media
    )


async def _as_attachment(send: Send, name: str, message: Message) -> None:
    if message["type"] == "http.response.start":
        disposition = (b"content-disposition", f'attachment; filename="{name}"'.encode())
        nosniff = (b"x-content-type-options", b"nosniff")
        headers = [each for each in message["headers"] if each[0] != nosniff[0]]
        message = {**message, "headers": [*headers, disposition, nosniff]}
    await send(message)
