"""The ends of jobs, which servers wait for: each is reported once, whatever is wrong with the others."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from store_processes import a_request

from mock_server import faulting
from mock_server.app import Settings, _desk
from mock_server.desk import Desks
from mock_server.errors import StoreUnavailable
from mock_server.faults import read_fault
from mock_server.prediction import Event, Prediction, Status
from mock_server.reporting import _report_ended, offices, watch_jobs
from mock_server.sql_schema import predictions
from mock_server.sql_store import SqlStore
from mock_server.webhooks import awaiting, deliveries
from mock_server.webhooks.service import Bell

HOUR = 3_600_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with closing(SqlStore(f"sqlite:///{tmp_path}/store.db")) as made:
        yield made


@pytest.fixture
def desks(store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desks:
    monkeypatch.setattr("mock_server.reporting._LOOK_SECONDS", 0)
    monkeypatch.setattr("mock_server.webhooks.service._PAUSE_SECONDS", 0)
    settings = Settings(data=tmp_path, backend="gpu")
    return Desks(partial(_desk, settings, store, Bell(), frozenset[str]()))


def now() -> int:
    return time.time_ns() // 1_000_000


def end(store: SqlStore, number: int, *, at: int | None = None) -> str:
    """The id of a job that a worker has just ended, by whose clock it was at that time."""
    prediction = Prediction(
        id=f"{number:032x}",
        model="m",
        edition="current",
        version="v3",
        scenario="normal",
        created_at=0,
        events=(Event(at=0, status=Status.CREATED), Event(at=at or now(), status=Status.FAILED, error="x")),
        job=True,
        webhook="http://127.0.0.1:9/",
    )
    beside = awaiting.beside(prediction, "http://mock.test")
    store.add(prediction, a_request(), now=0, beside=beside)
    return prediction.id


def reported(store: SqlStore) -> list[int]:
    return [int(key, 16) for key, _ in store.notes("delivery-due") for key in [key.split()[1]]]


def watch(desks: Desks, done: Callable[[], Any]) -> None:
    """Watches until it is so."""

    async def until() -> None:
        watching = asyncio.create_task(watch_jobs(desks))
        async with asyncio.timeout(20):
            while not done():
                assert not watching.done()
                await asyncio.sleep(0.005)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(until())


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_an_end_is_reported_when_it_is_seen_whatever_the_clock_of_the_worker_says(
    desks: Desks, store: SqlStore, ahead: int
) -> None:
    began = now()
    job = end(store, 1, at=began + ahead)
    _report_ended(desks)
    delivery = deliveries.find(store, job)
    assert delivery is not None
    assert delivery.due is not None
    assert began <= delivery.due <= now()


def test_the_courier_sends_what_a_clock_ahead_has_dated(desks: Desks, store: SqlStore) -> None:
    job = end(store, 1, at=now() + HOUR)
    _report_ended(desks)
    prediction, delivery = store.get(job), deliveries.find(store, job)
    assert prediction is not None
    assert delivery is not None
    assert deliveries.rescheduled(delivery, prediction) == delivery


def test_a_damaged_record_holds_up_no_other_and_is_told_once(
    desks: Desks, store: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = end(store, 1)
    with store._writing() as connection:
        connection.execute(sa.update(predictions).where(predictions.c.id == damaged).values(record=b"{"))
    jobs = [end(store, 2)]

    def go_on() -> bool:
        if caplog.messages and len(reported(store)) == len(jobs) < 5:
            jobs.append(end(store, len(jobs) + 2))
        return reported(store) == [2, 3, 4, 5, 6]

    watch(desks, go_on)
    [told] = caplog.messages
    assert "damaged record" in told


def test_what_cannot_be_read_of_a_webhook_holds_up_no_other(desks: Desks, store: SqlStore) -> None:
    store.change_note(deliveries.KIND, end(store, 1), lambda _: b"{")
    end(store, 2)
    watch(desks, lambda: reported(store) == [2])


def test_trouble_in_one_session_holds_up_no_other(desks: Desks, store: SqlStore) -> None:
    store.session("a").change_note("delivery-due", "no place in a queue", lambda _: b"")
    end(store.session("b"), 2)
    watch(desks, lambda: reported(store.session("b")))


def test_a_store_that_is_away_ends_nothing_and_is_told_once(
    desks: Desks, store: SqlStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sessions, failures = store.sessions, iter([StoreUnavailable("away")] * 9 + [RuntimeError("odd")] * 9)

    def list_them(*noting: str) -> list[str]:
        for failure in failures:
            raise failure
        return sessions(*noting)

    monkeypatch.setattr(store, "sessions", list_them)
    end(store, 1)
    watch(desks, lambda: reported(store))
    assert [each.rpartition(";")[0] for each in caplog.messages] == [
        "webhooks: StoreUnavailable: away",
        "webhooks: RuntimeError: odd",
    ]


def test_sessions_without_jobs_cost_nothing(desks: Desks, store: SqlStore) -> None:
    asked: list[str] = []

    def cost() -> int:
        asked.clear()
        _report_ended(desks)
        return len(asked)

    sa.event.listen(store._reader, "before_cursor_execute", lambda *more: asked.append(more[2]))
    alone = cost()
    for number in range(50):
        store.session(f"s{number}").change_note("journal", "k", lambda _: b"")
    assert (cost(), alone) == (alone, 4)


def test_a_session_that_was_reset_meanwhile_does_not_begin_again(
    desks: Desks, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store, "sessions", lambda *_: ["gone"])
        assert [_report_ended(desks), len(offices(desks))] == [set(), 2]
    assert (store.sessions(), desks.at_hand("gone")) == ([], None)


def test_only_sessions_with_webhooks_are_looked_after(desks: Desks, store: SqlStore) -> None:
    store.session("idle")
    end(store.session("busy"), 1)
    _report_ended(desks)
    assert [office.name for office in offices(desks)] == ["", "busy"]


def test_a_fault_is_drawn_by_the_one_server_that_reports(desks: Desks, store: SqlStore) -> None:
    faulting.arm(desks.root, read_fault("lost; on=webhook; times=1", what="test"))
    job = end(store, 1)
    awaiting.take(store, job, now=now(), until=now() + HOUR)
    _report_ended(desks)
    assert (len(faulting.armed(desks.root)), deliveries.all_of(store)) == (1, [])


def test_an_end_is_reported_though_the_server_that_was_at_it_has_died(desks: Desks, store: SqlStore) -> None:
    job = end(store, 1)
    awaiting.take(store, job, now=now(), until=now())
    watch(desks, lambda: not awaiting.all_of(store))
    assert reported(store) == [1]
