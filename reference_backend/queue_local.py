"""The queue of one machine: a table in the file of the store, and one worker that holds a lock beside it."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateTable

from mock_server.errors import BadConfiguration, NotNow, StoreUnavailable
from mock_server.prediction import Prediction
from mock_server.sqlite_file import sqlite_url
from reference_backend.queue import Claims, Ticket

_POLL_SECONDS = 0.1
_BUSY_SECONDS = 5.0

_jobs = sa.Table(
    "jobs",
    sa.MetaData(),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("session", sa.String, nullable=False),
    sa.Column("prediction", sa.String, nullable=False),
    # A number that was used must not come again: somebody may still hold a ticket with it.
    sqlite_autoincrement=True,
)


class LocalEngine:
    """Jobs in the SQLite file at `url`.

    A row stays until its job has ended. So the first row is always the next job, and what was being worked
    on when a worker died is the first thing that the next worker takes.
    """

    def __init__(self, url: str) -> None:
        parsed = sqlite_url(url)
        self._file = Path(str(parsed.database))
        self._database = sa.create_engine(
            parsed, connect_args={"timeout": _BUSY_SECONDS}, poolclass=sa.pool.NullPool
        )

    def prepare(self) -> None:
        """Creates the table."""
        try:
            with self._database.begin() as connection:
                connection.execute(CreateTable(_jobs, if_not_exists=True))
        except SQLAlchemyError as error:
            raise BadConfiguration(f"--store: {self._file} cannot hold jobs: {_reason(error)}") from error

    def enqueue(self, connection: sa.Connection, session: str, prediction: Prediction) -> None:
        """Adds a row."""
        connection.execute(sa.insert(_jobs), {"session": session, "prediction": prediction.id})

    @contextmanager
    def claims(self, *, stale: float) -> Iterator[Claims]:  # noqa: ARG002 - a lock tells at once that its holder died
        """The only worker's end."""
        self.prepare()
        with _only_worker(self._file.with_name(f"{self._file.name}.worker")):
            with _outages():
                # Each call is one statement; a transaction left open would keep the log from being folded in.
                connection = self._database.connect().execution_options(isolation_level="AUTOCOMMIT")
            with connection:
                yield _LocalClaims(connection)


class _LocalClaims:
    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def take(self, patience: float) -> Ticket | None:
        until = time.monotonic() + patience
        while (ticket := self._first()) is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(_POLL_SECONDS, left))
        return ticket

    def _first(self) -> Ticket | None:
        query = sa.select(_jobs.c.number, _jobs.c.session, _jobs.c.prediction).order_by(_jobs.c.number)
        with _outages():
            row = self._connection.execute(query.limit(1)).first()
        if row is None:
            return None
        return Ticket(number=row.number, session=row.session, prediction=row.prediction)

    def holds(self, ticket: Ticket) -> bool:  # noqa: ARG002 - there is no other worker
        """Always."""
        return True

    def done(self, ticket: Ticket) -> None:
        with _outages():
            self._connection.execute(sa.delete(_jobs).where(_jobs.c.number == ticket.number))

    def back(self, ticket: Ticket) -> None:
        """The row is still there."""


@contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreUnavailable(f"the queue is out of reach: {_reason(error)}") from error


def _reason(error: SQLAlchemyError) -> object:
    return getattr(error, "orig", error)


@contextmanager
def _only_worker(path: Path) -> Iterator[None]:
    """Holds the lock of the file's one worker, which ends with the process, however that ends."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise BadConfiguration(f"--store: {path} cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise NotNow(
                f"another worker (process {holder}) works for this store already; "
                "a SQLite file has one worker: end that one, or use postgresql:// for more"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
