"""How jobs come from the servers to the workers: the boundary that both engines keep."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa

from mock_server.errors import BadConfiguration
from mock_server.prediction import Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A job that was taken from the queue: which prediction of which session.

    `number` is the engine's own.
    """

    number: int
    session: str
    prediction: str


class Claims(Protocol):
    """A worker's end of the queue. Any call can raise StoreUnavailable."""

    def take(self, patience: float) -> Ticket | None:
        """The job that was accepted first among those that nobody works on; waits so many seconds for one."""
        ...

    def holds(self, ticket: Ticket) -> bool:
        """Whether the job is still this worker's, and was not given to another meanwhile."""
        ...

    def done(self, ticket: Ticket) -> None:
        """Takes the job off the queue. That it is off it already is no error."""
        ...

    def back(self, ticket: Ticket) -> None:
        """Lets the next worker have the job, at once, where it is still this one's."""
        ...


class Engine(Protocol):
    """One kind of queue. The queue says who works on what next; what became of a job, the store alone says.

    So a job may come twice, and a worker asks the store before it begins.
    """

    def prepare(self) -> None:
        """Creates what the queue needs in a database that holds a store already.

        Raises BadConfiguration where that cannot be done.
        """
        ...

    def enqueue(self, connection: sa.Connection, session: str, prediction: Prediction) -> None:
        """Puts a job on the queue, in the connection's transaction: with the prediction or not at all."""
        ...

    def claims(self, *, stale: float) -> AbstractContextManager[Claims]:
        """A worker's end of the queue. A worker not heard of for `stale` seconds has lost its job.

        Raises BadConfiguration where this worker cannot have one.
        """
        ...


def engine_for(url: str) -> Engine:
    """The engine for a store of that URL: sqlite:///FILE for one machine, postgresql://... for many.

    Raises BadConfiguration where there is none.
    """
    # Only one of them is needed, and the other's driver may not be installed.
    if url.startswith("sqlite:"):
        from reference_backend.queue_local import LocalEngine  # noqa: PLC0415

        return LocalEngine(url)
    if url.startswith("postgresql:"):
        try:
            from reference_backend.queue_postgres import PostgresEngine  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise BadConfiguration(
                f"--store postgresql: {error.name} is missing; pip install 'wavemock[postgresql]'"
            ) from error
        return PostgresEngine(url)
    raise BadConfiguration("--store: jobs need sqlite:///FILE or postgresql://USER@HOST/DATABASE")
