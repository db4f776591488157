"""Does one job: attempt after attempt, each fenced, until it has an end or somebody else is to have it."""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from mock_server import attempts
from mock_server.attempts import PROGRESS, REMARKS, Outdated
from mock_server.backend import seed_of
from mock_server.clock import ManualClock, SystemClock
from mock_server.errors import BadConfiguration, StoreUnavailable
from mock_server.prediction import Asked, Event, Prediction, Status
from mock_server.store import Store
from reference_backend.child import Child, Died, Ready, Unusable
from reference_backend.folders import Folders, discard, folders_of, remove_folder, take_in
from reference_backend.job import Done, Job
from reference_backend.queue import Ticket
from reference_backend.stopping import Stop
from reference_backend.watching import failed, watch

_LONGEST_PAUSE = 2.0
_READY_SECONDS = 0.1

T = TypeVar("T")
_log = logging.getLogger("wavemock.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What a worker works with. `job_timeout` is in seconds, None: a job may take as long as it likes.

    `name` tells the workers of a store apart, so no two may share one.
    """

    name: str
    store: Store
    data: Path
    child: Child
    stop: Stop
    job_timeout: float | None = None


class Outcome(Enum):
    """What is to become of a ticket."""

    ENDED = auto()
    """The task has ended, whoever did it, or is no more: the ticket is done with."""
    BACK = auto()
    """Somebody else is to have it."""
    LEFT = auto()
    """Somebody else has it, or the store is out of reach: the engine will see to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try:
    """One attempt at a job, on the shelf of its session."""

    shelf: Store
    clock: ManualClock
    folders: Folders
    job: Job
    began: float

    @property
    def where(self) -> tuple[Folders, str, int]:
        return self.folders, self.job.id, self.job.attempt


def attend(worker: Worker, ticket: Ticket) -> Outcome:
    """Tries a job until it has an end, or somebody else is to have it. A try whose child dies is lost."""
    if ticket.session and ticket.session not in persist(worker, worker.store.sessions):
        return Outcome.ENDED
    shelf = persist(worker, partial(worker.store.session, ticket.session))
    while True:
        if not started(worker):
            return Outcome.BACK
        begun = _begin(worker, shelf, ticket)
        if begun is None:
            return Outcome.ENDED
        outcome = _try(worker, begun)
        remove_folder(begun.job.folder)
        if outcome is not None:
            return outcome


def started(worker: Worker) -> bool:
    """Starts the child unless it runs, and waits for it; False where it is time to stop instead.

    Raises BadConfiguration where it does not come up.
    """
    if worker.child.pid is not None:
        return True
    worker.child.start()
    try:
        while not worker.stop.asked:
            message = worker.child.receive(_READY_SECONDS)
            if isinstance(message, Unusable):
                worker.child.close()
                raise BadConfiguration(message.reason)
            if isinstance(message, Ready):
                return True
    except Died as error:
        raise BadConfiguration(f"{error}, before it could do any") from error
    worker.child.close()
    return False


def _begin(worker: Worker, shelf: Store, ticket: Ticket) -> _Try | None:
    """One more attempt, or None where the task has ended, by this as well, or is no more."""
    clock = ManualClock(real=SystemClock(), shelf=shelf)
    numbers: list[int] = []

    def change(now: int, prediction: Prediction) -> Prediction:
        if numbers and (prediction.attempt, prediction.worker) == (numbers[-1], worker.name):
            return prediction  # the store has kept what it could not tell of
        begun = attempts.begin(prediction, now=now, worker=worker.name)
        numbers.append(begun.attempt)
        return begun

    def begin() -> tuple[Prediction | None, Asked | None]:
        # The time first: it may come from the same database that the change keeps busy.
        return shelf.update(ticket.prediction, partial(change, clock.now())), shelf.asked(ticket.prediction)

    try:
        prediction, asked = persist(worker, begin)
    except Outdated:
        prediction, asked = None, None
    folders = folders_of(worker.data, ticket.session)
    if prediction is None or asked is None or prediction.events[-1].status.final:
        if prediction is not None:
            _log.error("%s has failed: %s", prediction.id, prediction.events[-1].error)
        remove_folder(folders.training(ticket.prediction))
        return None
    given = asked.input
    job = Job(
        id=prediction.id,
        session=ticket.session,
        model=prediction.model,
        given=given,
        seed=seed_of(prediction, given),
        makes=prediction.makes,
        folder=folders.work(prediction.id, prediction.attempt),
        attempt=prediction.attempt,
        created_at=prediction.created_at,
    )
    return _Try(shelf=shelf, clock=clock, folders=folders, job=job, began=time.monotonic())


def _try(worker: Worker, this: _Try) -> Outcome | None:
    """What became of one attempt; None where it was lost with its child."""
    job = this.job
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        end = watch(
            worker.child, job, shelf=this.shelf, clock=this.clock, stop=worker.stop, limit=worker.job_timeout
        )
    except Died as error:
        _log.error("attempt %d at %s is lost: %s", job.attempt, job.id, error)
        return None
    except OSError as error:
        end = failed("storage_failed", f"The job has no room to work in: {error.strerror}.")
    if end is None:
        return _give_back(worker, this)
    if isinstance(end, Done):
        end = _keep(worker, this, end)
    return _finish(worker, this, end)


def _keep(worker: Worker, this: _Try, done: Done) -> Event:
    """The end of a job that was done, once its outputs lie where they belong."""
    names = this.job.makes
    try:
        take_in(*this.where, names)
    except FileNotFoundError:
        discard(*this.where, names)
        return failed("internal_error", "The work ended without all of its outputs.")
    except OSError as error:
        discard(*this.where, names)
        return failed("storage_failed", f"The outputs cannot be kept: {error.strerror}.")
    if done.remarks:
        note = msgspec.json.encode(done.remarks)
        persist(worker, lambda: this.shelf.change_note(REMARKS, this.job.id, lambda _: note))
    return Event(at=0, status=Status.COMPLETED, outputs=names, nsfw=done.nsfw)


def _finish(worker: Worker, this: _Try, event: Event) -> Outcome:
    job = this.job

    def finish() -> Prediction | None:
        dated = replace(event, at=this.clock.now())
        return this.shelf.update(job.id, partial(attempts.finish, attempt=job.attempt, event=dated))

    try:
        found = persist(worker, finish)
    except Outdated as error:
        # It may be this very end that the store has kept and could not tell of.
        found = persist(worker, partial(this.shelf.get, job.id))
        if found is None or not _says(found, job.attempt, event):
            _log.warning("%s: the end of attempt %d came too late: %s", job.id, job.attempt, error)
            discard(*this.where, job.makes)
            return _settled(this, found)
    seconds = time.monotonic() - this.began
    _log.info("%s: attempt %d %s after %.1f s", job.id, job.attempt, event.error or event.status, seconds)
    return _settled(this, found)


def _says(prediction: Prediction, attempt: int, event: Event) -> bool:
    last = prediction.events[-1]
    return prediction.attempt == attempt and replace(last, at=event.at) == event


def _give_back(worker: Worker, this: _Try) -> Outcome:
    change = partial(attempts.hand_back, attempt=this.job.attempt)
    try:
        found = persist(worker, partial(this.shelf.update, this.job.id, change))
    except Outdated as error:
        _log.info("%s: attempt %d is not wanted any more: %s", this.job.id, this.job.attempt, error)
        return _settled(this, persist(worker, partial(this.shelf.get, this.job.id)))
    if found is None:
        return _settled(this, found)
    _log.info("%s: attempt %d is handed back", this.job.id, this.job.attempt)
    return Outcome.BACK


def _settled(this: _Try, found: Prediction | None) -> Outcome:
    """What is to become of the ticket of a prediction as it was found."""
    if found is not None and not found.events[-1].status.final:
        return Outcome.LEFT
    if found is None:
        discard(*this.where, this.job.makes)
    remove_folder(this.folders.training(this.job.id))
    with contextlib.suppress(StoreUnavailable):  # nobody looks at the progress of what has ended
        this.shelf.change_note(PROGRESS, this.job.id, lambda _: None)
    return Outcome.ENDED


def persist(worker: Worker, call: Callable[[], T]) -> T:
    """What the call returns once the store can be reached.

    Raises StoreUnavailable only when the worker has to stop before that.
    """
    pause = 0.05
    while True:
        try:
            return call()
        except StoreUnavailable as error:
            if worker.stop.over:
                raise
            if pause > _LONGEST_PAUSE / 4:
                _log.warning("waiting for the store: %s", error)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
