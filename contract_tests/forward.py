"""Stands between a client and a server, passes everything on byte for byte, and lets the judges look on.

What it does not pass on: trailers, upgrades (a request for one is passed on as a plain request, as HTTP
allows), interim answers, and the question mark of an empty query.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
from starlette.types import Message, Receive, Scope, Send

from contract_tests import recording
from contract_tests.exchange import Exchange, Request
from contract_tests.listener import LARGEST, Flow, Listener
from contract_tests.rewriting import decoded, led_here
from contract_tests.target import KEEP_ALIVE_SECONDS, is_local

SMALL = 64 * 1024
_CONNECT_SECONDS = 10.0
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authorization proxy-connection te trailer transfer-encoding upgrade".split()
)
_HOST = re.compile(r"[A-Za-z0-9.\-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")
_UNSAYABLE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LAST_STATUS = 599
_LOOPBACK = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]+)?", re.IGNORECASE)

RawHeaders = list[tuple[bytes, bytes]]


class _HungUpError(Exception):
    """The client hung up."""


@dataclass(kw_only=True)
class _Taken:
    """The bytes of a body as they pass by: all of them counted, kept only while they are few enough."""

    most: int
    size: int = 0
    kept: bytearray = field(default_factory=bytearray)

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size <= self.most:
            self.kept += piece
        else:
            self.kept.clear()


@dataclass(kw_only=True)
class Forwarder:
    """An ASGI application that passes everything on to `upstream` and tells `listener` of it.

    `seconds` is how long the upstream may be silent. With `rewrite_urls`, the address at which an answer says
    that a task can be polled leads to the proxy instead of the upstream.
    """

    upstream: httpx.URL
    listener: Listener
    rewrite_urls: bool = True
    seconds: float = 120.0
    largest: int = LARGEST
    http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.AsyncClient(
            trust_env=not is_local(str(self.upstream)),
            timeout=httpx.Timeout(self.seconds, connect=min(self.seconds, _CONNECT_SECONDS), pool=None),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEP_ALIVE_SECONDS),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request as the upstream does; gives up as soon as the client has."""
        if scope["type"] != "http":
            return
        if _is_others_control(scope):
            said = "the control plane is passed on to clients on this machine only"
            await _envelope(send, 403, said)
            return
        taken_in = asyncio.Event()
        flow = asyncio.ensure_future(self._forward(scope, receive, send, taken_in))
        client = asyncio.ensure_future(_hung_up(receive, taken_in))
        try:
            await asyncio.wait({flow, client}, return_when=asyncio.FIRST_COMPLETED)
            if not flow.done():
                self.listener.counts["were given up by the client"] += 1
        finally:
            flow.cancel()
            client.cancel()
            done = await asyncio.gather(flow, client, return_exceptions=True)
        if isinstance(done[0], Exception):
            self.listener.counts[
                "were given up by the client" if isinstance(done[0], _HungUpError) else "were broken off"
            ] += 1

    async def _forward(self, scope: Scope, receive: Receive, send: Send, taken_in: asyncio.Event) -> None:
        began = time.monotonic()
        given = _Taken(most=self.largest)
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        request = httpx.Request(
            scope["method"],
            self.upstream,
            headers=self._headers(scope["headers"]),
            stream=_Pieces(await _first(receive, given, taken_in), receive, given, taken_in),
            extensions={"target": target if target == b"*" else self.upstream.raw_path.rstrip(b"/") + target},
        )
        try:
            answer = await self.http.send(request, stream=True)
            await _must_be_sayable(answer)
        except httpx.HTTPError as error:
            self.listener.counts["were not answered by the upstream"] += 1
            await self._excuse(send, error)
            return
        try:
            came = await self._answer(scope, target, answer, send)
        finally:
            await answer.aclose()
        if came is not None:
            ended = time.monotonic()
            exchange = _exchange(_request(scope, target, given), answer, came, ended - began)
            sizes = {"request_size": given.size, "answer_size": came.size}
            self.listener.put(Flow(exchange=exchange, ended=ended, at=datetime.now(UTC), **sizes))

    def _headers(self, headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
        chunked = any(name == b"transfer-encoding" for name, _ in headers)
        kept = [
            (b"host", self.upstream.netloc),
            *((name, value) for name, value in _end_to_end(headers) if name != b"host"),
        ]
        return [*kept, (b"transfer-encoding", b"chunked")] if chunked else kept

    async def _answer(self, scope: Scope, target: bytes, answer: httpx.Response, send: Send) -> _Taken | None:
        """Passes an answer on. Gives what passed by; None where the upstream broke off."""
        documented = self.listener.documents(scope["method"], target.decode("latin-1"))
        held = documented and self.rewrite_urls and scope["method"] != "HEAD"
        came = _Taken(most=self.largest if documented else SMALL)
        headers = _end_to_end(answer.headers.raw)
        if answer.status_code in {204, 304}:
            headers = [(name, value) for name, value in headers if name.lower() != b"content-length"]
        start: Message = {"type": "http.response.start", "status": answer.status_code, "headers": headers}
        try:
            if not held:
                await send(start)
            async for piece in answer.aiter_raw():
                if held and came.size + len(piece) <= came.most:
                    came.add(piece)
                    continue
                if held:
                    held = False
                    await send(start)
                    await _send_piece(send, bytes(came.kept))
                came.add(piece)
                await _send_piece(send, piece)
        except httpx.HTTPError as error:
            self.listener.counts["were broken off by the upstream"] += 1
            if held:
                await self._excuse(send, error)
            return None  # what has been begun and is not ended is cut off by the server
        if held:
            body, start["headers"] = await self._rewritten(scope, bytes(came.kept), headers)
            await send(start)
            await _send_piece(send, body)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return came

    async def _rewritten(self, scope: Scope, body: bytes, headers: RawHeaders) -> tuple[bytes, RawHeaders]:
        coding = b",".join(value for name, value in headers if name.lower() == b"content-encoding")
        here = f"{scope['scheme']}://{_asked_host(scope)}"
        changed = await asyncio.to_thread(self._led_here, body, coding.decode("latin-1"), here)
        if changed is None:
            return body, headers
        left = [
            (name, value)
            for name, value in headers
            if name.lower() not in {b"content-length", b"content-encoding"}
        ]
        return changed, [*left, (b"content-length", str(len(changed)).encode())]

    def _led_here(self, body: bytes, coding: str, here: str) -> bytes | None:
        plain = decoded(body, coding, self.largest)
        return None if plain is None else led_here(plain, str(self.upstream), here)

    async def _excuse(self, send: Send, error: httpx.HTTPError) -> None:
        url = self.upstream
        if isinstance(error, httpx.TimeoutException):
            await _envelope(send, 504, f"{url} does not answer within {self.seconds:g} s")
        else:
            await _envelope(send, 502, f"{url} does not answer: {str(error) or type(error).__name__}")


def _request(scope: Scope, target: bytes, given: _Taken) -> Request:
    """The request as the judges see it, without what is secret."""
    headers = _text(_end_to_end(scope["headers"]))
    keyed = any(name == "authorization" and value.lower().startswith("bearer ") for name, value in headers)
    return Request(
        method=scope["method"],
        path=recording.clean_path(target.decode("latin-1")),
        headers=recording.clean_headers(
            each for each in headers if not (keyed and each[0] == "authorization")
        ),
        body=bytes(given.kept) if given.size else None,
        keyed=keyed,
    )


def _exchange(request: Request, answer: httpx.Response, came: _Taken, seconds: float) -> Exchange:
    headers = [(name.lower(), value) for name, value in _text(_end_to_end(answer.headers.raw))]
    return Exchange(
        request=request,
        status=answer.status_code,
        headers=recording.clean_headers(headers),
        body=bytes(came.kept),
        seconds=seconds,
    )


async def _must_be_sayable(answer: httpx.Response) -> None:
    values = (value for _, value in answer.headers.raw)
    if answer.status_code > _LAST_STATUS or any(_UNSAYABLE.search(value) for value in values):
        await answer.aclose()
        raise httpx.RemoteProtocolError("the status or a header is none that HTTP allows")


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """The headers without those that are for one connection only (RFC 9110, 7.6.1)."""
    headers = list(headers)
    named = {
        token.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for token in value.split(b",")
    } - {b"content-length", b"content-type", b"authorization"}
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP | named]


def _text(headers: RawHeaders) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _asked_host(scope: Scope) -> str:
    """The proxy's own address, as the client knows it."""
    asked: str = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
    if _HOST.fullmatch(asked):
        return asked
    name, port = scope["server"]
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _is_others_control(scope: Scope) -> bool:
    """Whether somebody else wants to look inside a mock: to it, everything comes from this machine."""
    client = scope["client"][0] if scope["client"] else "127.0.0.1"
    near = _LOOPBACK.fullmatch(f"[{client}]" if ":" in client else client) and _LOOPBACK.fullmatch(
        _asked_host(scope)
    )
    return "/_mock" in scope["path"] and not near


async def _next(receive: Receive, given: _Taken, taken_in: asyncio.Event) -> bytes:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise _HungUpError
    piece: bytes = message.get("body", b"")
    given.add(piece)
    if not message.get("more_body"):
        taken_in.set()
    return piece


async def _first(receive: Receive, given: _Taken, taken_in: asyncio.Event) -> bytes:
    """A body that is small enough to be held, or as much of it as is."""
    held = bytearray()
    while not taken_in.is_set() and len(held) <= given.most:
        held += await _next(receive, given, taken_in)
    return bytes(held)


class _Pieces(httpx.AsyncByteStream):
    """A request's body: what was held of it, then the rest as it comes."""

    def __init__(self, held: bytes, receive: Receive, given: _Taken, taken_in: asyncio.Event) -> None:
        self._held = held
        self._rest = (receive, given, taken_in)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._held:
            yield self._held
        self._held = b""
        while not self._rest[2].is_set():
            yield await _next(*self._rest)


async def _hung_up(receive: Receive, taken_in: asyncio.Event) -> None:
    await taken_in.wait()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_piece(send: Send, piece: bytes) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _envelope(send: Send, status: int, message: str) -> None:
    body = json.dumps({"code": status, "message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
