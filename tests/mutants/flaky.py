"""Servers that are right most of the time."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from .client import Client
from .mutant import Mutant, either, message, rule
from .server import Answer, Ask, Between, Request, refusal
from .wrapped import Where, results, submits, tasks, wrapped

_BROKEN = either(message("*HTTP 50*", "*500*", "*502*", "*server error*", "*Server error*"), rule("error*"))
_SILENT = message("*no complete answer*")


def mutants() -> Iterator[Mutant]:
    places: dict[str, tuple[Where, int, int]] = {
        "every 7th request": (tasks, 7, 500),
        "every 10th submit": (submits, 10, 500),
        "every 5th result": (results, 5, 502),
        "every 40th request": (tasks, 40, 500),
        "every 2nd result": (results, 2, 504),
    }
    for name, (where, every, status) in places.items():
        yield wrapped(
            f"{name} is answered with {status}",
            "flaky",
            _BROKEN,
            _nth(where, every, _failing(status)),
            _often,
        )
    empty = either(rule("json", "media type", "answer*", "error*"), message("*JSON*"))
    yield wrapped(
        "every 6th result is empty",
        "flaky",
        empty,
        _nth(results, 6, lambda answer: replace(answer, body=b"")),
        _often,
    )
    yield wrapped(
        "every 9th answer is cut off",
        "flaky",
        empty,
        _nth(tasks, 9, lambda answer: replace(answer, body=answer.body[:20])),
        _often,
    )
    old = either(rule("order", "life", "final", "stays", "id", "lost"), message("*data.status*", "*data.id*"))
    yield wrapped("every 4th result is that of the poll before", "flaky", old, _stale, _often)
    yield wrapped("four images are never answered", "silent", _SILENT, _hanging, _asked_for_four)


def _failing(status: int) -> Callable[[Answer], Answer]:
    return lambda _: refusal(status)


def _nth(where: Where, every: int, change: Callable[[Answer], Answer]) -> Callable[[], Between]:
    def fresh() -> Between:
        count = [0]

        async def handler(request: Request, ask: Ask) -> Answer:
            answer = await ask(request)
            if where(request):
                count[0] += 1
                if count[0] % every == 0:
                    return change(answer)
            return answer

        return handler

    return fresh


def _stale() -> Between:
    polls: list[Answer] = []

    async def handler(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if not request.task or not answer.data:
            return answer
        polls.append(answer)
        return polls[-2] if len(polls) % 4 == 0 else answer

    return handler


def _hanging() -> Between:
    async def handler(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        body = request.json
        if isinstance(body, dict) and body.get("num_images") == 4 and request.model == "v3/flux-schnell-lora":
            await asyncio.Event().wait()
        return answer

    return handler


def _often(client: Client) -> list[Any]:
    names = [client.submit().get("id") for _ in range(13)]
    answers = [client.ask("GET", f"/api/v3/predictions/{name}/result") for name in names]
    for _ in range(3):
        client.clock(advance=0.4)
        answers += [client.ask("GET", f"/api/v3/predictions/{name}/result") for name in names[:5]]
    return [*names, *((each.status_code, len(each.content), each.text[:80]) for each in answers)]


def _asked_for_four(client: Client) -> str:
    return client.within(0.5, num_images=4)
