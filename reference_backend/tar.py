"""Reads tar archives from a stream, never back and never more than asked.

The library's own reader takes long names and extended headers into memory whatever their length, and in some
patch releases of Python searches them in quadratic time.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from reference_backend.job import JobFailed

BLOCK = 512

_LONGEST_HEADER = 64 * 1024
_PIECE = 256 * 1024
_DIRECTORY = b"5"
_KINDS = frozenset({b"0", b"\0", b"7", _DIRECTORY})
_RECORD = re.compile(rb"([0-9]{1,6}) ")
_LONG_NAME, _LONG_LINK, _EXTENDED, _GLOBAL = b"L", b"K", b"x", b"g"

Read = Callable[[int], bytes]
"""Gives as many bytes as asked for, fewer only at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    name: bytes
    size: int
    kind: bytes


def is_tar(head: bytes) -> bool:
    """Whether a file begins with a header of tar."""
    return len(head) >= BLOCK and any(head[:BLOCK]) and _has_sum(head[:BLOCK])


def members(read: Read, *, most: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The files of an archive: name and content in pieces, to be read through before the next is asked for.

    `most` is how many headers there may be. Raises JobFailed: archive_unreadable, archive_too_large, and
    archive_unsafe for links, devices and files with holes.
    """
    name, size = None, None
    for _ in range(most + 1):
        block = _exactly(read, BLOCK)
        if not any(block):
            return
        header = _parsed(block)
        length = header.size if size is None else size
        if header.kind in {_LONG_NAME, _LONG_LINK, _EXTENDED, _GLOBAL}:
            extra = _extra(read, header.size)
            if header.kind == _LONG_NAME:
                name = extra.rstrip(b"\0")
            elif header.kind == _EXTENDED:
                found = _records(extra)
                name, size = found.get(b"path", name), _decimal(found.get(b"size"))
            continue
        shown = (header.name if name is None else name).decode("utf-8", "replace")
        name, size = None, None
        if header.kind not in _KINDS:
            raise JobFailed(
                "archive_unsafe",
                "The archive holds a link, a device or a file with holes; put only files into it.",
            )
        # Before there was a kind for folders, they were files with a slash at the end. Nothing follows them,
        # whatever size they have.
        if header.kind != _DIRECTORY and not shown.endswith("/"):
            yield shown, _content(read, length)
    raise JobFailed("archive_too_large", f"The archive holds more than {most} entries.")


def _exactly(read: Read, length: int) -> bytes:
    content = read(length)
    if len(content) != length:
        raise JobFailed("archive_unreadable", "The archive is cut off.")
    return content


def _content(read: Read, size: int) -> Iterator[bytes]:
    left = size
    while left:
        piece = _exactly(read, min(left, _PIECE))
        left -= len(piece)
        yield piece
    _exactly(read, -size % BLOCK)


def _extra(read: Read, size: int) -> bytes:
    if size > _LONGEST_HEADER:
        raise JobFailed("archive_unsafe", "The archive has a name or a header of absurd length.")
    return b"".join(_content(read, size))


def _has_sum(block: bytes) -> bool:
    try:
        return _number(block[148:156]) == sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    except ValueError:
        return False


def _parsed(block: bytes) -> _Header:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    try:
        size = _number(block[124:136])
    except ValueError as error:
        raise JobFailed("archive_unreadable", "The archive has a header that cannot be read.") from error
    if not _has_sum(block):
        raise JobFailed("archive_unreadable", "The archive is broken: a header does not match its checksum.")
    return _Header(name=prefix + b"/" + name if prefix else name, size=size, kind=block[156:157])


def _number(field: bytes) -> int:
    """A number of a header: in octal digits, or for large ones in bytes after a sign."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise ValueError("no octal number")
    return int(digits or b"0", 8)


def _decimal(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(rb"[0-9]{1,18}", value):
        raise JobFailed("archive_unreadable", "The archive has a header that cannot be read.")
    return int(value)


def _records(extra: bytes) -> dict[bytes, bytes]:
    """The records of an extended header, each a length, a key and a value."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(extra):
        record = _RECORD.match(extra, at)
        end = at + int(record[1]) if record else 0
        if record is None or not record.end() < end <= len(extra) or extra[end - 1 : end] != b"\n":
            raise JobFailed("archive_unreadable", "The archive has a header that cannot be read.")
        key, _, value = extra[record.end() : end - 1].partition(b"=")
        if key.startswith(b"GNU.sparse"):
            raise JobFailed(
                "archive_unsafe", "The archive holds a file with holes; put only plain files into it."
            )
        found[key] = value
        at = end
    return found
