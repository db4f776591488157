"""The tables of a store in a database, and what SQLite and PostgreSQL have to be told differently."""

import hashlib
import re
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from mock_server.clock import ClockState
from mock_server.store import encode

SCHEMA_VERSION = 2
_LONGEST_ID = 32
_LONGEST_KEY = 200
_SURROGATES = re.compile("[\ud800-\udfff]")
_INSERT: dict[str, Callable[[sa.Table], postgresql.Insert | sqlite.Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


def _text(length: int) -> sa.String:
    # In every database the order is that of the code points, as Python has it.
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


metadata = sa.MetaData()
predictions = sa.Table(
    "predictions",
    metadata,
    # In the order of acceptance, as far as there is one: of two that come in at once either may be first.
    sa.Column(
        "number",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        sa.Identity(always=True),
        primary_key=True,
    ),
    sa.Column("session", _text(_LONGEST_KEY), nullable=False),
    sa.Column("id", _text(_LONGEST_ID), nullable=False),
    sa.Column("record", sa.LargeBinary, nullable=False),
    # Last in the row, because SQLite reads a row from its front and only as far as it has to.
    sa.Column("asked", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("session", "id"),
)
notes = sa.Table(
    "notes",
    metadata,
    sa.Column("session", _text(_LONGEST_KEY), primary_key=True),
    sa.Column("kind", _text(20), primary_key=True),
    sa.Column("key", _text(_LONGEST_KEY), primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("name", _text(_LONGEST_KEY), primary_key=True),
    sa.Column("next_number", sa.BigInteger, nullable=False, default=0),
    sa.Column("clock", sa.LargeBinary, nullable=False, default=lambda: encode(ClockState())),
)
state = sa.Table(
    "wavemock",
    metadata,
    sa.Column("schema_version", sa.Integer, primary_key=True, autoincrement=False),
)


def could_be_an_id(text: str) -> bool:
    """Whether there can be a prediction of that id, so that the database is worth asking."""
    return len(text) <= _LONGEST_ID and text.isascii() and "\0" not in text


def could_be_a_key(text: str) -> bool:
    """Whether there can be a note of that key: no driver takes a lone surrogate, and not every one a NUL."""
    return "\0" not in text and not _SURROGATES.search(text)


def create_tables(connection: sa.Connection) -> int | None:
    """Creates the tables unless they are there, and returns the version of the schema that they have."""
    if not sa.inspect(connection).has_table(state.name):
        metadata.create_all(connection)
        connection.execute(sa.insert(state), {"schema_version": SCHEMA_VERSION})
        connection.execute(sa.insert(sessions), {"name": ""})
    return connection.scalar(sa.select(state.c.schema_version))


def insert_into(connection: sa.Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can be told what to do about a row that is there already."""
    return _INSERT[connection.dialect.name](table)


def take_turn(connection: sa.Connection, session: str, *of: str, alone: bool = False) -> None:
    """Waits until the transaction may change something in the session, and lets others wait until it ends.

    Those that name the same thing in `of` go one after the other, and one that must be `alone` goes without
    any other in its session. A transaction takes one turn, at its beginning, and locks more than one row
    only when it is alone or the one of its name, so that no two wait for each other.
    """
    if connection.dialect.name == "sqlite":
        return  # it has let in a single writer
    wait = sa.func.pg_advisory_xact_lock if alone else sa.func.pg_advisory_xact_lock_shared
    turns = [wait(_number_of(session))]
    if of:
        turns.append(sa.func.pg_advisory_xact_lock(_number_of(session, *of)))
    connection.execute(sa.select(*turns))


def _number_of(*names: str) -> int:
    return int.from_bytes(hashlib.blake2b(repr(names).encode(), digest_size=8).digest(), signed=True)
