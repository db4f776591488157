"""What becomes of a job whose end the store cannot take, or takes without saying so."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from workplace import Workplace, finished_by_hand, statuses, workplace_at

from mock_server.attempts import PROGRESS, REMARKS
from mock_server.errors import StoreUnavailable
from mock_server.prediction import Prediction
from mock_server.store import Store

pytest_plugins = ("postgres",)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    """On SQLite, for what does not depend on the queue."""
    with workplace_at(f"sqlite:///{tmp_path}/store.db", tmp_path) as made:
        yield made


@dataclass(kw_only=True)
class Shaky:
    """A store that breaks down where it is told to."""

    store: Store
    calls: int = 0
    breaks: Callable[[int], str] = lambda _: ""

    def update(self, prediction_id: str, change: Callable[[Prediction], Prediction]) -> Prediction | None:
        self.calls += 1
        how = self.breaks(self.calls)
        if how == "before":
            raise StoreUnavailable("out of reach")
        after = self.store.update(prediction_id, change)
        if how == "behind":
            raise StoreUnavailable("the answer was lost")
        return after

    def session(self, name: str, *, begin: bool) -> "Shaky":  # noqa: ARG002 - there is only one
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


BEGIN, FINISH = 1, 2


def test_an_end_that_the_store_cannot_take_waits_for_it(place: Workplace) -> None:
    job = place.submit()
    store = Shaky(store=place.store, breaks=lambda call: "before" if FINISH <= call < 5 else "")
    place.work_off(store=store, grace=60)
    assert (place.end(job), place.results()) == ("completed", [f"{job}-1-0.png"])


def test_an_end_whose_acknowledgement_is_lost_keeps_its_files(place: Workplace) -> None:
    job = place.submit()
    store = Shaky(store=place.store, breaks=lambda call: "behind" if call == FINISH else "")
    place.work_off(store=store, grace=60)
    assert statuses(place.find(job)) == ["created", "processing", "completed"]
    assert place.results() == [f"{job}-1-0.png"]


def test_a_beginning_whose_acknowledgement_is_lost_counts_once(place: Workplace) -> None:
    job = place.submit()
    store = Shaky(store=place.store, breaks=lambda call: "behind" if call == BEGIN else "")
    place.work_off(store=store, grace=60)
    assert (place.end(job), place.find(job).attempt) == ("completed", 1)


def test_an_end_that_comes_too_late_leaves_no_files(place: Workplace) -> None:
    gate = place.data / "gate"
    job = place.submit(f"wait {gate}")

    class Late(Shaky):
        def update(self, prediction_id: str, change: Callable[[Prediction], Prediction]) -> Prediction | None:
            if self.calls:
                finished_by_hand(place, job)
            else:
                gate.touch()
            return super().update(prediction_id, change)

    place.work_off(store=Late(store=place.store))
    assert statuses(place.find(job)) == ["created", "processing", "failed"]
    assert place.results() == []


def test_the_end_of_a_job_that_was_deleted_is_told_as_too_late(
    place: Workplace, caplog: pytest.LogCaptureFixture
) -> None:
    job = place.submit()

    class Deleting(Shaky):
        def update(self, prediction_id: str, change: Callable[[Prediction], Prediction]) -> Prediction | None:
            after = super().update(prediction_id, change) if not self.calls else None
            if after is None:
                place.store.drop(prediction_id)
            return after

    caplog.set_level(logging.INFO, "wavemock.worker")
    place.work_off(store=Deleting(store=place.store))
    assert caplog.messages == [f"{job}: the end of attempt 1 came too late: the prediction is no more"]
    assert place.results() == []


@pytest.mark.parametrize(("prompt", "kind"), [("remark", REMARKS), ("slow 1", PROGRESS)])
def test_what_comes_too_late_is_not_noted(place: Workplace, prompt: str, kind: str) -> None:
    job = place.submit(prompt)

    class Late(Shaky):
        def change_note(self, kind: str, key: str, change: Callable[[bytes | None], bytes | None]) -> Any:
            if place.end(job) == "processing":
                finished_by_hand(place, job)
                place.store.change_note(kind, key, lambda _: b"another's")
            elif kind == PROGRESS:
                return None  # it is cleared at an end
            return self.store.change_note(kind, key, change)

    place.work_off(store=Late(store=place.store))
    assert place.store.note(kind, job) == b"another's"


def test_nobody_is_told_of_the_progress_of_what_has_ended_its_workers(place: Workplace) -> None:
    job = place.submit("die 9")
    place.store.change_note(PROGRESS, job, lambda _: b"{}")
    place.work_off()
    assert place.end(job).startswith("worker_died: ")
    assert place.store.note(PROGRESS, job) is None


def damage(place: Workplace, job: str, column: str) -> None:
    with closing(sqlite3.connect(place.data / "store.db")) as connection:
        connection.execute(f"UPDATE predictions SET {column} = x'00' WHERE id = ?", [job])
        connection.commit()


def test_a_record_that_cannot_be_read_does_not_keep_the_others_waiting(
    place: Workplace, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [place.submit(), place.submit()]
    damage(place, jobs[0], "record")
    place.work_off()
    assert place.end(jobs[1]) == "completed"
    assert f"{jobs[0]} is set aside: the store holds a damaged record" in caplog.text


def test_a_job_whose_request_cannot_be_read_fails(place: Workplace) -> None:
    jobs = [place.submit(), place.submit()]
    damage(place, jobs[0], "asked")
    place.work_off()
    assert place.end(jobs[0]).startswith("internal_error: What is kept of this task is damaged")
    assert (place.end(jobs[1]), place.begun()[0][0]) == ("completed", jobs[1])
