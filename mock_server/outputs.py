"""Keeps the results of predictions as files, gives their URLs, and serves them."""

import base64
import hashlib
import mimetypes
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from mock_server.body import header
from mock_server.clock import Clock
from mock_server.errors import Refusal, StoreUnavailable
from mock_server.prediction import Asked, Prediction
from mock_server.store import Store

PATH = "/outputs/"

_ADDRESS = re.compile(r"/outputs/(?P<id>[0-9a-f]{32})/(?P<name>[0-9]+\.[a-z]+)")
_MEDIA_TYPES = {".webp": "image/webp", ".safetensors": "application/octet-stream"}
_RANGE = rb"(?:[0-9]{1,40}-[0-9]{0,40}|-[0-9]{1,40})"
_RANGES = re.compile(rb"bytes=((?:\s*,)*\s*%s(?:\s*,(?:\s*%s)?)*\s*)" % (_RANGE, _RANGE), re.IGNORECASE)
_MOST_RANGES = 16
_MOST_BYTES = 512 * 1024 * 1024
_LONGEST_CHAIN = 4

Make = Callable[[Prediction, Asked, str, Callable[[str, str], bytes | None]], bytes]
"""Makes one output: of which prediction, what was asked, its file name, and how to get at other outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """The outputs of all predictions in a store.

    `directory` holds those that were made; one that is not there is made again, which gives the same bytes.
    """

    directory: Path
    store: Store
    clock: Clock
    make: Make

    def read(self, prediction_id: str, name: str, *, chain: int = 0) -> bytes | None:
        """The bytes of an output, or None where there is no such output, or not yet.

        Raises StoreUnavailable where it can neither be found nor made.
        """
        prediction = self.store.get(prediction_id)
        if prediction is None or name not in prediction.seen_at(self.clock.now())[-1].outputs:
            return None
        path = self.directory / f"{prediction_id}-{name}"
        try:
            content = path.read_bytes()
            # Says when it was asked for last, and leaves alone when it was made.
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StoreUnavailable(f"an output cannot be read: {error.strerror}") from error
        else:
            return content
        asked = self.store.asked(prediction_id)
        if asked is None:
            return None

        def fetch(other_id: str, other_name: str) -> bytes | None:
            # An output may build on an output that builds on an output; somewhere that has to end.
            return self.read(other_id, other_name, chain=chain + 1) if chain < _LONGEST_CHAIN else None

        content = self.make(prediction, asked, name, fetch)
        self._keep(path, content)
        return content

    def _keep(self, path: Path, content: bytes) -> None:
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            part.write_bytes(content)
            part.replace(path)
            if path.name[1] == "0":
                self._prune()
        except OSError as error:
            part.unlink(missing_ok=True)
            raise StoreUnavailable(f"an output cannot be kept: {error.strerror}") from error

    def _prune(self) -> None:
        """Removes what was not asked for the longest; looked at once in sixteen writes."""
        files = sorted(
            ((path.stat(), path) for path in self.directory.iterdir()), key=lambda each: each[0].st_atime
        )
        excess = sum(stat.st_size for stat, _ in files) - _MOST_BYTES
        for stat, path in files:
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= stat.st_size

    def clear(self) -> None:
        """Removes every output that was made."""
        for path in self.directory.iterdir():
            path.unlink(missing_ok=True)

    def inline(self, prediction: Prediction, *, data_uri: bool) -> list[str]:
        """The outputs as base64, each as a data URI where that is wanted."""
        texts = []
        for name in prediction.seen_at(self.clock.now())[-1].outputs:
            content = self.read(prediction.id, name)
            text = base64.b64encode(content or b"").decode()
            texts.append(f"data:{media_type(name)};base64,{text}" if data_uri else text)
        return texts

    def path_of(self, prediction_id: str, name: str) -> Path:
        """Where an output lies that has been read before."""
        return self.directory / f"{prediction_id}-{name}"


def url_of(base: str, prediction_id: str, name: str) -> str:
    """The address of an output, below the server's own address."""
    return f"{base}{PATH}{prediction_id}/{name}"


def media_type(name: str) -> str:
    """What an output is, from its file name."""
    suffix = name[name.rindex(".") :]
    return _MEDIA_TYPES.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")


async def serve(outputs: Outputs, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers GET and HEAD of an output: whole, in ranges, or as unchanged; with no key, as a CDN would."""
    if scope["method"] not in {"GET", "HEAD"}:
        raise Refusal(405, "An output can be read, no more.", headers={"Allow": "GET, HEAD"})
    match = _ADDRESS.fullmatch(scope["path"])
    content = await run_in_threadpool(outputs.read, match["id"], match["name"]) if match else None
    if match is None or content is None:
        raise Refusal(404, "There is no such output, or not yet.")
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
    response = FileResponse(
        outputs.path_of(match["id"], match["name"]), media_type=media_type(match["name"]), headers=headers
    )
    await response(scope, receive, send)


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
