"""Servers in threads: one that keeps a little of the contract, and ways to break it."""

import contextlib
import json
import re
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from contract_tests.exchange import strict_json

SUBMIT = "/api/v3/wavespeed-ai/flux-schnell-lora"
_REASON = b"HTTP/1.1 %d Whatever\r\n"
_DRIP_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it came. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def good(self) -> bool:
        """Whether a server that keeps the contract would begin a task for it."""
        try:
            value = strict_json(self.body)
        except ValueError:
            return False
        return (
            self.method == "POST"
            and self.headers.get("authorization", "").startswith("Bearer ")
            and self.headers.get("content-type", "").lower().startswith("application/json")
            and isinstance(value, dict)
            and isinstance(value.get("prompt"), str)
        )


def reply(status: int, body: bytes | None = None, **headers: str) -> bytes:
    """A whole answer; without a body it is an envelope that suits the status."""
    if body is None:
        body = json.dumps({"code": status, "message": "x", "data": {}}).encode()
    given = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    return _REASON % status + lines.encode("latin-1") + b"\r\n" + body


def task(url: str, number: int, **other: object) -> bytes:
    """The answer to a submit that is accepted."""
    name = f"{number:032x}"
    data = {
        "id": name,
        "model": "wavespeed-ai/flux-schnell-lora",
        "status": "created",
        "outputs": [],
        "has_nsfw_contents": [],
        "urls": {"get": f"{url}/api/v3/predictions/{name}/result"},
        "created_at": "2026-01-01T00:00:00Z",
        "error": "",
        "timings": {"inference": 0},
        **other,
    }
    return reply(200, json.dumps({"code": 200, "message": "success", "data": data}).encode())


@dataclass(kw_only=True)
class BadTarget:
    """A listener. `meet` has each connection to itself, `asked` is every request that was read."""

    meet: Callable[["BadTarget", socket.socket], None]
    asked: list[Asked] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return int(self._port)

    def __post_init__(self) -> None:
        self._port = self.listener.getsockname()[1]

    @property
    def good(self) -> int:
        """How many requests came that may begin a task."""
        return sum(each.good for each in self.asked)

    def die(self) -> None:
        """Takes no more connections, and ends those that there are."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # `close` alone does not wake who waits in `accept`
        self.listener.close()
        for each in self.connections:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def accept(self) -> None:
        """Meets connections until it dies."""
        threads = []
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                break
            self.connections.append(connection)
            threads.append(threading.Thread(target=self._meet, args=(connection,)))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def _meet(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self.meet(self, connection)


@contextlib.contextmanager
def listening(meet: Callable[[BadTarget, socket.socket], None]) -> Iterator[BadTarget]:
    """A target that lives as long as the block."""
    target = BadTarget(meet=meet)
    thread = threading.Thread(target=target.accept)
    thread.start()
    try:
        yield target
    finally:
        target.die()
        thread.join()


Answer = Callable[[BadTarget, socket.socket, Asked], bytes]
"""What to send back. It may as well speak on the connection itself, and raise OSError when it is done."""


def speaking(answer: Answer) -> contextlib.AbstractContextManager[BadTarget]:
    """A target that reads HTTP."""

    def meet(target: BadTarget, connection: socket.socket) -> None:
        with connection.makefile("rb") as reader:
            while first := reader.readline().decode("latin-1").split():
                lines = iter(lambda: reader.readline().strip(), b"")
                pairs = (line.decode("latin-1").partition(":") for line in lines)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                body = reader.read(int(headers.get("content-length", "0")))
                asked = Asked(method=first[0], path=first[1], headers=headers, body=body)
                target.asked.append(asked)
                connection.sendall(answer(target, connection, asked))

    return listening(meet)


def kept(target: BadTarget, _connection: socket.socket, asked: Asked) -> bytes:
    """What a server answers that keeps as much of the contract as the tests look at."""
    if not re.match("Bearer .", asked.headers.get("authorization", "")):
        return reply(401)
    if asked.path != SUBMIT:
        return reply(404)
    if asked.method != "POST":
        return reply(405, Allow="POST")
    return task(target.url, target.good) if asked.good else reply(400)


def hang(connection: socket.socket) -> bytes:
    """Says nothing until the other side goes away."""
    while connection.recv(65536):
        pass
    raise OSError("it went away")


def reset(connection: socket.socket) -> bytes:
    """Ends the connection as a crash would."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    raise OSError("it was reset")


def drip(connection: socket.socket, sent: bytes) -> bytes:
    """Sends one byte after the other, and never comes to an end."""
    while not select.select([connection], [], [], _DRIP_SECONDS)[0]:
        connection.sendall(sent[:1])
        sent = sent[1:] or b"x"
    raise OSError("it went away")


def flood(connection: socket.socket) -> bytes:
    """Sends a body that has no end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n")
    while True:
        connection.sendall(b"x" * 65536)
