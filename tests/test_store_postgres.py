"""The store on PostgreSQL: many processes at once, and a server that is refused, restarted or silent."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from store_processes import (
    a_job,
    a_prediction,
    a_request,
    fill,
    in_eight_threads,
    numbers_of,
    run,
)

pytest.register_assert_rewrite("postgres")
from postgres import GUARDED, Cluster, programs_or_skip  # noqa: E402 - it asserts

from mock_server import postgres  # noqa: E402 - as above
from mock_server.clock import ClockState  # noqa: E402
from mock_server.errors import BadConfiguration, StoreUnavailable  # noqa: E402
from mock_server.sql_store import SqlStore  # noqa: E402

pytest_plugins = ("postgres",)


@pytest.fixture
def store(postgres_url: str) -> Iterator[SqlStore]:
    with closing(SqlStore(postgres_url)) as made:
        yield made


def connections(cluster: Cluster, url: str) -> list[str]:
    """The states of the connections to a database."""
    name = url.rpartition("/")[2]
    found = cluster.execute(f"SELECT state FROM pg_stat_activity WHERE datname = '{name}'")
    return [state for (state,) in found]


# What is there, and what many do at once


def test_a_database_remembers(postgres_url: str) -> None:
    with closing(SqlStore(postgres_url)) as store:
        fill(store, 2, 1)
        store.next_number()
        store.change_clock(lambda state: state.advance(7))
    with closing(SqlStore(postgres_url)) as store:
        assert numbers_of(store.newest(limit=9)) == [1, 2]
        assert store.asked(a_prediction(2).id) == a_request()
        assert (store.next_number(), store.clock_state()) == (1, ClockState(offset=7))


def test_two_processes_can_start_together_on_an_empty_database(
    postgres_cluster: Cluster, postgres_url: str
) -> None:
    for _ in range(3):
        assert sorted(run("draw_together", postgres_url, 1)) == ["0", "1"]
        postgres_cluster.empty_database(postgres_url)


def test_two_processes_never_draw_the_same_number_or_lose_a_change_of_the_clock(postgres_url: str) -> None:
    assert sorted(map(int, run("draw_together", postgres_url, 100))) == list(range(200))
    with closing(SqlStore(postgres_url)) as store:
        assert store.clock_state() == ClockState(offset=200)


def test_four_processes_never_lose_a_change(store: SqlStore, postgres_url: str) -> None:
    fill(store, 1)
    assert run("change_together", postgres_url, 100) == []
    found = store.get(a_prediction(1).id)
    assert found is not None
    assert (found.polls, store.note("a", "k")) == (400, b"400")
    assert [key for key, _ in store.notes("b")] == [f"{number:012d}" for number in range(396, 401)]


def test_everything_acknowledged_to_killed_processes_is_there(store: SqlStore, postgres_url: str) -> None:
    acknowledged = set(filter(None, run("kills", postgres_url, 10, 20_261_121)))
    kept = store.newest(limit=store.count())
    assert {line[:16] for line in acknowledged} == {f"{life:016x}" for life in range(10)}
    assert acknowledged - {prediction.id for prediction in kept} == set()
    assert kept == [a_prediction(int(prediction.id, 16)) for prediction in kept]


def test_a_store_can_be_used_on_both_sides_of_a_fork(postgres_url: str) -> None:
    assert run("used_before_a_fork", postgres_url) == ["0", "1", "2", "3"]


def test_a_child_leaves_the_connections_of_its_parent_alone(postgres_url: str) -> None:
    before, after = run("connection_after_a_fork", postgres_url)
    assert before == after


def test_eight_threads_may_do_everything_at_once(store: SqlStore) -> None:
    def work(thread: int) -> None:
        here = store.session("s")
        for number in range(12):
            made = a_prediction(thread * 100 + number)
            here.add(made, a_request(), now=0, beside={"a": b"x", "b": b"y"})
            here.append("c", b"x", keep=2)
            here.change_note("a", made.id, lambda _: None)
            here.change_clock(lambda state: state.advance(1))
            here.update(made.id, lambda found: replace(found, polls=1))
            here.drop(made.id)
            if number % 4 == 3:
                here.clear()

    in_eight_threads(work)
    assert store.session("s").count() == 0


def test_a_session_that_is_cleared_waits_for_what_is_coming_in(store: SqlStore) -> None:
    with ThreadPoolExecutor(1) as pool:
        cleared = []

        def enqueue(*_: object) -> None:
            cleared.append(pool.submit(store.clear))
            with pytest.raises(TimeoutError):
                cleared[0].result(timeout=0.2)

        store._enqueue = enqueue
        store.add(a_job(1), a_request(), now=0)
        cleared[0].result()
    assert store.count() == 0


def test_a_reader_leaves_no_transaction_open(
    store: SqlStore, postgres_cluster: Cluster, postgres_url: str
) -> None:
    with store._reading() as connection:
        connection.exec_driver_sql("SELECT 1")
        assert set(connections(postgres_cluster, postgres_url)) == {"idle"}


def test_a_closed_store_holds_no_connection(postgres_cluster: Cluster, postgres_url: str) -> None:
    with closing(SqlStore(postgres_url)) as store:
        assert connections(postgres_cluster, postgres_url) == []
        in_eight_threads(lambda number: fill(store, number))
        assert 1 <= len(connections(postgres_cluster, postgres_url)) <= 2 * postgres.CONNECTIONS
    deadline = time.monotonic() + 10
    while connections(postgres_cluster, postgres_url):
        assert time.monotonic() < deadline


def test_text_is_in_the_order_of_code_points_whatever_the_database_has(
    postgres_cluster: Cluster, postgres_url: str
) -> None:
    SqlStore(postgres_url).close()
    found = postgres_cluster.execute(
        "SELECT DISTINCT collation_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND data_type = 'character varying'",
        postgres_url,
    )
    assert found == [("C",)]


# A server that is away, silent or held up


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """A server that may be stopped, killed and paused."""
    with Cluster(programs_or_skip()) as made:
        yield made


@pytest.mark.parametrize("end", [Cluster.stop, Cluster.kill])
def test_a_restarted_server_is_used_at_once(own_cluster: Cluster, end: Callable[[Cluster], None]) -> None:
    with closing(SqlStore(own_cluster.new_database())) as store:
        in_eight_threads(lambda number: fill(store, number))
        end(own_cluster)
        own_cluster.start()
        in_eight_threads(lambda number: fill(store, 10 + number))
        assert in_eight_threads(lambda _: store.count()) == [16] * 8


def test_a_server_that_is_away_makes_the_store_unavailable_at_once(own_cluster: Cluster) -> None:
    with closing(SqlStore(own_cluster.new_database())) as store:
        fill(store, 1)
        own_cluster.kill()
        with pytest.raises(StoreUnavailable, match=r"cannot be written .*: the database does not answer"):
            fill(store, 2)
        with pytest.raises(StoreUnavailable, match=r"cannot be read .*: the database does not answer"):
            store.count()
        own_cluster.start()
        assert store.count() == 1


@pytest.mark.parametrize("end", [Cluster.stop, Cluster.kill])
def test_nothing_acknowledged_is_lost_when_the_server_goes_down(
    own_cluster: Cluster, end: Callable[[Cluster], None]
) -> None:
    over = threading.Event()
    with closing(SqlStore(own_cluster.new_database())) as store:

        def work(thread: int) -> list[int]:
            done, number = [], thread << 32
            while not over.is_set():
                number += 1
                try:
                    fill(store, number)
                except StoreUnavailable:
                    continue
                done.append(number)
            return done

        with ThreadPoolExecutor(4) as pool:
            working = [pool.submit(work, thread) for thread in range(4)]
            for _ in range(2):
                wait_for_more(store)
                end(own_cluster)
                own_cluster.start()
            wait_for_more(store)
            over.set()
            acknowledged = {number for each in working for number in each.result()}
        assert acknowledged - set(numbers_of(store.newest(limit=store.count()))) == set()


def wait_for_more(store: SqlStore) -> None:
    """Returns once twenty more predictions are there."""
    enough, deadline = store.count() + 20, time.monotonic() + 20
    while store.count() < enough:
        assert time.monotonic() < deadline


def test_a_silent_server_is_given_up(own_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_ANSWER_SECONDS", 0.3)
    with closing(SqlStore(own_cluster.new_database())) as store:
        fill(store, 1)
        store.count()
        own_cluster.pause()
        try:
            begin = time.monotonic()
            for call in (store.count, store.next_number, store.count):
                with pytest.raises(StoreUnavailable, match="the database does not answer"):
                    call()
            assert time.monotonic() - begin < 10
        finally:
            own_cluster.resume()
        assert (store.count(), store.next_number()) == (1, 0)


def test_a_lock_that_another_holds_is_given_up(postgres_url: str) -> None:
    with (
        closing(SqlStore(postgres_url, busy_timeout=0.2)) as store,
        psycopg.connect(postgres_url) as holder,
    ):
        fill(store, 1)
        holder.execute("SELECT * FROM predictions FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            store.update(a_prediction(1).id, lambda found: found)
        assert store.get(a_prediction(1).id) == a_prediction(1)
        holder.rollback()
        assert store.update(a_prediction(1).id, lambda found: found) == a_prediction(1)


def test_what_a_stopped_process_has_locked_is_free_in_time(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_IDLE_SECONDS", 0.2)
    with closing(SqlStore(postgres_url)) as stopped, closing(SqlStore(postgres_url)) as other:

        def change(state: ClockState) -> ClockState:
            assert other.change_clock(lambda state: state.advance(1)) == ClockState(offset=1)
            return state.advance(10)

        with pytest.raises(StoreUnavailable):
            stopped.change_clock(change)
        assert other.clock_state() == ClockState(offset=1)


def test_tables_that_vanish_make_the_store_unavailable(
    store: SqlStore, postgres_cluster: Cluster, postgres_url: str
) -> None:
    postgres_cluster.execute("DROP TABLE predictions", postgres_url)
    with pytest.raises(StoreUnavailable, match="does not exist"):
        store.count()


# A database that cannot be used


def refusal(url: str) -> str:
    with pytest.raises(BadConfiguration) as refused:
        SqlStore(url)
    assert len(str(refused.value).splitlines()) == 1
    assert "secret" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:",
        "postgresql:/",
        "postgresql:///\0",
        "postgresql://\ud800/x",
        "postgresql://user:secret@host/x\ny",
        "postgresql://user:%zz@host/x",
        "postgresql://user:pass/secret@host/x",
        "postgresql://user:pass@secret@host/x",
        "postgresql://secret:secret:5432/x",
        "postgresql://user:secret@host/x?nonsense=secret",
        "postgresql://user:secret@[host/x",
    ],
)
def test_a_url_that_cannot_be_read_is_refused(url: str) -> None:
    assert "write postgresql://USER@HOST/DATABASE" in refusal(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://user:secret@127.0.0.1:1/x", "user@127.0.0.1:1/x' .*refused"),
        ("postgresql://user:secret@nowhere.invalid/x", "user@nowhere.invalid/x' .*resolve"),
        ("postgresql://user:secret@127.0.0.1:1/x?sslmode=nonsense", "user@127.0.0.1:1/x' .*sslmode"),
        ("postgresql:///x?host=/nowhere&password=secret", "/nowhere/x' .*No such file"),
    ],
)
def test_a_server_that_is_not_there_is_refused(url: str, said: str) -> None:
    assert re.match(f"cannot use 'postgresql://{said}", refusal(url))


def test_a_wrong_password_is_refused(postgres_cluster: Cluster) -> None:
    postgres_cluster.execute(f"CREATE ROLE {GUARDED} LOGIN PASSWORD 'right'")
    url = postgres_cluster.url(user=f"{GUARDED}:secret")
    assert "password authentication failed" in refusal(url)


def test_a_missing_database_is_refused(postgres_cluster: Cluster) -> None:
    assert 'database "missing" does not exist' in refusal(postgres_cluster.url("missing"))


def test_a_database_of_another_version_is_refused(postgres_cluster: Cluster, postgres_url: str) -> None:
    SqlStore(postgres_url).close()
    postgres_cluster.execute("UPDATE wavemock SET schema_version = 99", postgres_url)
    assert "schema 99 wrote it" in refusal(postgres_url)


def test_the_tables_of_another_program_are_left_alone(postgres_cluster: Cluster, postgres_url: str) -> None:
    postgres_cluster.execute("CREATE TABLE sessions (cookie TEXT)", postgres_url)
    assert "another program's table 'sessions'" in refusal(postgres_url)
    assert postgres_cluster.execute("SELECT * FROM pg_tables WHERE tablename = 'notes'", postgres_url) == []


def test_a_database_may_be_shared_with_other_programs(postgres_cluster: Cluster, postgres_url: str) -> None:
    postgres_cluster.execute("CREATE TABLE bookmarks (url TEXT)", postgres_url)
    SqlStore(postgres_url).close()


def test_a_database_that_cannot_keep_every_text_is_refused(postgres_cluster: Cluster) -> None:
    assert "its encoding is LATIN1" in refusal(postgres_cluster.new_database("ENCODING LATIN1 LOCALE 'C'"))


def test_a_database_that_can_only_be_read_is_refused(postgres_cluster: Cluster) -> None:
    url = postgres_cluster.new_database()
    name = url.rpartition("/")[2]
    postgres_cluster.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "it can only be read" in refusal(url)


def test_a_user_who_may_not_create_tables_is_refused(postgres_cluster: Cluster, postgres_url: str) -> None:
    postgres_cluster.execute("CREATE ROLE stranger LOGIN")
    assert "permission denied" in refusal(postgres_url.replace("wavemock@", "stranger@"))


def test_without_the_driver_it_is_said_what_to_install() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from mock_server.sql_store import SqlStore\n"
        "try: SqlStore('postgresql://localhost/x')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    root = Path(__file__).parent.parent
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    assert said == "BadConfiguration a store in PostgreSQL needs psycopg; install wavemock[postgresql]\n"


def test_sqlite_does_without_the_driver(tmp_path: Path) -> None:
    program = (
        "import sys; from mock_server.sql_store import SqlStore;"
        "SqlStore(sys.argv[1]).close(); sys.exit('psycopg' in sys.modules)"
    )
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", program, f"sqlite:///{tmp_path}/x.db"]
    assert subprocess.run(command, cwd=root, check=False).returncode == 0
