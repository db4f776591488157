"""The outermost step: finds the session that a request belongs to, and keeps the journal."""

import logging
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mock_server.answering import send_answer
from mock_server.auth import bearer_key
from mock_server.body import header
from mock_server.clock import SystemClock
from mock_server.desk import SESSION_NAME, SESSION_PREFIX, Answer, Desk, Desks, Visit, visit_of
from mock_server.errors import StoreUnavailable, envelope
from mock_server.journal import Entry, fingerprint, without_keys, write

KEY = b"ms_"
"""What an API key begins with that names a session: `ms_NAME`, or `ms_NAME.` and any more."""

_LONGEST = 300
_LONGEST_REFUSAL = 2000
_A_NAME = "A session's name begins with a letter or digit; up to 63 more and . _ - may follow."
_QUIET = ("/docs", "/openapi.", "/favicon.ico")
_KEY_NAMES = re.compile(r"(?i)(?:^|&)(?:(?:api[_-]?)?(?:key|token)|authorization)=")
# One client does not encode it, and what is in it is another server's business.
_WEBHOOK = re.compile(r"(?i)(?:^|&)webhook=https?://.*")
_MACHINE = SystemClock()
_log = logging.getLogger("wavemock")


class SessionMiddleware:
    """Finds the session of a request, takes its prefix off the path, and writes what became of it down.

    A request belongs to the session in its path, or else to that in its API key.
    """

    def __init__(self, app: ASGIApp, *, desks: Desks, control_prefix: str) -> None:
        self.app = app
        self._desks = desks
        self._control = control_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on, with the session known, and notes how it went."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        visit = visit_of(scope)
        if path.startswith(SESSION_PREFIX):
            name, slash, rest = path.removeprefix(SESSION_PREFIX).partition("/")
            if not SESSION_NAME.fullmatch(name):
                await _refuse(send, _A_NAME)
                return
            visit.session, path = name, slash + rest
            scope["path"] = path
            scope["raw_path"] = path.encode()
        elif not path.startswith(self._control):
            # There, a bearer key is the token that opens it.
            key = bearer_key(scope)
            name = key.removeprefix(KEY).partition(b".")[0].decode("latin-1") if key.startswith(KEY) else ""
            if key.startswith(KEY) and not SESSION_NAME.fullmatch(name):
                await _refuse(send, f"The key ms_NAME names a session, and this is no name. {_A_NAME}")
                return
            visit.session = name
        if not path:
            await _refuse(send, f"This is session {name}: its page is {SESSION_PREFIX}{name}/_mock/.")
            return
        if path.startswith(_QUIET):
            await self.app(scope, receive, send)
            return
        try:
            visit.desk = self._desks.at_hand(visit.session) or await self._desks.find(visit.session)
        except StoreUnavailable as error:
            visit.trouble = error  # said by whatever needs the session
        if path.startswith(self._control):
            await self.app(scope, receive, send)
        else:
            await self._journalled(visit, scope, receive, send)

    async def _journalled(self, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        retry_after = b""
        ended: int | None = None

        async def noting(message: Message) -> None:
            nonlocal retry_after, ended
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                if visit.status in {429, 503}:
                    retry_after = dict(message["headers"]).get(b"retry-after", b"")
            elif not message.get("more_body"):
                # Before it is sent: its client may be back before a database has told the time.
                ended = await _time(visit.desk)
            await send(message)

        at = await _time(visit.desk)
        try:
            await self.app(scope, receive, noting)
        finally:
            # An operation may have begun the session, with the machine's time.
            desk = visit.desk
            if desk is not None and desk.journal and at is not None:
                await _write(desk, visit, scope, at=at, ended=ended, retry_after=retry_after)


async def _time(desk: Desk | None) -> int | None:
    """The time in a session, which is the machine's where it has yet to begin; None where nobody can tell."""
    if desk is None:
        return _MACHINE.now()
    if not desk.store.blocking:
        return desk.clock.now()
    try:
        now: int = await desk.run(desk.clock.now)
    except StoreUnavailable:
        return None
    return now


async def _write(
    desk: Desk, visit: Visit, scope: Scope, *, at: int, ended: int | None, retry_after: bytes
) -> None:
    try:
        if ended is None:
            ended = await desk.run(desk.clock.now)
        entry = _entry(visit, scope, at=at, ended=ended, retry_after=retry_after)
        await desk.run(write, desk.store, entry, keep=desk.journal)
    except StoreUnavailable as error:
        _log.warning("a request could not be noted: %s", error)


def _entry(visit: Visit, scope: Scope, *, at: int, ended: int, retry_after: bytes) -> Entry:
    query = scope["query_string"].decode("latin-1")
    return Entry(
        at=at,
        ended=ended,
        kind=visit.place,
        method=scope["method"],
        path=scope["path"][:_LONGEST],
        query=without_keys(query)[:_LONGEST] if query else "",
        key=fingerprint(bearer_key(scope)),
        agent=header(scope, b"user-agent").decode("latin-1")[:100],
        status=visit.status,
        prediction=visit.prediction,
        told=visit.told if visit.status == 200 else "",
        # What was refused unread is told apart by its length alone.
        digest=visit.digest or header(scope, b"content-length").decode("latin-1")[:20],
        size=visit.size,
        scenario=visit.scenario[:_LONGEST],
        fault=visit.fault,
        committed=visit.committed,
        charged=visit.charged,
        retry_after=int(retry_after) * 1000 if retry_after.isdigit() else None,
        key_in_query=bool(query and _KEY_NAMES.search(_WEBHOOK.sub("", query))),
        refusal=visit.refusal[:_LONGEST_REFUSAL],
        received=visit.received,
    )


async def _refuse(send: Send, message: str) -> None:
    await send_answer(send, Answer(body=envelope(400, message), status=400))
