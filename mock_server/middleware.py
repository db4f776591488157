"""The steps of Connexion's stack that are ours: requests are checked, answered, or told what is wrong."""

import asyncio
import difflib
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from connexion.exceptions import ProblemException
from connexion.middleware.abstract import ROUTING_CONTEXT, RoutedAPI, RoutedMiddleware
from connexion.middleware.routing import RoutingMiddleware, RoutingOperation
from connexion.middleware.swagger_ui import SwaggerUIMiddleware
from connexion.operations.abstract import AbstractOperation
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from mock_server.answering import END_CONNECTION, end_connection, send_answer, send_in_a_manner
from mock_server.auth import check_key, guard_control
from mock_server.body import ClientGone, check_media_type, read_body
from mock_server.desk import Answer, Call, Desks, visit_of
from mock_server.errors import Refusal, StoreUnavailable, envelope
from mock_server.journal import digest
from mock_server.operation import Operation
from mock_server.validation import ask, check_query

CONTROL_PREFIX = "/_mock"
"""Below which the control plane answers."""

# Taking this many bytes apart takes long enough for others to notice; fewer are not worth a thread.
_LARGE_BODY = 1024 * 1024
_LONGEST_NOTED = 2000
_log = logging.getLogger("wavemock")


class _ServedOperation:
    """One operation: looks at the key, reads and checks the request, and answers it."""

    def __init__(
        self, operation: Operation, *, desks: Desks, secured: bool, keys: tuple[bytes, ...], max_body: int
    ) -> None:
        self.operation = operation
        self.desks = desks
        self.secured = secured
        self.keys = keys
        self.max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = self.operation
        visit = visit_of(scope)
        visit.place = operation.place
        if self.secured:
            check_key(scope, accepted=self.keys)
        # Here, so that a request with a good key is in the journal of a new session whatever its body is.
        desk = await self.desks.open(scope)
        body, given, asked, query = b"", None, None, {}
        if operation.body is not None:
            check_media_type(scope)
            body = await read_body(scope, receive, limit=self.max_body)
            visit.digest, visit.size = digest(body), len(body)
            try:
                if len(body) > _LARGE_BODY:
                    given, asked = await run_in_threadpool(ask, operation.body, body)
                else:
                    given, asked = ask(operation.body, body)
            except Refusal:
                visit.received = body[:_LONGEST_NOTED].decode(errors="replace")
                raise
        if operation.query is not None:
            query = check_query(operation.parameters, operation.query, scope["query_string"])
        call = Call(scope=scope, receive=receive, body=body, given=given, asked=asked, query=query)
        answer = await operation.handler(desk, call)
        if answer.manner is None:
            await send_answer(send, answer)
        else:
            await send_in_a_manner(desk, scope, receive, send, answer)


class _ServedAPI(RoutedAPI[_ServedOperation]):
    """The operations of one OpenAPI document."""

    def __init__(
        self,
        *args: Any,
        served: Mapping[str, Operation],
        desks: Desks,
        keys: tuple[bytes, ...],
        max_body: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.served = served
        self.desks = desks
        self.keys = keys
        self.max_body = max_body
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> _ServedOperation:
        """What serves an operation of the document; a key is needed where the document says so."""
        return _ServedOperation(
            self.served[operation.operation_id],
            desks=self.desks,
            secured=bool(operation.security),
            keys=self.keys,
            max_body=self.max_body,
        )


class OperationsMiddleware(RoutedMiddleware[_ServedAPI]):
    """Serves the requests that have an operation; takes the place of Connexion's security and validation.

    Those make objects and inspect functions for each request, which costs more than all the rest.
    """

    api_cls = _ServedAPI


class ErrorMiddleware:
    """The outermost step: whatever goes wrong further in is answered with an envelope.

    Takes the place of Connexion's two, which wrap every message of every answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on, and answers errors."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except ConnectionError:
            raise  # a fault, in a process without a connection to end
        except asyncio.CancelledError:
            if END_CONNECTION not in scope.get("extensions", {}):
                raise
            # The server ends while a request is held on purpose; that is no mistake to log.
            end_connection(scope, reset=False)
        except Exception as error:  # noqa: BLE001 - behind this there is nobody left to answer the client
            await _answer_error(scope, send, as_refusal(error))


async def _answer_error(scope: Scope, send: Send, refusal: Refusal) -> None:
    visit = visit_of(scope)
    if visit.status:
        # There can be no second answer. The end of the connection shows that the first is not whole.
        _log.warning("an answer was cut off: %s", refusal.message)
        visit.told = ""
        end_connection(scope, reset=False)
        return
    visit.refusal = refusal.message
    headers = tuple((name.lower().encode(), value.encode()) for name, value in refusal.headers.items())
    body = envelope(refusal.status, refusal.message, refusal.data)
    await send_answer(send, Answer(body=body, headers=headers, status=refusal.status))


class _NoSuchMethod(Route):
    """Stands for all routes of a path where a request has none of their methods."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """A part of a match, so that the answer is 405 with all methods in `Allow`, or none."""
        match, child = super().matches(scope)
        return (match, child) if match is Match.PARTIAL else (Match.NONE, {})


_PLAIN_SEGMENT = "([A-Za-z0-9_-]+)"


class FrontMiddleware(RoutingMiddleware):
    """Connexion's routing and Swagger UI, and the guard before the control plane.

    Requests of the ordinary kind find their operation in a table made of Connexion's routes, which takes a
    fraction of the time that trying route after route does; the others go the long way. A slash too many is
    no redirect, and `Allow` has all methods of a path.
    """

    def __init__(self, app: ASGIApp, *, control_token: str | None, public: Callable[[str], bool]) -> None:
        super().__init__(app)
        self._control_token = control_token
        self._public = public
        self._docs = SwaggerUIMiddleware(super().__call__)
        self._plain: dict[tuple[str, str], dict[str, str | None]] = {}
        self._templated: dict[tuple[str, str], dict[str, str | None]] = {}
        self._methods: dict[str, set[str]] = {}
        self._templates: list[str] = []
        self._template = re.compile("(?!)")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Finds the operation of a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        found = self._plain.get((scope["method"], path))
        parameters = {}
        if found is None and (methods := self._methods.get(path)) is not None:
            # A path as it stands comes before one with an {id} that would match it too.
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
        if found is None and (match := self._template.fullmatch(path)) is not None:
            index = match.lastindex or 0
            found = self._templated.get((scope["method"], self._templates[index - 1]))
            parameters = {"id": match[index]}
        if found is None:
            await self._the_long_way(scope, receive, send)
            return
        scope["path_params"] = parameters
        scope.setdefault("extensions", {})[ROUTING_CONTEXT] = found
        await self.app(scope, receive, send)

    async def _the_long_way(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        # With a token, the page itself is open to all: it holds nothing, and asks for the token.
        if path.startswith(CONTROL_PREFIX) and not (self._control_token and self._public(path)):
            guard_control(scope, token=self._control_token)
        if "/docs" in path or "/openapi." in path:
            await self._docs(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def add_api(self, *args: Any, **kwargs: Any) -> None:
        """Adds the routes and the documentation of one document."""
        super().add_api(*args, **kwargs)
        self._docs.add_api(*args, **kwargs)
        self.router.redirect_slashes = False
        mount = self.router.routes[-1]
        assert isinstance(mount, Mount)  # noqa: S101 - what Connexion has just added
        assert isinstance(mount.app, Router)  # noqa: S101 - likewise
        mount.app.redirect_slashes = False
        methods: dict[str, set[str]] = {}
        for route in mount.app.routes:
            if isinstance(route, Route):
                methods.setdefault(route.path, set()).update(route.methods or ())
                self._note(mount.path, route)
        self._template = re.compile(
            "|".join(re.escape(each).replace(r"\{id\}", _PLAIN_SEGMENT) for each in self._templates) or "(?!)"
        )
        for path, names in methods.items():
            if len(names - {"HEAD"}) > 1:
                mount.app.routes.append(_NoSuchMethod(path, _unreachable, methods=sorted(names)))
        mount.app.routes.sort(key=lambda route: not isinstance(route, _NoSuchMethod))

    def _note(self, base_path: str, route: Route) -> None:
        path = base_path + route.path
        endpoint = route.endpoint
        if path.count("{") > path.count("{id}") or not isinstance(endpoint, RoutingOperation):
            return
        if path.startswith(CONTROL_PREFIX):
            return  # which is guarded, and in no hurry
        table = self._templated if "{id}" in path else self._plain
        for method in route.methods or ():
            # A base path that is tried earlier hides the same path of one that is tried later.
            context = {"api_base_path": base_path, "operation_id": endpoint.operation_id}
            table.setdefault((method, path), context)
            if table is self._plain:
                self._methods.setdefault(path, set()).add(method)
        if "{id}" in path and path not in self._templates:
            self._templates.append(path)


async def _unreachable(scope: Scope, receive: Receive, send: Send) -> None:
    """The endpoint of a route that never matches as a whole."""


def endpoint(paths: Iterable[str], *, files: Mapping[str, ASGIApp]) -> ASGIApp:
    """The application behind Connexion: serves what no document describes.

    That is `files`, by what their paths begin with, and for the rest a 404 that names the nearest of `paths`.
    """
    known = list(paths)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"][:200]
        for prefix, application in files.items():
            if path.startswith(prefix):
                await application(scope, receive, send)
                return
        close = difflib.get_close_matches(path, known, n=1)
        hint = f" Did you mean {close[0]}?" if close else " The paths that exist are listed at /docs."
        raise Refusal(404, f"There is nothing at {path}.{hint}")

    return answer


def as_refusal(error: Exception) -> Refusal:
    """What an exception of ours, of Starlette or of Connexion means to the client."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ClientGone):
        return Refusal(400, "The connection was closed before the request had arrived.")
    if isinstance(error, StoreUnavailable):
        return Refusal(503, f"The store is unavailable: {error}.", headers={"Retry-After": "1"})
    if isinstance(error, HTTPException):
        allowed = dict(error.headers or {})
        hint = f" Allowed: {allowed['Allow']}." if "Allow" in allowed else ""
        return Refusal(error.status_code, f"{error.detail}.{hint}", headers=allowed)
    if isinstance(error, ProblemException):
        return Refusal(error.status, f"{error.detail or error.title}.")
    _log.error("a request ended in an error of the server", exc_info=error)
    return Refusal(500, "The server made a mistake; its log says which.")
