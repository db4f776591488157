"""What a webhook says, and how a session's webhooks come to be sent."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterator
from functools import partial

from mock_server.clock import SystemClock
from mock_server.desk import Desk, Desks, result_url
from mock_server.handlers import schedule, task_object
from mock_server.outputs import url_of
from mock_server.platform.account import webhook_secret
from mock_server.prediction import Prediction
from mock_server.webhooks import awaiting, deliveries
from mock_server.webhooks.courier import Courier, Office, run_due
from mock_server.webhooks.deliveries import Delivery
from mock_server.webhooks.service import patiently

_LOOK_SECONDS = 0.25
_LEASE = 5_000  # milliseconds; reporting an end takes some changes of the store
_MACHINE = SystemClock()
_log = logging.getLogger("wavemock")


def office_of(desk: Desk) -> Office:
    """A session as its courier sees it."""

    def payload(prediction: Prediction, delivery: Delivery) -> bytes:
        return _payload(desk, prediction, delivery)

    return Office(
        name=desk.session,
        store=desk.store,
        now=desk.clock.now,
        secret=lambda: webhook_secret(desk),
        payload=payload,
    )


def offices(desks: Desks) -> list[Office]:
    """Those of every session that has anything to deliver, or had."""
    return [office_of(desks.looking_at(name)) for name in ("", *desks.root.store.sessions(deliveries.KIND))]


def _payload(desk: Desk, prediction: Prediction, delivery: Delivery) -> bytes:
    """The bare task, as the provider sends it, with what was asked for."""
    outputs = [url_of(delivery.base, prediction.id, name) for name in prediction.events[-1].outputs]
    if outputs and prediction.inline:
        outputs = desk.outputs.inline(prediction, delivery.base, data_uri=desk.data_uri)
    url = result_url(desk, prediction, delivery.base)
    asked = desk.store.asked(prediction.id)
    told = task_object(prediction, prediction.events, url, outputs)
    return json.dumps({**told, "input": asked.input if asked is not None else {}}).encode()


async def advance(desk: Desk, courier: Courier, by: int) -> None:
    """Moves the clock ahead by milliseconds, from one webhook that falls due on the way to the next.

    So each is sent, signed and dated at its own time, and a receiver that asks back sees that time too.
    """
    office, left = office_of(desk), by
    target = await desk.run(desk.clock.now) + by
    while (first := await desk.run(deliveries.due, desk.store, target)) is not None and first.due is not None:
        step = min(max(0, first.due - await desk.run(desk.clock.now)), left)
        await desk.run(desk.clock.advance, step)
        left -= step
        await run_due(courier, office, until=max(first.due, await desk.run(desk.clock.now)))
    await desk.run(desk.clock.advance, left)


async def watch_jobs(desks: Desks) -> None:
    """Has the ends that workers bring about reported, until cancelled.

    Workers know nothing of webhooks, and may end while nobody serves. Several servers on one store may watch
    at once: an end is reported by one of them.
    """
    told: set[str] = set()
    while True:
        troubles: set[str] = await patiently(partial(desks.root.run, _report_ended, desks))
        for trouble in sorted(troubles - told):
            _log.warning("webhooks of jobs: %s; more tries follow", trouble)
        told = troubles
        await asyncio.sleep(_LOOK_SECONDS)


def _report_ended(desks: Desks) -> set[str]:
    """Has every end reported that can be; what was in the way of the others."""
    troubles: set[str] = set()
    for name in ("", *desks.root.store.sessions(awaiting.KIND, deliveries.QUEUE)):
        with _noting(troubles):
            desk = desks.looking_at(name)
            for prediction_id in awaiting.all_of(desk.store):
                with _noting(troubles):
                    _report_if_ended(desk, prediction_id)
            # Whoever kept it may have died before it was sent.
            if deliveries.due(desk.store, desk.clock.now()) is not None:
                desk.changed()
    return troubles


@contextlib.contextmanager
def _noting(troubles: set[str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - what cannot be reported must not hold up what can
        troubles.add(f"{type(error).__name__}: {error}")


def _report_if_ended(desk: Desk, prediction_id: str) -> None:
    prediction = desk.store.get(prediction_id)
    if prediction is not None:
        if prediction.ends_at is None:
            return
        now = _MACHINE.now()
        base = awaiting.take(desk.store, prediction_id, now=now, until=now + _LEASE)
        if base is None:
            return
        schedule(desk, prediction, base)
    awaiting.drop(desk.store, prediction_id)
