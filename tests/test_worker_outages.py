"""What becomes of a job whose end the store cannot take, or takes without saying so."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from workplace import Workplace, finished_by_hand, statuses, workplace_at

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

    def session(self, name: str) -> "Shaky":  # noqa: ARG002 - there is only one
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
