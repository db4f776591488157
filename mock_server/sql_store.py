"""The store in a database, for what must outlive the server or be shared by several. SQLite, for now.

Every statement is SQLAlchemy Core. What only SQLite needs, which is how to open a file, stands in
`sqlite_file`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import ClassVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mock_server.clock import ClockState
from mock_server.errors import StoreUnavailable
from mock_server.prediction import Asked, Prediction
from mock_server.sql_schema import LONGEST_ID, notes, predictions, sessions
from mock_server.sqlite_file import open_sqlite, sqlite_url
from mock_server.store import MOST_SESSIONS, StoreFull, decode_asked, decode_prediction, encode

_decode_clock = msgspec.json.Decoder(ClockState).decode


class SqlStore:
    """Keeps everything in the database at `url`, which any number of processes can share.

    A call waits up to `busy_timeout` seconds for its turn in this process and as long again for another
    process to release the database, then raises StoreUnavailable. A database that cannot be used, for
    whatever reason, raises BadConfiguration here.
    """

    blocking: ClassVar[bool] = True

    def __init__(self, url: str, *, busy_timeout: float = 5.0) -> None:
        self._reader, self._writer = open_sqlite(sqlite_url(url), busy_timeout)
        self._pid = os.getpid()
        self._name = ""

    def session(self, name: str) -> "SqlStore":
        """The store of a session, over the same connections."""
        if name == self._name:
            return self
        with self._reading() as connection:
            known = connection.scalar(sa.select(sessions.c.name).where(sessions.c.name == name))
            many = connection.scalar(sa.select(sa.func.count()).select_from(sessions)) or 0
        if known is None:
            if many > MOST_SESSIONS:
                raise StoreFull(f"there are {MOST_SESSIONS} sessions; reset those that are done with")
            with self._writing() as connection:
                connection.execute(
                    sa.insert(sessions).prefix_with("OR IGNORE", dialect="sqlite"), {"name": name}
                )
        found = copy(self)
        found._name = name
        return found

    def sessions(self) -> list[str]:
        """The names of the others."""
        with self._reading() as connection:
            query = sa.select(sessions.c.name).where(sessions.c.name != "").order_by(sessions.c.name)
            return list(connection.scalars(query))

    def add(self, prediction: Prediction, asked: Asked, *, now: int) -> None:  # noqa: ARG002 - nothing is dropped
        """Keeps both. Raises KeyError for an id that is taken."""
        row = {
            "session": self._name,
            "id": prediction.id,
            "record": encode(prediction),
            "asked": encode(asked),
        }
        with self._writing() as connection:
            try:
                connection.execute(sa.insert(predictions), row)
            except IntegrityError as error:
                raise KeyError(prediction.id) from error

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
        """Replaces a prediction, while every other writer waits."""
        with self._writing() as connection:
            record = self._column_of(connection, predictions.c.record, prediction_id)
            if record is None:
                return None
            after = change(decode_prediction(record))
            connection.execute(
                sa.update(predictions).where(self._is(prediction_id)).values(record=encode(after))
            )
            return after

    def drop(self, prediction_id: str) -> bool:
        """Forgets a prediction."""
        if not _could_be_an_id(prediction_id):
            return False
        with self._writing() as connection:
            return connection.execute(sa.delete(predictions).where(self._is(prediction_id))).rowcount > 0

    def newest(self, *, limit: int, before: str | None = None) -> list[Prediction]:
        """The predictions accepted last, newest first."""
        number = predictions.c.number
        query = sa.select(predictions.c.record).where(predictions.c.session == self._name)
        if before is not None:
            if not _could_be_an_id(before):
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
        with self._writing() as connection:
            return self._draw(connection)

    def note(self, kind: str, key: str) -> bytes | None:
        """The note of that kind and key."""
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
        """Replaces a note, while every other writer waits."""
        with self._writing() as connection:
            before = connection.scalar(sa.select(notes.c.value).where(self._at(kind, key)))
            after = change(before)
            if before is not None:
                connection.execute(sa.delete(notes).where(self._at(kind, key)))
            if after is not None:
                self._put(connection, kind, key, after)
            return after

    def append(self, kind: str, value: bytes, *, keep: int) -> str:
        """Adds a note at the end."""
        here = sa.and_(notes.c.session == self._name, notes.c.kind == kind)
        with self._writing() as connection:
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
        """Replaces the clock's state by what `change` makes of it, while every other writer waits."""
        with self._writing() as connection:
            state = change(self._clock_in(connection, for_update=True))
            here = sessions.c.name == self._name
            if not connection.execute(sa.update(sessions).where(here).values(clock=encode(state))).rowcount:
                connection.execute(sa.insert(sessions), {"name": self._name, "clock": encode(state)})
            return state

    def clear(self) -> None:
        """Forgets everything in this session."""
        with self._writing() as connection:
            connection.execute(sa.delete(predictions).where(predictions.c.session == self._name))
            connection.execute(sa.delete(notes).where(notes.c.session == self._name))
            connection.execute(sa.delete(sessions).where(sessions.c.name == self._name))
            if not self._name:
                connection.execute(sa.insert(sessions), {"name": ""})

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
        connection.execute(sa.insert(notes), row)

    def _draw(self, connection: sa.Connection) -> int:
        number, here = sessions.c.next_number, sessions.c.name == self._name
        drawn = connection.execute(
            sa.update(sessions).where(here).values(next_number=number + 1).returning(number)
        ).scalar()
        if drawn is None:  # the session was cleared meanwhile
            connection.execute(sa.insert(sessions), {"name": self._name})
            return self._draw(connection)
        return int(drawn) - 1

    def _clock_in(self, connection: sa.Connection, *, for_update: bool = False) -> ClockState:
        query = sa.select(sessions.c.clock).where(sessions.c.name == self._name)
        kept = connection.scalar(query.with_for_update() if for_update else query)
        return ClockState() if kept is None else _decode_clock(kept)

    def _column_of(
        self, connection: sa.Connection, column: sa.Column[bytes], prediction_id: str
    ) -> bytes | None:
        if not _could_be_an_id(prediction_id):
            return None
        return connection.scalar(sa.select(column).where(self._is(prediction_id)))

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        self._leave_connections_of_parent()
        with _outages("read"), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        self._leave_connections_of_parent()
        with _outages("written"), self._writer.begin() as connection:
            yield connection

    def _leave_connections_of_parent(self) -> None:
        # SQLite's locks belong to a process, so a connection that came through a fork must not be used.
        if self._pid != os.getpid():
            self.close()
            self._pid = os.getpid()


@contextmanager
def _outages(done: str) -> Iterator[None]:
    """Whatever the database or its driver has to complain about, as StoreUnavailable."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable(f"the store cannot be {done} at the moment: too many calls wait") from error
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", error)
        raise StoreUnavailable(f"the store cannot be {done} at the moment: {reason}") from error
    except msgspec.MsgspecError as error:
        raise StoreUnavailable(f"the store holds a damaged record: {error}") from error


def _could_be_an_id(prediction_id: str) -> bool:
    """Whether to ask the database at all: no driver takes a lone surrogate, and not every one a NUL."""
    return len(prediction_id) <= LONGEST_ID and prediction_id.isascii() and "\0" not in prediction_id
