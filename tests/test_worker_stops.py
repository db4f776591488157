"""Jobs that end before their time: nobody wants them, they take too long, or their worker has to stop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
from workplace import Workplace, finished_by_hand, statuses, until, workplace_at, workplace_for

from mock_server import attempts
from reference_backend import watching
from reference_backend.doing import Outcome, attend

pytest_plugins = ("postgres",)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    """On SQLite, for what does not depend on the queue."""
    with workplace_at(f"sqlite:///{tmp_path}/store.db", tmp_path) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def each_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workplace]:
    with workplace_for(request, tmp_path) as made:
        yield made


def test_a_job_that_was_ended_otherwise_is_stopped(each_place: Workplace) -> None:
    job = each_place.submit(f"wait {each_place.data}/never")
    with each_place.working():
        until(each_place.begun)
        finished_by_hand(each_place, job)
    assert (each_place.end(job), each_place.results()) == ("somebody said so", [])


def test_a_job_that_was_deleted_is_stopped(each_place: Workplace) -> None:
    job = each_place.submit(f"wait {each_place.data}/never")
    with each_place.working():
        until(each_place.begun)
        each_place.store.drop(job)
    assert (each_place.store.get(job), each_place.results()) == (None, [])


def test_the_process_lives_on_when_its_job_is_stopped(place: Workplace) -> None:
    job = place.submit(f"wait {place.data}/never")
    place.submit()
    with place.working():
        until(place.begun)
        finished_by_hand(place, job)
    assert len({process for *_, process in place.begun()}) == 1


def test_a_job_that_cannot_be_stopped_loses_its_process(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PATIENCE_SECONDS", 0.1)
    job = place.submit("hang")
    with place.working():
        until(place.begun)
        finished_by_hand(place, job)
    assert place.end(job) == "somebody said so"


def test_a_job_that_takes_too_long_fails(place: Workplace) -> None:
    jobs = [place.submit("hang"), place.submit()]
    place.work_off(job_timeout=0.3)
    assert place.end(jobs[0]) == "timed_out: The work on this task took longer than the 0.3 s allowed here."
    assert place.end(jobs[1]) == "completed"


def taken_over(place: Workplace, job: str) -> None:
    place.store.update(job, partial(attempts.begin, now=0, worker="two"))


def test_an_attempt_that_another_has_overtaken_leaves_the_job_alone(each_place: Workplace) -> None:
    gate = each_place.data / "gate"
    job = each_place.submit(f"wait {gate}")
    with (
        each_place.engine.claims(stale=60) as claims,
        each_place.worker() as worker,
        in_thread(partial(overtake_when_begun, each_place, job)),
    ):
        ticket = claims.take(0)
        assert ticket is not None
        assert attend(worker, claims, ticket) is Outcome.BACK
    assert statuses(each_place.find(job)) == ["created", "processing"]
    assert each_place.find(job).worker == "two"


def test_a_job_that_was_begun_past_its_owner_comes_to_an_end(each_place: Workplace) -> None:
    gate = each_place.data / "gate"
    job = each_place.submit(f"wait {gate}")
    with each_place.working():
        overtake_when_begun(each_place, job)
        gate.touch()
    found = each_place.find(job)
    assert (each_place.end(job), found.attempt, found.worker) == ("completed", 3, "one")


def overtake_when_begun(place: Workplace, job: str) -> None:
    until(place.begun)
    taken_over(place, job)


@contextmanager
def in_thread(work: Callable[[], None]) -> Iterator[None]:
    thread = Thread(target=work)
    thread.start()
    yield
    thread.join()


def test_a_worker_that_has_to_stop_hands_its_job_back(each_place: Workplace) -> None:
    job = each_place.submit("train 100")
    with each_place.working() as worker:
        until(each_place.begun)
        worker.stop.ask()
    handed_back = each_place.find(job)
    assert (statuses(handed_back), handed_back.worker) == (["created", "processing"], "")
    assert (handed_back.attempt, handed_back.spared) == (1, 1)
    each_place.work_off(name="two")
    assert (each_place.end(job), each_place.find(job).attempt, each_place.find(job).worker) == (
        "completed",
        2,
        "two",
    )


def test_a_training_goes_on_where_it_was_handed_back(place: Workplace) -> None:
    job = place.submit("train 100")
    with place.working() as worker:
        until(lambda: place.store.note("progress", job))
        worker.stop.ask()
    reached = int((place.folders().training(job) / "step").read_text())
    place.work_off()
    assert place.end(job) == "completed"
    assert (place.data / "starts").read_text().split() == ["0", str(reached)]


def test_a_job_may_end_within_the_grace(place: Workplace) -> None:
    gate = place.data / "gate"
    job, waits = place.submit(f"wait {gate}"), place.submit()
    with place.working(grace=60) as worker:
        told = until(lambda: place.store.note("progress", job))
        worker.stop.ask()
        until(lambda: place.store.note("progress", job) != told)
        gate.touch()
    assert (place.end(job), place.end(waits)) == ("completed", "created")


def test_who_asks_twice_does_not_wait_for_the_job(place: Workplace) -> None:
    job = place.submit("hang")
    with place.working(grace=60) as worker:
        until(place.begun)
        worker.stop.ask()
        worker.stop.ask()
    assert (place.find(job).spared, place.find(job).worker) == (1, "")


def test_who_stops_does_not_wait_long_for_a_step(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_LAST_SECONDS", 0.1)
    job = place.submit("hang")
    with place.working() as worker:
        until(place.begun)
        worker.stop.ask()
    assert (place.find(job).spared, place.find(job).worker) == (1, "")
