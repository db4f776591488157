"""What has been predicted: listed in pages, deleted, cancelled."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from mock_server.desk import Call, Desk, base_url, result_url, visit_of
from mock_server.errors import Refusal, StoreUnavailable
from mock_server.handlers import report, task_object, unknown
from mock_server.outputs import url_of
from mock_server.prediction import Event, Prediction, Status

_CHUNK = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE = re.compile(
    r"(?P<whole>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:)(?P<second>[0-9]{2})(?:\.(?P<part>[0-9]+))?"
    r"(?:Z|(?P<sign>[+-])(?P<hours>[0-9]{2}):(?P<minutes>[0-9]{2}))"
)


def find(desk: Desk, call: Call) -> dict[str, Any]:
    """One page of the history, as a body asks for it."""
    return _page(desk, call, call.given, inputs=call.given["include_inputs"])


def list_all(desk: Desk, call: Call) -> dict[str, Any]:
    """One page of the history, as a query asks for it."""
    return _page(desk, call, call.query, inputs=call.query["include_inputs"] == "true")


def _page(desk: Desk, call: Call, wanted: Mapping[str, Any], *, inputs: bool) -> dict[str, Any]:
    base, now, size = base_url(desk, call.scope), desk.clock.now(), wanted["page_size"]
    first = (wanted["page"] - 1) * size
    found: list[Prediction] = []
    if first < desk.store.count():
        found = list(islice(_matching(desk, wanted, now), first, first + size))
    return {
        "page": wanted["page"],
        "items": [_item(desk, each, base, now, inputs=inputs) for each in found],
    }


def _matching(desk: Desk, wanted: Mapping[str, Any], now: int) -> Iterator[Prediction]:
    """The predictions that are asked for, newest first."""
    since = max(now - desk.retention + 1, moment(wanted["created_after"]) if "created_after" in wanted else 0)
    until = moment(wanted["created_before"]) if "created_before" in wanted else now + 1
    model, status = wanted.get("model"), wanted.get("status")
    for each in _newest(desk):
        if each.created_at < since:
            return
        if (
            each.created_at < until
            and model in {None, each.model}
            and status in {None, each.seen_at(now)[-1].status.value}
        ):
            yield each


def _newest(desk: Desk) -> Iterator[Prediction]:
    before = None
    while chunk := desk.store.newest(limit=_CHUNK, before=before):
        yield from chunk
        before = chunk[-1].id


def _item(desk: Desk, each: Prediction, base: str, now: int, *, inputs: bool) -> dict[str, Any]:
    events = each.seen_at(now)
    outputs = [url_of(base, each.id, name) for name in events[-1].outputs]
    told = task_object(each, events, result_url(desk, each, base), outputs)
    asked = desk.store.asked(each.id) if inputs else None
    return told if asked is None else {**told, "input": asked.input}


def moment(text: str) -> int:
    """A date and time of RFC 3339 in milliseconds since the Unix epoch.

    A leap second counts as the one before, and what Python's calendar does not have as its nearest end.
    """
    match = _DATE.fullmatch(text.upper())
    if match is None:
        raise Refusal(400, f"{text[:40]!r} is no date and time such as 2026-04-01T12:34:56Z.")
    second = min(int(match["second"]), 59)
    milliseconds = int((match["part"] or "0")[:3].ljust(3, "0"))
    offset = timedelta(hours=int(match["hours"] or 0), minutes=int(match["minutes"] or 0))
    try:
        local = datetime.fromisoformat(f"{match['whole']}{second:02d}+00:00")
    except ValueError:
        local = datetime.min.replace(tzinfo=UTC)
    ahead = -offset if match["sign"] == "-" else offset
    return (local - _EPOCH - ahead) // timedelta(milliseconds=1) + milliseconds


def delete(desk: Desk, call: Call) -> dict[str, Any]:
    """Deletes those that there are, with their outputs."""
    count = 0
    for prediction_id in dict.fromkeys(call.given["ids"]):
        prediction = desk.store.get(prediction_id)
        if prediction is None or not desk.store.drop(prediction_id):
            continue
        count += 1
        for name in prediction.makes:
            try:
                desk.outputs.path_of(prediction, name).unlink(missing_ok=True)
            except OSError as error:
                raise StoreUnavailable(f"an output cannot be deleted: {error.strerror}") from error
    return {"deleted_count": count}


def cancel(desk: Desk, call: Call) -> dict[str, Any]:
    """Lets a prediction fail. Raises Refusal 404 where there is none, and 400 where it has ended."""
    prediction_id, now = call.scope["path_params"]["id"], desk.clock.now()
    visit_of(call.scope).prediction = prediction_id[:80]

    def change(current: Prediction) -> Prediction:
        status = current.seen_at(now)[-1].status
        if status.final:
            raise Refusal(400, f"The prediction is {status} already.")
        return current.moved(now, Event(at=now, status=Status.FAILED, error="cancelled by the client"))

    prediction = desk.store.update(prediction_id, change)
    if prediction is None:
        raise unknown(prediction_id)
    base = base_url(desk, call.scope)
    report(desk, prediction, base)
    return _item(desk, prediction, base, now, inputs=False)
