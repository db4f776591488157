"""Opens a SQLite file for a store: checked, created where it is missing, and safe among processes."""

import os
import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError

from mock_server.errors import BadConfiguration
from mock_server.sql_schema import SCHEMA_VERSION, create_tables, state

READERS = 8
_WHY = {
    sqlite3.SQLITE_BUSY: "another program keeps it locked; end that program or name another file",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened or created; check the permissions there",
    sqlite3.SQLITE_CORRUPT: "it is damaged; name another file or put back a copy",
    sqlite3.SQLITE_FULL: "the disk is full; make room or name a file elsewhere",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database, or is damaged; name another file",
}


def sqlite_url(url: str) -> sa.URL:
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


def open_sqlite(url: sa.URL, busy_timeout: float, *, flushed: bool) -> tuple[sa.Engine, sa.Engine]:
    """Checks the file, or creates it, and returns an engine that reads and one that writes.

    With `flushed` each commit waits for the disk, so that a power cut costs none; a kill never does.
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
        sa.event.listen(engine, "connect", partial(_set_synchronous, "FULL" if flushed else "NORMAL"))
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


def _set_synchronous(level: str, connection: sqlite3.Connection, _record: Any) -> None:
    # With a write-ahead log, NORMAL loses nothing when a process dies; only a power cut can cost commits.
    connection.execute(f"PRAGMA synchronous={level}")


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
                version = create_tables(connection)
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
        if tables and state.name not in tables:
            raise _unusable(file, "it is the database of another program; name another file")
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
