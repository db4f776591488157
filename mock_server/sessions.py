"""The outermost step: finds the session that a request belongs to, and keeps the journal."""

import logging
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mock_server.auth import bearer_key
from mock_server.body import header
from mock_server.desk import SESSION_NAME, SESSION_PREFIX, Desk, Desks, Visit, visit_of
from mock_server.errors import StoreUnavailable, envelope
from mock_server.journal import Entry, fingerprint, without_keys, write

KEY = b"ms_"
"""What an API key begins with that names a session: `ms_NAME`, or `ms_NAME.` and any more."""

_LONGEST = 300
_LONGEST_REFUSAL = 2000
_QUIET = ("/docs", "/openapi.", "/favicon.ico")
_KEY_NAMES = re.compile(r"(?i)(?:^|&)(?:(?:api[_-]?)?(?:key|token)|authorization)=")
# One client does not encode it, and what is in it is another server's business.
_WEBHOOK = re.compile(r"(?i)(?:^|&)webhook=https?://.*")
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
                await _refuse(
                    send,
                    "A session's name begins with a letter or digit; up to 63 more and . _ - may follow.",
                )
                return
            visit.session, path = name, slash + rest
            scope["path"] = path
            scope["raw_path"] = path.encode()
        elif not path.startswith(self._control):
            # There, a bearer key is the token that opens it.
            visit.session = _session_of(bearer_key(scope))
        if path.startswith(self._control) or path.startswith(_QUIET) or not path:
            await self.app(scope, receive, send)
            return
        await self._journalled(visit, scope, receive, send)

    async def _journalled(self, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        status, retry_after = 0, b""

        async def noting(message: Message) -> None:
            nonlocal status, retry_after
            if message["type"] == "http.response.start":
                status = message["status"]
                if status in {429, 503}:
                    retry_after = dict(message["headers"]).get(b"retry-after", b"")
            await send(message)

        desk = None
        at = 0
        try:
            desk = self._desks.named(visit.session)
            if desk.journal:
                at = await desk.run(desk.clock.now)
        except StoreUnavailable:
            desk = None  # the application finds out for itself, and says so
        try:
            await self.app(scope, receive, noting)
        finally:
            if desk is not None and desk.journal:
                await _write(desk, visit, scope, at=at, status=status, retry_after=retry_after)


def _session_of(key: bytes) -> str:
    if not key.startswith(KEY):
        return ""
    name = key.removeprefix(KEY).partition(b".")[0].decode("latin-1")
    return name if SESSION_NAME.fullmatch(name) else ""


async def _write(desk: Desk, visit: Visit, scope: Scope, *, at: int, status: int, retry_after: bytes) -> None:
    query = scope["query_string"].decode("latin-1")
    entry = Entry(
        at=at,
        ended=await desk.run(desk.clock.now) if visit.held or visit.fault else at,
        kind=visit.place,
        method=scope["method"],
        path=scope["path"][:_LONGEST],
        query=without_keys(query)[:_LONGEST] if query else "",
        key=fingerprint(bearer_key(scope)),
        agent=header(scope, b"user-agent").decode("latin-1")[:100],
        status=status,
        prediction=visit.prediction,
        told=visit.told if status == 200 else "",
        # What was refused unread is told apart by its length alone.
        digest=visit.digest or header(scope, b"content-length").decode("latin-1")[:20],
        size=visit.size,
        scenario=visit.scenario[:_LONGEST],
        fault=visit.fault,
        committed=visit.committed,
        retry_after=int(retry_after) * 1000 if retry_after.isdigit() else None,
        key_in_query=bool(query and _KEY_NAMES.search(_WEBHOOK.sub("", query))),
        refusal=visit.refusal[:_LONGEST_REFUSAL],
        received=visit.received,
    )
    try:
        await desk.run(write, desk.store, entry, keep=desk.journal)
    except StoreUnavailable as error:
        _log.warning("a request could not be noted: %s", error)


async def _refuse(send: Send, message: str) -> None:
    body = envelope(400, message)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
