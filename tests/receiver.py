"""A receiver of webhooks on a port of its own."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Got:
    """One request that arrived."""

    headers: Message
    body: bytes

    @property
    def task(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(kw_only=True)
class Receiver:
    """Listens on a port of its own; answers 200, or what is next in `answers`."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    location: str = ""
    asks: Callable[[], None] | None = None


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Listens for as long as it is entered."""
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.got.append(Got(headers=self.headers, body=body))
            if made.asks is not None:
                made.asks()
            self.send_response(made.answers.pop(0) if made.answers else 200)
            if made.location:
                self.send_header("Location", made.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{listening.server_port}/hook"
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
    thread.start()
    yield made
    listening.shutdown()
    thread.join()
    listening.server_close()
