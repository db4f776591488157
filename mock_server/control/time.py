"""Reads and moves the clock, and tells what that made happen."""

from collections.abc import Iterator
from typing import Any

from starlette.concurrency import run_in_threadpool

from mock_server import accounts
from mock_server.control.review import predictions
from mock_server.desk import Call, Desk, timestamp
from mock_server.faulting import armed
from mock_server.faults import text_of
from mock_server.grammar import span
from mock_server.prediction import Prediction
from mock_server.reporting import advance
from mock_server.webhooks import deliveries
from mock_server.webhooks.courier import Courier


def read(desk: Desk, _call: Call) -> dict[str, Any]:
    """How the clock stands."""
    state = desk.clock.state()
    return {
        "now": timestamp(desk.clock.now()),
        "running": state.frozen_at is None,
        "speed": state.speed,
        "ahead": desk.clock.ahead() / 1000,
    }


async def change(courier: Courier, desk: Desk, call: Call) -> dict[str, Any]:
    """Freezes, speeds up, advances and resumes, in this order, and tells what happened meanwhile."""
    wanted: dict[str, Any] = call.given
    before = await desk.run(desk.clock.now)
    if "freeze" in wanted:
        await desk.run(desk.clock.freeze)
    if "speed" in wanted:
        await desk.run(desk.clock.hurry, float(wanted["speed"]))
    if "advance" in wanted:
        await advance(desk, courier, milliseconds(wanted["advance"]))
    if "resume" in wanted:
        await desk.run(desk.clock.resume)
    # In a thread whatever the store is: there may be a hundred thousand predictions to go through.
    return await run_in_threadpool(_told, desk, call, before)


def _told(desk: Desk, call: Call, before: int) -> dict[str, Any]:
    events = sorted(happened(desk, after=before, until=desk.clock.now()), key=lambda each: each["at"])
    return {**read(desk, call), "events": events}


def milliseconds(given: float | str) -> int:
    """A span of time in seconds, or as a text with a unit (ms, s, m, h, d), in milliseconds."""
    return span(given, what="advance") if isinstance(given, str) else round(given * 1000)


def happened(desk: Desk, *, after: int, until: int) -> Iterator[dict[str, Any]]:
    """What became true in a span of the server's time."""
    for prediction in predictions(desk):
        yield from _of_prediction(desk, prediction, after=after, until=until)
    for delivery in deliveries.all_of(desk.store):
        for attempt in delivery.attempts:
            if after < attempt.at <= until:
                said = str(attempt.status) if attempt.status else attempt.note or "no answer"
                yield _event(attempt.at, "webhook", delivery.prediction, f"{delivery.url} -> {said}")
    for at, images in accounts.refills(desk, after=after, until=until):
        yield _event(at, "refilled", "", f"{images} images of the minute's are available again")
    for fault_id, each in armed(desk, at=after):
        ends = None if each.fault.lasts is None else each.at + each.fault.lasts
        if ends is not None and after < ends <= until:
            yield _event(ends, "disarmed", fault_id, text_of(each.fault))


def _of_prediction(desk: Desk, prediction: Prediction, *, after: int, until: int) -> Iterator[dict[str, Any]]:
    before = None
    for event in prediction.events:
        if after < event.at <= until and before is not None:
            yield _event(event.at, "task", prediction.id, f"{before} -> {event.status}")
        before = event.status
    last = prediction.events[-1]
    gone = last.at + desk.retention
    if last.outputs and after < gone <= until:
        yield _event(gone, "expired", prediction.id, f"{len(last.outputs)} outputs are no longer kept")


def _event(at: int, what: str, subject: str, text: str) -> dict[str, Any]:
    return {"at": timestamp(at), "what": what, "subject": subject, "text": text}
