"""The steps of Connexion's stack that are ours: requests are checked, answered, or told what is wrong."""

import difflib
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from connexion.exceptions import ProblemException
from connexion.lifecycle import ConnexionRequest, ConnexionResponse
from connexion.middleware.abstract import ROUTING_CONTEXT, RoutedAPI, RoutedMiddleware
from connexion.middleware.routing import RoutingMiddleware, RoutingOperation
from connexion.middleware.swagger_ui import SwaggerUIMiddleware
from connexion.operations.abstract import AbstractOperation
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from mock_server.auth import guard_control
from mock_server.body import ClientGone, check_media_type, read_body
from mock_server.errors import Refusal, StoreUnavailable, envelope
from mock_server.handlers import Answer, Call
from mock_server.outputs import PATH as OUTPUTS_PATH
from mock_server.validation import Parameter, Rules, ask, check_query

CONTROL_PREFIX = "/_mock"
"""Below which the control plane answers."""

_JSON = (b"content-type", b"application/json")
_CALL = "wavemock.call"
# Taking this many bytes apart takes long enough for others to notice; fewer are not worth a thread.
_LARGE_BODY = 1024 * 1024
_log = logging.getLogger("wavemock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What an operation of a document does, and what its requests have to keep to.

    `body` are the rules of its JSON body, None where it takes none.
    """

    handler: Callable[[Call], Awaitable[Answer]]
    body: Rules | None = None
    parameters: tuple[Parameter, ...] = ()
    query: Rules | None = None


class _CheckedOperation:
    """Reads and checks the request of one operation, and hands it on as a Call."""

    def __init__(self, operation: Operation, *, next_app: ASGIApp, max_body: int) -> None:
        self.operation = operation
        self.next_app = next_app
        self.max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = self.operation
        given, asked, query = None, None, {}
        if operation.body is not None:
            check_media_type(scope)
            body = await read_body(scope, receive, limit=self.max_body)
            if len(body) > _LARGE_BODY:
                given, asked = await run_in_threadpool(ask, operation.body, body)
            else:
                given, asked = ask(operation.body, body)
        if operation.query is not None:
            query = check_query(operation.parameters, operation.query, scope["query_string"])
        call = Call(scope=scope, receive=receive, given=given, asked=asked, query=query)
        scope[_CALL] = (operation.handler, call)
        await self.next_app(scope, receive, send)


class _CheckedAPI(RoutedAPI[_CheckedOperation]):
    """The operations of one OpenAPI document, checked."""

    def __init__(
        self, *args: Any, checked_operations: Mapping[str, Operation], max_body: int, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.checked_operations = checked_operations
        self.max_body = max_body
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> _CheckedOperation:
        """The checked form of one operation."""
        return _CheckedOperation(
            self.checked_operations[operation.operation_id], next_app=self.next_app, max_body=self.max_body
        )


class ValidationMiddleware(RoutedMiddleware[_CheckedAPI]):
    """Takes the place of Connexion's own request validation."""

    api_cls = _CheckedAPI


class _NoSuchMethod(Route):
    """Stands for all routes of a path where a request has none of their methods."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """A part of a match, so that the answer is 405 with all methods in `Allow`, or none."""
        match, child = super().matches(scope)
        return (match, child) if match is Match.PARTIAL else (Match.NONE, {})


_PLAIN_SEGMENT = "([A-Za-z0-9_-]+)"


class StrictRoutingMiddleware(RoutingMiddleware):
    """Connexion's routing, without redirects where a slash is too many, and with all methods in `Allow`.

    Requests of the ordinary kind find their operation in a table made of the same routes, which takes a
    fraction of the time that trying route after route does; the others go the long way.
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app)
        self._plain: dict[tuple[str, str], dict[str, str | None]] = {}
        self._templated: dict[tuple[str, str], dict[str, str | None]] = {}
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
        if found is None and (match := self._template.fullmatch(path)) is not None:
            index = match.lastindex or 0
            found = self._templated.get((scope["method"], self._templates[index - 1]))
            parameters = {"id": match[index]}
        if found is None:
            await super().__call__(scope, receive, send)
            return
        scope["path_params"] = parameters
        scope.setdefault("extensions", {})[ROUTING_CONTEXT] = found
        await self.app(scope, receive, send)

    def add_api(self, *args: Any, **kwargs: Any) -> None:
        """Adds the routes of one document."""
        super().add_api(*args, **kwargs)
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
        table = self._templated if "{id}" in path else self._plain
        for method in route.methods or ():
            # A base path that is tried earlier hides the same path of one that is tried later.
            context = {"api_base_path": base_path, "operation_id": endpoint.operation_id}
            table.setdefault((method, path), context)
        if "{id}" in path and path not in self._templates:
            self._templates.append(path)


async def _unreachable(scope: Scope, receive: Receive, send: Send) -> None:
    """The endpoint of a route that never matches as a whole."""


class DocsMiddleware(SwaggerUIMiddleware):
    """Connexion's Swagger UI, which costs the other paths nothing."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves `/docs` and `/openapi.json` below every base path."""
        if scope["type"] == "http" and ("/docs" in scope["path"] or "/openapi." in scope["path"]):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class GuardMiddleware:
    """Keeps strangers out of the control plane."""

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets everything through but requests of the control plane from elsewhere."""
        if scope["type"] == "http" and scope["path"].startswith(CONTROL_PREFIX):
            guard_control(scope, token=self.token)
        await self.app(scope, receive, send)


def endpoint(paths: Iterable[str], *, output_files: ASGIApp) -> ASGIApp:
    """The application behind Connexion: answers checked calls, and serves what no contract describes.

    That is `output_files`, and for the rest a 404 that names the nearest of `paths`.
    """
    known = list(paths)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if _CALL not in scope:
            path = scope["path"][:200]
            if path.startswith(OUTPUTS_PATH):
                await output_files(scope, receive, send)
                return
            close = difflib.get_close_matches(path, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else " The paths that exist are listed at /docs."
            raise Refusal(404, f"There is nothing at {path}.{hint}")
        handler, call = scope[_CALL]
        result: Answer = await handler(call)
        length = (b"content-length", str(len(result.body)).encode())
        await send(
            {"type": "http.response.start", "status": 200, "headers": [_JSON, length, *result.headers]}
        )
        await send({"type": "http.response.body", "body": result.body})

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


async def answer_error(_request: ConnexionRequest, error: Exception) -> ConnexionResponse:
    """Connexion's error handler for all exceptions: an envelope whatever happened."""
    refusal = as_refusal(error)
    return ConnexionResponse(  # type: ignore[no-untyped-call] # Connexion annotates its arguments only in part
        status_code=refusal.status,
        mimetype="application/json",
        content_type="application/json",
        body=envelope(refusal.status, refusal.message, refusal.data),
        headers=refusal.headers,
    )
