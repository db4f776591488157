"""The store in a database, for what must outlive the server or be shared by several: SQLite or PostgreSQL.

Every statement is SQLAlchemy Core and the same for both. How each is opened stands in `sqlite_file` and
`postgres`.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import ClassVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from mock_server.clock import ClockState
from mock_server.prediction import Asked, Prediction
from mock_server.sql_database import open_database, outages
from mock_server.sql_schema import (
    could_be_a_key,
    could_be_an_id,
    insert_into,
    notes,
    predictions,
    sessions,
    take_turn,
)
from mock_server.store import MOST_SESSIONS, StoreFull, decode_asked, decode_prediction, encode

Enqueue = Callable[[sa.Connection, str, Prediction], None]
"""Puts a job into a worker's queue: within the transaction that accepts it, a session's name, and the job."""

_MANY = 20_000
_decode_clock = msgspec.json.Decoder(ClockState).decode


class SqlStore:
    """Keeps everything in the database at `url`, which any number of processes can share.

    The URL is `sqlite:///FILE` or `postgresql://USER@HOST/DATABASE`.
    A call waits up to `busy_timeout` seconds for its turn in this process and as long again for another
    process to release the database, then raises StoreUnavailable; with PostgreSQL at most 3 each. A
    database that cannot be used, for whatever reason, raises BadConfiguration here. `enqueue` is called for
    each job that is added; whatever it raises undoes the whole and reaches the caller. A store with one
    outlasts a power cut: what it has acknowledged is on the disk.
    """

    blocking: ClassVar[bool] = True

    def __init__(self, url: str, *, busy_timeout: float = 5.0, enqueue: Enqueue | None = None) -> None:
        self._reader, self._writer = open_database(url, busy_timeout, flushed=enqueue is not None)
        self._pid = os.getpid()
        self._name = ""
        self._enqueue = enqueue

    def session(self, name: str, *, begin: bool = True) -> "SqlStore":
        """The store of a session, over the same connections."""
        if name == self._name:
            return self
        found = copy(self)
        found._name = name
        if not begin:
            return found
        with self._reading() as connection:
            known = connection.scalar(sa.select(sessions.c.name).where(sessions.c.name == name))
            many = connection.scalar(sa.select(sa.func.count()).select_from(sessions)) or 0
        if known is None:
            if many > MOST_SESSIONS:
                raise StoreFull(f"there are {MOST_SESSIONS} sessions; reset those that are done with")
            with found._changing() as connection:
                found._begin_session(connection)
        return found

    def sessions(self, *noting: str) -> list[str]:
        """The names of the others, by one query that looks each of them up in the index of the notes."""
        query = sa.select(sessions.c.name).where(sessions.c.name != "").order_by(sessions.c.name)
        if noting:
            of_it = sa.exists().where(notes.c.session == sessions.c.name, notes.c.kind.in_(noting))
            query = query.where(of_it)
        with self._reading() as connection:
            return list(connection.scalars(query))

    def add(
        self,
        prediction: Prediction,
        asked: Asked,
        *,
        now: int,  # noqa: ARG002 - nothing is dropped
        beside: Mapping[str, bytes] = {},
    ) -> None:
        """Keeps both, and queues what a worker is to do. Raises KeyError for an id that is taken."""
        row = {
            "session": self._name,
            "id": prediction.id,
            "record": encode(prediction),
            "asked": encode(asked),
        }
        with self._changing() as connection:
            if self._name:
                # Another process may have cleared it, and whoever looks for the prediction begins with those
                # sessions that there are.
                self._begin_session(connection)
            try:
                connection.execute(sa.insert(predictions), row)
            except IntegrityError as error:
                raise KeyError(prediction.id) from error
            for kind, value in sorted(beside.items()):
                self._put(connection, kind, prediction.id, value)
            if prediction.job and self._enqueue is not None:
                self._enqueue(connection, self._name, prediction)

    def get(self, prediction_id: str) -> Prediction | None:
        """The prediction of that id."""
        with self._reading() as connection:
            record = self._column_of(connection, predictions.c.record, prediction_id)
            return None if record is None else decode_prediction(record)

    def asked(self, prediction_id: str) -> Asked | None:
        """The request behind the prediction of that id."""
        with self._reading() as connection:
            request = self._column_of(connection, predictions.c.asked, prediction_id)
            return None if request is None else decode_asked(request)

    def update(self, prediction_id: str, change: Callable[[Prediction], Prediction]) -> Prediction | None:
        """Replaces a prediction, while whoever else would change it waits."""
        with self._changing() as connection:
            record = self._column_of(connection, predictions.c.record, prediction_id, for_update=True)
            if record is None:
                return None
            after = change(decode_prediction(record))
            connection.execute(
                sa.update(predictions).where(self._is(prediction_id)).values(record=encode(after))
            )
            return after

    def drop(self, prediction_id: str) -> bool:
        """Forgets a prediction."""
        if not could_be_an_id(prediction_id):
            return False
        with self._changing() as connection:
            return connection.execute(sa.delete(predictions).where(self._is(prediction_id))).rowcount > 0

    def newest(self, *, limit: int, before: str | None = None) -> list[Prediction]:
        """The predictions accepted last, newest first."""
        number = predictions.c.number
        query = sa.select(predictions.c.record).where(predictions.c.session == self._name)
        if before is not None:
            if not could_be_an_id(before):
                return []
            query = query.where(number < sa.select(number).where(self._is(before)).scalar_subquery())
        with self._reading() as connection:
            rows = connection.scalars(query.order_by(number.desc()).limit(limit))
            return [decode_prediction(record) for record in rows]

    def count(self) -> int:
        """How many predictions are kept."""
        query = sa.select(sa.func.count()).where(predictions.c.session == self._name)
        with self._reading() as connection:
            return connection.scalar(query) or 0

    def next_number(self) -> int:
        """The next number, from 0."""
        with self._changing() as connection:
            insert = insert_into(connection, sessions).values(name=self._name, next_number=1)
            drawn = insert.on_conflict_do_update(
                index_elements=[sessions.c.name], set_={"next_number": sessions.c.next_number + 1}
            )
            return int(connection.execute(drawn.returning(sessions.c.next_number)).scalar_one()) - 1

    def note(self, kind: str, key: str) -> bytes | None:
        """The note of that kind and key, which can be any text."""
        if not could_be_a_key(key):
            return None
        with self._reading() as connection:
            return connection.scalar(sa.select(notes.c.value).where(self._at(kind, key)))

    def notes(self, kind: str, *, after: str = "", limit: int | None = None) -> list[tuple[str, bytes]]:
        """The notes of a kind, by key."""
        query = sa.select(notes.c.key, notes.c.value).where(
            notes.c.session == self._name, notes.c.kind == kind, notes.c.key > after
        )
        with self._reading() as connection:
            return [
                (row.key, row.value) for row in connection.execute(query.order_by(notes.c.key).limit(limit))
            ]

    def change_note(
        self, kind: str, key: str, change: Callable[[bytes | None], bytes | None]
    ) -> bytes | None:
        """Replaces a note, while whoever else would change it waits."""
        with self._changing(kind, key) as connection:
            here = self._at(kind, key)
            before = connection.scalar(sa.select(notes.c.value).where(here).with_for_update())
            after = change(before)
            if after is not None:
                self._put(connection, kind, key, after)
            elif before is not None:
                connection.execute(sa.delete(notes).where(here))
            return after

    def append(self, kind: str, value: bytes, *, keep: int) -> str:
        """Adds a note at the end."""
        here = sa.and_(notes.c.session == self._name, notes.c.kind == kind)
        with self._changing(kind) as connection:
            number = int(connection.scalar(sa.select(sa.func.max(notes.c.key)).where(here)) or 0) + 1
            key = f"{number:012d}"
            self._put(connection, kind, key, value)
            connection.execute(sa.delete(notes).where(here, notes.c.key <= f"{number - keep:012d}"))
            return key

    def clock_state(self) -> ClockState:
        """The clock's state as it stands."""
        with self._reading() as connection:
            return self._clock_in(connection)

    def change_clock(self, change: Callable[[ClockState], ClockState]) -> ClockState:
        """Replaces the clock's state by what `change` makes of it, while others that would wait."""
        with self._changing() as connection:
            self._begin_session(connection)
            state = change(self._clock_in(connection, for_update=True))
            here = sessions.c.name == self._name
            connection.execute(sa.update(sessions).where(here).values(clock=encode(state)))
            return state

    def clear(self) -> None:
        """Forgets everything in this session."""
        with self._changing(alone=True) as connection:
            for table in (predictions, notes):
                self._empty(connection, table)
            connection.execute(sa.delete(sessions).where(sessions.c.name == self._name))
            if not self._name:
                self._begin_session(connection)

    def close(self) -> None:
        """Closes every connection."""
        self._reader.dispose()
        self._writer.dispose()

    def _is(self, prediction_id: str) -> sa.ColumnElement[bool]:
        return sa.and_(predictions.c.session == self._name, predictions.c.id == prediction_id)

    def _at(self, kind: str, key: str) -> sa.ColumnElement[bool]:
        return sa.and_(notes.c.session == self._name, notes.c.kind == kind, notes.c.key == key)

    def _put(self, connection: sa.Connection, kind: str, key: str, value: bytes) -> None:
        row = {"session": self._name, "kind": kind, "key": key, "value": value}
        insert = insert_into(connection, notes).values(row)
        connection.execute(
            insert.on_conflict_do_update(index_elements=notes.primary_key, set_={"value": value})
        )

    def _begin_session(self, connection: sa.Connection) -> None:
        """Writes the session's row unless it is there; it may have been cleared meanwhile."""
        connection.execute(insert_into(connection, sessions).values(name=self._name).on_conflict_do_nothing())

    def _empty(self, connection: sa.Connection, table: sa.Table) -> None:
        """Deletes the session's rows so many at a time that no statement takes long."""
        key = sa.tuple_(*table.primary_key)
        some = sa.select(*table.primary_key).where(table.c.session == self._name).limit(_MANY)
        while connection.execute(sa.delete(table).where(key.in_(some))).rowcount == _MANY:
            pass

    def _clock_in(self, connection: sa.Connection, *, for_update: bool = False) -> ClockState:
        query = sa.select(sessions.c.clock).where(sessions.c.name == self._name)
        kept = connection.scalar(query.with_for_update() if for_update else query)
        return ClockState() if kept is None else _decode_clock(kept)

    def _column_of(
        self,
        connection: sa.Connection,
        column: sa.Column[bytes],
        prediction_id: str,
        *,
        for_update: bool = False,
    ) -> bytes | None:
        if not could_be_an_id(prediction_id):
            return None
        query = sa.select(column).where(self._is(prediction_id))
        return connection.scalar(query.with_for_update() if for_update else query)

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        self._leave_connections_of_parent()
        with outages("read"), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        self._leave_connections_of_parent()
        with outages("written"), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _changing(self, *of: str, alone: bool = False) -> Iterator[sa.Connection]:
        with self._writing() as connection:
            take_turn(connection, self._name, *of, alone=alone)
            yield connection

    def _leave_connections_of_parent(self) -> None:
        # A connection that came through a fork must not be used: SQLite's locks belong to a process. Nor may
        # one to a server be closed, which would take leave in the parent's name.
        if self._pid != os.getpid():
            for engine in (self._reader, self._writer):
                engine.dispose(close=engine.dialect.name == "sqlite")
            self._pid = os.getpid()
