"""Does one job: attempt after attempt, each fenced, until it has an end or somebody else is to have it."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
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
from mock_server.errors import BadConfiguration, NotNow, StoreUnavailable
from mock_server.prediction import Asked, Event, Prediction, Status
from mock_server.store import Store
from reference_backend.child import Child, Died, Ready, Unusable
from reference_backend.folders import Folders, discard, folders_of, remove_folder, take_in
from reference_backend.job import Done, Job
from reference_backend.queue import Claims, Ticket
from reference_backend.stopping import Stop
from reference_backend.watching import Attempt, failed, watch, write_note

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
    """Somebody else is to have it, unless somebody has it by now."""


class _Damaged(Exception):
    """The store answers, and has something that cannot be read any more."""


def attend(worker: Worker, claims: Claims, ticket: Ticket) -> Outcome:
    """Tries a job until it has an end, or somebody else is to have it. A try whose child dies is lost."""
    shelf = persist(worker, partial(worker.store.session, ticket.session, begin=False))
    try:
        while True:
            if not started(worker):
                return Outcome.BACK
            begun = _begin(worker, claims, shelf, ticket)
            outcome = _try(worker, begun) if isinstance(begun, Attempt) else begun
            if outcome is not None:
                return outcome
    except _Damaged as error:
        return _set_aside(worker, shelf, ticket, error)


def started(worker: Worker) -> bool:
    """Starts the child unless it runs, and waits for it; False where it is time to stop instead.

    Raises BadConfiguration where it does not come up; NotNow where one did before.
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
        trouble = NotNow if worker.child.came_up else BadConfiguration
        raise trouble(f"{error}, before it could do any") from error
    worker.child.close()
    return False


def _begin(worker: Worker, claims: Claims, shelf: Store, ticket: Ticket) -> Attempt | Outcome:
    """One more attempt, unless another worker has the job or the task has ended, maybe by this."""
    clock = ManualClock(real=SystemClock(), shelf=shelf)
    numbers: list[int] = []

    def change(now: int, prediction: Prediction) -> Prediction:
        if numbers and (prediction.attempt, prediction.worker) == (numbers[-1], worker.name):
            return prediction  # the store has kept what it could not tell of
        begun = attempts.begin(prediction, now=now, worker=worker.name)
        numbers.append(begun.attempt)
        return begun

    def begin() -> tuple[Asked | None, Prediction | None] | None:
        # Asked each time: who has waited, for the store or for models to load, may be taken for dead by now.
        if not claims.holds(ticket):
            return None
        # The time first: it may come from the same database that the change keeps busy.
        asked, now = shelf.asked(ticket.prediction), clock.now()
        return asked, shelf.update(ticket.prediction, partial(change, now))

    folders = folders_of(worker.data, ticket.session)
    try:
        begun = persist(worker, begin)
    except Outdated:
        begun = None, None
    if begun is None:
        _log.warning("%s has been given to another worker", ticket.prediction)
        return Outcome.BACK
    asked, prediction = begun
    if prediction is None or asked is None or prediction.events[-1].status.final:
        if prediction is not None:
            _log.error("%s has failed: %s", prediction.id, prediction.events[-1].error)
        return _over(shelf, folders, ticket.prediction)
    job = _job(prediction, asked, ticket.session, folders)
    return Attempt(
        shelf=shelf, clock=clock, folders=folders, job=job, worker=worker.name, began=time.monotonic()
    )


def _job(prediction: Prediction, asked: Asked, session: str, folders: Folders) -> Job:
    given = asked.input
    return Job(
        id=prediction.id,
        session=session,
        model=prediction.model,
        given=given,
        seed=seed_of(prediction, given),
        makes=prediction.makes,
        folder=folders.work(prediction.id, prediction.attempt),
        attempt=prediction.attempt,
        created_at=prediction.created_at,
    )


def _try(worker: Worker, this: Attempt) -> Outcome | None:
    """What became of one attempt; None where it was lost with its child."""
    job = this.job
    try:
        job.folder.mkdir(parents=True)
    except FileExistsError:
        # Of the same id before a reset, and maybe still worked in: no two attempts share names of files.
        return _give_back(worker, this)
    except OSError as error:
        trouble = failed("storage_failed", f"The job has no room to work in: {error.strerror}.")
        return _finish(worker, this, trouble)
    try:
        end = watch(worker.child, this, stop=worker.stop, limit=worker.job_timeout)
        return _give_back(worker, this) if end is None else _finish(worker, this, end)
    except Died as error:
        _log.error("attempt %d at %s is lost: %s", job.attempt, job.id, error)
        return None
    finally:
        remove_folder(job.folder)


def _keep(this: Attempt, done: Done) -> Event:
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
    return Event(at=0, status=Status.COMPLETED, outputs=names, nsfw=done.nsfw)


def _finish(worker: Worker, this: Attempt, end: Done | Event) -> Outcome:
    job = this.job
    event = _keep(this, end) if isinstance(end, Done) else end
    remarks = msgspec.json.encode(end.remarks) if isinstance(end, Done) and end.remarks else None

    def finish() -> Prediction | None:
        # First, for whoever waits for the end; and without any as well, in place of a lost attempt's.
        write_note(this, REMARKS, remarks)
        change = partial(attempts.finish, attempt=job.attempt, worker=this.worker)
        return this.shelf.update(job.id, partial(change, event=replace(event, at=this.clock.now())))

    late = "the prediction is no more"
    try:
        found = persist(worker, finish)
        counts = found is not None
    except Outdated as error:
        late = str(error)
        found = persist(worker, partial(this.shelf.get, job.id))
        # It may be this very end that the store has kept and could not tell of.
        counts = found is not None and _says(found, this, event)
    if counts:
        seconds = time.monotonic() - this.began
        _log.info("%s: attempt %d %s after %.1f s", job.id, job.attempt, event.error or event.status, seconds)
    else:
        _log.warning("%s: the end of attempt %d came too late: %s", job.id, job.attempt, late)
        discard(*this.where, job.makes)
    return _settled(this, found)


def _says(prediction: Prediction, this: Attempt, event: Event) -> bool:
    same = (prediction.attempt, prediction.worker) == (this.job.attempt, this.worker)
    return same and replace(prediction.events[-1], at=event.at) == event


def _give_back(worker: Worker, this: Attempt) -> Outcome:
    change = partial(attempts.hand_back, attempt=this.job.attempt, worker=this.worker)
    try:
        found = persist(worker, partial(this.shelf.update, this.job.id, change))
    except Outdated as error:
        _log.info("%s: attempt %d is not wanted any more: %s", this.job.id, this.job.attempt, error)
        found = persist(worker, partial(this.shelf.get, this.job.id))
    else:
        if found is not None:
            _log.info("%s: attempt %d is handed back", this.job.id, this.job.attempt)
    return _settled(this, found)


def _settled(this: Attempt, found: Prediction | None) -> Outcome:
    """What is to become of the ticket of a prediction as it was found."""
    if found is not None and not found.events[-1].status.final:
        return Outcome.BACK
    return _over(this.shelf, this.folders, this.job.id)


def _over(shelf: Store, folders: Folders, prediction_id: str) -> Outcome:
    """Clears away what nobody looks at once a task has ended or is no more."""
    remove_folder(folders.training(prediction_id))
    with suppress(StoreUnavailable):
        shelf.change_note(PROGRESS, prediction_id, lambda _: None)
    return Outcome.ENDED


def _set_aside(worker: Worker, shelf: Store, ticket: Ticket, error: _Damaged) -> Outcome:
    """Takes a job off the queue that nobody could ever do. It fails, where that can be kept."""
    _log.error("%s is set aside: %s", ticket.prediction, error)
    now = ManualClock(real=SystemClock(), shelf=shelf).now
    why = "internal_error: What is kept of this task is damaged; the worker's log says more."

    def fail() -> None:
        shelf.update(ticket.prediction, partial(attempts.fail, now=now(), error=why))

    with suppress(Outdated, _Damaged):
        persist(worker, fail)
    return _over(shelf, folders_of(worker.data, ticket.session), ticket.prediction)


def persist(worker: Worker, call: Callable[[], T]) -> T:
    """What the call returns once the store can be reached.

    Raises StoreUnavailable only when the worker has to stop before that, and _Damaged.
    """
    pause = 0.05
    while True:
        try:
            return call()
        except StoreUnavailable as error:
            if isinstance(error.__cause__, msgspec.MsgspecError):
                raise _Damaged(str(error)) from error
            if worker.stop.over:
                raise
            if pause > _LONGEST_PAUSE / 4:
                _log.warning("waiting for the store: %s", error)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
