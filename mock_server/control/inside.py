"""Looks inside predictions, and moves them on."""

import json
from collections.abc import Iterator
from typing import Any

from mock_server.attempts import PROGRESS, REMARKS
from mock_server.backend import seed_of
from mock_server.desk import Call, Desk, base_url, result_url, timestamp
from mock_server.errors import Refusal
from mock_server.faults import text_of
from mock_server.handlers import move
from mock_server.middleware import CONTROL_PREFIX
from mock_server.outputs import url_of
from mock_server.prediction import Event, Prediction, Status

_LONGEST_LISTED = 200


def list_newest(desk: Desk, call: Call) -> dict[str, Any]:
    """The newest predictions."""
    found = desk.store.newest(limit=call.query["limit"], before=call.query.get("before"))
    shown = [inside(desk, call, prediction) for prediction in found]
    return {
        "count": desk.store.count(),
        "predictions": [_without_long_texts(each) for each in shown if each is not None],
    }


def _without_long_texts(value: Any) -> Any:
    """The value with its long texts shortened: a hundred requests with images are too much for a list."""
    if isinstance(value, dict):
        return {key: _without_long_texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_long_texts(item) for item in value]
    if isinstance(value, str) and len(value) > _LONGEST_LISTED:
        return f"{value[:_LONGEST_LISTED]}… ({len(value)} characters)"
    return value


def show(desk: Desk, call: Call) -> dict[str, Any]:
    """One prediction, from the inside."""
    prediction_id = call.scope["path_params"]["id"]
    prediction = desk.store.get(prediction_id)
    shown = inside(desk, call, prediction) if prediction is not None else None
    if shown is None:
        raise Refusal(404, f"There is no prediction {prediction_id[:80]!r}.")
    return shown


def inside(desk: Desk, call: Call, prediction: Prediction) -> dict[str, Any] | None:
    """A prediction as it was asked for, as it was understood, and as it goes; None where that is gone."""
    asked = desk.store.asked(prediction.id)
    if asked is None:
        return None
    base, now, given = base_url(desk, call.scope), desk.clock.now(), asked.input
    return {
        "id": prediction.id,
        "model": prediction.model,
        "edition": prediction.edition,
        "version": prediction.version,
        "scenario": prediction.scenario,
        "created_at": timestamp(prediction.created_at),
        "status": prediction.seen_at(now)[-1].status,
        "urls": {
            "get": result_url(desk, prediction, base),
            "inside": f"{base}{CONTROL_PREFIX}/predictions/{prediction.id}",
        },
        **({"seed": seed_of(prediction, given)} if "seed" in given else {}),
        "received": json.loads(asked.received),
        "input": given,
        "defaulted": [
            name if "/" not in (name := pointer.removeprefix("/")) else pointer for pointer in asked.defaults
        ],
        "warnings": list(asked.warnings),
        "events": [_event(prediction, event, base, now) for event in prediction.events],
        "steps": [
            {"status": step.event.status, **({} if step.polls is None else {"polls": step.polls})}
            for step in prediction.steps
        ],
        **({"fault": text_of(prediction.fault)} if prediction.fault is not None else {}),
        **({"webhook": prediction.webhook} if prediction.webhook else {}),
        **({"job": _job(desk, prediction)} if prediction.job else {}),
    }


def _job(desk: Desk, prediction: Prediction) -> dict[str, Any]:
    """How far the work is, and what the worker has to say about the request."""
    progress = desk.store.note(PROGRESS, prediction.id)
    remarks = desk.store.note(REMARKS, prediction.id)
    return {
        "attempt": prediction.attempt,
        "worker": prediction.worker,
        **({"progress": _dated(json.loads(progress))} if progress is not None else {}),
        "remarks": json.loads(remarks) if remarks is not None else [],
    }


def _dated(progress: dict[str, Any]) -> dict[str, Any]:
    return {**progress, "at": timestamp(progress["at"])}


def _event(prediction: Prediction, event: Event, base: str, now: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "at": timestamp(event.at),
        "status": event.status,
        "happened": prediction.job or event.at <= now,
    }
    if event.error:
        told["error"] = event.error
    if event.outputs:
        told["outputs"] = [url_of(base, prediction.id, name) for name in event.outputs]
        told["has_nsfw_contents"] = list(event.nsfw)
    return told


def advance(desk: Desk, call: Call) -> dict[str, Any]:
    """Moves a prediction on to a status, now, in place of all that lay ahead of it."""
    prediction_id = call.scope["path_params"]["id"]
    to, error = Status(call.given["to"]), call.given.get("error", "")
    if error and to is not Status.FAILED:
        raise Refusal(400, "error: only what fails has one.")

    def plan(current: Prediction) -> tuple[Event, ...]:
        stands = current.seen_at(desk.clock.now())[-1].status
        if stands.final or to is stands:
            raise Refusal(409, f"The prediction is {stands} already.")
        if current.job and to is Status.COMPLETED:
            raise Refusal(409, "Only a worker can complete it, by making its outputs; it can be failed here.")
        return tuple(_way(current, stands, to, error))

    move(desk, prediction_id, plan, base_url(desk, call.scope))
    return show(desk, call)


def _way(prediction: Prediction, stands: Status, to: Status, error: str) -> Iterator[Event]:
    """The events, without dates, that lead from one status to a later one."""
    if stands is Status.CREATED:
        yield Event(at=0, status=Status.PROCESSING)
    if to is Status.FAILED:
        yield Event(at=0, status=to, error=error or "Failed by the control plane (simulated failure).")
    if to is Status.COMPLETED:
        flags = tuple(False for _ in prediction.makes)
        yield Event(at=0, status=to, outputs=prediction.makes, nsfw=flags)
