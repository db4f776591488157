"""The right server, and the two ways of making a wrong one of it: other contracts, or somebody in between."""

import copy
import json
import re
from asyncio import Event
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mock_server.app import Settings, create_app
from mock_server.catalog import Contract, Edition, load_catalog

from .mutant import Schema

_SUBMIT = re.compile(r"/api/(v[0-9]+)/wavespeed-ai/([^/]+)")
_RESULT = re.compile(r"/api/(v[0-9]+)/predictions/([^/]+)(/result)?")


@cache
def catalog() -> Mapping[str, Edition]:
    """The contracts as they are."""
    return load_catalog()


def real(data: Path, edition: str = "current", contracts: Mapping[str, Edition] | None = None) -> ASGIApp:
    """The server without a fault, unless its contracts have one."""
    return create_app(Settings(data=data, edition=edition, seed=1), contracts or catalog())


def name_of(contract: Contract) -> str:
    """A contract's short name, such as `v3/flux-schnell-lora`."""
    return f"{contract.version}/{contract.model.rpartition('/')[2]}"


def contracts_of(edition: str = "current") -> dict[str, Contract]:
    """The contracts of an edition by their short names."""
    return {name_of(each): each for each in catalog()[edition].contracts.values()}


def changed(
    models: tuple[str, ...], change: Callable[[Schema], None], edition: str = "current"
) -> Mapping[str, Edition]:
    """All contracts, with `change` done to a copy of the schemas of some models of one edition."""
    whole = catalog()[edition]
    contracts = dict(whole.contracts)
    for key, contract in whole.contracts.items():
        if name_of(contract) in models:
            schema = copy.deepcopy(dict(contract.schema))
            change(schema)
            contracts[key] = replace(contract, schema=schema)
    return {**catalog(), edition: replace(whole, contracts=contracts)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as somebody between a client and the server sees it. Header names are in lower case."""

    scope: Scope
    body: bytes

    @property
    def path(self) -> str:
        return str(self.scope["path"])

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def model(self) -> str:
        """Which model it submits to, such as `v3/flux-schnell-lora`; empty where it is no submit."""
        found = _SUBMIT.fullmatch(self.path)
        return f"{found[1]}/{found[2]}" if found and self.method == "POST" else ""

    @property
    def task(self) -> str:
        """The id of the task that it asks for; empty where it asks for none."""
        found = _RESULT.fullmatch(self.path)
        return found[2] if found and self.method == "GET" else ""

    @property
    def version(self) -> str:
        """Which version of the API it speaks; empty where none."""
        found = re.match(r"/api/(v[0-9]+)/", self.path)
        return found[1] if found else ""

    @property
    def json(self) -> Any:
        """The body as JSON, read leniently; None where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def header(self, name: bytes) -> bytes:
        return next((bytes(value) for key, value in self.scope["headers"] if key == name), b"")

    def with_header(self, name: bytes, value: bytes | None) -> "Request":
        """The same with a header set, or without it."""
        others = [(key, old) for key, old in self.scope["headers"] if key != name]
        headers = others if value is None else [*others, (name, value)]
        return replace(self, scope={**self.scope, "headers": headers})

    def with_body(self, value: Any) -> "Request":
        """The same with another body: bytes as they are, anything else as JSON."""
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        return replace(self.with_header(b"content-length", b"%d" % len(text)), body=text)

    def with_path(self, path: str) -> "Request":
        """The same to another path."""
        return replace(self, scope={**self.scope, "path": path, "raw_path": path.encode()})

    def with_method(self, method: str) -> "Request":
        """The same with another method."""
        return replace(self, scope={**self.scope, "method": method})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back. Its length is counted when it is sent."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def data(self) -> dict[str, Any]:
        """The `data` of a success; empty otherwise."""
        envelope = self.json
        found = envelope.get("data") if isinstance(envelope, dict) and self.status == 200 else None
        return found if isinstance(found, dict) else {}

    def with_json(self, value: Any) -> "Answer":
        return replace(self, body=json.dumps(value).encode())

    def with_data(self, **more: Any) -> "Answer":
        """The same with other fields in its `data`."""
        return self.with_json({**self.json, "data": {**self.data, **more}})

    def with_type(self, kind: bytes) -> "Answer":
        """The same under another media type; under none where it is empty."""
        others = tuple(each for each in self.headers if each[0] != b"content-type")
        return replace(self, headers=(*others, (b"content-type", kind)) if kind else others)


Ask = Callable[[Request], Awaitable[Answer]]
"""Asks the server behind."""

Between = Callable[[Request, Ask], Awaitable[Answer]]
"""Answers a request, with or without asking the server behind."""


def refusal(status: int, message: str = "no") -> Answer:
    """An error as the server would say it."""
    body = json.dumps({"code": status, "message": message}).encode()
    return Answer(status=status, headers=((b"content-type", b"application/json"),), body=body)


def between(app: ASGIApp, handler: Between) -> ASGIApp:
    """The application with somebody before it, who never touches the control plane."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_mock"):
            await app(scope, receive, send)
            return
        answer = await handler(Request(scope=scope, body=await _read(receive)), lambda each: _ask(app, each))
        headers = list(answer.headers)
        if scope["method"] != "HEAD":
            headers = [each for each in headers if each[0] != b"content-length"]
            headers.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    return served


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _ask(app: ASGIApp, request: Request) -> Answer:
    told: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]
    came: list[Message] = []

    async def receive() -> Message:
        if not told:
            await Event().wait()  # a client that stays
        return told.pop()

    async def send(message: Message) -> None:
        came.append(message)

    # What the server notes down in a scope is not to be there when the same request is asked again.
    extensions = dict(request.scope.get("extensions") or {})
    await app({**request.scope, "extensions": extensions}, receive, send)
    start, *rest = (each for each in came if each["type"].startswith("http.response."))
    headers = tuple((bytes(name).lower(), bytes(value)) for name, value in start["headers"])
    return Answer(
        status=start["status"], headers=headers, body=b"".join(each.get("body", b"") for each in rest)
    )
