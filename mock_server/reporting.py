"""What a webhook says, and how a session's webhooks come to be sent."""

import asyncio
import json
import logging

from mock_server.desk import Desk, Desks, result_url
from mock_server.errors import StoreUnavailable
from mock_server.handlers import report, task_object
from mock_server.outputs import url_of
from mock_server.platform.account import webhook_secret
from mock_server.prediction import Prediction
from mock_server.webhooks import deliveries
from mock_server.webhooks.courier import Courier, Office, run_due
from mock_server.webhooks.deliveries import Delivery

_LOOK_SECONDS = 0.25
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
    """Those of every session that there is."""
    root = desks.named("")
    return [office_of(root), *(office_of(desks.named(name)) for name in root.store.sessions())]


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
    at once: a delivery is kept once.
    """
    while True:
        try:
            await desks.root.run(_report_ended, desks)
        except StoreUnavailable as error:
            _log.warning("webhooks of jobs: %s; another try follows", error)
        await asyncio.sleep(_LOOK_SECONDS)


def _report_ended(desks: Desks) -> None:
    root = desks.named("")
    for desk in (root, *(desks.named(name) for name in root.store.sessions())):
        for prediction_id, base in deliveries.all_awaited(desk.store):
            prediction = desk.store.get(prediction_id)
            if prediction is not None and prediction.ends_at is None:
                continue
            if prediction is not None:
                report(desk, prediction, base)
            deliveries.wait_no_more(desk.store, prediction_id)
        # Whoever kept it may have died before it was sent.
        if deliveries.due(desk.store, desk.clock.now()) is not None:
            desk.changed()
