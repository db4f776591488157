"""Webhooks, from the outside."""

from typing import Any

from mock_server.desk import Call, Desk, timestamp
from mock_server.errors import Refusal
from mock_server.reporting import office_of
from mock_server.webhooks import deliveries
from mock_server.webhooks.courier import Courier, run_due
from mock_server.webhooks.deliveries import Attempt, Delivery


def list_webhooks(desk: Desk, _call: Call) -> dict[str, Any]:
    """Every webhook that was asked for, with what became of it."""
    found = sorted(deliveries.all_of(desk.store), key=lambda each: (each.ended_at, each.prediction))
    return {"webhooks": [told(each) for each in found]}


async def redeliver(courier: Courier, desk: Desk, call: Call) -> dict[str, Any]:
    """Sends one once more, now."""
    prediction_id = call.scope["path_params"]["id"]
    now = await desk.run(desk.clock.now)
    found: Delivery | None = await desk.run(deliveries.redeliver, desk.store, prediction_id, now)
    if found is None:
        raise Refusal(404, f"There is no webhook of a prediction {prediction_id[:80]!r} that has ended.")
    await run_due(courier, office_of(desk), until=now)
    sent: Delivery | None = await desk.run(deliveries.find, desk.store, prediction_id)
    return told(sent or found)


def told(delivery: Delivery) -> dict[str, Any]:
    """A delivery as the control plane shows it."""
    return {
        "prediction": delivery.prediction,
        "id": delivery.webhook_id,
        "url": delivery.url,
        "state": delivery.state,
        "ended_at": timestamp(delivery.ended_at),
        **({} if delivery.due is None else {"due": timestamp(delivery.due)}),
        "fault": delivery.fault,
        "attempts": [_attempt(each) for each in delivery.attempts],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": timestamp(attempt.at),
        "status": attempt.status,
        "note": attempt.note,
        "timestamp": attempt.timestamp,
        "signature": attempt.signature,
        "fault": attempt.fault,
    }
