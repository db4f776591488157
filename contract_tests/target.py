"""The target: sends one request after the other, kindly, and never waits for ever."""

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from contract_tests.case import Broken, Stopped, Unproven
from contract_tests.exchange import Exchange, Request

LARGEST = 128 * 1024 * 1024
PROBE = Request(method="GET", path="/api/v3/predictions/0/result")
"""Asks for a result that nobody asked for."""
KEEP_ALIVE_SECONDS = 2
"""Less than any server keeps a connection, so that none is found closed."""
UPLOADS = "/api/v3/media/"
"""Where files are sent to; no task is begun there."""
_AGENT = "wavemock-verify"
_TRIES = 4
_LONGEST_WAIT = 60.0
_MOST_SILENCES = 12
_MOST_BUSY = 3
_PAUSES = (0.2, 1.0, 3.0)
_PAUSE = 0.25
_SUCCESS = 2


def is_local(url: str) -> bool:
    """Whether the address is this machine's own, by its name."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How a target is treated.

    `budget` is how many tasks may be begun at most, None for any number; `seconds` how long one answer may
    take in all; `rate` how many requests a second, None for as many as it answers; `sleep` is how to wait.
    """

    budget: int | None = None
    seconds: float = 10.0
    rate: float | None = None
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep


class Target:
    """A server under test: an address, or with `app` an ASGI application in this process.

    `doors` are requests that begin no task; where all of them are refused, it is the key that is refused.
    Its methods raise Broken for a request without an answer, Unproven for one that the budget does not allow
    or that the target is too busy for, and Stopped where it is gone, stays busy, or refuses the key.
    """

    def __init__(
        self, *, url: str, key: str, manners: Manners, app: Any = None, doors: tuple[Request, ...] = (PROBE,)
    ) -> None:
        self.url = url.rstrip("/")
        self.app = app
        self.key = key
        self.manners = manners
        self.doors = doors
        self.sent = 0
        self.begun = 0
        self._silences = 0
        self._busy = 0
        self._next = 0.0
        self._runner = asyncio.Runner()  # it ends what is under way when somebody presses Ctrl-C
        self._base = httpx.URL(self.url)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False) if app is not None else None
        self._http = httpx.AsyncClient(
            transport=transport,
            trust_env=not is_local(url),
            timeout=None,  # noqa: S113 - the whole of an answer has one deadline, not each part of it
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE_SECONDS),
            headers={"User-Agent": _AGENT, "Accept-Encoding": "identity"},
        )

    def close(self) -> None:
        """Lets go of connections."""
        loop = self._runner.get_loop()
        if loop.is_running():  # in another thread, which Ctrl-C did not reach
            loop.call_soon_threadsafe(_cancel_all, loop)
            return
        self._runner.run(self._http.aclose())
        self._runner.close()

    def send(self, request: Request) -> Exchange:
        """The answer to a request."""
        self.hold_back(request)
        try:
            exchange = self._runner.run(self._patiently(request))
        except Silence as silence:
            self.begun += request.paid  # nobody knows what became of it
            self._silences += silence.long
            self._look_for_life(str(silence))
            raise Broken(str(silence)) from silence
        self._silences = 0
        self._look_for_room(exchange)
        self.count(exchange)
        if exchange.status in {401, 403} and request.keyed:
            self._look_for_entry(exchange)
        return exchange

    def sleep(self, seconds: float) -> None:
        """Lets time pass."""
        self._runner.run(self._wait(seconds))

    def greet(self, *, wait: float = 0.0) -> Exchange:
        """The first exchange with a target: a result that nobody asked for.

        A target that does not answer yet is asked again for `wait` seconds. Raises Stopped where there is no
        answer, or none that a client with this key could use.
        """
        exchange = self._first_answer(wait)
        if exchange.status in {401, 403}:
            self._look_for_entry(exchange)
        if is_busy(exchange):
            raise Stopped(f"{self.url} is too busy: HTTP {exchange.status}")
        return exchange

    def _first_answer(self, wait: float) -> Exchange:
        while True:
            try:
                return self._runner.run(self._patiently(PROBE))
            except Silence as silence:
                if wait <= 0:
                    raise Stopped(f"{self.url} {silence}") from silence
            self.sleep(_PAUSE)
            wait -= _PAUSE

    def count(self, exchange: Exchange) -> None:
        """Counts a task where the answer may mean that one was begun."""
        if _may_begin(exchange.request) and exchange.status // 100 == _SUCCESS:
            self.begun += 1

    def hold_back(self, request: Request) -> None:
        """Raises Unproven for a request that the budget does not allow."""
        budget = self.manners.budget
        if budget is None or not _may_begin(request):
            return
        if request.paid and self.begun >= budget:
            raise Unproven(f"it would begin a task, and --budget {budget} allows no more")
        if self.begun > budget:
            raise Unproven("the target began tasks that it should have refused; nothing more is sent to it")

    async def _patiently(self, request: Request) -> Exchange:
        """Sends it, and again where the target is busy, after the time that it asks for."""
        for attempt in range(_TRIES):
            await self._pace()
            exchange = await self._once(request)
            if not is_busy(exchange):
                break
            if attempt < _TRIES - 1:
                wanted = _seconds(exchange.header("retry-after"), otherwise=2.0**attempt)
                await self._wait(min(wanted, _LONGEST_WAIT))
        return exchange

    async def _once(self, request: Request) -> Exchange:
        began = time.perf_counter()
        self.sent += 1
        seconds = self.manners.seconds
        try:
            made = self._made(request)
            async with asyncio.timeout(seconds):
                answer = await self._http.send(made, stream=True)
                try:
                    body = bytearray()
                    async for piece in answer.aiter_raw():
                        body += piece
                        if len(body) > LARGEST:
                            raise Silence(f"answered with more than {LARGEST} bytes")
                finally:
                    await answer.aclose()
        except TimeoutError as error:
            raise Silence(f"gave no complete answer within {seconds:g} s", long=True) from error
        except (UnicodeError, httpx.InvalidURL) as error:
            raise Silence(f"gave an address that nothing can be sent to: {request.path[:200]!r}") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Silence(_why(error)) from error
        return Exchange(
            request=request,
            status=answer.status_code,
            headers=tuple(
                (name.decode("latin-1").lower(), value.decode("latin-1"))
                for name, value in answer.headers.raw
            ),
            body=bytes(body),
            seconds=time.perf_counter() - began,
        )

    def _made(self, request: Request) -> httpx.Request:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]
        if request.keyed:
            headers.append((b"Authorization", f"Bearer {self.key}".encode()))
        prefix = b"" if request.rooted else self._base.raw_path.rstrip(b"/")
        path = prefix + request.path.encode("latin-1")
        url = self._base.copy_with(raw_path=path)
        return self._http.build_request(request.method, url, headers=headers, content=request.body)

    async def _pace(self) -> None:
        if self.manners.rate is None:
            return
        now = time.monotonic()
        if self._next > now:
            await self._wait(self._next - now)
        self._next = max(now, self._next) + 1 / self.manners.rate

    async def _wait(self, seconds: float) -> None:
        await self.manners.sleep(seconds)

    def _look_for_life(self, silence: str) -> None:
        """Raises Stopped where the target has not only left one request without an answer."""
        if self._silences >= _MOST_SILENCES:
            raise Stopped(f"{self.url} {silence}, for the {_MOST_SILENCES}th time in a row")
        for pause in _PAUSES:
            with contextlib.suppress(Silence):
                self._runner.run(self._once(PROBE))
                return
            self.sleep(pause)
        raise Stopped(f"{self.url} does not answer any more: it {silence}")

    def _look_for_room(self, exchange: Exchange) -> None:
        """Raises Unproven where the target is too busy to answer, Stopped where it stays so."""
        if not is_busy(exchange):
            self._busy = 0
            return
        self._busy += 1
        said = f"is too busy: HTTP {exchange.status}"
        if self._busy >= _MOST_BUSY:
            raise Stopped(f"{self.url} {said}, {_MOST_BUSY} requests in a row")
        raise Unproven(f"the target {said}")

    def _look_for_entry(self, exchange: Exchange) -> None:
        """Raises Stopped where it is not the request that is refused but whoever sends it."""
        try:
            found = {self._runner.run(self._patiently(door)).status for door in self.doors}
        except Silence as silence:
            raise Stopped(f"{self.url} {silence}") from silence
        if found <= {401, 403}:
            raise Stopped(f"{self.url} refuses the key: HTTP {exchange.status}; give it with --api-key")


def _may_begin(request: Request) -> bool:
    return request.method == "POST" and not request.path.startswith(("/_mock/", UPLOADS))


class Silence(Exception):
    """There was no answer; says what happened instead. `long` where that took all the time there was."""

    def __init__(self, said: str, *, long: bool = False) -> None:
        super().__init__(said)
        self.long = long


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


def _why(error: Exception) -> str:
    said = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError):
        return f"cannot be reached: {said}"
    if isinstance(error, httpx.RemoteProtocolError) and "disconnected without" in said:
        return "closed the connection without an answer in HTTP"
    if isinstance(error, httpx.RemoteProtocolError):
        return f"does not answer in HTTP: {said}"
    if isinstance(error, httpx.ReadError | httpx.WriteError):
        return "reset the connection instead of answering"
    return f"cannot be spoken to: {said}"


def is_busy(exchange: Exchange) -> bool:
    """Whether it asks for another time; 503 does so only where it says when."""
    return exchange.status == 429 or (exchange.status == 503 and bool(exchange.header("retry-after")))


def _seconds(text: str, *, otherwise: float) -> float:
    """What a Retry-After in seconds asks for; a date, or none, is taken for `otherwise`."""
    return float(text) if text.isascii() and text.isdigit() else otherwise
