"""What a file from outside is, by its bytes, and what a ZIP archive holds. Nothing is extracted."""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

OCTETS = "application/octet-stream"
HEAD = 16
"""How many of its first bytes tell what a file is."""
IMAGES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"})
"""The kinds of image that can be drawn over."""

_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"PK\x03\x04", "application/zip"),
    (b"PK\x05\x06", "application/zip"),
    (b"ID3", "audio/mpeg"),
    (b"\x1aE\xdf\xa3", "video/webm"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}

_MOST_ENTRIES = 10_000
_MOST_DIRECTORY = 4 * 1024 * 1024
_MOST_BYTES = 512 * 1024 * 1024
_MOST_RATIO = 100
_UNSUSPICIOUS = 16 * 1024 * 1024
_PIECE = 256 * 1024
_END = struct.Struct("<4s4H2LH")
_LONGEST_COMMENT = 65_535
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
)


def media_of(head: bytes) -> str:
    """The media type of a file that begins so; octets where it is none that can be told."""
    for beginning, media in _BEGINNINGS:
        if head.startswith(beginning):
            return media
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12], OCTETS)
    return "video/mp4" if head[4:8] == b"ftyp" else OCTETS


@dataclass(slots=True, kw_only=True)
class _Count:
    """What an archive was found to hold so far: the names of images and texts without their endings."""

    images: set[str]
    texts: set[str]
    damaged: int = 0
    real: int = 0


def archive_contents(path: Path) -> str:
    """What a ZIP archive holds, or what is wrong with it, in a few words.

    Every byte is unpacked once and forgotten, up to 512 MiB, 10 000 entries and 100 times the archive's size.
    """
    try:
        with path.open("rb") as file:
            return _look_through(file, path.stat().st_size)
    except _BROKEN:
        return "is no ZIP archive that can be read"


def _look_through(file: IO[bytes], size: int) -> str:
    if problem := _directory_problem(file, size):
        return problem
    count = _Count(images=set(), texts=set())
    most = max(_UNSUSPICIOUS, min(_MOST_BYTES, size * _MOST_RATIO))
    with zipfile.ZipFile(file) as archive:
        entries = [each for each in archive.infolist() if _counts(each)]
        if len(entries) > _MOST_ENTRIES:
            return f"is over the caps: more than {_MOST_ENTRIES} entries"
        for entry in entries:
            if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} or entry.flag_bits & 1:
                # Other methods unpack without a limit, and what is encrypted cannot be read.
                count.damaged += 1
                continue
            _look_at(archive, entry, count, most)
            if count.real > most:
                return "is over the caps: it unpacks to too many bytes for its size"
    if not count.images:
        return "has no image in it"
    captions = len(count.images & count.texts)
    found = f"{_number(len(count.images), 'image')}, {_number(captions, 'caption')}"
    return f"{found}, {count.damaged} of the files cannot be read" if count.damaged else found


def _directory_problem(file: IO[bytes], size: int) -> str:
    """What keeps an archive's directory from being loaded; all of it would be, whatever its length."""
    start = max(0, size - _END.size - _LONGEST_COMMENT)
    file.seek(start)
    tail = file.read()
    # As `zipfile` does it: the end as it is without a comment, else the last that there is.
    at = len(tail) - _END.size
    if not (at >= 0 and tail[at:].startswith(b"PK\5\6") and tail.endswith(b"\0\0")):
        at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        return "is no ZIP archive"
    _, _, _, _, entries, length, _, _ = _END.unpack_from(tail, at)
    if tail[max(0, at - 20) :].startswith(b"PK\6\7"):
        return "is over the caps: its directory is of the 64-bit kind"
    if entries > _MOST_ENTRIES or length > _MOST_DIRECTORY:
        return f"is over the caps: more than {_MOST_ENTRIES} entries"
    file.seek(0)
    return ""


def _counts(entry: zipfile.ZipInfo) -> bool:
    """Whether an entry is a file that somebody put there, not one that a Mac adds."""
    parts = PurePosixPath(entry.filename).parts
    return not entry.is_dir() and bool(parts) and parts[0] != "__MACOSX" and not parts[-1].startswith(".")


def _look_at(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, count: _Count, most: int) -> None:
    stem, _, suffix = entry.filename.rpartition(".")
    try:
        with archive.open(entry) as content:
            head = piece = content.read(_PIECE)
            while piece:
                count.real += len(piece)
                if count.real > most:
                    return
                piece = content.read(_PIECE)
    except _BROKEN:
        count.damaged += 1
        return
    if media_of(head[:HEAD]) in IMAGES:
        count.images.add(stem)
    elif suffix.lower() == "txt":
        count.texts.add(stem)


def _number(count: int, one: str) -> str:
    return f"{count} {one if count == 1 else one + 's'}"


def head_of(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(HEAD)
