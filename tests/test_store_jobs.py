"""What is queued for workers in the transaction that accepts it, in either kind of database."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from store_processes import a_job, a_prediction, a_request, fill

from mock_server.prediction import Prediction
from mock_server.sql_store import Enqueue, SqlStore

pytest_plugins = ("postgres",)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def opened(url: str) -> Iterator[Callable[[Enqueue], SqlStore]]:
    made: list[SqlStore] = []

    def open_store(enqueue: Enqueue) -> SqlStore:
        made.append(SqlStore(url, enqueue=enqueue))
        return made[0]

    yield open_store
    made[0].close()


def queue(connection: sa.Connection, session: str, prediction: Prediction) -> None:
    """Writes down whose job it is, in a table of its own."""
    connection.execute(sa.text("CREATE TABLE IF NOT EXISTS queued (session TEXT, id TEXT)"))
    connection.execute(
        sa.text("INSERT INTO queued VALUES (:session, :id)"), {"session": session, "id": prediction.id}
    )


def queued(store: SqlStore) -> list[tuple[str, str]]:
    with store._reading() as connection:
        return [(row.session, row.id) for row in connection.execute(sa.text("SELECT * FROM queued"))]


def test_a_job_is_queued_with_its_session(opened: Callable[[Enqueue], SqlStore]) -> None:
    store = opened(queue)
    store.add(a_job(1), a_request(), now=0)
    store.session("s").add(a_job(2), a_request(), now=0)
    assert queued(store) == [("", a_job(1).id), ("s", a_job(2).id)]


def test_a_job_is_in_a_session_that_there_is_though_another_process_has_reset_it(
    opened: Callable[[Enqueue], SqlStore], url: str
) -> None:
    session = opened(queue).session("s")
    with closing(SqlStore(url)) as other:
        other.session("s").clear()
        session.add(a_job(1), a_request(), now=0)
        assert other.sessions() == ["s"]


def test_what_is_no_job_is_not_queued(opened: Callable[[Enqueue], SqlStore]) -> None:
    asked: list[str] = []
    fill(opened(lambda _, __, prediction: asked.append(prediction.id)), 1)
    assert asked == []


def test_a_job_that_cannot_be_queued_is_not_accepted(opened: Callable[[Enqueue], SqlStore]) -> None:
    def fail(connection: sa.Connection, session: str, prediction: Prediction) -> None:
        queue(connection, session, prediction)
        raise OSError("the queue is full")

    store = opened(fail)
    with pytest.raises(OSError, match="the queue is full"):
        store.add(a_job(1), a_request(), now=0, beside={"a": b"x"})
    assert (store.count(), store.note("a", a_job(1).id)) == (0, None)


def test_an_id_that_is_taken_queues_nothing(opened: Callable[[Enqueue], SqlStore]) -> None:
    store = opened(queue)
    store.add(a_job(1), a_request(), now=0)
    with pytest.raises(KeyError):
        store.add(a_job(1), a_request(), now=0)
    assert len(queued(store)) == 1


def test_a_session_can_be_emptied_that_holds_more_than_one_statement_deletes(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mock_server.sql_store._MANY", 2)
    with closing(SqlStore(url)) as store:
        fill(store.session("other"), 9)
        fill(store, *range(5))
        for key in "abcd":
            store.change_note("a", key, lambda _: b"x")
        store.clear()
        assert (store.count(), store.notes("a"), store.session("other").count()) == (0, [], 1)
        assert store.get(a_prediction(0).id) is None
