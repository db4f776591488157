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
    _check_open(prediction)
    if prediction.attempt - prediction.spared >= MOST_ATTEMPTS:
        error = f"worker_died: The work on this task has ended its worker {MOST_ATTEMPTS} times."
        return fail(prediction, now=now, error=error)
    return replace(prediction, attempt=prediction.attempt + 1, worker=worker, events=_begun(prediction, now))


def fail(prediction: Prediction, *, now: int, error: str) -> Prediction:
    """The prediction failed, whichever attempt is at it. Raises Outdated where it has ended already."""
    _check_open(prediction)
    begun = _begun(prediction, now)
    failure = Event(at=max(now, begun[-1].at), status=Status.FAILED, error=error)
    return replace(prediction, events=(*begun, failure))


def finish(prediction: Prediction, *, attempt: int, worker: str, event: Event) -> Prediction:
    """The prediction with its final event, by the worker's attempt of that number. Raises Outdated."""
    check(prediction, attempt, worker)
    at = max(event.at, prediction.events[-1].at)
    return replace(prediction, events=(*prediction.events, replace(event, at=at)))


def hand_back(prediction: Prediction, *, attempt: int, worker: str) -> Prediction:
    """The prediction for another worker to take, with this attempt not counted. Raises Outdated."""
    check(prediction, attempt, worker)
    # The number itself must not come again, or the next attempt could be taken for this one.
    return replace(prediction, worker="", spared=prediction.spared + 1)


def check(prediction: Prediction, attempt: int, worker: str) -> None:
    """Raises Outdated unless the worker's attempt of that number is the one that counts.

    The number alone would not do: after a reset an id can come again, and its attempts are counted anew.
    """
    _check_open(prediction)
    if (prediction.attempt, prediction.worker) != (attempt, worker):
        by = f"attempt {prediction.attempt} by {prediction.worker or 'nobody'}"
        raise Outdated(f"{by} has taken over from attempt {attempt} by {worker}")


def _check_open(prediction: Prediction) -> None:
    last = prediction.events[-1].status
    if last.final:
        raise Outdated(f"the prediction is {last} already")


def _begun(prediction: Prediction, now: int) -> tuple[Event, ...]:
    last = prediction.events[-1]
    if last.status is Status.PROCESSING:
        return prediction.events
    return (*prediction.events, Event(at=max(now, last.at), status=Status.PROCESSING))
