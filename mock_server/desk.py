"""What operations work with: the parts of one session, a request that has been understood, and an answer."""

import asyncio
import json
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any

from starlette.types import Receive, Scope

from mock_server.backend import Backend
from mock_server.body import header
from mock_server.clock import ManualClock
from mock_server.errors import Refusal, StoreUnavailable
from mock_server.outputs import Outputs
from mock_server.prediction import Asked, Prediction
from mock_server.store import MOST_SESSIONS, Store
from mock_server.uploads import Uploads

Run = Callable[..., Awaitable[Any]]
"""Calls a function that may wait for the store: at once, or in a thread."""

SESSION_PREFIX = "/_session/"
"""In front of a path, with a name behind it: the request belongs to the session of that name."""
SESSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

_VISIT = "wavemock.visit"
_POLL_SECONDS = 0.05
_LAST_MOMENT = 253_402_300_799_999
_HOST = re.compile(
    rb"(?:(?=[^:]{1,255}(?::|$))[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\])"
    rb"(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that has passed validation: `given` is its body with defaults in place, `body` its bytes."""

    scope: Scope
    receive: Receive
    body: bytes = b""
    given: Any = None
    asked: Asked | None = None
    query: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How an answer is sent when not as usual: what happens to it, and over how many milliseconds."""

    kind: str
    span: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back: a body, its type, and headers beyond that and its length."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    status: int = 200
    media_type: bytes = b"application/json"
    manner: Manner | None = None


def success(data: Any) -> Answer:
    """The envelope around what an operation beside the pages tells."""
    # Not msgspec: a received body may hold integers beyond 64 bits.
    return Answer(body=json.dumps({"code": 200, "message": "success", "data": data}).encode())


@dataclass(slots=True, kw_only=True)
class Visit:
    """What is found out about a request while it is served, for its entry in the journal.

    `desk` is that of its session, where there is one, and `trouble` why that could not be found out. `status`
    is what was sent so far, 0 before anything was.
    """

    session: str = ""
    desk: "Desk | None" = None
    trouble: StoreUnavailable | None = None
    status: int = 0
    place: str = "other"
    prediction: str = ""
    told: str = ""
    digest: str = ""
    size: int = 0
    scenario: str = ""
    fault: str = ""
    committed: bool = False
    charged: float = 0
    refusal: str = ""
    received: str = ""


def visit_of(scope: Scope) -> Visit:
    """The visit that a request is; one of its own where nobody keeps a journal."""
    visit: Visit | None = scope.get(_VISIT)
    if visit is None:
        scope[_VISIT] = visit = Visit()
    return visit


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the operations of one session work with.

    `root_edition` is the edition at the root. `seed` makes ids, and all that follows from them, the same on
    every run. `public_url` stands in for the Host that was asked. `sync_seconds` is how long a synchronous
    submit is held. `magic` says whether inputs can choose a scenario. `journal` is how many requests are
    remembered, and `retention` how long outputs and uploads are, in milliseconds. `run` calls what may wait
    for the store, and `changed` is called when a webhook may have become due.
    """

    session: str = ""
    store: Store
    clock: ManualClock
    backend: Backend
    outputs: Outputs
    uploads: Uploads
    run: Run
    root_edition: str
    scenario: str
    seed: int | None
    public_url: str | None
    sync_seconds: float
    data_uri: bool
    magic: bool = True
    journal: int = 10_000
    retention: int = 7 * 86_400_000
    changed: Callable[[], None] = lambda: None


class Desks:
    """The desk of each session. At most `most` are at hand, beside `root`, that of whoever names no session.

    A desk holds nothing of its own, so it can be made again at any time, and twice at once. `make` is given
    the name of a session, and whether that is to begin.
    """

    def __init__(self, make: Callable[..., Desk], *, most: int = MOST_SESSIONS) -> None:
        self.root = make("")
        self._make = make
        self._most = most
        self._desks: OrderedDict[str, Desk] = OrderedDict()

    def at_hand(self, session: str) -> Desk | None:
        """The desk of a session, if it has been made and is still here."""
        if not session:
            return self.root
        found = self._desks.get(session)
        if found is not None:
            try:
                self._desks.move_to_end(session)
            except KeyError:
                return found  # another thread has just let it go
        return found

    def named(self, session: str) -> Desk:
        """The desk of a session, which begins now if there is none. May wait for the store."""
        found = self.at_hand(session)
        if found is None:
            self._desks[session] = found = self._make(session)
            if len(self._desks) > self._most:
                self._desks.popitem(last=False)
        return found

    def looking_at(self, session: str) -> Desk:
        """The desk of a session that was there a moment ago. If it is no more, it does not begin again."""
        return self.at_hand(session) or self._make(session, begin=False)

    async def find(self, session: str) -> Desk | None:
        """The desk of a session, if there is such a session."""
        found = self.at_hand(session)
        if found is None:
            found = await self.root.run(self._known, session)
        return found

    def _known(self, session: str) -> Desk | None:
        return self.named(session) if session in self.root.store.sessions() else None

    async def open(self, scope: Scope) -> Desk:
        """The desk for a request, whose session begins now if there is none."""
        visit = visit_of(scope)
        if visit.desk is None:
            visit.desk = await self.root.run(self.named, visit.session)
        return visit.desk

    def of(self, scope: Scope) -> Desk:
        """The desk for a request to something that is kept. Raises Refusal 404 where there is no session."""
        visit = visit_of(scope)
        if visit.trouble is not None:
            raise visit.trouble
        if visit.desk is None:
            raise Refusal(404, f"There is no session {visit.session}.")
        return visit.desk

    def forget(self, session: str) -> None:
        """Lets go of a session that is no more."""
        self._desks.pop(session, None)


async def wait(desk: Desk, span: int, receive: Receive) -> bool:
    """Waits for some milliseconds on the server's clock; whether they passed before the client left."""
    began: int = await desk.run(desk.clock.now)
    return await wait_until(desk, began + span, receive, since=began)


async def wait_until(desk: Desk, moment: int, receive: Receive, *, since: int | None = None) -> bool:
    """Waits for a moment on the server's clock; whether it came before the client left.

    `since` is when that began, now if it is not given. A reset takes time back to before that, and the moment
    out of sight: then nothing is waited for any more.
    """
    gone = asyncio.ensure_future(disconnected(receive))
    try:
        while not gone.done():
            now, speed = await desk.run(_pace, desk.clock)
            since = now if since is None else since
            if now >= moment or now < since:
                break
            pause = min(_POLL_SECONDS, (moment - now) / 1000 / speed) if speed else _POLL_SECONDS
            await asyncio.wait({gone}, timeout=pause)
        return not gone.done()
    finally:
        gone.cancel()


def _pace(clock: ManualClock) -> tuple[int, float]:
    return clock.now(), clock.speed()


async def disconnected(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def timestamp(at: int) -> str:
    """Milliseconds since the Unix epoch as the pages write a time: UTC, three digits of a second, Z.

    What lies beyond the year 9999, where such a text ends, is written as its last moment.
    """
    seconds, milliseconds = divmod(min(at, _LAST_MOMENT), 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=64)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def base_url(desk: Desk, scope: Scope) -> str:
    """The server's own address as the client knows it, with the session in it."""
    session = f"{SESSION_PREFIX}{desk.session}" if desk.session else ""
    if desk.public_url is not None:
        return desk.public_url + session
    scheme = "https" if scope["scheme"] == "https" else "http"
    host = header(scope, b"host")
    if _is_host(host):
        return f"{scheme}://{host.decode()}{session}"
    name, port = scope.get("server") or ("127.0.0.1", None)
    return f"{scheme}://{name}" + (f":{port}" if port else "") + session


@lru_cache(maxsize=64)
def _is_host(host: bytes) -> bool:
    match = _HOST.fullmatch(host)
    if match is None or int(match["port"] or 0) > 65535:
        return False
    if match["v6"] is None:
        return True
    try:
        IPv6Address(match["v6"].decode())
    except ValueError:
        return False
    return True


def result_url(desk: Desk, prediction: Prediction, base: str) -> str:
    """Where to poll a prediction: on the version and the edition that it was submitted to."""
    edition = "" if prediction.edition == desk.root_edition else f"/editions/{prediction.edition}"
    return f"{base}{edition}/api/{prediction.version}/predictions/{prediction.id}/result"
