"""The store in a database, for what must outlive the server or be shared by several. SQLite, for now.

Every statement is SQLAlchemy Core and the same for every database. What only SQLite needs, which is how to
open a file, stands in the functions at the end.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mock_server.clock import ClockState
from mock_server.errors import BadConfiguration, StoreUnavailable
from mock_server.prediction import Asked, Prediction
from mock_server.store import decode_asked, decode_prediction, encode

SCHEMA_VERSION = 1
READERS = 8
LONGEST_ID = 32

_schema = sa.MetaData()
_predictions = sa.Table(
    "predictions",
    _schema,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.String(LONGEST_ID), nullable=False, unique=True),
    sa.Column("record", sa.LargeBinary, nullable=False),
    # Last in the row, because SQLite reads a row from its front and only as far as it has to.
    sa.Column("asked", sa.LargeBinary, nullable=False),
)
_state = sa.Table(
    "wavemock",
    _schema,
    sa.Column("schema_version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("next_number", sa.BigInteger, nullable=False),
    sa.Column("clock_offset", sa.BigInteger, nullable=False),
    sa.Column("clock_frozen_at", sa.BigInteger),
)
_AT_FIRST: dict[str, Any] = {"next_number": 0, "clock_offset": 0, "clock_frozen_at": None}


class SqlStore:
    """Keeps everything in the database at `url`, which any number of processes can share.

    A call waits up to `busy_timeout` seconds for its turn in this process and as long again for another
    process to release the database, then raises StoreUnavailable. A database that cannot be used, for
    whatever reason, raises BadConfiguration here.
    """

    blocking: ClassVar[bool] = True

    def __init__(self, url: str, *, busy_timeout: float = 5.0) -> None:
        self._reader, self._writer = _open_sqlite(_sqlite_url(url), busy_timeout)
        self._pid = os.getpid()

    def add(self, prediction: Prediction, asked: Asked, *, now: int) -> None:  # noqa: ARG002 - nothing is dropped
        """Keeps both. Raises KeyError for an id that is taken."""
        row = {"id": prediction.id, "record": encode(prediction), "asked": encode(asked)}
        with self._writing() as connection:
            try:
                connection.execute(sa.insert(_predictions), row)
            except IntegrityError as error:
                raise KeyError(prediction.id) from error

    def get(self, prediction_id: str) -> Prediction | None:
        """The prediction of that id."""
        with self._reading() as connection:
            record = _column_of(connection, _predictions.c.record, prediction_id)
            return None if record is None else decode_prediction(record)

    def asked(self, prediction_id: str) -> Asked | None:
        """The request behind the prediction of that id."""
        with self._reading() as connection:
            request = _column_of(connection, _predictions.c.asked, prediction_id)
            return None if request is None else decode_asked(request)

    def newest(self, *, limit: int, before: str | None = None) -> list[Prediction]:
        """The predictions accepted last, newest first."""
        query = sa.select(_predictions.c.record).order_by(_predictions.c.number.desc()).limit(limit)
        if before is not None:
            if not _could_be_an_id(before):
                return []
            place = sa.select(_predictions.c.number).where(_predictions.c.id == before).scalar_subquery()
            query = query.where(_predictions.c.number < place)
        with self._reading() as connection:
            return [decode_prediction(record) for record in connection.scalars(query)]

    def count(self) -> int:
        """How many predictions are kept."""
        with self._reading() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(_predictions)) or 0

    def next_number(self) -> int:
        """The next number, from 0."""
        number = _state.c.next_number
        with self._writing() as connection:
            drawn = connection.execute(sa.update(_state).values(next_number=number + 1).returning(number))
            return int(drawn.scalar_one()) - 1

    def clock_state(self) -> ClockState:
        """The clock's state as it stands."""
        with self._reading() as connection:
            return _clock_in(connection)

    def change_clock(self, change: Callable[[ClockState], ClockState]) -> ClockState:
        """Replaces the clock's state by what `change` makes of it, while every other writer waits."""
        with self._writing() as connection:
            state = change(_clock_in(connection, for_update=True))
            row = {"clock_offset": state.offset, "clock_frozen_at": state.frozen_at}
            connection.execute(sa.update(_state).values(row))
            return state

    def clear(self) -> None:
        """Forgets everything."""
        with self._writing() as connection:
            connection.execute(_predictions.delete())
            connection.execute(sa.update(_state).values(_AT_FIRST))

    def close(self) -> None:
        """Closes every connection."""
        self._reader.dispose()
        self._writer.dispose()

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


def _column_of(connection: sa.Connection, column: sa.Column[bytes], prediction_id: str) -> bytes | None:
    if not _could_be_an_id(prediction_id):
        return None
    return connection.scalar(sa.select(column).where(_predictions.c.id == prediction_id))


def _clock_in(connection: sa.Connection, *, for_update: bool = False) -> ClockState:
    query = sa.select(_state.c.clock_offset, _state.c.clock_frozen_at)
    row = connection.execute(query.with_for_update() if for_update else query).one()
    return ClockState(offset=row.clock_offset, frozen_at=row.clock_frozen_at)


def _create_tables(connection: sa.Connection) -> int | None:
    """Creates the tables unless they are there, and returns the version of the schema that they have."""
    if not sa.inspect(connection).has_table(_state.name):
        _schema.create_all(connection)
        connection.execute(sa.insert(_state), {"schema_version": SCHEMA_VERSION, **_AT_FIRST})
    return connection.scalar(sa.select(_state.c.schema_version))


# SQLite only, from here on.

_WHY = {
    sqlite3.SQLITE_BUSY: "another program keeps it locked; end that program or name another file",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened or created; check the permissions there",
    sqlite3.SQLITE_CORRUPT: "it is damaged; name another file or put back a copy",
    sqlite3.SQLITE_FULL: "the disk is full; make room or name a file elsewhere",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database, or is damaged; name another file",
}


def _sqlite_url(url: str) -> sa.URL:
    """The URL, read and checked; what it names must be a file, there already or to be created."""
    try:
        parsed = sa.make_url(url)
        shown = parsed.render_as_string(hide_password=True)
    except (ArgumentError, ValueError) as error:
        raise BadConfiguration("the store's URL cannot be read; write sqlite:///FILE") from error
    if parsed.drivername != "sqlite":
        raise BadConfiguration(f"there is no store of this kind: {shown!r}; write sqlite:///FILE")
    name = parsed.database or ":memory:"
    if name == ":memory:" or "\0" in name or parsed != sa.URL.create("sqlite", database=name):
        raise BadConfiguration(f"this names no file: {shown!r}; write sqlite:///FILE, with three slashes")
    file = Path(name)
    try:
        if not file.parent.is_dir():
            raise _unusable(name, f"there is no directory {str(file.parent)!r}; create it")
        if file.exists() and not file.is_file():
            raise _unusable(name, "it is not a file; name another one")
        if file.exists() and not os.access(file, os.W_OK):
            raise _unusable(name, "it cannot be written; change its permissions or name another file")
    except OSError as error:
        raise _unusable(name, f"{error.strerror}; name another file") from error
    return parsed


def _unusable(file: str, why: str) -> BadConfiguration:
    return BadConfiguration(f"cannot use {file!r} as the store: {why}")


def _open_sqlite(url: sa.URL, busy_timeout: float) -> tuple[sa.Engine, sa.Engine]:
    """Checks the file, or creates it, and returns an engine that reads and one that writes.

    Neither is connected when this returns, so a process may fork. Reads are single statements and need no
    transaction. A single connection writes: threads queue up for it instead of polling SQLite's lock.
    """
    options: dict[str, Any] = {
        "connect_args": {"timeout": busy_timeout, "isolation_level": None},
        "max_overflow": 0,
        "pool_timeout": busy_timeout,
    }
    reader = sa.create_engine(url, pool_size=READERS, **options)
    writer = sa.create_engine(url, pool_size=1, **options)
    for engine in (reader, writer):
        sa.event.listen(engine, "connect", _set_synchronous)
    sa.event.listen(writer, "begin", _begin_immediate)
    file = str(url.database)
    try:
        _prepare_file(file, reader, writer, busy_timeout)
    except DBAPIError as error:
        raise _unusable(file, _WHY.get(_code_of(error), f"{error.orig}; name another file")) from error
    finally:
        reader.dispose()
        writer.dispose()
    return reader, writer


def _set_synchronous(connection: sqlite3.Connection, _record: Any) -> None:
    # With a write-ahead log, NORMAL loses nothing when a process dies; only a power cut can cost commits.
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_immediate(connection: sa.Connection) -> None:
    # A transaction that begins as a reader cannot wait for the write lock later on: it fails at once.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _code_of(error: DBAPIError) -> int:
    """SQLite's primary result code, or 0 if the driver itself complained."""
    code: int = getattr(error.orig, "sqlite_errorcode", 0)
    return code & 0xFF


def _prepare_file(file: str, reader: sa.Engine, writer: sa.Engine, busy_timeout: float) -> None:
    """Checks the file and creates what is missing in it, for as long as another process is at the same."""
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            _check_content(file, reader)
            with writer.begin() as connection:
                version = _create_tables(connection)
        except DBAPIError as error:
            # SQLite does not wait its busy timeout when two processes turn on the write-ahead log at once.
            if _code_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            break
    if version != SCHEMA_VERSION:
        why = f"a wavemock of schema {version} wrote it, this one has {SCHEMA_VERSION}; name another file"
        raise _unusable(file, why)


def _check_content(file: str, reader: sa.Engine) -> None:
    """Refuses a damaged file or another program's before writing to it. Turns on the write-ahead log."""
    with reader.connect() as connection:
        if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar() != "ok":
            raise _unusable(file, _WHY[sqlite3.SQLITE_CORRUPT])
        tables = sa.inspect(connection).get_table_names()
        if tables and _state.name not in tables:
            raise _unusable(file, "it is the database of another program; name another file")
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
