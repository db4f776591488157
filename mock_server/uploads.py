"""Keeps what clients upload: announced or sent at once, found by its URL, looked into when it arrives."""

import hashlib
import hmac
import re
import secrets
import time
import unicodedata
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool

from mock_server.backend import OWN_UPLOAD
from mock_server.clock import Clock
from mock_server.contents import IMAGES, OCTETS, archive_contents, head_of, media_of
from mock_server.errors import Refusal, StoreUnavailable
from mock_server.store import Store

PATH = "/uploads/"
ADDRESS = re.compile(r"/uploads/(?P<id>[0-9a-f]{32})\.(?P<suffix>[a-z0-9]{2,11})")
"""The path of an upload."""
TICKET_TIME = 3_600_000
"""For how long an announced upload can be sent, in milliseconds."""

_KIND = "upload"
_NUMBER = "upload-number"
_SUFFIXES = frozenset(
    {"zip", "tar", "gz", "png", "jpg", "jpeg", "webp", "gif", "bmp", "mp4", "mov", "webm", "mp3", "wav"}
    | {"safetensors", "txt", "json"}
)
_LONGEST_NAME = 200
_LARGEST_IMAGE = 64 * 1024 * 1024
_MOST_UPLOADS = 10_000
_MOST_BYTES = 4 * 1024 * 1024 * 1024
_ABANDONED_SECONDS = 3600
_PIECE = 1024 * 1024
_IMAGE_FIELDS = ("image", "mask_image")
_ARCHIVE_FIELDS = ("data", "images_data_url")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file of a client, announced or here.

    `size` is in bytes; `announced` and `at`, when it arrived (None: it has yet to), in milliseconds since the
    Unix epoch on the server's clock. `ticket` is what allows it to be sent. `media` is what its first bytes
    say it is, and `contents` what was found inside an archive.
    """

    id: str
    suffix: str
    filename: str
    size: int
    announced: int
    ticket: str
    at: int | None = None
    media: str = OCTETS
    contents: str = ""

    @property
    def name(self) -> str:
        """The name of its file, which is also the last part of its address."""
        return f"{self.id}.{self.suffix}"


_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(Upload).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """The uploads of one session. Every call may wait for the disk and the store.

    `retention` is how long one can be used, in milliseconds. With `seed`, the n-th upload gets the n-th id.
    When there are too many or they take too much room, the oldest go.
    """

    directory: Path
    store: Store
    clock: Clock
    session: str
    retention: int
    seed: int | None

    def announce(self, *, filename: str, size: int) -> Upload:
        """Remembers that a file will come."""
        name = clean(filename)
        suffix = name.rpartition(".")[2].lower()
        upload = Upload(
            id=self._new("id"),
            suffix=suffix if suffix in _SUFFIXES else "bin",
            filename=name,
            size=size,
            announced=self.clock.now(),
            ticket=self._new("ticket"),
        )
        self.store.change_note(_KIND, upload.id, lambda _: _encode(upload))
        # The ids are as good as random: one in sixteen looks after the others.
        if upload.id[0] == "0":
            self._prune()
        return upload

    def _new(self, what: str) -> str:
        if self.seed is None:
            return secrets.token_hex(16)
        number = self.store.change_note(_NUMBER, what, lambda found: b"%d" % (int(found or b"0") + 1))
        text = f"{self.seed}/{self.session}/upload-{what}/{int(number or b'0')}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def find(self, upload_id: str) -> Upload | None:
        """The upload of that id, here or announced."""
        note = self.store.note(_KIND, upload_id)
        return None if note is None else _decode(note)

    def check_ticket(self, upload: Upload, ticket: str) -> None:
        """Refuses with 403 a file that nobody announced so, or too long ago, and with 409 a second one."""
        if not hmac.compare_digest(ticket.encode(), upload.ticket.encode()):
            raise Refusal(403, "This is not the address that the upload was given; ask for an upload first.")
        if upload.at is not None:
            raise Refusal(409, "This upload has been sent already; its address works once.")
        if self.clock.now() >= upload.announced + TICKET_TIME:
            raise Refusal(403, "This upload was announced over an hour ago; announce it once more.")

    def part(self) -> Path:
        """Where to put a file that is still coming in."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"an upload cannot be kept: {error.strerror}") from error
        return self.directory / f".{secrets.token_hex(8)}"

    def keep(self, upload: Upload, part: Path) -> Upload:
        """Makes the announced upload of a file that has come in. Raises Refusal 409 where it has one."""
        try:
            media = media_of(head_of(part))
            size = part.stat().st_size
        except OSError as error:
            raise StoreUnavailable(f"an upload cannot be read: {error.strerror}") from error
        contents = archive_contents(part) if media == "application/zip" else ""
        kept = replace(upload, size=size, at=self.clock.now(), media=media, contents=contents)

        def change(note: bytes | None) -> bytes:
            if note is None or _decode(note).at is not None:
                raise Refusal(409, "This upload has been sent already; its address works once.")
            try:
                part.replace(self.path_of(upload))
            except OSError as error:
                raise StoreUnavailable(f"an upload cannot be kept: {error.strerror}") from error
            return _encode(kept)

        self.store.change_note(_KIND, upload.id, change)
        if size > _PIECE:
            self._prune()
        return kept

    def path_of(self, upload: Upload) -> Path:
        """Where an upload lies that has arrived."""
        return self.directory / upload.name

    def _prune(self) -> None:
        """Lets go of the oldest beyond what may be kept, of what never came, and of files of nobody."""
        now = self.clock.now()
        uploads = [_decode(note) for _, note in self.store.notes(_KIND)]
        uploads.sort(key=lambda each: each.announced, reverse=True)
        kept, size = set(), 0
        for count, upload in enumerate(uploads):
            size += upload.size if upload.at is not None else 0
            late = upload.at is None and now >= upload.announced + TICKET_TIME
            if late or count >= _MOST_UPLOADS or (count and size > _MOST_BYTES):
                self.store.change_note(_KIND, upload.id, lambda _: None)
            else:
                kept.add(upload.name)
        abandoned = time.time() - _ABANDONED_SECONDS
        known = {upload.name for upload in uploads}
        try:
            for file in self.directory.iterdir() if self.directory.is_dir() else ():
                gone = file.name in known - kept
                if gone or (file.name not in kept and file.stat().st_mtime < abandoned):
                    file.unlink(missing_ok=True)
        except OSError:
            return  # another process is at it; there is a next time

    def clear(self) -> None:
        """Removes every file."""
        for file in self.directory.iterdir() if self.directory.is_dir() else ():
            file.unlink(missing_ok=True)

    def named_by(self, url: str) -> tuple[bool, Upload | None]:
        """Whether a URL is that of an upload, and the one of this session that it names."""
        own = OWN_UPLOAD.fullmatch(url)
        if own is None:
            return False, None
        found = self.find(own["id"]) if (own["session"] or "") == self.session else None
        return True, found if found is not None and found.suffix == own["suffix"] else None

    def problem(self, upload: Upload | None, at: int) -> str:
        """Why an upload cannot be used at a moment; nothing where it can."""
        if upload is None:
            return "there is no such upload here"
        if upload.at is None or upload.at > at:
            return "that upload was announced, and has not been sent"
        return "that upload is kept no longer" if at >= upload.at + self.retention else ""

    def image(self, url: str, at: int) -> bytes | None:
        """The bytes of the image that a URL names, if it could be had at a moment; None for anything else."""
        _, upload = self.named_by(url)
        if upload is None or self.problem(upload, at) or _no_image(upload):
            return None
        try:
            return self.path_of(upload).read_bytes()
        except OSError:
            return None

    def remarks(self, given: Mapping[str, Any]) -> tuple[str, ...]:
        """What was found in the uploads that an input names, for the author of the client."""
        return tuple(
            f"{name}: {found}"
            for name in (*_IMAGE_FIELDS, *_ARCHIVE_FIELDS)
            if isinstance(text := given.get(name), str)
            and PATH in text
            and (found := self._remark(name, text))
        )

    def _remark(self, name: str, url: str) -> str:
        own, upload = self.named_by(url)
        if not own:
            return ""
        problem = self.problem(upload, self.clock.now())
        if upload is None or problem:
            return problem
        if name in _IMAGE_FIELDS:
            return _no_image(upload)
        return upload.contents or f"is no ZIP archive, but {upload.media}"


def _no_image(upload: Upload) -> str:
    """Why an upload is no image to start from; nothing where it is one, as far as its first bytes tell."""
    if upload.media not in IMAGES:
        return f"the upload is no image that can be read, but {upload.media}"
    return "the upload is too large for an image" if upload.size > _LARGEST_IMAGE else ""


def url_of(base: str, upload: Upload) -> str:
    """The address of an upload, below the server's own address."""
    return f"{base}{PATH}{upload.name}"


def clean(filename: str) -> str:
    """A file's name as it may be shown: without folders, and without what does not print."""
    name = re.split(r"[/\\]", filename)[-1][:_LONGEST_NAME]
    shown = "".join(each for each in name if not unicodedata.category(each).startswith("C")).strip()
    return shown if shown.strip(".") else "upload"


async def write(path: Path, pieces: AsyncIterator[bytes]) -> int:
    """Writes a file as it comes in, and tells its length.

    Raises StoreUnavailable, and whatever the pieces raise; what has been written is then left behind.
    """
    size, held, waiting = 0, [], 0
    try:
        with await run_in_threadpool(path.open, "xb") as file:
            async for piece in pieces:
                held.append(piece)
                size, waiting = size + len(piece), waiting + len(piece)
                if waiting >= _PIECE:
                    await run_in_threadpool(file.write, b"".join(held))
                    held, waiting = [], 0
            await run_in_threadpool(file.write, b"".join(held))
    except OSError as error:
        raise StoreUnavailable(f"an upload cannot be kept: {error.strerror}") from error
    return size
