"""Opens a PostgreSQL database for a store: checked, its tables created, and given up where it is silent."""

import select
import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.exc import DBAPIError, InvalidatePoolError

from mock_server.errors import BadConfiguration, NotNow, StoreUnavailable
from mock_server.sql_schema import SCHEMA_VERSION, create_tables, metadata, state

Result = TypeVar("Result")

CONNECTIONS = 8
"""How many readers a process has at most, and how many writers."""

_WRITE = "write postgresql://USER@HOST/DATABASE"
_CONNECT_SECONDS = 2
_TURN_SECONDS = 3.0
_LOCK_SECONDS = 3.0
_ANSWER_SECONDS = 3.5
_IDLE_SECONDS = 10
_STARTING = 0x77617665  # any number that others are unlikely to lock


def open_postgres(url: str, busy_timeout: float) -> tuple[sa.Engine, sa.Engine]:
    """Checks the database, creates the tables, and returns an engine that reads and one that writes.

    Neither is connected when this returns, so a process may fork. Reads are single statements, each a
    transaction of its own. The URL is libpq's, and so are the environment variables that complete it.
    """
    given = _parameters(url)
    shown = _shown(given)
    lock_seconds = min(busy_timeout, _LOCK_SECONDS)

    def connect() -> psycopg.Connection[Any]:
        defaults = {
            "connect_timeout": _CONNECT_SECONDS,
            "fallback_application_name": "wavemock",
            "keepalives_idle": 30,
        }
        return _Answered.connect(**{**defaults, **given})

    def limit(connection: psycopg.Connection[Any], _record: Any) -> None:
        # The last frees what a process has locked that was stopped in the midst of a transaction.
        connection.execute(
            "SELECT set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false),"
            " set_config('idle_in_transaction_session_timeout', %s, false)",
            [f"{seconds:.3f}s" for seconds in (lock_seconds, _ANSWER_SECONDS, _IDLE_SECONDS)],
        )
        connection.commit()

    options: dict[str, Any] = {
        "creator": connect,
        "pool_size": CONNECTIONS,
        "max_overflow": 0,
        "pool_timeout": min(busy_timeout, _TURN_SECONDS),
        "use_native_hstore": False,
    }
    reader = sa.create_engine("postgresql+psycopg://", isolation_level="AUTOCOMMIT", **options)
    writer = sa.create_engine("postgresql+psycopg://", **options)
    for engine in (reader, writer):
        sa.event.listen(engine, "connect", limit)
        sa.event.listen(engine, "checkout", _check_connected)
    try:
        with writer.begin() as connection:
            _prepare(shown, connection)
    except DBAPIError as error:
        # Without a statement it was not reached, or has let nobody in.
        raise _unusable(
            shown, _reason(error), NotNow if error.statement is None else BadConfiguration
        ) from error
    except StoreUnavailable as error:
        raise _unusable(shown, str(error), NotNow) from error
    finally:
        writer.dispose()
    return reader, writer


class _Answered(psycopg.Connection[Any]):
    """A connection that is closed when the server leaves a question without an answer.

    A machine that is stopped or cut off says nothing, and neither libpq nor the server ends such a wait.
    """

    def wait(self, gen: Generator[Any, Any, Result], *more: Any, **options: Any) -> Result:
        """Waits for as long as an answer may take. Raises StoreUnavailable."""
        return super().wait(self._in_time(gen), *more, **options)

    def _in_time(self, gen: Generator[Any, Any, Result]) -> Generator[Any, Any, Result]:
        deadline = time.monotonic() + _ANSWER_SECONDS + 0.5
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise StoreUnavailable("the database does not answer")
                wanted = gen.send(ready)
        except StopIteration as done:
            answer: Result = done.value
            return answer


def _check_connected(connection: psycopg.Connection[Any], _record: Any, _proxy: Any) -> None:
    """Finds out, without asking the server, whether it has hung up; then there will be a new connection."""
    try:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        while poll.poll(0):
            connection.pgconn.consume_input()
    except psycopg.OperationalError as error:
        raise InvalidatePoolError("the server has closed the connection") from error


def _parameters(url: str) -> dict[str, Any]:
    """What libpq reads in the URL. What it would say of one that it cannot read may hold the password."""
    try:
        given = conninfo_to_dict(url)
    except (psycopg.Error, ValueError) as error:
        raise BadConfiguration(f"the store's URL cannot be read; {_WRITE}") from error
    names = [str(given.get(name, "")) for name in ("user", "host", "dbname")]
    ports = str(given.get("port", "")).replace(",", "")
    if any("@" in name for name in names) or not (ports.isdecimal() or not ports) or not url.isprintable():
        raise BadConfiguration(
            f"the store's URL cannot be read; {_WRITE}, with @ : / ? % in a name or password as %40 etc."
        )
    return given


def _shown(given: dict[str, Any]) -> str:
    """The URL without the password, and without what else it sets."""
    user = f"{given['user']}@" if "user" in given else ""
    port = f":{given['port']}" if "port" in given else ""
    return f"postgresql://{user}{given.get('host', '')}{port}/{given.get('dbname', '')}"


def _prepare(shown: str, connection: sa.Connection) -> None:
    """Checks the database and creates what is missing in it, while other processes that start wait."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_STARTING)))
    setting = sa.func.current_setting
    encoding, read_only = connection.execute(
        sa.select(setting("server_encoding"), setting("transaction_read_only"))
    ).one()
    if encoding != "UTF8":
        raise _unusable(shown, f"its encoding is {encoding}; create one in UTF8")
    if read_only != "off":
        raise _unusable(shown, "it can only be read; name the server that takes writes")
    there = sa.inspect(connection)
    if not there.has_table(state.name):
        taken = [name for name in metadata.tables if there.has_table(name)]
        if taken:
            raise _unusable(
                shown, f"there is another program's table {taken[0]!r} in it; name another database"
            )
    version = create_tables(connection)
    if version != SCHEMA_VERSION:
        why = f"a wavemock of schema {version} wrote it, this one has {SCHEMA_VERSION}; name another database"
        raise _unusable(shown, why)


def _reason(error: DBAPIError) -> str:
    """What the server or the driver has to say, in one line."""
    said = error.orig.diag.message_primary if isinstance(error.orig, psycopg.Error) else None
    return " ".join((said or str(error.orig)).split())


def _unusable(shown: str, why: str, kind: type[BadConfiguration] = BadConfiguration) -> BadConfiguration:
    return kind(f"cannot use {shown!r} as the store: {why}")
