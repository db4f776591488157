"""The fence between the tries at a prediction: who has a say in what becomes of it."""

import pytest

from mock_server import attempts
from mock_server.attempts import Outdated
from mock_server.prediction import Event, Prediction, Status


def begun(*workers: str) -> Prediction:
    """A prediction that each of the workers has tried, one after the other."""
    prediction = Prediction(
        id="1" * 32,
        model="m",
        edition="current",
        version="v3",
        scenario="normal",
        created_at=0,
        events=(Event(at=0, status=Status.CREATED),),
        job=True,
    )
    for worker in workers:
        prediction = attempts.begin(prediction, now=1, worker=worker)
    return prediction


def test_the_last_attempt_has_a_say() -> None:
    attempts.check(begun("one", "two"), 2, "two")


@pytest.mark.parametrize(
    ("attempt", "worker"), [(1, "one"), (1, "two"), (2, "one")], ids=["both", "number", "worker"]
)
def test_any_other_attempt_has_none(attempt: int, worker: str) -> None:
    with pytest.raises(Outdated, match=f"attempt 2 by two has taken over from attempt {attempt} by {worker}"):
        attempts.check(begun("one", "two"), attempt, worker)


def test_who_has_handed_a_prediction_back_has_no_say() -> None:
    back = attempts.hand_back(begun("one"), attempt=1, worker="one")
    with pytest.raises(Outdated, match="by nobody"):
        attempts.check(back, 1, "one")


def test_an_attempt_of_before_a_reset_does_not_end_the_same_id_after_it() -> None:
    again, done = begun("two"), Event(at=2, status=Status.COMPLETED, outputs=("0.png",), nsfw=(False,))
    with pytest.raises(Outdated):
        attempts.finish(again, attempt=1, worker="one", event=done)


def test_what_has_failed_does_not_fail_again() -> None:
    failed = attempts.fail(begun(), now=1, error="x: y")
    assert [event.status for event in failed.events] == [Status.CREATED, Status.PROCESSING, Status.FAILED]
    with pytest.raises(Outdated):
        attempts.fail(failed, now=1, error="x: y")
