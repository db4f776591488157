"""The tables of a store in a database."""

import sqlalchemy as sa

from mock_server.clock import ClockState
from mock_server.store import encode

SCHEMA_VERSION = 2
LONGEST_ID = 32
LONGEST_KEY = 200

metadata = sa.MetaData()
predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("session", sa.String(LONGEST_KEY), nullable=False),
    sa.Column("id", sa.String(LONGEST_ID), nullable=False),
    sa.Column("record", sa.LargeBinary, nullable=False),
    # Last in the row, because SQLite reads a row from its front and only as far as it has to.
    sa.Column("asked", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("session", "id"),
)
notes = sa.Table(
    "notes",
    metadata,
    sa.Column("session", sa.String(LONGEST_KEY), primary_key=True),
    sa.Column("kind", sa.String(20), primary_key=True),
    sa.Column("key", sa.String(LONGEST_KEY), primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("name", sa.String(LONGEST_KEY), primary_key=True),
    sa.Column("next_number", sa.BigInteger, nullable=False, default=0),
    sa.Column("clock", sa.LargeBinary, nullable=False, default=lambda: encode(ClockState())),
)
state = sa.Table(
    "wavemock",
    metadata,
    sa.Column("schema_version", sa.Integer, primary_key=True, autoincrement=False),
)


def create_tables(connection: sa.Connection) -> int | None:
    """Creates the tables unless they are there, and returns the version of the schema that they have."""
    if not sa.inspect(connection).has_table(state.name):
        metadata.create_all(connection)
        connection.execute(sa.insert(state), {"schema_version": SCHEMA_VERSION})
        connection.execute(sa.insert(sessions), {"name": ""})
    return connection.scalar(sa.select(state.c.schema_version))
