"""Watches over the child while it does a job: progress, the fence, limits of time, and the wish to stop."""

import logging
import math
import time
from dataclasses import dataclass

import msgspec

from mock_server import attempts
from mock_server.attempts import PROGRESS, Outdated
from mock_server.clock import ManualClock
from mock_server.errors import StoreUnavailable
from mock_server.prediction import Event, Status
from mock_server.store import Store
from reference_backend.child import Broken, Child, Failed, Progress, Stopped
from reference_backend.folders import Folders
from reference_backend.job import Done, Job
from reference_backend.stopping import Stop

_TICK_SECONDS = 0.1
_LOOK_SECONDS = 0.25
_NOTE_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0
"""How long the child may take to give a job up. Killing it costs the models that it has loaded."""
_LAST_SECONDS = 5.0
"""The same when the worker stops, and the models go anyway. A training keeps a checkpoint meanwhile."""

_log = logging.getLogger("wavemock.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at a job, by the worker of that name, on the shelf of the job's session.

    `began` is as time.monotonic() has it.
    """

    shelf: Store
    clock: ManualClock
    folders: Folders
    job: Job
    worker: str
    began: float

    @property
    def where(self) -> tuple[Folders, str, int]:
        """What the names of its results begin with."""
        return self.folders, self.job.id, self.job.attempt


def check(this: Attempt) -> None:
    """Raises Outdated where the attempt does not count any more."""
    found = this.shelf.get(this.job.id)
    if found is None:
        raise Outdated("the prediction is no more")
    attempts.check(found, this.job.attempt, this.worker)


def write_note(this: Attempt, kind: str, value: bytes | None) -> None:
    """Keeps a note on the prediction, or none. Raises Outdated where the attempt does not count any more."""

    def change(_: bytes | None) -> bytes | None:
        # While the note is locked, so that whoever takes over from here on has the last word.
        check(this)
        return value

    this.shelf.change_note(kind, this.job.id, change)


def failed(code: str, message: str) -> Event:
    """The end of a job that came to nothing; its date is seen to later."""
    return Event(at=0, status=Status.FAILED, error=f"{code}: {message}")


def watch(child: Child, this: Attempt, *, stop: Stop, limit: float | None) -> Done | Event | None:
    """What came of the job: done, failed, or None where it was given up.

    It is given up when the worker has to stop, and when nobody wants it of this attempt any more. After
    `limit` seconds it has failed. Raises Died where the child has not lived to tell.
    """
    job, watched = this.job, _Watched(this)
    give_up_by = math.inf
    began = time.monotonic()
    child.give(job)
    while True:
        message = child.receive(_TICK_SECONDS)
        if isinstance(message, Progress):
            watched.progress = message
        elif message is not None:
            if isinstance(message, Broken):
                child.close()  # what is left of it may be anything
            return _end(job, message)
        now = time.monotonic()
        if limit is not None and now - began > limit:
            child.close()
            return failed(
                "timed_out", f"The work on this task took longer than the {limit:g} s allowed here."
            )
        if stop.over or not watched.look(now):
            if give_up_by == math.inf:
                child.stop()
            give_up_by = min(give_up_by, now + (_LAST_SECONDS if stop.over else _PATIENCE_SECONDS))
        if stop.hurried or now > give_up_by:
            child.close()
            return None


def _end(job: Job, message: object) -> Done | Event | None:
    match message:
        case Done() if len(message.nsfw) == len(job.makes):
            return message
        case Failed():
            return failed(message.code, message.message)
        case Stopped():
            return None
        case Broken():
            _log.error("%s: attempt %d met with %s", job.id, job.attempt, message.stack)
            return failed(
                "internal_error", f"The work met with a {message.kind}; the worker's log says more."
            )
    _log.error("%s: attempt %d told %r", job.id, job.attempt, message)
    return failed(
        "internal_error", "The work came to an end that makes no sense; the worker's log says more."
    )


class _Watched:
    """A job as the store has it: looked at and told of now and then."""

    def __init__(self, this: Attempt) -> None:
        self.progress: Progress | None = None
        self._this = this
        self._looked = self._told = 0.0
        self._wanted = True

    def look(self, now: float) -> bool:
        """Whether this attempt still counts, as far as that is known."""
        if now >= self._looked + _LOOK_SECONDS:
            self._looked = now
            try:
                if self.progress is not None and now >= self._told + _NOTE_SECONDS:
                    self._tell(self.progress)
                    self.progress, self._told = None, now
                else:
                    check(self._this)
            except Outdated:
                self._wanted = False
            except StoreUnavailable as error:
                # The job goes on; its end will wait for the store.
                _log.debug("not looked at for now: %s", error)
        return self._wanted

    def _tell(self, progress: Progress) -> None:
        note = {
            "stage": progress.stage,
            "done": progress.done,
            "of": progress.of,
            "at": self._this.clock.now(),
        }
        write_note(self._this, PROGRESS, msgspec.json.encode(note))
