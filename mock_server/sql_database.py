"""The database of a store, whichever it is: opened by its URL, its troubles in one form."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mock_server.errors import BadConfiguration, StoreUnavailable
from mock_server.sqlite_file import open_sqlite, sqlite_url


def open_database(url: str, busy_timeout: float, *, flushed: bool) -> tuple[sa.Engine, sa.Engine]:
    """An engine that reads and one that writes.

    `flushed`: what is written outlasts a power cut. PostgreSQL sees to that by itself.
    """
    if not url.startswith("postgresql:"):
        return open_sqlite(sqlite_url(url), busy_timeout, flushed=flushed)
    try:
        # Whoever has no PostgreSQL needs no driver for it.
        from mock_server.postgres import open_postgres  # noqa: PLC0415
    except ImportError as error:
        raise BadConfiguration("a store in PostgreSQL needs psycopg; install wavemock[postgresql]") from error
    return open_postgres(url, busy_timeout)


@contextmanager
def outages(done: str) -> Iterator[None]:
    """Whatever the database or its driver has to complain about, as StoreUnavailable."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable(f"the store cannot be {done} at the moment: too many calls wait") from error
    except SQLAlchemyError as error:
        raise StoreUnavailable(f"the store cannot be {done} at the moment: {_reason(error)}") from error
    except msgspec.MsgspecError as error:
        raise StoreUnavailable(f"the store holds a damaged record: {error}") from error


def _reason(error: SQLAlchemyError) -> str:
    orig = getattr(error, "orig", None)
    # What psycopg says of a broken connection names hosts and users; what the server says does not.
    diagnosis = getattr(orig, "diag", None)
    if diagnosis is not None:
        return diagnosis.message_primary or "the database does not answer"
    return str(orig or error)
