"""One connection, and the answers on it read to the letter of RFC 9112."""

import re
import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from contract_tests.exchange import Headers, endpoint

_PIECE = 1 << 16
_MOST = 8 * 1024 * 1024
_LONGEST_HEAD = 1 << 18
_NO_BODY = (204, 304)
_BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2}) [\t\x20-\x7e\x80-\xff]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")


class NoAnswer(Exception):
    """What was due did not come in time, or the server cannot be reached; says which."""


class HungUp(NoAnswer):
    """The server ended the connection where an answer was due; says how."""


class NotHttp(Exception):
    """An answer that RFC 9112 does not allow; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer as it came. Header names are in lower case; `closes` tells that it is the last one."""

    status: int
    headers: Headers
    body: bytes
    closes: bool

    def all(self, name: str) -> list[str]:
        """The elements of a header that is a list, in lower case, from all its lines."""
        values = ",".join(value for key, value in self.headers if key == name).lower().split(",")
        return [value.strip() for value in values if value.strip()]


class Wire:
    """A connection with one deadline for all that happens on it, and what came that nobody has read yet."""

    def __init__(self, connected: socket.socket, *, until: float, seconds: float) -> None:
        self._socket = connected
        self._until = until
        self._seconds = seconds
        self._over = False
        self._end = "hung up instead of answering"
        self._held = bytearray()
        connected.setblocking(False)

    def send(self, sent: bytes, *, piece: int = _PIECE) -> None:
        """Sends, and takes in what comes meanwhile; stops where the server will have no more."""
        left = memoryview(sent)
        while left and not self._over:
            try:
                left = left[self._socket.send(left[:piece]) :]
            except _BLOCKED:
                self._wait(writing=True)
            except OSError:
                return  # what it said before is still to be read

    def end(self) -> None:
        """Says that nothing more will be sent."""
        with suppress(OSError):  # it hung up already; what it said before is still to be read
            self._socket.shutdown(socket.SHUT_WR)

    def reply(self, *, bodiless: bool = False) -> Reply:
        """The next answer; with `bodiless` one to a HEAD."""
        lines = self._head().split(b"\r\n")
        first = _STATUS_LINE.fullmatch(lines[0])
        if first is None:
            raise NotHttp(f"the status line is {lines[0][:60]!r}")
        status, headers = int(first[2]), _fields(lines[1:])
        reply = Reply(status=status, headers=headers, body=b"", closes=False)
        tokens = reply.all("connection")
        closes = "close" in tokens or (first[1] == b"0" and "keep-alive" not in tokens)
        if bodiless or status < 200 or status in _NO_BODY:
            return Reply(status=status, headers=headers, body=b"", closes=closes)
        length = _length(reply, version=first[1])
        if length is None:
            return Reply(status=status, headers=headers, body=self.rest(), closes=True)
        body = self._chunks() if length < 0 else self._take(length)
        return Reply(status=status, headers=headers, body=body, closes=closes)

    def rest(self) -> bytes:
        """All that comes until the server hangs up."""
        while not self._over:
            try:
                self._wait()
            except NoAnswer as error:
                raise NoAnswer(f"did not close the connection within {self._seconds:g} s") from error
        rest = bytes(self._held)
        self._held.clear()
        return rest

    def _head(self) -> bytes:
        while b"\r\n\r\n" not in self._held:
            if not b"HTTP/1.".startswith(self._held[:7]):
                break
            if len(self._held) > _LONGEST_HEAD:
                raise NotHttp(f"the head of the answer is longer than {_LONGEST_HEAD} bytes")
            self._more()
        return self._up_to(b"\r\n\r\n")

    def _up_to(self, mark: bytes) -> bytes:
        at = self._held.find(mark)
        found = bytes(self._held[:at] if at >= 0 else self._held)
        del self._held[: len(found) + len(mark)]
        return found

    def _take(self, length: int) -> bytes:
        while len(self._held) < length:
            if length > _MOST:
                raise NotHttp(f"the answer is longer than {_MOST} bytes")
            self._more(inside=True)
        body = bytes(self._held[:length])
        del self._held[:length]
        return body

    def _line(self) -> bytes:
        while b"\r\n" not in self._held:
            self._more(inside=True)
        return self._up_to(b"\r\n")

    def _chunks(self) -> bytes:
        body = bytearray()
        while True:
            line = self._line()
            size = _CHUNK.fullmatch(line)
            if size is None:
                raise NotHttp(f"a chunk of the answer begins with {line[:60]!r}")
            if (length := int(size[1], 16)) == 0:
                break
            body += self._take(length)
            if len(body) > _MOST or self._take(2) != b"\r\n":
                raise NotHttp("a chunk of the answer does not end where it says")
        while line := self._line():
            _fields([line])
        return bytes(body)

    def _more(self, *, inside: bool = False) -> None:
        if self._over and (inside or self._held):
            raise NotHttp("the answer breaks off")
        if self._over:
            raise HungUp(self._end)
        self._wait()

    def _wait(self, *, writing: bool = False) -> None:
        left = self._until - time.monotonic()
        ready = left > 0 and select.select([self._socket], [self._socket] if writing else [], [], left)
        if not ready or not any(ready):
            raise NoAnswer(f"gave no complete answer within {self._seconds:g} s")
        try:
            came = self._socket.recv(_PIECE)
        except _BLOCKED:
            return
        except OSError:
            self._end, came = "reset the connection instead of answering", b""
        self._held += came
        self._over = not came
        if len(self._held) > _MOST:
            raise NotHttp(f"more than {_MOST} bytes came")


def _fields(lines: list[bytes]) -> Headers:
    found = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise NotHttp(f"a header of the answer is {line[:60]!r}")
        found.append((match[1].decode().lower(), match[2].decode("latin-1").strip(" \t")))
    return tuple(found)


def _length(reply: Reply, *, version: bytes) -> int | None:
    """How long the body is; -1 where it comes in chunks, None where it ends with the connection."""
    codings, lengths = reply.all("transfer-encoding"), reply.all("content-length")
    if codings:
        if lengths or version == b"0" or codings != ["chunked"]:
            raise NotHttp(f"the answer has Transfer-Encoding {codings}, Content-Length {lengths} at once")
        return -1
    if not lengths:
        return None
    if len(set(lengths)) > 1 or not re.fullmatch("[0-9]{1,15}", lengths[0]):
        raise NotHttp(f"the Content-Length of the answer is {lengths}")
    return int(lengths[0])


@contextmanager
def connected(url: str, *, seconds: float) -> Iterator[Wire]:
    """A new connection, on which everything has to happen within that many seconds. Raises NoAnswer."""
    until = time.monotonic() + seconds
    host, port, secure = endpoint(url)
    try:
        plain = socket.create_connection((host, port), timeout=seconds)
    except OSError as error:
        raise NoAnswer(f"cannot be reached: {error}") from error
    with plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not secure:
            yield Wire(plain, until=until, seconds=seconds)
            return
        try:
            plain.settimeout(max(until - time.monotonic(), 0.001))
            wrapped = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        except OSError as error:
            raise NoAnswer(f"cannot be spoken to over TLS: {error}") from error
        with wrapped:
            yield Wire(wrapped, until=until, seconds=seconds)
