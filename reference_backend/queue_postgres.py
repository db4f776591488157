"""The queue of many machines: Procrastinate's jobs in the PostgreSQL database of the store.

Only its tables and its job manager are used, and not its worker: that one's heartbeat can end without a word
while it works on (upstream issue 1597), and does end while it finishes its last job (pull request 1585). A
worker here does one job at a time in its own thread; what has to go on meanwhile is in `queue_heartbeat`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa
from procrastinate import App, SyncPsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.schema import SchemaManager
from procrastinate.sql import queries

from mock_server.errors import BadConfiguration, NotNow, StoreUnavailable
from mock_server.prediction import Prediction
from reference_backend.queue import Claims, Ticket
from reference_backend.queue_heartbeat import QUEUE, Heart

_TASK = "wavemock.job"
_CREATING = 0x77616A6F  # any number that others are unlikely to lock
_CONNECT_SECONDS = 3


class PostgresEngine:
    """Jobs in the database at `url`. A row goes when its job has ended."""

    def __init__(self, url: str) -> None:
        self._url = url
        # It lends its statements to the store's connections, and never opens one of its own.
        self._deferring = App(connector=SyncPsycopgConnector())

    def prepare(self) -> None:
        """Creates Procrastinate's tables and functions, while other processes that start wait."""
        try:
            with psycopg.connect(self._url, connect_timeout=_CONNECT_SECONDS) as connection:
                connection.execute("SELECT pg_advisory_xact_lock(%s)", [_CREATING])
                there = connection.execute("SELECT to_regclass('procrastinate_jobs')").fetchone()
                if there == (None,):
                    connection.execute(SchemaManager.get_schema())
                elif missing := _missing(connection):
                    raise BadConfiguration(
                        f"--store: the queue in it is of another version of Procrastinate ({missing[0]} is "
                        "missing): apply that project's migrations, or name another database"
                    )
        except psycopg.OperationalError as error:
            raise NotNow(f"--store: it cannot hold jobs: {_line(error)}") from error
        except psycopg.Error as error:
            raise BadConfiguration(f"--store: it cannot hold jobs: {_line(error)}") from error

    def enqueue(self, connection: sa.Connection, session: str, prediction: Prediction) -> None:
        """Defers a job. Raises StoreUnavailable."""
        raw: Any = connection.connection.driver_connection
        task = self._deferring.configure_task(_TASK, queue=QUEUE, connection=raw)
        try:
            task.defer(session=session, prediction=prediction.id)
        except ConnectorException as error:
            raise StoreUnavailable(f"the queue is out of reach: {_line(error.__cause__ or error)}") from error

    @contextmanager
    def claims(self, *, stale: float) -> Iterator[Claims]:
        """A worker's end, with a heartbeat for as long as it is held."""
        self.prepare()
        with Heart(self._url, stale=stale).beating() as heart:
            yield _PostgresClaims(heart)


class _PostgresClaims:
    def __init__(self, heart: Heart) -> None:
        self._heart = heart

    def take(self, patience: float) -> Ticket | None:
        job = self._heart.take(patience)
        if job is None:
            return None
        given = job.task_kwargs
        return Ticket(number=job.id or 0, session=str(given["session"]), prediction=str(given["prediction"]))

    def holds(self, ticket: Ticket) -> bool:
        return self._heart.holds(ticket.number)

    def done(self, ticket: Ticket) -> None:
        self._heart.finish(ticket.number)

    def back(self, ticket: Ticket) -> None:
        self._heart.give_back(ticket.number)


def _missing(connection: psycopg.Connection[Any]) -> list[str]:
    """The functions that this version of Procrastinate calls and the database does not have."""
    called = {name for text in queries.values() for name in re.findall(r"procrastinate_\w+_v\d+(?=\()", text)}
    rows = connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE NOT EXISTS"
        " (SELECT FROM pg_proc WHERE proname = name) ORDER BY name",
        [sorted(called)],
    )
    return [row[0] for row in rows]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
