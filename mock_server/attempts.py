"""A worker's tries at a prediction. Each has a number, and what an outdated one has to say is refused.

The number is a fencing token: a worker that was taken for dead and comes back finds that it has no say any
more. Pure functions, to be applied within one change of the store.
"""

from dataclasses import replace

from mock_server.prediction import Event, Prediction, Status

PROGRESS = "progress"
"""The kind of a note that tells how far a job is: `stage`, `done`, `of`, and `at` in milliseconds."""
REMARKS = "remarks"
"""The kind of a note with what the worker has to tell the author of the request."""
MOST_ATTEMPTS = 3
"""A job that has lost its worker so often is not tried again: it may be what kills them."""


class Outdated(Exception):
    """Another attempt has taken over, or the prediction has ended without this one."""


def begin(prediction: Prediction, *, now: int, worker: str) -> Prediction:
    """The prediction with one more attempt, or failed where it has had too many.

    Raises Outdated where it has ended already.
    """
    if prediction.events[-1].status.final:
        raise Outdated(f"the prediction is {prediction.events[-1].status} already")
    at = max(now, prediction.events[-1].at)
    if prediction.attempt - prediction.spared >= MOST_ATTEMPTS:
        error = f"worker_died: The work on this task has ended its worker {MOST_ATTEMPTS} times."
        return replace(prediction, events=(*_begun(prediction, at), _failure(at, error)))
    return replace(prediction, attempt=prediction.attempt + 1, worker=worker, events=_begun(prediction, at))


def finish(prediction: Prediction, *, attempt: int, event: Event) -> Prediction:
    """The prediction with its final event, by the attempt of that number. Raises Outdated."""
    check(prediction, attempt)
    at = max(event.at, prediction.events[-1].at)
    return replace(prediction, events=(*prediction.events, replace(event, at=at)))


def hand_back(prediction: Prediction, *, attempt: int) -> Prediction:
    """The prediction for another worker to take, with this attempt not counted. Raises Outdated."""
    check(prediction, attempt)
    # The number itself must not come again, or the next attempt could be taken for this one.
    return replace(prediction, worker="", spared=prediction.spared + 1)


def check(prediction: Prediction, attempt: int) -> None:
    """Raises Outdated unless the attempt of that number is the one that counts."""
    last = prediction.events[-1]
    if last.status.final:
        raise Outdated(f"the prediction is {last.status} already")
    if prediction.attempt != attempt:
        raise Outdated(f"attempt {prediction.attempt} has taken over from attempt {attempt}")


def _begun(prediction: Prediction, at: int) -> tuple[Event, ...]:
    if prediction.events[-1].status is Status.PROCESSING:
        return prediction.events
    return (*prediction.events, Event(at=at, status=Status.PROCESSING))


def _failure(at: int, error: str) -> Event:
    return Event(at=at, status=Status.FAILED, error=error)
