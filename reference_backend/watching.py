"""Watches over the child while it does a job: progress, the fence, limits of time, and the wish to stop."""

import logging
import time

import msgspec

from mock_server import attempts
from mock_server.attempts import PROGRESS, Outdated
from mock_server.clock import Clock
from mock_server.errors import StoreUnavailable
from mock_server.prediction import Event, Status
from mock_server.store import Store
from reference_backend.child import Broken, Child, Failed, Progress, Stopped
from reference_backend.job import Done, Job
from reference_backend.stopping import Stop

_TICK_SECONDS = 0.1
_LOOK_SECONDS = 0.25
_NOTE_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0
"""How long the child may take to give a job up. Killing it costs the models that it has loaded."""

_log = logging.getLogger("wavemock.worker")


def failed(code: str, message: str) -> Event:
    """The end of a job that came to nothing; its date is seen to later."""
    return Event(at=0, status=Status.FAILED, error=f"{code}: {message}")


def watch(
    child: Child, job: Job, *, shelf: Store, clock: Clock, stop: Stop, limit: float | None
) -> Done | Event | None:
    """What came of the job: done, failed, or None where it was given up.

    It is given up when the worker has to stop, and when nobody wants it of this attempt any more. After
    `limit` seconds it has failed. Raises Died where the child has not lived to tell.
    """
    watched = _Watched(job, shelf, clock)
    give_up_by: float | None = None
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
        wanted = watched.look(now)
        if give_up_by is None and (stop.over or not wanted):
            child.stop()
            give_up_by = now + _PATIENCE_SECONDS
        if stop.hurried or (give_up_by is not None and now > give_up_by):
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

    def __init__(self, job: Job, shelf: Store, clock: Clock) -> None:
        self.progress: Progress | None = None
        self._job = job
        self._shelf = shelf
        self._clock = clock
        self._looked = self._told = 0.0
        self._wanted = True

    def look(self, now: float) -> bool:
        """Whether this attempt still counts, as far as that is known."""
        if now >= self._looked + _LOOK_SECONDS:
            self._looked = now
            try:
                self._wanted = self._still_counts()
                if self._wanted and self.progress is not None and now >= self._told + _NOTE_SECONDS:
                    self._tell(self.progress)
                    self.progress, self._told = None, now
            except StoreUnavailable as error:
                # The job goes on; its end will wait for the store.
                _log.debug("not looked at for now: %s", error)
        return self._wanted

    def _still_counts(self) -> bool:
        found = self._shelf.get(self._job.id)
        if found is None:
            return False
        try:
            attempts.check(found, self._job.attempt)
        except Outdated:
            return False
        return True

    def _tell(self, progress: Progress) -> None:
        note = {
            "stage": progress.stage,
            "done": progress.done,
            "of": progress.of,
            "at": self._clock.now(),
        }
        self._shelf.change_note(PROGRESS, self._job.id, lambda _: msgspec.json.encode(note))
