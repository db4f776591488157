"""The queue on PostgreSQL: workers that are gone or only taken for it, and a database that restarts."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

pytest.register_assert_rewrite("postgres")

from postgres import Cluster, programs_or_skip  # noqa: E402 - it asserts
from procrastinate.exceptions import ConnectorException  # noqa: E402
from workplace import Workplace, until, workplace_at  # noqa: E402

from mock_server.errors import BadConfiguration, StoreUnavailable  # noqa: E402
from reference_backend.doing import Outcome, attend  # noqa: E402
from reference_backend.queue import Claims  # noqa: E402
from reference_backend.queue_heartbeat import Heart  # noqa: E402

pytest_plugins = ("postgres",)

STALE = 1.0
LONG = 3
"""For workers that are to be found alive, on a machine that is busy as well."""
MORE = "interval '4 seconds'"
HEARD_OF = "SELECT extract(epoch FROM last_heartbeat) FROM procrastinate_workers WHERE true"


@pytest.fixture
def place(tmp_path: Path, postgres_url: str) -> Iterator[Workplace]:
    """On PostgreSQL."""
    with workplace_at(postgres_url, tmp_path) as made:
        yield made


def taken(claims: Claims) -> str | None:
    ticket = claims.take(0)
    return ticket.prediction if ticket is not None else None


def test_two_workers_never_get_the_same_job(place: Workplace) -> None:
    jobs = [place.submit() for _ in range(20)]
    got: list[str] = []

    def take_all(claims: Claims) -> None:
        while (ticket := claims.take(0)) is not None:
            got.append(ticket.prediction)

    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        workers = [stack.enter_context(place.engine.claims(stale=60)) for _ in range(2)]
        list(pool.map(take_all, workers))
    assert sorted(got) == jobs


def sql(place: Workplace, statement: str) -> list[Any]:
    with psycopg.connect(place.url, autocommit=True) as connection:
        result = connection.execute(statement.encode())
        return result.fetchall() if result.description else []


def die(place: Workplace) -> None:
    """Every worker so far has not been heard of for an hour."""
    sql(place, "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")


def test_a_worker_that_ends_does_not_have_to_be_given_up_for_dead(place: Workplace) -> None:
    place.submit()
    with place.engine.claims(stale=60) as claims:
        assert taken(claims)
    assert sql(place, "SELECT worker_id FROM procrastinate_jobs") == [(None,)]


def test_the_job_of_a_worker_that_is_gone_is_given_to_another(place: Workplace) -> None:
    job = place.submit()
    with place.engine.claims(stale=600) as gone:
        assert taken(gone) == job
        die(place)
        with place.engine.claims(stale=STALE) as other:
            assert until(lambda: taken(other)) == job


def test_a_worker_that_is_alive_keeps_its_job(place: Workplace) -> None:
    place.submit()
    with place.engine.claims(stale=LONG) as one, place.engine.claims(stale=LONG) as other:
        assert taken(one)
        begun = sql(place, HEARD_OF)
        until(lambda: sql(place, HEARD_OF)[0][0] > begun[0][0] + LONG)
        assert taken(other) is None


def test_a_worker_that_was_taken_for_dead_goes_on_with_others(place: Workplace) -> None:
    place.submit()
    with place.engine.claims(stale=600) as claims:
        ticket = claims.take(0)
        assert ticket is not None
        sql(place, "DELETE FROM procrastinate_workers")
        sql(place, "DELETE FROM procrastinate_jobs")
        claims.done(ticket)
        claims.back(ticket)
        job = place.submit()
        with suppress(StoreUnavailable):
            claims.take(0)
        assert until(lambda: taken(claims)) == job


def test_a_job_whose_handing_out_was_not_heard_is_not_lost(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = place.submit()
    with Heart(place.url, stale=STALE).beating() as heart:
        fetch, calls = heart._jobs.fetch_job, iter((True,))

        async def unheard(*arguments: Any) -> Any:
            found = await fetch(*arguments)
            if next(calls, False):
                raise ConnectorException
            return found

        monkeypatch.setattr(heart._jobs, "fetch_job", unheard)
        with pytest.raises(StoreUnavailable):
            heart.take(0)
        found = until(lambda: heart.take(0))
        assert found.task_kwargs["prediction"] == job


def test_a_job_that_another_has_by_now_is_neither_begun_nor_given_back(place: Workplace) -> None:
    place.submit()
    with place.engine.claims(stale=600) as paused, place.engine.claims(stale=STALE) as other:
        old = paused.take(0)
        assert old is not None
        die(place)
        new = until(lambda: other.take(0))
        with place.worker() as worker:
            assert attend(worker, paused, old) is Outcome.BACK
        paused.back(old)
        assert (place.begun(), paused.holds(old), other.holds(new)) == ([], False, True)


def test_one_worker_at_a_time_frees_the_jobs_of_others(place: Workplace) -> None:
    job = place.submit()
    with (
        place.engine.claims(stale=600) as gone,
        psycopg.connect(place.url, autocommit=True) as rescuer,
    ):
        assert taken(gone) == job
        rescuer.execute("SELECT pg_advisory_lock(%s)", [0x77617265])
        die(place)
        with place.engine.claims(stale=STALE) as other:
            assert other.take(2 * STALE) is None
            assert taken(other) is None
            rescuer.execute("SELECT pg_advisory_unlock_all()")
            assert until(lambda: taken(other)) == job


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server that may be killed."""
    with Cluster(programs_or_skip()) as made:
        yield made


def test_a_worker_survives_the_database(cluster: Cluster, tmp_path: Path) -> None:
    with workplace_at(cluster.new_database(), tmp_path) as place:
        job = place.submit()
        with place.engine.claims(stale=LONG) as one, place.engine.claims(stale=LONG) as other:
            ticket = one.take(0)
            cluster.kill()
            with pytest.raises(StoreUnavailable):
                other.take(0)
            cluster.start()
            # From then on, whoever is not heard of again is taken for dead.
            until(lambda: sql(place, f"{HEARD_OF} AND now() > pg_postmaster_start_time() + {MORE}"))
            assert until(lambda: take_once_up(other)) is Up
            assert ticket is not None
            assert ticket.prediction == job
            one.done(ticket)
            assert sql(place, "SELECT FROM procrastinate_jobs") == []


class Up:
    """The database answers, and there is no job."""


def take_once_up(claims: Claims) -> Any:
    with suppress(StoreUnavailable):
        return taken(claims) or Up
    return None


def test_a_worker_does_not_wait_for_a_database_that_says_nothing(cluster: Cluster, tmp_path: Path) -> None:
    back = threading.Timer(25, cluster.resume)
    with workplace_at(cluster.new_database(), tmp_path) as place:
        with place.engine.claims(stale=60) as claims:
            assert taken(claims) is None
            cluster.pause()
            back.start()
            with pytest.raises(StoreUnavailable):
                claims.take(0)
        assert back.is_alive()
        back.cancel()
        cluster.resume()


def test_just_after_a_restart_nobody_is_taken_for_dead(cluster: Cluster, tmp_path: Path) -> None:
    with workplace_at(cluster.new_database(), tmp_path) as place:
        place.submit()
        with place.engine.claims(stale=600) as gone:
            assert taken(gone)
            die(place)
            cluster.kill()
            cluster.start()
            with place.engine.claims(stale=60) as other:
                assert other.take(1) is None
                assert taken(other) is None


def test_a_queue_of_another_version_is_refused(place: Workplace) -> None:
    sql(place, "DROP FUNCTION procrastinate_retry_job_v2 CASCADE")
    with pytest.raises(BadConfiguration, match="procrastinate_retry_job_v2 is missing"):
        place.engine.prepare()
