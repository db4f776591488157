"""Mutants made by somebody between the client and the server."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from .mutant import About, Mutant, Shows
from .server import Answer, Ask, Between, Request, between, real, refusal

Where = Callable[[Request], bool]


def wrapped(
    name: str,
    family: str,
    about: About,
    handler: Callable[[], Between],
    shows: Shows,
    *,
    edition: str = "current",
    over_http: bool = False,
) -> Mutant:
    """A server with a handler before it; `handler` makes one, with a memory of its own, for each server."""

    def make(data: Path) -> ASGIApp:
        return between(real(data, edition), handler())

    return Mutant(
        name=name, family=family, about=about, make=make, shows=shows, edition=edition, over_http=over_http
    )


def submits(request: Request) -> bool:
    """Whether it submits to a model."""
    return bool(request.model)


def results(request: Request) -> bool:
    """Whether it asks for a task."""
    return bool(request.task)


def shortly(request: Request) -> bool:
    """Whether it asks for a task at the short address."""
    return results(request) and not request.path.endswith("/result")


def tasks(request: Request) -> bool:
    """Whether it is answered with a task."""
    return submits(request) or results(request)


def on(version: str, where: Where) -> Where:
    """The same on one version of the API alone."""
    return lambda request: request.version == version and where(request)


def refused(where: Where, status: int, message: str = "no") -> Callable[[], Between]:
    """Refuses requests that the server never sees."""

    async def handler(request: Request, ask: Ask) -> Answer:
        return refusal(status, message) if where(request) else await ask(request)

    return lambda: handler


def edited(where: Where, change: Callable[[dict[str, Any]], Any]) -> Callable[[], Between]:
    """Changes the envelope of successes, in place."""

    async def handler(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if not where(request) or not answer.data:
            return answer
        envelope = copy.deepcopy(answer.json)
        change(envelope)
        return answer.with_json(envelope)

    return lambda: handler


def answered(
    where: Callable[[Request, Answer], bool], change: Callable[[Answer], Answer]
) -> Callable[[], Between]:
    """Changes whole answers."""

    async def handler(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        return change(answer) if where(request, answer) else answer

    return lambda: handler


def asked(where: Where, change: Callable[[Request], Request]) -> Callable[[], Between]:
    """Changes requests before the server sees them."""

    async def handler(request: Request, ask: Ask) -> Answer:
        return await ask(change(request) if where(request) else request)

    return lambda: handler
