"""A host on a port of its own that answers byte for byte as a test says, and counts who comes."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Answer = bytes | Callable[[socket.socket], None]
"""What is sent to whoever asks: bytes, or what a function does with the connection."""


@dataclass(kw_only=True)
class Site:
    """Answers a path with what `answers` has for it. `calls` counts connections, `heads` keeps requests."""

    port: int
    answers: dict[str, Answer] = field(default_factory=dict)
    calls: int = 0
    heads: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/file", *, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@contextmanager
def site(answers: dict[str, Answer] | None = None, *, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """A site on 127.0.0.1, closed with the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Site(port=listener.getsockname()[1], answers=answers or {})
        threads: list[threading.Thread] = []

        def listen() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                if made.over.is_set():
                    connection.close()
                    return
                made.calls += 1
                threads.append(threading.Thread(target=_serve, args=(made, connection, tls)))
                threads[-1].start()

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield made
        finally:
            made.over.set()
            # Wakes the thread that waits for a caller.
            socket.create_connection(("127.0.0.1", made.port)).close()
            thread.join()
            for each in threads:
                each.join()


def _serve(site: Site, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
    with suppress(OSError), connection:
        connection.settimeout(20)
        if tls is not None:
            connection = tls.wrap_socket(connection, server_side=True)
        with connection:
            head = b""
            while not head.endswith(b"\r\n\r\n") and (piece := connection.recv(65536)):
                head += piece
            site.heads.append(head.decode("latin-1"))
            answer = site.answers.get(head.split(b" ")[1].decode("latin-1"), ok(b"", status="404 Not Found"))
            if isinstance(answer, bytes):
                connection.sendall(answer)
            else:
                answer(connection)


def ok(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """An answer with this body, and its length where no header tells another."""
    lines = [f"HTTP/1.1 {status}", *headers, "Connection: close"]
    if not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def moved(to: str, *, status: str = "302 Found") -> bytes:
    """A redirect."""
    return ok(b"", f"Location: {to}", status=status)
