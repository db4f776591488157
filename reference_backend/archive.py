"""Reads an archive of unknown origin: every byte in memory, under caps on what really comes out of it.

ZIP, tar and tar.gz, told by their first bytes. Nothing is written to disk, so no name in an archive can lead
anywhere; names that try are refused all the same.
"""

import gzip
import io
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from reference_backend import tar
from reference_backend.job import JobFailed

_MIB = 1024 * 1024
_PIECE = 256 * 1024
_LONGEST_NAME = 1000
_MOST_DIRECTORY = 8 * _MIB
_LONGEST_COMMENT = 65_535
_END = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")
_FORMATS = {"zip": "zip", "tar": "tar", "tar.gz": "tar.gz", "tgz": "tar.gz"}
_JUNK = frozenset({"thumbs.db", "desktop.ini"})
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    NotImplementedError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What an archive may hold: entries, bytes per entry and bytes in all.

    Beyond `harmless` bytes, it may not come to more than `ratio` times its own size.
    """

    entries: int = 10_000
    entry: int = 64 * _MIB
    total: int = 512 * _MIB
    ratio: int = 200
    harmless: int = 16 * _MIB


def read_archive(archive: bytes | Path, *, declared: str = "", caps: Caps | None = None) -> dict[str, bytes]:
    """The files of an archive by name, without what systems add of their own.

    `declared` is the format that it is said to have; nothing where nobody said. Names have `/` between
    folders and are in NFC. Raises JobFailed: archive_unreadable, archive_too_large, archive_unsafe,
    archive_format_unsupported, archive_format_mismatch.
    """
    caps = caps or Caps()
    try:
        with io.BytesIO(archive) if isinstance(archive, bytes) else archive.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            found = _format_of(file)
            _check_declared(declared, found)
            members = _zip_members(file, size, caps) if found == "zip" else _tar_members(file, found, caps)
            return _collected(members, caps, most=min(caps.total, max(caps.harmless, caps.ratio * size)))
    except _BROKEN as error:
        raise JobFailed(
            "archive_unreadable", "The archive is broken or cut off; make and send it again."
        ) from error


def _format_of(file: IO[bytes]) -> str:
    file.seek(0)
    head = file.read(tar.BLOCK)
    file.seek(0)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "tar.gz"
    if tar.is_tar(head):
        return "tar"
    raise JobFailed(
        "archive_format_unsupported", "The archive is none that can be read; send a zip, tar or tar.gz."
    )


def _check_declared(declared: str, found: str) -> None:
    word = declared.strip().lower().removeprefix(".")
    if not word:
        return
    if word not in _FORMATS:
        raise JobFailed(
            "archive_format_unsupported",
            "data_archive_format is none that can be read; write zip, tar or tar.gz.",
        )
    if _FORMATS[word] != found:
        raise JobFailed(
            "archive_format_mismatch",
            f"data_archive_format is {word}, and the archive is a {found}; correct one.",
        )


def _collected(members: Iterator[tuple[str, Iterator[bytes]]], caps: Caps, *, most: int) -> dict[str, bytes]:
    kept: dict[str, bytes] = {}
    folded: set[str] = set()
    total = 0
    for raw, pieces in members:
        name = _name(raw)
        junk = _is_junk(name)
        content = bytearray()
        for piece in pieces:
            total += len(piece)
            if total > most:
                raise _too_large("The archive unpacks to too many bytes; send fewer or smaller files.")
            if junk:
                continue
            content += piece
            if len(content) > caps.entry:
                raise _too_large(f"{shown(name)} in the archive is too large; make it smaller.")
        if junk:
            continue
        if name.casefold() in folded:
            raise _unsafe(f"The archive holds {shown(name)} twice, capitals aside; rename one of them.")
        folded.add(name.casefold())
        kept[name] = bytes(content)
    return kept


def _too_large(message: str) -> JobFailed:
    return JobFailed("archive_too_large", message)


def _unsafe(message: str) -> JobFailed:
    return JobFailed("archive_unsafe", message)


def shown(name: str) -> str:
    """The name of a file as it may stand in a message: what prints of its end."""
    return "".join(each if each.isprintable() else "?" for each in name[-80:])


def _name(raw: str) -> str:
    # Some programs for Windows write its slashes.
    text = unicodedata.normalize("NFC", raw.replace("\\", "/"))
    parts = [part for part in text.split("/") if part not in {"", "."}]
    outside = text.startswith("/") or ".." in parts or re.match("[A-Za-z]:", text)
    if outside or not parts or len(text) > _LONGEST_NAME or "\0" in text:
        raise JobFailed(
            "archive_unsafe",
            "A name in the archive leads out of its folder or is none; use plain file names.",
        )
    return "/".join(parts)


def _is_junk(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "__MACOSX" or parts[-1].lower() in _JUNK or any(part.startswith(".") for part in parts)


def _tar_members(file: IO[bytes], found: str, caps: Caps) -> Iterator[tuple[str, Iterator[bytes]]]:
    with ExitStack() as stack:
        stream = stack.enter_context(gzip.GzipFile(fileobj=file)) if found == "tar.gz" else file
        yield from tar.members(stream.read, most=caps.entries)
        if found == "tar.gz":
            # The checksum comes last, and a bomb may come after the end of the archive: junk, but counted.
            yield ".rest", iter(lambda: stream.read(_PIECE), b"")


def _zip_members(file: IO[bytes], size: int, caps: Caps) -> Iterator[tuple[str, Iterator[bytes]]]:
    _check_directory(file, size, caps)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if len(entries) > caps.entries:
            raise _too_large(f"The archive holds more than {caps.entries} entries.")
        _check_places(file, entries, archive.start_dir)
        for entry in entries:
            _check_kind(entry)
            if not entry.is_dir():
                yield entry.filename, _inflated(archive, entry)


def _inflated(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    left = entry.file_size
    with archive.open(entry) as content:
        while piece := content.read(_PIECE):
            left -= len(piece)
            yield piece
    if left:
        raise zipfile.BadZipFile("an entry is shorter than the directory says")


def _check_kind(entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind and not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise _unsafe("The archive holds a link or a device; put only files into it.")
    if entry.flag_bits & 0x41:
        raise JobFailed("archive_unreadable", "The archive is encrypted; send it without a password.")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        # The library unpacks the others without a limit.
        raise JobFailed(
            "archive_unreadable", "The archive is packed in an unusual way; use deflate, or store files."
        )


def _check_directory(file: IO[bytes], size: int, caps: Caps) -> None:
    """Looks at the end of a ZIP archive before the library loads its directory, whatever the length."""
    file.seek(max(0, size - _END.size - _LONGEST_COMMENT))
    tail = file.read()
    file.seek(0)
    # As `zipfile` does it: the end as it is without a comment, else the last that there is.
    at = len(tail) - _END.size
    if not (at >= 0 and tail[at:].startswith(b"PK\5\6") and tail.endswith(b"\0\0")):
        at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise zipfile.BadZipFile("no end")
    _, _, _, _, entries, length, _, _ = _END.unpack_from(tail, at)
    if tail[max(0, at - 20) : at].startswith(b"PK\6\7"):
        raise _too_large("The archive's directory is of the 64-bit kind, for more than fits here.")
    if entries > caps.entries or length > _MOST_DIRECTORY:
        raise _too_large(f"The archive holds more than {caps.entries} entries.")


def _check_places(file: IO[bytes], entries: list[zipfile.ZipInfo], end: int) -> None:
    """Raises JobFailed where two entries share bytes, which is how a small file becomes an enormous one.

    The library does so itself, from some patch releases of Python on.
    """
    for entry in sorted(entries, key=lambda each: each.header_offset, reverse=True):
        file.seek(entry.header_offset)
        *_, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
        if entry.header_offset + _LOCAL.size + name + extra + entry.compress_size > end:
            raise _unsafe("Entries of the archive share their bytes; make it with another program.")
        end = entry.header_offset
