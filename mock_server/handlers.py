"""The two operations of every page: submit a prediction, see its result."""

import asyncio
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope

from mock_server import accounts
from mock_server.auth import bearer_key
from mock_server.backend import Submission, image_count
from mock_server.catalog import Contract
from mock_server.choosing import choose
from mock_server.desk import (
    Answer,
    Call,
    Desk,
    Visit,
    base_url,
    disconnected,
    result_url,
    timestamp,
    visit_of,
)
from mock_server.errors import Refusal, StoreUnavailable
from mock_server.faulting import struck, struck_submit, struck_task, under
from mock_server.faults import POLL, WEBHOOK, Fault
from mock_server.journal import digest, fingerprint
from mock_server.outputs import url_of
from mock_server.prediction import Asked, Event, Prediction, Status
from mock_server.scenarios import Scenario
from mock_server.webhooks import awaiting, deliveries

_ENCODER = msgspec.json.Encoder()
_POLL_SECONDS = 0.05
_HEADER_LENGTH = 1000
_PLAIN_WEBHOOK = re.compile(r"(?i)(?:^|&)webhook=(?P<address>https?://.*)")


async def submit(contract: Contract, desk: Desk, call: Call) -> Answer:
    """Accepts a prediction, and answers it as it begins, or as it ended where the submit is synchronous."""
    assert call.asked is not None  # noqa: S101 - validation has been passed
    visit = visit_of(call.scope)
    chosen, fault = await desk.run(_chosen, desk, contract, call)
    visit.scenario = chosen.scenario.name
    return await under(fault, desk, call, partial(_begin, contract, chosen, desk, call))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """The scenario of a submit, and how many chances its fault has had with this very request."""

    scenario: Scenario
    draws: int


def _chosen(desk: Desk, contract: Contract, call: Call) -> tuple[_Chosen, Fault | None]:
    scenario = choose(desk, contract, call.scope, call.given)
    # The same request once more is another try, whoever else asks for the same.
    text = f"{fingerprint(bearer_key(call.scope))}/{visit_of(call.scope).digest}/{scenario.name}"
    fault, draws = struck_submit(desk, scenario.fault, digest(text.encode()) if scenario.fault else "")
    return _Chosen(scenario=scenario, draws=draws), fault


async def _begin(contract: Contract, chosen: _Chosen, desk: Desk, call: Call) -> Answer:
    asked: Asked = call.asked  # type: ignore[assignment] # validation has been passed
    base = base_url(desk, call.scope)
    webhook = _webhook(call)
    prediction: Prediction = await desk.run(
        _accept, desk, contract, chosen, given=call.given, asked=asked, webhook=webhook, base=base
    )
    visit = visit_of(call.scope)
    visit.committed, visit.prediction, visit.told = True, prediction.id, Status.CREATED
    visit.charged = contract.price * len(prediction.makes)
    headers = _unknown_fields(asked)
    if call.given.get("enable_sync_mode") is True:
        ended, events = await _hold(desk, prediction, call.receive)
        if ended is None:
            visit.committed = False
            raise Refusal(
                404, "The prediction was forgotten while it was waited for: somebody reset the server."
            )
        visit.told = events[-1].status
        return Answer(body=await _envelope(desk, ended, events, base, synchronous=True), headers=headers)
    return Answer(body=await _envelope(desk, prediction, prediction.events[:1], base), headers=headers)


def _webhook(call: Call) -> str:
    query: bytes = call.scope["query_string"]
    if b"webhook=" not in query:
        return ""
    raw = query.decode("latin-1")
    # One official client appends the address unencoded, so all that follows belongs to it.
    if plain := _PLAIN_WEBHOOK.search(raw):
        return plain["address"]
    return dict(parse_qsl(raw, keep_blank_values=True)).get("webhook", "")


def _accept(
    desk: Desk,
    contract: Contract,
    chosen: _Chosen,
    *,
    given: Mapping[str, Any],
    asked: Asked,
    webhook: str,
    base: str,
) -> Prediction:
    if found := desk.backend.remarks(contract, given) + desk.uploads.remarks(given):
        asked = replace(asked, warnings=asked.warnings + found)
    now = desk.clock.now()
    images = image_count(given) if contract.produces == "images" else 1
    prediction_id, price = _new_id(desk), contract.price * images
    submission = Submission(
        id=prediction_id,
        at=now,
        contract=contract,
        scenario=chosen.scenario,
        given=given,
        free_at=accounts.admit(desk, prediction_id, images=images, price=price, now=now),
        webhook=webhook,
    )
    prediction = desk.backend.submit(submission)
    if chosen.draws:
        prediction = replace(prediction, draws=chosen.draws)
    try:
        desk.store.add(prediction, asked, now=now, beside=awaiting.beside(prediction, base))
    except StoreUnavailable:
        accounts.dismiss(desk, prediction_id, price=price)
        raise
    report(desk, prediction, base)
    return prediction


def report(desk: Desk, prediction: Prediction, base: str) -> None:
    """Sees to the webhook of a prediction that is a story. The end of a job is waited for elsewhere."""
    if prediction.webhook and not prediction.job:
        schedule(desk, prediction, base)


def schedule(desk: Desk, prediction: Prediction, base: str) -> None:
    """Asks for the webhook of a prediction, has it wait for another end, or takes it back."""
    before = deliveries.find(desk.store, prediction.id)
    if before is not None:
        delivery = deliveries.rescheduled(before, prediction)
    else:
        fault = struck_task(desk, WEBHOOK, prediction) if prediction.ends_at is not None else None
        delivery = deliveries.scheduled(prediction, base, fault, now=desk.clock.now())
    if delivery is not None:
        deliveries.keep(desk.store, delivery)
        desk.changed()
    elif before is not None:
        deliveries.take_back(desk.store, prediction.id)


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


async def _hold(
    desk: Desk, prediction: Prediction, receive: Receive
) -> tuple[Prediction | None, tuple[Event, ...]]:
    """Waits until the prediction has ended or is no more, its time is up, or nobody waits any more."""
    until = prediction.created_at + round(desk.sync_seconds * 1000)
    gone = asyncio.ensure_future(disconnected(receive))
    try:
        while True:
            now, current = await desk.run(_look, desk, prediction.id)
            if current is None:
                return None, ()
            events = current.seen_at(now)
            if events[-1].status.final or now >= until or gone.done():
                return current, events
            await asyncio.wait({gone}, timeout=_POLL_SECONDS)
    finally:
        gone.cancel()


async def result(desk: Desk, call: Call) -> Answer:
    """Answers a prediction as it stands now."""
    prediction_id = call.scope["path_params"]["id"]
    visit = visit_of(call.scope)
    visit.prediction = prediction_id[:80]
    now, prediction, fault = await desk.run(_polled, desk, prediction_id)
    return await under(fault, desk, call, partial(_tell, desk, call.scope, visit, prediction, now))


def _polled(desk: Desk, prediction_id: str) -> tuple[int, Prediction | None, Fault | None]:
    now, prediction = _look(desk, prediction_id)
    if prediction is None:
        return now, None, struck(desk, POLL)
    return now, prediction, struck_task(desk, POLL, prediction)


async def _tell(desk: Desk, scope: Scope, visit: Visit, prediction: Prediction | None, now: int) -> Answer:
    if visit.fault:  # which may have taken its time
        now, prediction = await desk.run(_look, desk, scope["path_params"]["id"])
    if prediction is None:
        raise unknown(scope["path_params"]["id"])
    base = base_url(desk, scope)
    if prediction.steps:
        now, prediction = await desk.run(_moved_by_poll, desk, prediction, base)
    events = prediction.seen_at(now)
    visit.told = events[-1].status
    return Answer(body=await _envelope(desk, prediction, events, base))


def unknown(prediction_id: str) -> Refusal:
    """What is said of a prediction that there is not."""
    return Refusal(
        404, f"There is no prediction {prediction_id[:80]!r}; it may have been one of another run."
    )


def _moved_by_poll(desk: Desk, prediction: Prediction, base: str) -> tuple[int, Prediction]:
    moved = desk.store.update(prediction.id, lambda found: found.polled(desk.clock.now())) or prediction
    report(desk, moved, base)
    return max(desk.clock.now(), moved.events[-1].at if moved.ends_at is not None else 0), moved


def move(
    desk: Desk, prediction_id: str, plan: Callable[[Prediction], tuple[Event, ...]], base: str
) -> Prediction | None:
    """Lets what `plan` makes of a prediction happen now, in place of all that lay ahead, and returns it.

    Raises what `plan` raises, and has then changed nothing. None where there is no such prediction.
    """
    now = desk.clock.now()
    moved = desk.store.update(prediction_id, lambda current: current.moved(now, *plan(current)))
    if moved is not None:
        report(desk, moved, base)
    return moved


def _look(desk: Desk, prediction_id: str) -> tuple[int, Prediction | None]:
    return desk.clock.now(), desk.store.get(prediction_id)


async def _envelope(
    desk: Desk, prediction: Prediction, events: tuple[Event, ...], base: str, *, synchronous: bool = False
) -> bytes:
    outputs = [url_of(base, prediction.id, name) for name in events[-1].outputs]
    if outputs and prediction.inline:
        outputs = await run_in_threadpool(desk.outputs.inline, prediction, base, data_uri=desk.data_uri)
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
