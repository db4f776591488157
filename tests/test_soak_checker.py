"""The checker of the kill tests finds what it is there for, in histories made by hand."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from soak.checker import Left, violations, went_back
from soak.history import History, Reply
from soak.runners import POISON, content

from mock_server.prediction import Event, Prediction, Status

TASK = "1" * 32
CREATED = Event(at=1, status=Status.CREATED)
PROCESSING = Event(at=2, status=Status.PROCESSING)
COMPLETED = Event(at=3, status=Status.COMPLETED, outputs=("0.png",), nsfw=(False,))
DIED = Event(at=3, status=Status.FAILED, error="worker_died: three times")


def a_record(*events: Event, attempt: int = 1) -> Prediction:
    return Prediction(
        id=TASK,
        model="m",
        edition="current",
        version="v3",
        scenario="normal",
        created_at=1,
        events=events or (CREATED, PROCESSING, COMPLETED),
        job=True,
        attempt=attempt,
    )


def a_reply(began: float, ended: float, status: str = "created", **more: Any) -> Reply:
    return Reply(task=TASK, began=began, ended=ended, code=200, status=status, **more)


def a_history(*replies: Reply, prompt: str = "0.1") -> History:
    return History(accepted={TASK: prompt}, replies=list(replies), hooks=Counter({TASK: 1}))


def what_is_left(record: Prediction | None = None, **more: Any) -> Left:
    record = record or a_record()
    left: dict[str, Any] = {
        "records": {TASK: record},
        "results": {(TASK, record.attempt, "0.png"): content(TASK, "0.png")},
        "deliveries": frozenset({TASK}),
        "queued": 0,
    }
    return Left(**{**left, **more})


def told(history: History, left: Left) -> str:
    return "\n".join(violations(history, left)).replace(TASK, "it")


def test_a_task_that_went_well_is_no_violation() -> None:
    replies = (a_reply(1, 2), a_reply(3, 4, "processing"), a_reply(5, 6, "completed", told=("x",)))
    assert told(a_history(*replies), what_is_left()) == ""


def test_a_task_whose_acceptance_nobody_heard_of_may_be_there() -> None:
    assert told(replace(a_history(), accepted={}), what_is_left()) == ""


@pytest.mark.parametrize(
    ("left", "what"),
    [
        (what_is_left(records={}, deliveries=frozenset()), "it: accepted, and lost"),
        (what_is_left(a_record(CREATED, PROCESSING)), "it: it has ended 0 times"),
        (what_is_left(a_record(CREATED, PROCESSING, COMPLETED, COMPLETED)), "it: it has ended 2 times"),
        (what_is_left(a_record(CREATED, COMPLETED)), "it: it went created -> completed"),
        (
            what_is_left(a_record(replace(CREATED, at=9), PROCESSING, COMPLETED)),
            "it: its events are not in the order of their dates",
        ),
        (what_is_left(results={}), "it: completed without its output 0.png"),
        (
            what_is_left(a_record(attempt=2), results={(TASK, 1, "0.png"): content(TASK, "0.png")}),
            "it: completed without its output 0.png",
        ),
        (
            what_is_left(results={(TASK, 1, "0.png"): "of another"}),
            "it: completed without its output 0.png",
        ),
        (
            what_is_left(a_record(CREATED, PROCESSING, DIED, attempt=2)),
            "it: failed in attempt 2: worker_died: three times",
        ),
        (
            what_is_left(a_record(CREATED, PROCESSING, replace(DIED, error="x: y"), attempt=3)),
            "it: failed in attempt 3: x: y",
        ),
        (what_is_left(queued=1), "1 jobs are left on the queue"),
        (what_is_left(deliveries=frozenset()), "it: its end is not kept for reporting"),
    ],
)
def test_what_is_left_is_judged(left: Left, what: str) -> None:
    assert what in told(a_history(), left).splitlines()


def test_a_task_that_has_lost_three_workers_may_fail() -> None:
    assert told(a_history(), what_is_left(a_record(CREATED, PROCESSING, DIED, attempt=3))) == ""


def test_a_task_that_kills_its_worker_has_to_fail() -> None:
    assert told(a_history(prompt=POISON), what_is_left()) == "it: it kills its worker, and did not fail"


def test_an_end_that_was_never_reported_is_found() -> None:
    assert told(replace(a_history(), hooks=Counter()), what_is_left()) == "it: its end was never reported"


@pytest.mark.parametrize("code", [404, 500])
def test_a_poll_that_is_not_answered_is_found(code: int) -> None:
    reply = Reply(task=TASK, began=1, ended=2, code=code)
    assert told(a_history(reply), what_is_left()) == f"it: a poll was answered with {code}"


def test_a_server_may_be_unavailable() -> None:
    assert told(a_history(Reply(task=TASK, began=1, ended=2, code=503)), what_is_left()) == ""


def test_an_end_that_is_told_in_two_ways_is_found() -> None:
    replies = (a_reply(1, 2, "completed", told=("x",)), a_reply(3, 4, "completed", told=("y",)))
    assert told(a_history(*replies), what_is_left()) == "it: its end was told in two ways"


@pytest.mark.parametrize(
    ("code", "said", "what"),
    [
        (200, content(TASK, "0.png"), ""),
        (503, "", ""),
        (404, "", "it: its output 0.png was answered with 404"),
        (200, "of another", "it: its output 0.png is not its own"),
    ],
)
def test_outputs_that_were_fetched_are_judged(code: int, said: str, what: str) -> None:
    assert told(replace(a_history(), files=[(TASK, "0.png", code, said)]), what_is_left()) == what


@pytest.mark.parametrize(
    ("replies", "back"),
    [
        ([a_reply(1, 2), a_reply(3, 4, "processing")], False),
        ([a_reply(1, 2, "processing"), a_reply(3, 4)], True),
        ([a_reply(3, 4), a_reply(1, 2, "processing")], True),
        # Asked for at the same time, one may have been answered before the change and come in after it.
        ([a_reply(1, 4), a_reply(2, 3, "processing")], False),
        ([a_reply(1, 9), a_reply(2, 3, "completed"), a_reply(4, 5, "processing")], True),
    ],
)
def test_a_status_that_went_back_is_found(replies: list[Reply], back: bool) -> None:
    assert went_back(replies) is back
