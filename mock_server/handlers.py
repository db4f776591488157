"""The two operations of every page: submit a prediction, see its result."""

import asyncio
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope

from mock_server.backend import SimulatedBackend, remarks
from mock_server.body import header
from mock_server.catalog import Contract
from mock_server.clock import ManualClock
from mock_server.errors import Refusal
from mock_server.outputs import Outputs, url_of
from mock_server.prediction import Asked, Event, Prediction, Status
from mock_server.scenarios import SCENARIOS, Scenario
from mock_server.store import Store

Run = Callable[..., Awaitable[Any]]
"""Calls a function that may wait for the store: at once, or in a thread."""

_HOST = re.compile(
    rb"(?:(?=[^:]{1,255}(?::|$))[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\])"
    rb"(?::(?P<port>[0-9]{1,5}))?"
)
_ENCODER = msgspec.json.Encoder()
_POLL_SECONDS = 0.05
_HEADER_LENGTH = 1000
_LAST_MOMENT = 253_402_300_799_999


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that has passed validation: `given` is its body with defaults in place."""

    scope: Scope
    receive: Receive
    given: Any = None
    asked: Asked | None = None
    query: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back: a JSON body, and headers beyond its type and length."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the operations work with.

    `root_edition` is the edition at the root. `seed` makes ids, and all that follows from them, the same on
    every run. `public_url` stands in for the Host that was asked. `sync_seconds` is how long a synchronous
    submit is held. `run` calls what may wait for the store.
    """

    store: Store
    clock: ManualClock
    backend: SimulatedBackend
    outputs: Outputs
    run: Run
    root_edition: str
    scenario: str
    seed: int | None
    public_url: str | None
    sync_seconds: float
    data_uri: bool


async def submit(desk: Desk, contract: Contract, call: Call) -> Answer:
    """Accepts a prediction, and answers it as it begins, or as it ended where the submit is synchronous."""
    assert call.asked is not None  # noqa: S101 - validation has been passed
    scenario = _scenario(desk, call.scope)
    asked = call.asked
    if found := remarks(call.given):
        asked = replace(asked, warnings=asked.warnings + found)
    prediction: Prediction = await desk.run(_accept, desk, contract, scenario, call.given, asked)
    base = base_url(desk, call.scope)
    headers = _unknown_fields(asked)
    if call.given.get("enable_sync_mode") is True:
        ended, events = await _hold(desk, prediction, call.receive)
        return Answer(body=await _envelope(desk, ended, events, base, synchronous=True), headers=headers)
    return Answer(body=await _envelope(desk, prediction, prediction.events[:1], base), headers=headers)


def _scenario(desk: Desk, scope: Scope) -> Scenario:
    name = header(scope, b"x-mock-scenario").decode("latin-1").strip() or desk.scenario
    if name not in SCENARIOS:
        known = ", ".join(SCENARIOS)
        raise Refusal(400, f"X-Mock-Scenario: there is no scenario {name[:80]!r}; there are: {known}.")
    return SCENARIOS[name]


def _accept(
    desk: Desk, contract: Contract, scenario: Scenario, given: Mapping[str, Any], asked: Asked
) -> Prediction:
    now = desk.clock.now()
    prediction = desk.backend.submit(_new_id(desk), at=now, contract=contract, scenario=scenario, given=given)
    desk.store.add(prediction, asked, now=now)
    return prediction


def _new_id(desk: Desk) -> str:
    if desk.seed is None:
        return secrets.token_hex(16)
    return hashlib.blake2b(f"{desk.seed}/{desk.store.next_number()}".encode(), digest_size=16).hexdigest()


def _unknown_fields(asked: Asked) -> tuple[tuple[bytes, bytes], ...]:
    unknown = [
        text.removeprefix("unknown field ") for text in asked.warnings if text.startswith("unknown field")
    ]
    if not unknown:
        return ()
    # Names come from the client and may hold anything; a header may not.
    listed = quote(unknown[0][:200], safe="/~")
    for pointer in unknown[1:]:
        more = f"{listed}, {quote(pointer[:200], safe='/~')}"
        if len(more) > _HEADER_LENGTH:
            break
        listed = more
    return ((b"x-mock-unknown-fields", listed.encode()),)


async def _hold(desk: Desk, prediction: Prediction, receive: Receive) -> tuple[Prediction, tuple[Event, ...]]:
    """Waits until the prediction has ended, the time for it is up, or nobody waits any more."""
    until = prediction.created_at + round(desk.sync_seconds * 1000)
    gone = asyncio.ensure_future(receive())
    try:
        while True:
            now, current = await desk.run(_look, desk, prediction.id)
            events = (current or prediction).seen_at(now)
            if events[-1].status.final or now >= until or gone.done():
                return current or prediction, events
            await asyncio.wait({gone}, timeout=_POLL_SECONDS)
    finally:
        gone.cancel()


async def result(desk: Desk, call: Call) -> Answer:
    """Answers a prediction as it stands now."""
    prediction_id = call.scope["path_params"]["id"]
    now, prediction = await desk.run(_look, desk, prediction_id)
    if prediction is None:
        raise Refusal(
            404, f"There is no prediction {prediction_id[:80]!r}; it may have been one of another run."
        )
    base = base_url(desk, call.scope)
    return Answer(body=await _envelope(desk, prediction, prediction.seen_at(now), base))


def _look(desk: Desk, prediction_id: str) -> tuple[int, Prediction | None]:
    return desk.clock.now(), desk.store.get(prediction_id)


async def _envelope(
    desk: Desk, prediction: Prediction, events: tuple[Event, ...], base: str, *, synchronous: bool = False
) -> bytes:
    outputs = [url_of(base, prediction.id, name) for name in events[-1].outputs]
    if outputs and prediction.inline:
        outputs = await run_in_threadpool(desk.outputs.inline, prediction, data_uri=desk.data_uri)
    data = task_object(prediction, events, result_url(desk, prediction, base), outputs)
    if synchronous and not events[-1].status.final:
        data["status"] = Status.PROCESSING
        data["code"] = 5004
        data["error"] = (
            f"Sync mode timed out after {desk.sync_seconds:g} seconds; the task goes on and can be polled."
        )
    return _ENCODER.encode({"code": 200, "message": "success", "data": data})


def task_object(
    prediction: Prediction, events: tuple[Event, ...], url: str, outputs: list[str]
) -> dict[str, Any]:
    """The `data` of an answer: the prediction as its `events` so far tell it. No field is missing or null."""
    last = events[-1]
    begun = next((event.at for event in events if event.status is Status.PROCESSING), last.at)
    milliseconds = last.at - begun if last.status.final else 0
    return {
        "id": prediction.id,
        "model": prediction.model,
        "outputs": outputs,
        "urls": {"get": url},
        "has_nsfw_contents": last.nsfw,
        "status": last.status,
        "created_at": timestamp(prediction.created_at),
        "error": last.error,
        "executionTime": milliseconds,
        "timings": {"inference": milliseconds},
    }


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
    """The server's own address as the client knows it."""
    if desk.public_url is not None:
        return desk.public_url
    scheme = "https" if scope["scheme"] == "https" else "http"
    host = header(scope, b"host")
    if _is_host(host):
        return f"{scheme}://{host.decode()}"
    name, port = scope.get("server") or ("127.0.0.1", None)
    return f"{scheme}://{name}" + (f":{port}" if port else "")


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
