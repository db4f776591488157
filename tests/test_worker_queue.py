"""The queues: what is accepted is queued, in order, each job for one worker, and free when that dies."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from workplace import WAIT_SECONDS, Workplace, until, workplace_at, workplace_for

from mock_server.errors import BadConfiguration, StoreUnavailable
from mock_server.sql_store import SqlStore
from reference_backend.queue import Claims, engine_for

pytest_plugins = ("postgres",)

STALE = 1.0


@pytest.fixture(params=["sqlite", "postgresql"])
def each_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workplace]:
    with workplace_for(request, tmp_path) as made:
        yield made


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Iterator[Workplace]:
    with workplace_at(f"sqlite:///{tmp_path}/store.db", tmp_path) as made:
        yield made


def taken(claims: Claims) -> str | None:
    ticket = claims.take(0)
    return ticket.prediction if ticket is not None else None


def test_a_job_is_taken_as_it_was_queued(each_place: Workplace) -> None:
    job = each_place.submit(session="a")
    with each_place.engine.claims(stale=60) as claims:
        ticket = claims.take(0)
        assert ticket is not None
        assert (ticket.session, ticket.prediction) == ("a", job)


def test_a_job_that_is_done_does_not_come_again(each_place: Workplace) -> None:
    first, second = each_place.submit(), each_place.submit()
    with each_place.engine.claims(stale=60) as claims:
        ticket = claims.take(0)
        assert ticket is not None
        assert ticket.prediction == first
        claims.done(ticket)
        claims.done(ticket)
        assert taken(claims) == second


def test_a_job_that_is_given_back_comes_before_later_ones(each_place: Workplace) -> None:
    job = each_place.submit()
    each_place.submit()
    with each_place.engine.claims(stale=60) as claims:
        ticket = claims.take(0)
        assert ticket is not None
        claims.back(ticket)
        assert taken(claims) == job


def test_a_job_is_taken_while_it_is_waited_for(each_place: Workplace) -> None:
    with each_place.engine.claims(stale=60) as claims:
        late = threading.Timer(0.2, each_place.submit)
        late.start()
        # Longer than there is patience for: the wait has to end with the news.
        assert until(lambda: claims.take(2 * WAIT_SECONDS))
        late.join()


def test_what_a_worker_holds_when_it_ends_is_free(each_place: Workplace) -> None:
    job = each_place.submit()
    with each_place.engine.claims(stale=60) as claims:
        assert taken(claims) == job
    with each_place.engine.claims(stale=STALE) as claims:
        assert until(lambda: taken(claims)) == job


def test_what_is_not_accepted_is_not_queued(each_place: Workplace) -> None:
    each_place.numbers = iter((1, 1))
    each_place.submit()
    with pytest.raises(KeyError):
        each_place.submit()
    with each_place.engine.claims(stale=60) as claims:
        ticket = claims.take(0)
        assert ticket is not None
        claims.done(ticket)
        assert taken(claims) is None


def test_what_cannot_be_queued_is_not_accepted(tmp_path: Path, postgres_url: str) -> None:
    for url in (f"sqlite:///{tmp_path}/store.db", postgres_url):
        engine = engine_for(url)
        store = SqlStore(url, enqueue=engine.enqueue)
        place = Workplace(url=url, data=tmp_path, engine=engine, store=store)
        with pytest.raises(StoreUnavailable):
            place.submit()  # there is no queue yet
        assert store.count() == 0
        store.close()


def test_a_queue_may_be_prepared_by_many_at_once(tmp_path: Path, postgres_url: str) -> None:
    for url in (f"sqlite:///{tmp_path}/store.db", postgres_url):
        SqlStore(url).close()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda url: engine_for(url).prepare(), [url] * 8))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mysql://localhost/x", "jobs need sqlite:///FILE or postgresql://"),
        ("nonsense", "jobs need sqlite:///FILE or postgresql://"),
        ("sqlite://", "three slashes"),
        ("postgresql://127.0.0.1:1/x", "it cannot hold jobs"),
    ],
)
def test_a_store_that_can_have_no_queue_is_refused(url: str, why: str) -> None:
    with pytest.raises(BadConfiguration, match=why):
        engine_for(url).prepare()


def test_a_file_has_one_worker_at_a_time(sqlite_place: Workplace) -> None:
    with (
        sqlite_place.engine.claims(stale=60),
        pytest.raises(BadConfiguration, match="another worker"),
        engine_for(sqlite_place.url).claims(stale=60),
    ):
        pass
    with engine_for(sqlite_place.url).claims(stale=60):
        pass
