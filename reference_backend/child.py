"""The process that does the jobs: it holds the models, and can die without taking the worker along."""

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection

from mock_server.errors import BadConfiguration
from reference_backend.job import Cancelled, Done, Job, JobFailed, Runner
from reference_backend.settings import WorkerSettings

_REPORTS_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The runner has been made; jobs can come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """The runner cannot be made, for a reason that the operator can mend."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the job is."""

    stage: str
    done: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The job cannot be done, as JobFailed says."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The job was given up because it was asked to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """Something went wrong that nobody foresaw. `stack` is for the log alone."""

    kind: str
    stack: str


Message = Ready | Unusable | Progress | Done | Failed | Stopped | Broken

_STOP = "stop"


class Died(Exception):
    """The child has ended without a word. The text says how."""


class Child:
    """The worker's side of the process. It dies with the thread that started it, where Linux sees to that."""

    def __init__(self, runner: str, settings: WorkerSettings) -> None:
        self._runner = runner
        self._settings = settings
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self.came_up = False
        """Whether there was ever a process that was ready."""

    @property
    def pid(self) -> int | None:
        """The process's number, None where there is no process."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Starts the process unless it runs. Its first message is Ready or Unusable."""
        if self._process is not None:
            return
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_main, args=(theirs, self._runner, self._settings, os.getpid()), name="wavemock-jobs"
        )
        self._process.start()
        theirs.close()

    def give(self, job: Job) -> None:
        """Hands over a job. Messages follow, the last of them neither Progress nor Ready. Raises Died."""
        self._send(job)

    def stop(self) -> None:
        """Asks it to give its job up, which it does at its next report. Raises Died."""
        self._send(_STOP)

    def _send(self, what: Job | str) -> None:
        assert self._pipe is not None  # noqa: S101 - start() comes first
        try:
            self._pipe.send(what)
        except OSError as error:
            raise self._death() from error

    def receive(self, patience: float) -> Message | None:
        """The next message, waited for so many seconds. Raises Died."""
        assert self._pipe is not None  # noqa: S101 - start() comes first
        assert self._process is not None  # noqa: S101 - as above
        try:
            if not self._pipe.poll(patience):
                # Its end of the pipe may be held open by a process that it has started.
                if self._process.is_alive():
                    return None
                raise self._death()
            message: Message = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        self.came_up = self.came_up or isinstance(message, Ready)
        return message

    def close(self) -> None:
        """Ends the process at once, where there is one."""
        if self._process is not None:
            _kill_group(self._process)
            self._death()

    def _death(self) -> Died:
        process, pipe = self._process, self._pipe
        assert process is not None  # noqa: S101 - start() comes first
        assert pipe is not None  # noqa: S101 - start() comes first
        self._process = self._pipe = None
        pipe.close()
        process.join(1)  # an end of the pipe closed by mistake must not keep the worker waiting
        _kill_group(process)
        process.join()
        code = process.exitcode or 0
        process.close()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Died(f"the process of the jobs has ended: {how}")


def _kill_group(process: multiprocessing.process.BaseProcess) -> None:
    """Ends the child with all that it has started."""
    assert process.pid is not None  # noqa: S101 - it was started
    with contextlib.suppress(OSError):  # it has none yet, or there is nobody left in it
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def make(runner: str, settings: WorkerSettings) -> Runner:
    """The runner that the text MODULE:FUNCTION names. Raises BadConfiguration."""
    module, _, function = runner.partition(":")
    try:
        maker = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadConfiguration(f"the jobs of this worker cannot be done here: {error}") from error
    made: Runner = maker(settings)
    return made


def _main(pipe: Connection, runner: str, settings: WorkerSettings, parent: int) -> None:
    _die_with(parent)
    # The worker decides when to stop: a Ctrl-C at the terminal does not reach this group.
    os.setpgid(0, 0)
    # Standard output is the worker's, for its one line; libraries may print what they like.
    os.dup2(2, 1)
    # What is said of optional packages while libraries are imported is no news to an operator.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with contextlib.suppress(EOFError, OSError):  # the worker is gone, so nobody waits for anything
        try:
            run = make(runner, settings)
        except (BadConfiguration, JobFailed) as error:
            pipe.send(Unusable(reason=str(error)))
            return
        pipe.send(Ready())
        while True:
            task = pipe.recv()
            if isinstance(task, Job):  # a stop that comes here has missed its job
                pipe.send(_done(run, task, pipe))


def _done(run: Runner, job: Job, pipe: Connection) -> Done | Failed | Stopped | Broken:
    told = 0.0

    def report(stage: str, done: int, of: int) -> None:
        nonlocal told
        now = time.monotonic()
        try:
            if pipe.poll():
                pipe.recv()
                raise Cancelled
            if now >= told + _REPORTS_SECONDS or done >= of:
                pipe.send(Progress(stage=stage, done=done, of=of))
                told = now
        except (EOFError, OSError):
            os._exit(1)  # the worker is gone, and whatever the job made of an exception nobody would hear

    try:
        return run(job, report)
    except JobFailed as error:
        return Failed(code=error.code, message=error.message)
    except Cancelled:
        return Stopped()
    except Exception as error:  # noqa: BLE001 - the one place where anything may happen; the worker tells it on
        return Broken(kind=type(error).__name__, stack=traceback.format_exc())


def _die_with(parent: int) -> None:
    """Sees to it that this process does not outlive the worker, even one that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
