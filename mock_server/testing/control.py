"""Speaks to the control plane of one session over one connection that is kept open."""

import http.client
import json
import threading
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

AGENT = "wavemock-testing"
"""The User-Agent of this module, by which its own requests are told from those of the client under test."""

_TIMEOUT_SECONDS = 60
# Below the time after which servers close a connection that nobody uses.
_IDLE_SECONDS = 1.0


class WavemockError(Exception):
    """The mock refused, or could not be reached; the text says why, in the server's words where it did."""


class Control:
    """Requests with JSON bodies to the URLs below one. Threads may share it; proxies are never asked."""

    def __init__(self, url: str, *, token: str | None = None) -> None:
        """`token` is what the server was given as --control-token. Raises WavemockError for no such URL."""
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise WavemockError(f"{url!r} is no address of a server: {error}.") from error
        if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
            raise WavemockError(f"{url!r} is no address of a server; write http://HOST:PORT.")
        self.url = url.rstrip("/")
        self._path = parts.path.rstrip("/")
        self._headers = {"User-Agent": AGENT, **({"Authorization": f"Bearer {token}"} if token else {})}
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(host, port, timeout=_TIMEOUT_SECONDS)
        self._lock = threading.Lock()
        self._used = 0.0

    def call(self, method: str, path: str, body: Any = None, *, key: str = "") -> Any:
        """The `data` of the answer. `key` is an API key to send in place of the token.

        Raises WavemockError where there is no answer, or one that says no.
        """
        headers = {**self._headers, **({"Authorization": f"Bearer {key}"} if key else {})}
        content = None
        if body is not None:
            content, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        with self._lock:
            status, answer = self._exchange(method, self._path + path, content, headers)
        try:
            envelope = json.loads(answer)
        except ValueError:
            envelope = None
        if not isinstance(envelope, dict):
            raise WavemockError(f"{method} {self.url}{path}: HTTP {status}, and no answer of wavemock's.")
        if status != 200:
            raise WavemockError(f"{method} {self.url}{path}: HTTP {status}: {envelope.get('message', '')}")
        return envelope.get("data")

    def close(self) -> None:
        """Ends the connection; the next call makes a new one."""
        with self._lock:
            self._connection.close()

    def _exchange(
        self, method: str, path: str, content: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        if monotonic() - self._used > _IDLE_SECONDS:
            self._connection.close()
        try:
            self._connection.request(method, path, body=content, headers=headers)
            answer = self._connection.getresponse()
            read = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            # Not tried again: whether the clock was moved would not be known.
            self._connection.close()
            said = str(error) or type(error).__name__
            raise WavemockError(f"{method} {self.url}{path}: the server does not answer: {said}.") from error
        except BaseException:
            # A Ctrl-C between a request and its answer; the next answer would be taken for that of another.
            self._connection.close()
            raise
        self._used = monotonic()
        return read
