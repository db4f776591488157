"""The ledger counts what was accepted, what was accepted twice, and what was paid for and left."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mock_server.audit.ledger import Ledger, ledger, ledger_json
from mock_server.journal import Entry, Numbered
from mock_server.prediction import Event, Prediction, Status

START = 1_700_000_000_000
PATH = "/api/v3/wavespeed-ai/flux-dev-lora"
ONE, TWO, THREE = "1" * 32, "2" * 32, "3" * 32


def submit(second: float, task: str = ONE, **more: Any) -> Entry:
    """An accepted submit that arrived so many seconds after the start."""
    at = START + round(second * 1000)
    fields = {
        "at": at,
        "ended": at + 2,
        "kind": "submit",
        "method": "POST",
        "path": PATH,
        "key": "k",
        "agent": "client/1",
        "status": 200,
        "prediction": task,
        "told": "created",
        "digest": "d",
        "committed": bool(task),
        **more,
    }
    return Entry(**fields)


def refused(second: float, status: int = 502, **more: Any) -> Entry:
    """A submit that began nothing."""
    return submit(second, "", **{"status": status, "told": "", **more})


def lost(second: float, task: str = ONE, **more: Any) -> Entry:
    """A submit that was accepted, and its connection reset."""
    given = {"status": 0, "told": "", "fault": "reset; on=submit; times=1; after-commit=true", **more}
    return submit(second, task, **given)


def poll(second: float, told: str = "processing", task: str = ONE, **more: Any) -> Entry:
    """A poll that was answered."""
    given = {
        "kind": "poll",
        "method": "GET",
        "path": f"/api/v3/predictions/{task}/result",
        "told": told,
        "digest": "",
        "committed": False,
        **more,
    }
    return submit(second, task, **given)


def output(second: float, task: str = ONE, **more: Any) -> Entry:
    """A download of an output."""
    return poll(second, "", task, **{"kind": "output", "path": f"/outputs/{task}/0.png", "key": "", **more})


def task(name: str = ONE, ends: float | None = 10, status: Status = Status.COMPLETED) -> Prediction:
    """A task that begins at the start and ends so many seconds later; None: never."""
    events = [Event(at=START, status=Status.CREATED), Event(at=START, status=Status.PROCESSING)]
    if ends is not None:
        events.append(Event(at=START + round(ends * 1000), status=status))
    return Prediction(
        id=name,
        model="wavespeed-ai/flux-dev-lora",
        edition="current",
        version="v3",
        scenario="normal",
        created_at=START,
        makes=("0.png",),
        events=tuple(events),
    )


def numbered(entries: Iterable[Entry]) -> list[Numbered]:
    return [Numbered(number=number, entry=entry) for number, entry in enumerate(entries, 1)]


def booked(entries: Iterable[Entry], *tasks: Prediction, second: float = 1000, **more: Any) -> Ledger:
    given: dict[str, Any] = {"price": lambda _: 0.02, **more}
    return ledger(numbered(entries), tasks, now=START + round(second * 1000), **given)


def test_an_accepted_task_is_charged_once() -> None:
    found = booked([submit(0), poll(1), poll(11, "completed")], task())
    assert (len(found.rows), found.charged) == (1, 0.02)


def test_a_task_is_charged_for_each_of_its_outputs() -> None:
    assert booked([submit(0)], replace(task(), makes=("0.png", "1.png", "2.png"))).charged == 0.06


def test_prices_are_those_of_the_models() -> None:
    found = booked([submit(0)], task(), price={"wavespeed-ai/flux-dev-lora": 3.5}.__getitem__)
    assert found.charged == 3.5


def test_a_refused_submit_is_charged_nothing() -> None:
    assert booked([refused(0), refused(1, 400)]).rows == ()


def test_a_task_whose_end_a_poll_told_is_fetched() -> None:
    found = booked([submit(0), poll(11, "completed")], task())
    assert (found.rows[0].fetched, found.never_fetched) == (True, ())


def test_a_task_whose_end_a_webhook_told_is_fetched() -> None:
    assert booked([submit(0)], task(), delivered={ONE}).rows[0].fetched


def test_a_task_whose_end_its_submit_told_is_fetched() -> None:
    assert booked([submit(0, told="completed")], task()).rows[0].fetched


def test_a_completed_task_of_which_nobody_was_told_is_never_fetched() -> None:
    assert booked([submit(0), poll(1)], task()).never_fetched == (ONE,)


def test_an_end_that_was_lost_on_its_way_is_not_told() -> None:
    for fault in ("status; on=poll; value=cancelled", "missing; on=poll; field=status"):
        assert booked([submit(0), poll(11, "completed", fault=fault)], task()).never_fetched == (ONE,), fault
    for status in (0, 200, 502):
        assert booked([submit(0), poll(11, "", status=status)], task()).never_fetched == (ONE,), status


def test_a_task_that_is_unfinished_is_not_yet_to_be_fetched() -> None:
    assert booked([submit(0)], task(), second=9).never_fetched == ()


def test_a_failed_task_leaves_nothing_to_be_fetched() -> None:
    assert booked([submit(0)], task(status=Status.FAILED)).never_fetched == ()


def test_an_output_is_fetched_whole_or_in_part() -> None:
    for status in (200, 206):
        assert booked([submit(0), output(12, status=status)], task()).rows[0].outputs_fetched


def test_an_output_that_was_not_answered_is_not_fetched() -> None:
    assert not booked([submit(0), output(5, status=404)], task()).rows[0].outputs_fetched
    assert not booked([submit(0), output(12, method="HEAD")], task()).rows[0].outputs_fetched


def test_the_same_submit_within_the_window_is_a_duplicate_of_the_first() -> None:
    found = booked([submit(0), submit(30, TWO), submit(60, THREE)], task(), task(TWO), task(THREE))
    assert [row.duplicate_of for row in found.rows] == ["", ONE, ONE]
    assert (found.duplicates, found.duplicates_charged) == ((TWO, THREE), 0.04)


def test_the_same_submit_beyond_the_window_is_no_duplicate() -> None:
    assert booked([submit(0), submit(60.001, TWO)]).duplicates == ()
    assert booked([submit(0), submit(5, TWO)], window=4999).duplicates == ()


def test_the_window_moves_on() -> None:
    found = booked([submit(0), submit(50, TWO), submit(100, THREE)])
    assert [row.duplicate_of for row in found.rows] == ["", ONE, TWO]


def test_another_key_path_or_body_is_no_duplicate() -> None:
    for other in ({"key": "other"}, {"path": PATH + "-ultra"}, {"digest": "other"}):
        assert booked([submit(0), submit(1, TWO, **other)]).duplicates == (), other


def test_a_refused_submit_is_nobodys_duplicate() -> None:
    assert booked([refused(0), submit(1), refused(2)]).duplicates == ()
    assert booked([refused(0), submit(1), submit(2, TWO)]).rows[1].duplicate_of == ONE


def test_bodies_that_nobody_read_are_not_compared() -> None:
    assert booked([submit(0, digest=""), submit(1, TWO, digest="")]).duplicates == ()


def test_a_poll_that_brings_a_task_to_its_end_accepts_none() -> None:
    (row,) = booked([submit(0), poll(11, "completed", committed=True)], task()).rows
    assert row.fetched


def test_a_submit_that_was_accepted_and_not_answered_is_lost() -> None:
    assert booked([lost(0)], task()).answers_lost == (ONE,)
    assert booked([lost(0, status=502, fault="502; on=submit; after-commit=true")]).answers_lost == (ONE,)
    assert booked([submit(0, told="", fault="truncate; on=submit")]).answers_lost == (ONE,)


def test_an_answer_without_the_tasks_id_is_lost() -> None:
    assert booked([submit(0, fault="missing; on=submit; times=1; field=id")]).answers_lost == (ONE,)
    assert booked([submit(0, fault="missing; on=submit; times=1; field=outputs")]).answers_lost == ()


def test_a_task_that_the_store_has_lost_is_still_charged() -> None:
    row = booked([submit(0)]).rows[0]
    assert (row.model, row.status, row.price) == ("wavespeed-ai/flux-dev-lora", "", 0.02)


def test_the_model_of_a_lost_task_is_found_behind_an_edition() -> None:
    assert (
        booked([submit(0, path=f"/editions/flux-lora{PATH}")]).rows[0].model == "wavespeed-ai/flux-dev-lora"
    )


def test_a_task_that_the_journal_has_lost_is_still_charged() -> None:
    row = booked([], task()).rows[0]
    assert (row.prediction, row.at, row.key, row.answer_lost) == (ONE, START, "", False)


def test_rows_come_in_the_order_of_their_submits() -> None:
    found = booked([submit(5, TWO), submit(1)], task(), task(TWO))
    assert [row.prediction for row in found.rows] == [ONE, TWO]


def test_cents_add_up() -> None:
    found = booked([submit(each, str(each) * 32, digest=str(each)) for each in range(3)], price=lambda _: 0.1)
    assert found.charged == 0.3


def test_the_json_has_times_as_texts() -> None:
    told = ledger_json(booked([submit(0), submit(1.5, TWO)], task(), task(TWO)))
    assert told == {
        "accepted": 2,
        "charged": 0.04,
        "duplicates_charged": 0.02,
        "duplicates": [TWO],
        "never_fetched": [ONE, TWO],
        "answers_lost": [],
        "tasks": [
            {
                "prediction": ONE,
                "model": "wavespeed-ai/flux-dev-lora",
                "at": "2023-11-14T22:13:20.000Z",
                "key": "k",
                "price": 0.02,
                "status": "completed",
                "duplicate_of": "",
                "fetched": False,
                "outputs_fetched": False,
                "answer_lost": False,
            },
            {
                "prediction": TWO,
                "model": "wavespeed-ai/flux-dev-lora",
                "at": "2023-11-14T22:13:21.500Z",
                "key": "k",
                "price": 0.02,
                "status": "completed",
                "duplicate_of": ONE,
                "fetched": False,
                "outputs_fetched": False,
                "answer_lost": False,
            },
        ],
    }
