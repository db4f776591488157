"""Requests as hostile clients send them, byte for byte, each with the status that it has to be answered with.

Also what sends them: one connection, which reads the answers without leniency.
"""

import gzip
import json
import os
import re
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from conftest import Server

SUBMIT = b"/api/v3/wavespeed-ai/flux-schnell-lora"
RESULT = b"/api/v3/predictions/none/result"
HOST = b"Host: localhost"
KEY = b"Authorization: Bearer k"
JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
GOOD = b'{"prompt":"x"}'

DEADLINE = 20
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\x20-\x7e]*)")
_LEAK = re.compile(rb'Traceback|File \\?"|\.py\b|site-packages|wavemock-|Error\b')


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One request, and the status of its answer."""

    name: str
    status: int
    sent: bytes

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer as it came. Header names are in lower case; no name stands twice."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """A socket, and what came in on it that nobody has looked at yet."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self.held = bytearray()
        self.over = False

    def ask(self, sent: bytes) -> Reply:
        """The one answer to one request."""
        self.send(sent)
        return self.reply(bodiless=sent.startswith(b"HEAD "))

    def send(self, sent: bytes) -> None:
        """Sends, and takes in what comes meanwhile; stops where the server will have no more."""
        left = memoryview(sent)
        while left and not self.over:
            readable, writable, _ = select.select([self.socket], [self.socket], [], DEADLINE)
            if not readable and not writable:
                raise TimeoutError("the server neither reads nor answers")
            if readable:
                self._take_in()
            if writable:
                try:
                    left = left[self.socket.send(left[: 1 << 16]) :]
                except ConnectionError:
                    break

    def reply(self, *, bodiless: bool = False) -> Reply:
        """The next answer. Raises AssertionError where it is not an answer to the letter of RFC 9112."""
        while b"\r\n\r\n" not in self.held:
            self._wait()
        head, _, self.held = self.held.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        assert re.fullmatch(r"HTTP/1\.1 [1-5][0-9]{2} [A-Za-z ]+", first), first
        fields = [_HEADER.fullmatch(line) for line in lines]
        assert all(fields), lines
        headers = {field[1].lower(): field[2] for field in fields if field}
        assert len(headers) == len(lines), lines
        status = int(first[9:12])
        length = 0 if bodiless or status in {100, 304} else int(headers["content-length"])
        while len(self.held) < length:
            self._wait()
        body, self.held = bytes(self.held[:length]), self.held[length:]
        return Reply(status=status, headers=headers, body=body)

    def rest(self) -> bytes:
        """All that comes until the server hangs up."""
        while not self.over:
            self._wait()
        return bytes(self.held)

    def _wait(self) -> None:
        assert not self.over, f"the connection ended after {bytes(self.held[:500])!r}"
        assert select.select([self.socket], [], [], DEADLINE)[0], f"{DEADLINE} s of silence"
        self._take_in()

    def _take_in(self) -> None:
        try:
            came = self.socket.recv(1 << 16)
        except ConnectionError:
            came = b""
        self.held += came
        self.over = not came


@contextmanager
def connected(server: Server) -> Iterator[Connection]:
    """A connection of its own."""
    connection = Connection(server.port)
    with connection.socket:
        yield connection


def alone(server: Server, sent: bytes) -> Reply:
    """The answer to a request that is the only one on its connection."""
    with connected(server) as connection:
        return connection.ask(sent)


def check(reply: Reply, status: int, *, bodiless: bool = False) -> Any:
    """Asserts that the answer is an envelope of that status, and no more than it says; gives its `data`."""
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/json"
    assert status != 405 or reply.headers["allow"]
    assert status != 401 or reply.headers["www-authenticate"].startswith("Bearer")
    if bodiless:
        return None
    envelope = json.loads(reply.body)
    assert envelope["code"] == status
    assert isinstance(envelope["message"], str)
    assert envelope["message"]
    assert envelope.keys() <= {"code", "message", "data"}
    assert status == 200 or not _LEAK.search(reply.body), reply.body
    return envelope.get("data")


def said(server: Server) -> str:
    """What the server has said on standard error since it was last asked."""
    assert server.process.stderr is not None
    told, pipe = b"", server.process.stderr.fileno()
    while select.select([pipe], [], [], 0)[0] and (more := os.read(pipe, 1 << 16)):
        told += more
    return told.decode()


def request(method: bytes, target: bytes, *lines: bytes, body: bytes = b"") -> bytes:
    """A request of exactly these lines."""
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", *lines, b"", body])


def get(target: bytes, *lines: bytes, method: bytes = b"GET") -> bytes:
    """A request without a body, with a key."""
    return request(method, target, HOST, KEY, *lines)


def post(body: bytes, *lines: bytes, target: bytes = SUBMIT, kind: bytes = JSON) -> bytes:
    """A whole request of the usual form; `lines` come on top."""
    length = b"Content-Length: %d" % len(body)
    return request(b"POST", target, HOST, KEY, *([kind] if kind else []), *lines, length, body=body)


def framed(body: bytes, *lines: bytes) -> bytes:
    """A submit that leaves it to `lines` to say where the body ends."""
    return request(b"POST", SUBMIT, HOST, KEY, JSON, *lines, body=body)


def chunks(body: bytes, size: int) -> bytes:
    """The body in chunks of that size."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def field(text: bytes) -> bytes:
    """A good body with one more field."""
    return b'{"prompt":"x",' + text + b"}"


def nested(opening: bytes, closing: bytes, *, levels: int, inside: bytes = b"") -> bytes:
    """A value in that many arrays or objects."""
    return opening * levels + inside + closing * levels


_UNKNOWN, _SEED, _STRENGTH = b'"u":', b'"seed":', b'"strength":'
_OBJECT = (b'{"a":', b"}")
_ARRAY = (b"[", b"]")

BODIES: dict[str, tuple[int, bytes]] = {
    "no body": (400, b""),
    "white space": (400, b" \r\n\t "),
    "bad UTF-8": (400, b'{"prompt":"\xff"}'),
    "overlong UTF-8": (400, b'{"prompt":"\xc0\xaf"}'),
    "a surrogate in UTF-8": (400, b'{"prompt":"\xed\xa0\x80"}'),
    "byte order mark": (400, b"\xef\xbb\xbf" + GOOD),
    "UTF-16 with a mark": (400, GOOD.decode().encode("utf-16")),
    "UTF-16": (400, GOOD.decode().encode("utf-16-le")),
    "UTF-32": (400, GOOD.decode().encode("utf-32")),
    "gzip that nothing announces": (400, gzip.compress(GOOD)),
    "NaN": (400, field(_STRENGTH + b"NaN")),
    "Infinity": (400, field(_STRENGTH + b"Infinity")),
    "-Infinity": (400, field(_STRENGTH + b"-Infinity")),
    "NaN in an unknown field": (400, field(_UNKNOWN + b"[NaN]")),
    "1e400": (400, field(_STRENGTH + b"1e400")),
    "-1e400": (400, field(_STRENGTH + b"-1e400")),
    "1e400 in an unknown field": (400, field(_UNKNOWN + b"1e400")),
    "1e-400": (200, field(_STRENGTH + b"1e-400")),
    "a key twice": (400, b'{"prompt":"x","prompt":"y"}'),
    "a key twice, once escaped": (400, b'{"prompt":"x","pr\\u006fmpt":"y"}'),
    "a key twice in a LoRA": (400, field(b'"loras":[{"path":"a","path":"b","scale":1}]')),
    "a key twice in an unknown field": (400, field(_UNKNOWN + b'{"a":1,"a":1}')),
    "100 000 arrays": (400, nested(*_ARRAY, levels=100_000)),
    "100 000 arrays that do not end": (400, b"[" * 100_000),
    "100 000 objects": (400, nested(*_OBJECT, levels=100_000, inside=b"1")),
    "100 000 arrays in an unknown field": (400, field(_UNKNOWN + nested(*_ARRAY, levels=100_000))),
    "101 levels of arrays": (400, field(_UNKNOWN + nested(*_ARRAY, levels=100))),
    "100 levels of arrays": (200, field(_UNKNOWN + nested(*_ARRAY, levels=99))),
    "101 levels of objects": (400, field(_UNKNOWN + nested(*_OBJECT, levels=100, inside=b"1"))),
    "100 levels of objects": (200, field(_UNKNOWN + nested(*_OBJECT, levels=99, inside=b"1"))),
    "100 levels beside others": (
        200,
        field(b'"v":{},' + _UNKNOWN + nested(*_OBJECT, levels=99, inside=b"1")),
    ),
    "100 levels in a prompt": (400, b'{"prompt":' + nested(*_ARRAY, levels=99) + b"}"),
    "100 000 brackets in a text": (200, field(_UNKNOWN + b'"' + b"[{" * 50_000 + b'"')),
    "an integer of 400 digits": (400, field(_SEED + b"9" * 400)),
    "an integer of 4300 digits": (400, field(_SEED + b"9" * 4300)),
    "an integer of 5000 digits": (400, field(_SEED + b"9" * 5000)),
    "a negative integer of 4300 digits": (400, field(_STRENGTH + b"-" + b"9" * 4300)),
    "a text that is an integer of 4300 digits": (400, b'{"prompt":' + b"9" * 4300 + b"}"),
    "an unknown integer of 400 digits": (200, field(_UNKNOWN + b"9" * 400)),
    "an unknown integer of 4300 digits": (200, field(_UNKNOWN + b"9" * 4300)),
    "an unknown integer of 5000 digits": (400, field(_UNKNOWN + b"9" * 5000)),
    "a fraction of 5000 digits": (200, field(_STRENGTH + b"0." + b"1" * 5000)),
    "an integer of 65 bits": (400, field(_SEED + b"18446744073709551616")),
    "half a surrogate pair": (400, b'{"prompt":"\\ud800"}'),
    "the other half": (400, b'{"prompt":"\\udc00"}'),
    "half a surrogate pair in a key": (400, field(b'"\\ud800":1')),
    "a surrogate pair": (200, b'{"prompt":"\\ud83d\\ude00"}'),
    "NUL escaped": (200, b'{"prompt":"\\u0000"}'),
    "NUL": (400, b'{"prompt":"\x00"}'),
    "a line feed in a text": (400, b'{"prompt":"a\nb"}'),
    "1.0 for an integer": (400, field(_SEED + b"1.0")),
    "1e3 for an integer": (400, field(_SEED + b"1e3")),
    "true for an integer": (400, field(_SEED + b"true")),
    "a text for an integer": (400, field(_SEED + b'"2"')),
    "null for a text": (400, b'{"prompt":null}'),
    "a size and a line feed": (400, field(b'"size":"1024*1024\\n"')),
    "a size of a million digits": (400, field(b'"size":"' + b"1" * 1_000_000 + b'"')),
    "an array": (400, b"[]"),
    "an object in an array": (400, b"[" + GOOD + b"]"),
    "a text": (400, b'"x"'),
    "an integer": (400, b"1"),
    "a number": (400, b"1.5"),
    "true": (400, b"true"),
    "false": (400, b"false"),
    "null": (400, b"null"),
    "an empty object": (400, b"{}"),
    "half an object": (400, b'{"prompt":"x"'),
    "two objects": (400, GOOD + GOOD),
    "a comma too many": (400, b'{"prompt":"x",}'),
    "a comment": (400, b'{"prompt":"x"/**/}'),
    "single quotes": (400, b"{'prompt':'x'}"),
    "a leading zero": (400, field(_SEED + b"01")),
    "a leading plus": (400, field(_SEED + b"+1")),
    "a no-break space": (400, b"\xc2\xa0" + GOOD),
    "names that JavaScript knows": (200, field(b'"__proto__":{},"constructor":1')),
}
