"""How long a client may take to send a request, and how large its head may be."""

import re
import socket
import struct
from asyncio import TimerHandle, Transport
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from weakref import WeakMethod

from httptools import HttpParserError, HttpParserInvalidURLError, HttpParserUpgrade, parse_url
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mock_server.answering import END_CONNECTION
from mock_server.errors import Refusal, envelope

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")  # RFC 9112, 3.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a connection may ask of the server before it is closed.

    Within `header_seconds` of being accepted, or of the first byte of a later request, the headers of a
    request are complete; within `body_seconds` of that, its body and trailers. No time-out runs while the
    application works on an earlier, complete request. `header_bytes` bounds request line and headers
    together, and trailers likewise. `pipelined` requests may wait behind the one that is being answered. A
    client that was refused has `linger_seconds` to stop sending and to read why.
    """

    header_seconds: float = 10
    body_seconds: float = 30
    header_bytes: int = 64 * 1024
    pipelined: int = 100
    linger_seconds: float = 1


def protocol_class(limits: Limits) -> type[HttpToolsProtocol]:
    """A protocol that keeps `limits`, for `uvicorn.Config(http=...)`.

    What it refuses, it answers with an envelope and closes: 400 for what is not HTTP or has no path as its
    target, 408 for what is late, 429 for too many pipelined requests, 431 for a request line, headers or
    trailers that are too large. Where an answer is no longer possible it just closes. An upgrade is never
    accepted: such a request is served as if it had not asked for one.
    """

    class Limited(LimitedProtocol):
        """The protocol, with its limits."""

        _limits = limits

    return Limited


@dataclass(slots=True)
class _Watch:
    """What a connection is watched for, apart from the protocol: CPython is slow with over 30 attributes.

    `held` counts the bytes that came since the parser last passed something on. `awaited` is what has to
    arrive: the body of the newest request if the flag says so, else the head of the one after it; `deadline`
    is when, in the loop's time, or None while an earlier request is being answered. `earlier` are requests
    before the newest that may be with the application. `last_words` are what remains to be said before
    closing, possibly nothing; from then on, nothing that arrives counts.
    """

    held: int = 0
    awaited: tuple[RequestResponseCycle | None, bool] | None = None
    deadline: float | None = None
    timer: TimerHandle | None = None
    earlier: list[RequestResponseCycle] = field(default_factory=list)
    last_words: bytes | None = None


class LimitedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol under the default limits.

    A request that arrives at once costs next to nothing: what is missing is found out from uvicorn's own
    state, after each read, and one timer per connection stays as it is and is looked at when it fires.
    """

    _limits = Limits()

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Gives the client time for its first request."""
        super().connection_made(transport)
        self._watch = _Watch()
        self._expect_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells every waiting application that the client is gone."""
        super().connection_lost(exc)
        self._disconnect()
        if self._watch.timer is not None:
            self._watch.timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parses what arrived, and sees to what is still missing."""
        watch = self._watch
        held = watch.held + len(data)
        if held > self._limits.header_bytes:
            self._receive_in_pieces(data)
            return
        watch.held = held
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        try:
            self.parser.feed_data(data)
        except HttpParserError as error:
            cause = error.__context__
            self._refuse(
                cause if isinstance(cause, Refusal) else Refusal(400, f"This is not HTTP/1.1: {error}.")
            )
        except HttpParserUpgrade as upgrade:
            watch.held = 0
            self.data_received(self._head_without_upgrade() + data[upgrade.args[0] :])
        else:
            cycle = self.cycle
            if cycle is None or cycle.more_body or cycle.response_complete or cycle.scope is not self.scope:
                self._expect_more()

    def _receive_in_pieces(self, data: bytes) -> None:
        """Receives `data` such that the parser never holds more than the limit."""
        while data and self._watch.last_words is None:
            room = self._limits.header_bytes - self._watch.held
            if room > 0:
                self.data_received(data[:room])
                data = data[room:]
            else:
                limit = self._limits.header_bytes
                self._refuse(
                    Refusal(431, f"The request line and headers, or the trailers, exceed {limit} bytes.")
                )

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_headers_complete(self) -> None:
        """Hands a request to the application. Raises Refusal for what the parser should not have let pass."""
        previous = self.cycle
        if previous is not None and not previous.response_complete:
            self._queue_behind(previous)
        if not self.url.startswith(b"/"):
            self.url = _path_and_query(self.url)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise Refusal(400, "CONNECT is for proxies, and this server is none.")
            return  # the parser stops, and then gets this head once more without the upgrade
        hosts = [value for name, value in self.headers if name == b"host"]
        named = len(hosts) == 1 or self.parser.get_http_version() != "1.1"
        if not named or not all(map(_HOST.fullmatch, hosts)):
            raise Refusal(400, "A request names exactly one host, in the header Host.")
        self._watch.held = 0
        # Not the method itself: it would hold the connection, which holds the request, for the collector.
        extensions: dict[str, Any] = {END_CONNECTION: WeakMethod(self._end_connection)}
        self.scope["extensions"] = extensions
        HttpToolsProtocol.on_headers_complete(self)

    def _end_connection(self, *, reset: bool) -> None:
        """Ends the connection as a fault wants it, in the middle of whatever goes on."""
        self._disconnect()
        connection = self.transport.get_extra_info("socket")
        if reset and connection is not None:
            # Without lingering, the system resets the connection instead of closing it.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    def _queue_behind(self, previous: RequestResponseCycle) -> None:
        if len(self.pipeline) >= self._limits.pipelined:
            raise Refusal(429, f"More than {self._limits.pipelined} requests of this connection are waiting.")
        self._watch.earlier = [
            cycle for cycle in (*self._watch.earlier, previous) if not cycle.response_complete
        ]

    def on_body(self, body: bytes) -> None:
        """Passes on a piece of the body."""
        self._watch.held = 0
        HttpToolsProtocol.on_body(self, body)

    def on_message_complete(self) -> None:
        """Ends a request. In place of uvicorn's, which overlooks requests that are answered already."""
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope:
            self._watch.held = 0
            cycle.more_body = False
            cycle.message_event.set()

    def _in_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body and self.cycle.scope is self.scope

    def _busy(self) -> bool:
        """Whether the application works on a request before the one that arrives."""
        if self._in_body():
            return bool(self.pipeline)
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_more(self) -> None:
        """Sets a deadline for what is missing, unless it has one."""
        awaited = (self.cycle, self._in_body())
        if awaited != self._watch.awaited:
            self._watch.awaited = awaited
            self._watch.deadline = None if self._busy() else self._due()
            if self._watch.timer is None:
                self._look_in(self._shortest())

    def _due(self) -> float:
        limits = self._limits
        return self.loop.time() + (limits.body_seconds if self._in_body() else limits.header_seconds)

    def _shortest(self) -> float:
        return min(self._limits.header_seconds, self._limits.body_seconds)

    def _look_in(self, seconds: float) -> None:
        # Never later than the shortest time-out, so that a deadline set meanwhile is not missed.
        self._watch.timer = self.loop.call_later(min(seconds, self._shortest()), self._look)

    def _look(self) -> None:
        """Does what is due: last words, or an end to a connection on which something is late."""
        self._watch.timer = None
        if self._watch.last_words is not None:
            self._hang_up()
        elif self._watch.awaited != (self.cycle, self._in_body()):
            pass  # it has arrived
        elif self._busy():
            self._look_in(self._shortest())
        elif self._watch.deadline is None:  # the earlier requests are answered: its time begins
            self._watch.deadline = self._due()
            self._look_in(self._shortest())
        elif (left := self._watch.deadline - self.loop.time()) > 0:
            self._look_in(left)
        else:
            self._expire()

    def _expire(self) -> None:
        limits = self._limits
        if self._in_body():
            self._refuse(Refusal(408, f"The body did not arrive within {limits.body_seconds:g} s."))
        elif self.scope is None or (self.cycle is not None and self.cycle.scope is self.scope):
            self._watch.last_words = b""  # no request has begun that could be answered
            self._hang_up()
        else:
            self._refuse(Refusal(408, f"The headers did not arrive within {limits.header_seconds:g} s."))

    def _refuse(self, refusal: Refusal) -> None:
        """Answers with `refusal`, once all earlier requests are answered, and closes."""
        client = "{}:{}".format(*self.client) if self.client else "-"
        self.logger.info("%s - refused: %d %s", client, refusal.status, refusal.message)
        self._watch.last_words = self._answer(refusal)
        self._hang_up()

    def _answer(self, refusal: Refusal) -> bytes:
        body = envelope(refusal.status, refusal.message)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        status = f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\n".encode()
        return status + b"".join(name + b": " + value + b"\r\n" for name, value in headers) + b"\r\n" + body

    def _hang_up(self) -> None:
        """Sends the last words and closes, once earlier requests are answered.

        After an answer it closes only when the client has had time to read it: closing while a client still
        sends makes systems throw away what the client has yet to read.
        """
        self._watch.held = self._limits.header_bytes + 1
        if self._watch.timer is not None:
            self._watch.timer.cancel()
        if self._busy():
            self._look_in(0.05)
            return
        answerable = not (self._in_body() and self.cycle.response_started)
        self._disconnect()
        self._watch.timer = self.loop.call_later(self._limits.linger_seconds, self.transport.abort)
        if self._watch.last_words and answerable and not self.transport.is_closing():
            self.transport.write(self._watch.last_words)
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()

    def _disconnect(self) -> None:
        """Tells the applications at work that the client is gone."""
        for cycle in (*self._watch.earlier, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.waiting_for_100_continue = False  # else it would be written after the last words
                cycle.message_event.set()


def _path_and_query(target: bytes) -> bytes:
    """What a target of the form `http://host/path?query` asks for. Raises Refusal for any other."""
    try:
        if target.lower().startswith((b"http://", b"https://")):
            url = parse_url(target)
            return (url.path or b"/") + (b"?" + url.query if url.query else b"")
    except HttpParserInvalidURLError:
        pass
    raise Refusal(400, "The target of a request is a path, such as /api/v3/predictions.")
