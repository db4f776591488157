"""What goes on beside jobs on PostgreSQL: a heartbeat, news of jobs, and the rescue of others' jobs."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from psycopg_pool import AsyncNullConnectionPool

from mock_server.errors import StoreUnavailable

QUEUE = "wavemock"
"""The name that jobs have in Procrastinate's tables."""

_RESCUING = 0x77617265  # any number that others are unlikely to lock
_CONNECT_SECONDS = 3
_CALL_SECONDS = 5.0
_LAST_SECONDS = 2.0
_LONGEST_PAUSE = 10.0
_LEAST_PAUSE = 0.2

_CONNECTION: dict[str, Any] = {
    "connect_timeout": _CONNECT_SECONDS,
    "fallback_application_name": "wavemock",
    # A network that is cut says nothing, and of itself TCP would wait for a quarter of an hour.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "tcp_user_timeout": 10_000,
}
_MINE = "id = %(number)s AND status = 'doing' AND worker_id = %(worker)s"

_OUTAGES = (ConnectorException, psycopg.Error, TimeoutError, OSError)

T = TypeVar("T")
_log = logging.getLogger("wavemock.worker")


class Heart:
    """A worker's presence in the queue, kept up by a thread of its own whatever its jobs do.

    A worker not heard of for `stale` seconds has lost its job to another. Every connection is a new one, so
    that a database that comes back is there at once. The calls raise StoreUnavailable.
    """

    def __init__(self, url: str, *, stale: float) -> None:
        self._url = url
        self._stale = stale
        connector = PsycopgConnector(
            conninfo=url,
            pool_factory=AsyncNullConnectionPool,
            kwargs=_CONNECTION,
            timeout=_CONNECT_SECONDS,
            max_size=0,
        )
        self._jobs = App(connector=connector).job_manager
        self._connector = connector
        self._loop: asyncio.AbstractEventLoop
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._worker: int | None = None

    @contextmanager
    def beating(self) -> Iterator["Heart"]:
        """Begins; and in the end leaves, so that what this worker still holds is free at once."""
        born = threading.Event()
        thread = threading.Thread(target=self._live, args=(born,), name="heartbeat", daemon=True)
        thread.start()
        born.wait()
        try:
            self._call(self._connector.open_async())
            for doing, pause in ((self._beat, 6), (self._rescue, 3), (self._listen, 3)):
                asyncio.run_coroutine_threadsafe(self._keep(doing, self._stale / pause), self._loop)
            yield self
        finally:
            with suppress(StoreUnavailable):  # then the others will notice that it is gone
                self._call(self._leave())
            self._loop.call_soon_threadsafe(self._over.set)
            thread.join(_LAST_SECONDS)  # what still waits for a silent database ends with the process

    def _live(self, born: threading.Event) -> None:
        with asyncio.Runner() as runner:  # which in the end cancels whatever goes on
            self._loop = runner.get_loop()
            born.set()
            runner.run(self._over.wait())

    def take(self, patience: float) -> Job | None:
        """The next job, if there is one; waits so many seconds for the news of one otherwise."""
        try:
            job = self._call(self._fetch())
        except StoreUnavailable:
            # The answer that was lost may have been a job, which nobody has once this name is given up.
            self._worker = None
            raise
        if job is None:
            self._call(self._wait_for_news(patience), more=patience)
        return job

    def holds(self, number: int) -> bool:
        """Whether a job is this worker's."""
        query = f"SELECT id FROM procrastinate_jobs WHERE {_MINE}"  # noqa: S608 - a constant
        return bool(self._call(self._execute(query, number)))

    def finish(self, number: int) -> None:
        """Takes a job off the queue, if it is there."""
        # Where the database refuses, somebody took this worker for dead and has seen to the job.
        with suppress(_Refused):
            self._call(self._jobs.finish_job_by_id_async(number, Status.SUCCEEDED, delete_job=True))

    def give_back(self, number: int) -> None:
        """Lets anybody have a job, if this worker still has it.

        Procrastinate's own function for it would take the job from whoever has it.
        """
        change = "UPDATE procrastinate_jobs SET status = 'todo', worker_id = NULL"
        self._call(self._execute(f"{change} WHERE {_MINE} RETURNING id", number))

    async def _execute(self, query: str, number: int) -> list[dict[str, Any]]:
        ask = self._connector.execute_query_all_async
        rows: list[dict[str, Any]] = await ask(query, number=number, worker=self._worker)
        return rows

    def _call(self, coroutine: Coroutine[Any, Any, T], *, more: float = 0) -> T:
        within = _CALL_SECONDS + more
        asked = asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, within), self._loop)
        try:
            # A call that is given up may take leave of a server that says nothing, which is not waited for.
            return asked.result(within + 1)
        except _OUTAGES as error:
            if isinstance(error.__cause__, psycopg.errors.RaiseException):
                raise _Refused from error
            raise StoreUnavailable(f"the queue is out of reach: {error.__cause__ or error!r}") from error

    async def _fetch(self) -> Job | None:
        if self._worker is None:
            self._worker = await self._jobs.register_worker()
        name = self._worker
        try:
            return await self._jobs.fetch_job([QUEUE], name)
        except BaseException as error:
            if isinstance(error.__cause__, psycopg.errors.ForeignKeyViolation):
                self._worker = None
                return None  # the name had been struck off the list: it was not heard of for too long
            # Tried once; otherwise it comes about when the name goes without a heartbeat.
            with suppress(*_OUTAGES):
                await self._jobs.unregister_worker(name)
            raise

    async def _wait_for_news(self, patience: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), patience)
        self._news.clear()

    async def _keep(self, doing: Callable[[], Awaitable[None]], pause: float) -> None:
        """Does it again and again, whatever the database is up to."""
        while True:
            try:
                await asyncio.wait_for(doing(), None if doing == self._listen else _CALL_SECONDS)
            except _OUTAGES as error:
                _log.debug("the queue is out of reach: %s", error)
                await asyncio.sleep(_LEAST_PAUSE)
            else:
                await asyncio.sleep(min(pause, _LONGEST_PAUSE))

    async def _beat(self) -> None:
        if self._worker is not None:
            await self._jobs.update_heartbeat(self._worker)

    async def _listen(self) -> None:
        async def tell(**_: Any) -> None:
            self._news.set()

        await self._jobs.listen_for_jobs(on_notification=tell, queues=[QUEUE])

    async def _rescue(self) -> None:
        """Frees the jobs of workers that are gone. One worker at a time does so for all.

        Two at once could free a job that a third has just taken. And just after the database was down,
        everybody looks gone.
        """
        async with await psycopg.AsyncConnection.connect(self._url, **_CONNECTION) as connection:
            # A rescuer that is stopped in the midst of it must not keep the others from rescuing its own job.
            await connection.execute(
                "SELECT set_config('idle_in_transaction_session_timeout', %s, true)", [f"{_CALL_SECONDS}s"]
            )
            found = await connection.execute(
                "SELECT now() - pg_postmaster_start_time() > make_interval(secs => %s)"
                " AND pg_try_advisory_xact_lock(%s)",
                [self._stale, _RESCUING],
            )
            if await found.fetchone() != (True,):
                return
            for job in await self._jobs.get_stalled_jobs(queue=QUEUE, seconds_since_heartbeat=self._stale):
                _log.warning("the worker of %s is gone; another will try", job.task_kwargs.get("prediction"))
                with suppress(ConnectorException):  # it has ended in this very moment
                    await self._jobs.retry_job(job)
            await self._jobs.prune_stalled_workers(self._stale)

    async def _leave(self) -> None:
        if self._worker is not None:
            await self._jobs.unregister_worker(self._worker)
        await self._connector.close_async()


class _Refused(StoreUnavailable):
    """The database was reached, and does not do it."""
