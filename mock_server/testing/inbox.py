"""An address that webhooks can be sent to: what the fixture `webhook_inbox` gives."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any

from mock_server.testing.attending import OWN
from mock_server.testing.control import WavemockError
from mock_server.testing.records import ReceivedWebhook, moment
from mock_server.testing.session import Wavemock
from mock_server.webhooks.signing import explain

_LARGEST = 64 * 1024 * 1024


class WebhookInbox:
    """Takes webhooks at `url`, on this machine, checks their signatures, and keeps them as they came.

    Give a client `url` as its webhook: `run(f"wavespeed-ai/flux-dev-lora?webhook={inbox.url}", ...)`.
    """

    def __init__(self, wavemock: Wavemock) -> None:
        # With a connection of its own: a webhook may come while the test's waits for the clock to be moved.
        self._wavemock = Wavemock(wavemock.server, wavemock.name)
        self._changed = threading.Condition()
        self._received: list[ReceivedWebhook] = []
        self._waited_for: set[int] = set()
        self._answers: list[tuple[int, int | None]] = []
        self._secret = ""
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/webhooks"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name=f"{OWN}inbox", daemon=True
        )
        self._thread.start()

    def __repr__(self) -> str:
        return f"WebhookInbox({self.url!r}, {len(self._received)} received)"

    @property
    def events(self) -> list[ReceivedWebhook]:
        """Everything that came, in the order it came, retries and duplicates included."""
        with self._changed:
            return list(self._received)

    def wait(
        self, status: str | None = None, *, prediction: str | None = None, timeout: float = 10
    ) -> ReceivedWebhook:
        """The next webhook, of a task with that status and id where given. Each is returned once.

        Waits at most `timeout` seconds of real time, also with `virtual_time`. What is due later on the
        session's clock comes when that is advanced. Raises AssertionError that lists what came instead.
        """
        __tracebackhide__ = True
        deadline = monotonic() + timeout
        with self._changed:
            while (place := self._find(status, prediction)) is None:
                left = deadline - monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            if place is not None:
                self._waited_for.add(place)
                return self._received[place]
            came = [f"  {each.status or 'no status'} of task {each.prediction}" for each in self._received]
        said = [f"No webhook{f' that says {status!r}' if status else ''} came"]
        said += [f" of task {prediction}"] if prediction else []
        said += [f" within {timeout:g} s of real time.\n"]
        raise AssertionError("".join(said) + ("\n".join(["What came:", *came]) if came else "Nothing came."))

    def respond(self, status: int, *, times: int | None = 1) -> None:
        """Answers the next so many webhooks with an HTTP status, None: all that come; 200 without this."""
        with self._changed:
            self._answers.append((status, times))

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._wavemock.let_go()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """Keeps a webhook; the HTTP status to answer it with."""
        with self._changed:
            answer = self._next_answer()
        told = self._judged(headers, body)
        with self._changed:
            self._received.append(
                ReceivedWebhook(path=path, headers=headers, body=body, answered=answer, **told)
            )
            self._changed.notify_all()
        return answer

    def _find(self, status: str | None, prediction: str | None) -> int | None:
        for place, each in enumerate(self._received):
            fits = (status is None or each.status == status) and (
                prediction is None or each.prediction == prediction
            )
            if fits and place not in self._waited_for:
                return place
        return None

    def _next_answer(self) -> int:
        while self._answers:
            status, left = self._answers[0]
            if left is None:
                return status
            if left > 0:
                self._answers[0] = (status, left - 1)
                return status
            del self._answers[0]
        return 200

    def _judged(self, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        at = moment(self._wavemock.read_clock())
        try:
            self._secret = self._secret or self._wavemock.webhook_secret()
        except WavemockError as error:
            return {"at": at, "verified": False, "reason": f"The session's secret is not known. {error}"}
        verdict = explain(self._secret, headers, body, now=int(at.timestamp()))
        return {"at": at, "verified": verdict.ok, "reason": " ".join(verdict.reasons)}


class _Server(ThreadingHTTPServer):
    """Hands what is posted to the inbox."""

    daemon_threads = True

    def __init__(self, inbox: WebhookInbox) -> None:
        self.inbox = inbox
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        threading.current_thread().name = f"{OWN}inbox"  # no thread of the client's
        super().process_request_thread(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > _LARGEST:
            self.send_error(413)
            return
        body = self.rfile.read(int(length))
        headers: dict[str, str] = {}
        for name, text in self.headers.items():
            known = headers.get(name.lower())
            headers[name.lower()] = text if known is None else f"{known}, {text}"
        try:
            status = self.server.inbox.take(self.path, headers, body)
        except WavemockError as error:
            self.send_error(503, explain=str(error))
            return
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing: the test asks for what it wants to know."""
