"""A worker: takes one job after the other from the queue until it is asked to stop."""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

from mock_server.errors import BadConfiguration, StoreUnavailable
from mock_server.sql_store import SqlStore
from reference_backend.child import Child
from reference_backend.doing import Outcome, Worker, attend, persist, started
from reference_backend.pairing import pair
from reference_backend.queue import Claims, Ticket, engine_for
from reference_backend.settings import WorkerSettings
from reference_backend.stopping import Stop
from reference_backend.sweeping import sweeping

_IDLE_SECONDS = 0.5

_log = logging.getLogger("wavemock.worker")


def run(
    settings: WorkerSettings,
    *,
    name: str,
    runner: str,
    stale: float,
    grace: float,
    job_timeout: float | None,
    ready: Callable[[], None],
) -> None:
    """Works until a signal ends it. `ready` is called once jobs are taken.

    Raises BadConfiguration: NotNow where trying again may help, as with a database that cannot be reached.
    Raises StoreUnavailable where that goes while this starts.
    """
    stop = Stop(grace=grace)
    stop.listen()
    engine = engine_for(settings.store)
    with (
        closing(SqlStore(settings.store)) as store,
        engine.claims(stale=stale) as claims,
        closing(Child(runner, settings)) as child,
    ):
        worker = Worker(
            name=name, store=store, data=settings.data, child=child, stop=stop, job_timeout=job_timeout
        )
        pair(store, settings.data)
        if started(worker):
            ready()
            with sweeping(store, settings.data, retention_days=settings.retention_days):
                work(worker, claims)


def work(worker: Worker, claims: Claims) -> None:
    """Does jobs until it is asked to stop. Raises BadConfiguration where none can be done."""
    trouble = ""
    while not worker.stop.asked:
        try:
            ticket = claims.take(_IDLE_SECONDS)
        except StoreUnavailable as error:
            if not trouble:
                _log.warning("waiting for the store: %s", error)
            trouble = str(error)
            time.sleep(_IDLE_SECONDS)
            continue
        if trouble:
            _log.warning("the store is back")
            trouble = ""
        if ticket is not None:
            _settle(worker, claims, ticket)


def _settle(worker: Worker, claims: Claims, ticket: Ticket) -> None:
    try:
        outcome = attend(worker, claims, ticket)
    except StoreUnavailable:
        outcome = Outcome.BACK  # it was waited for until it was time to stop
    except BadConfiguration:
        claims.back(ticket)
        raise
    settle = claims.done if outcome is Outcome.ENDED else claims.back
    try:
        persist(worker, partial(settle, ticket))
    except StoreUnavailable as error:
        _log.warning("the queue could not be told of %s: %s", ticket.prediction, error)
