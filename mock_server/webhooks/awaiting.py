"""Jobs whose end is to be reported: one note for each, kept with the job, so that no report can get lost."""

from mock_server.prediction import Prediction
from mock_server.store import Store

KIND = "delivery-awaited"
"""The notes of jobs that have yet to end: until when somebody is at it, and the origin of addresses."""


def beside(prediction: Prediction, base: str) -> dict[str, bytes]:
    """What to keep in the same step as a prediction whose worker will end it."""
    return {KIND: _note(base)} if prediction.job and prediction.webhook else {}


def _note(base: str, until: int = 0) -> bytes:
    return f"{until} {base}".encode()


def all_of(store: Store) -> list[str]:
    """The ids of the predictions whose end is waited for."""
    return [prediction_id for prediction_id, _ in store.notes(KIND)]


def take(store: Store, prediction_id: str, *, now: int, until: int) -> str | None:
    """The origin of addresses, for the caller alone to report an end; None where somebody else is at it.

    `now` and `until`, when others may do it, are in milliseconds on the machine's clock.
    """
    taken = None

    def change(note: bytes | None) -> bytes | None:
        nonlocal taken
        taken = None
        if note is None:
            return None
        others, _, base = note.decode().partition(" ")
        if int(others) > now:
            return note
        taken = base
        return _note(base, until)

    store.change_note(KIND, prediction_id, change)
    return taken


def drop(store: Store, prediction_id: str) -> None:
    """The prediction has ended, and its delivery is kept; or it is no more."""
    store.change_note(KIND, prediction_id, lambda _: None)
