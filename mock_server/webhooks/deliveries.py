"""What is to be reported to where, when, and how it went. Records and functions; nothing is sent here."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from mock_server.faults import Fault
from mock_server.prediction import Prediction
from mock_server.store import Store

KIND = "delivery"
"""The notes that deliveries are, by prediction id."""
QUEUE = "delivery-due"
"""The notes of those that are pending; their keys begin with the date."""
_HELD = "delivery-held"  # one for each that waits for another, by prediction id

RETRIES = 3
"""How often a delivery is tried again; the pages say so."""
_FIRST_PAUSE = 1000
"""Before the first retry, in milliseconds; each later pause is twice as long. The pages give no figures."""
_HOLD = 60_000
_STALE = 600_000

State = Literal["pending", "delivered", "failed", "lost", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request to a receiver. Dates are in milliseconds on the server's clock, `timestamp` in seconds.

    `status` is what the receiver answered, 0 where it did not, and `note` why it will not do. `signature` is
    empty where nothing was sent; `refused` says that the address may not be called. `fault` is what was wrong
    with the request on purpose.
    """

    at: int
    status: int
    note: str = ""
    webhook_id: str
    timestamp: int
    signature: str = ""
    fault: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The report of one prediction's end. All its attempts carry the same webhook id.

    `base` is the origin of the addresses in the payload. `ended_at` and `due`, when it is sent next (None:
    never), are in milliseconds on the server's clock. `failures` counts attempts in vain since it was last
    scheduled or received, `copies` how often it is still to be received. `held` says that it waits for that
    of a later prediction, until `due` at most. `taken` is until when somebody is at it, in milliseconds on
    the machine's clock.
    """

    prediction: str
    webhook_id: str
    url: str
    base: str
    ended_at: int
    state: State = "pending"
    due: int | None
    fault: str = ""
    attempts: tuple[Attempt, ...] = ()
    failures: int = 0
    copies: int = 1
    held: bool = False
    taken: int = 0


_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(Delivery).decode


def scheduled(prediction: Prediction, base: str, fault: Fault | None = None, *, now: int) -> Delivery | None:
    """The delivery that a prediction asks for; None where it asks for none, or no end is in sight.

    `fault` is what goes wrong with it. The end of a story is reported when it happens, that of a job `now`:
    it has happened, whatever the clock of the worker says that dated it.
    """
    ended_at = prediction.ends_at
    if not prediction.webhook or ended_at is None:
        return None
    ended_at = now if prediction.job else ended_at
    kind = fault.kind if fault else ""
    delay = fault.span if fault and kind == "late" else _HOLD if kind == "out-of-order" else 0
    return Delivery(
        prediction=prediction.id,
        webhook_id=hashlib.blake2b(f"webhook/{prediction.id}".encode(), digest_size=16).hexdigest(),
        url=prediction.webhook,
        base=base,
        ended_at=ended_at,
        state="lost" if kind == "lost" else "pending",
        due=None if kind == "lost" else ended_at + delay,
        fault=kind,
        copies=2 if kind == "duplicate" else 1,
        held=kind == "out-of-order",
    )


def rescheduled(delivery: Delivery, prediction: Prediction) -> Delivery | None:
    """The same for another end of the prediction, with the same delay; None where no end is in sight."""
    ended_at = prediction.ends_at
    if ended_at is None:
        return None
    if prediction.job:
        return delivery  # it has one end, which has happened
    due = None if delivery.due is None else delivery.due + ended_at - delivery.ended_at
    return replace(delivery, ended_at=ended_at, due=due)


def timestamp_of(delivery: Delivery, at: int) -> int:
    """What the timestamp header of an attempt says, in seconds."""
    return (at - (_STALE if delivery.fault == "stale" else 0)) // 1000


def key_of(delivery: Delivery, secret: str) -> str:
    """The secret that an attempt is signed with."""
    if delivery.fault != "bad-signature":
        return secret
    return f"whsec_{hashlib.blake2b(secret.encode(), digest_size=16).hexdigest()}"


def attempted(delivery: Delivery, attempt: Attempt) -> Delivery:
    """The delivery after an attempt: received, to be tried again after a pause, or given up."""
    after = replace(delivery, attempts=(*delivery.attempts, attempt), due=None, held=False, taken=0)
    if 200 <= attempt.status < 300:
        if delivery.copies > 1:
            return replace(after, due=attempt.at, copies=delivery.copies - 1, failures=0)
        return replace(after, state="delivered")
    if attempt.refused:
        return replace(after, state="refused")
    if delivery.failures >= RETRIES:
        return replace(after, state="failed")
    due = attempt.at + (_FIRST_PAUSE << delivery.failures)
    return replace(after, due=due, failures=delivery.failures + 1)


def redelivered(delivery: Delivery, now: int) -> Delivery:
    """The same, to be sent once more at `now`, and without its fault."""
    return replace(delivery, state="pending", due=now, fault="", failures=0, copies=1, held=False, taken=0)


def keep(store: Store, delivery: Delivery) -> None:
    """Keeps a delivery in place of the one of the same prediction, unless that has been tried already."""
    _change(store, delivery.prediction, lambda before: delivery if _untouched(before) else before)


def take_back(store: Store, prediction_id: str) -> None:
    """Drops the delivery of a prediction that will not end, unless that has been tried already."""
    _change(store, prediction_id, lambda before: None if _untouched(before) else before)


def _untouched(delivery: Delivery | None) -> bool:
    return delivery is None or not (delivery.attempts or delivery.taken)


def find(store: Store, prediction_id: str) -> Delivery | None:
    """The delivery of a prediction."""
    note = store.note(KIND, prediction_id)
    return None if note is None else _decode(note)


def all_of(store: Store) -> list[Delivery]:
    """Every delivery, in the order in which their predictions ended."""
    found = [_decode(note) for _, note in store.notes(KIND)]
    return sorted(found, key=lambda delivery: (delivery.ended_at, delivery.prediction))


def redeliver(store: Store, prediction_id: str, now: int) -> Delivery | None:
    """Has the delivery of a prediction sent once more; None where there is none."""
    return _change(store, prediction_id, lambda before: before and redelivered(before, now))


def due(store: Store, until: int | None = None) -> Delivery | None:
    """The pending delivery that is due first, and by `until` if that is given."""
    while first := store.notes(QUEUE, limit=1):
        [(key, _)] = first
        date, prediction_id, _ = key.split()
        if until is not None and int(date) > until:
            return None
        delivery = find(store, prediction_id)
        if delivery is not None and _place(delivery) == key:
            return delivery
        store.change_note(QUEUE, key, lambda _: None)  # it has been moved, or is done with
    return None


def take(store: Store, delivery: Delivery, *, now: int, until: int) -> Delivery | None:
    """The delivery for the caller alone to send; None where it has changed, or somebody else is at it.

    `now` and `until`, when others may have it again, are on the machine's clock.
    """
    taken = None

    def change(before: Delivery | None) -> Delivery | None:
        nonlocal taken
        taken = None
        if before is None or before.due != delivery.due or before.taken > now:
            return before
        taken = replace(before, taken=until)
        return taken

    _change(store, delivery.prediction, change)
    return taken


def give_back(store: Store, prediction_id: str) -> None:
    """Lets others have a delivery that was taken and not sent."""
    _change(store, prediction_id, lambda before: before and replace(before, taken=0))


def forget(store: Store, prediction_id: str) -> None:
    """Drops the delivery of a prediction that is no more."""
    _change(store, prediction_id, lambda _: None)


def settle(store: Store, delivery: Delivery, attempt: Attempt) -> Delivery | None:
    """Keeps what an attempt made of a delivery, and lets go those that waited for it. None if it is gone."""
    after = _change(store, delivery.prediction, lambda before: before and attempted(before, attempt))
    if 200 <= attempt.status < 300:
        for prediction_id, _ in store.notes(_HELD):
            if prediction_id != delivery.prediction:
                _change(store, prediction_id, lambda before: before and _let_go(before, delivery, attempt.at))
                store.change_note(_HELD, prediction_id, _unless_held(find(store, prediction_id)))
    return after


def _let_go(held: Delivery, sent: Delivery, at: int) -> Delivery:
    if not held.held or held.ended_at > sent.ended_at or held.due is None:
        return held
    return replace(held, held=False, due=max(at, held.ended_at))


def _unless_held(delivery: Delivery | None) -> Callable[[bytes | None], bytes | None]:
    return lambda note: note if delivery is not None and delivery.held else None


def recover(store: Store, now: int) -> None:
    """Puts what is pending in the queue again after a stop; what fell due meanwhile is due `now`."""
    for delivery in all_of(store):
        if delivery.due is not None and delivery.due < now:
            _change(store, delivery.prediction, lambda before: before and _redated(before, now))
        else:
            _queue(store, delivery)


def _redated(delivery: Delivery, now: int) -> Delivery:
    return delivery if delivery.due is None else replace(delivery, due=max(delivery.due, now))


def _change(
    store: Store, prediction_id: str, change: Callable[[Delivery | None], Delivery | None]
) -> Delivery | None:
    """Changes a delivery and puts it in the queue, in that order: what is read in the queue is there."""

    def rewrite(note: bytes | None) -> bytes | None:
        after = change(None if note is None else _decode(note))
        return None if after is None else _encode(after)

    note = store.change_note(KIND, prediction_id, rewrite)
    after = None if note is None else _decode(note)
    if after is not None:
        _queue(store, after)
    return after


def _queue(store: Store, delivery: Delivery) -> None:
    if delivery.due is not None:
        store.change_note(QUEUE, _place(delivery), lambda _: b"")
        if delivery.held:
            store.change_note(_HELD, delivery.prediction, lambda _: b"")


def _place(delivery: Delivery) -> str:
    """The key in the queue. The count tells the place of a redelivery from one that is being cleared."""
    if delivery.due is None:
        return ""
    return f"{delivery.due:020d} {delivery.prediction} {len(delivery.attempts)}"
