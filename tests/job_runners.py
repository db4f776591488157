"""Runners for the tests of the worker. They need no model: the prompt says what happens in the job.

WORD and the numbers behind it: `make` writes outputs, `slow SECONDS` does so in small steps, and so on, as
the table at the end has it.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mock_server.errors import BadConfiguration
from reference_backend.job import Done, Job, JobFailed, Report, Runner
from reference_backend.settings import WorkerSettings


def make(settings: WorkerSettings) -> Runner:
    """The runner of almost every test."""
    made = time.time_ns()

    def run(job: Job, report: Report) -> Done:
        note(settings, f"{job.id} {job.attempt} {made} {os.getpid()}")
        word, *more = str(job.given["prompt"]).split()
        return _DOES[word](job, report, *more)

    return run


def refuse(settings: WorkerSettings) -> Runner:
    """There is no such device."""
    raise BadConfiguration(f"--device {settings.device}: there is none")


def abort(settings: WorkerSettings) -> Runner:
    """A device whose driver gives up."""
    os.abort()


def make_once(settings: WorkerSettings) -> Runner:
    """The runner as above, in a place where there is room for the models the first time only."""
    if (settings.data / "loaded").exists():
        os.abort()
    (settings.data / "loaded").touch()
    return make(settings)


def load_for_ever(settings: WorkerSettings) -> Runner:
    """Models that are large."""
    (settings.data / "loading").touch()
    while True:
        time.sleep(60)


def note(settings: WorkerSettings, line: str) -> None:
    """Writes down that a job was begun, whatever becomes of it."""
    with (settings.data / "begun").open("a") as file:
        file.write(f"{line}\n")


def _make(job: Job, _report: Report) -> Done:
    for index, name in enumerate(job.makes):
        (job.folder / name).write_text(f"{job.id} {job.seed + index}")
    return Done(nsfw=(False,) * len(job.makes))


def _slow(job: Job, report: Report, seconds: str) -> Done:
    steps = max(round(float(seconds) / 0.02), 1)
    for step in range(steps):
        report("drawing", step, steps)
        time.sleep(0.02)
    return _make(job, report)


def _remark(job: Job, report: Report) -> Done:
    done = _make(job, report)
    return Done(nsfw=done.nsfw, remarks=("one", "two"))


def _fail(_job: Job, _report: Report) -> Done:
    raise JobFailed("no_such_thing", "There is no such thing; name another.")


def _raise(_job: Job, _report: Report) -> Done:
    raise KeyError("a secret of the worker")


def _forget(job: Job, report: Report) -> Done:
    _make(job, report)
    (job.folder / job.makes[-1]).unlink()
    return Done(nsfw=(False,) * len(job.makes))


def _miscount(job: Job, report: Report) -> Done:
    _make(job, report)
    return Done(nsfw=())


def _die(job: Job, report: Report, times: str, how: str = "SIGKILL") -> Done:
    """Ends its own process in the first `times` attempts."""
    if job.attempt <= int(times):
        if how == "SIGSEGV":
            ctypes.string_at(0)
        os.kill(os.getpid(), getattr(signal, how))
    return _make(job, report)


def _hang(_job: Job, _report: Report) -> Done:
    """Never reports, and so cannot be asked to stop."""
    while True:
        time.sleep(60)


def _wait(job: Job, report: Report, path: str) -> Done:
    """Goes on until a file is there."""
    while not Path(path).exists():
        report("waiting", 0, 1)
        time.sleep(0.01)
    return _make(job, report)


def _leave_one_behind(job: Job, _report: Report) -> Done:
    """Starts a process that holds everything open, and dies."""
    code = "import time; time.sleep(600)"
    other = subprocess.Popen([sys.executable, "-c", code], close_fds=False)
    (job.folder.parent.parent / "other").write_text(str(other.pid))
    os.kill(os.getpid(), signal.SIGKILL)
    return Done(nsfw=())


def _print(job: Job, report: Report) -> Done:
    print("a library that talks", flush=True)
    return _make(job, report)


def _train(job: Job, report: Report, steps: str) -> Done:
    """Goes on where the attempt before left off."""
    data = job.folder.parent.parent
    kept = data / "training" / job.id
    kept.mkdir(parents=True, exist_ok=True)
    reached = kept / "step"
    start = int(reached.read_text()) if reached.exists() else 0
    with (data / "starts").open("a") as starts:
        starts.write(f"{start}\n")
    for step in range(start, int(steps)):
        reached.write_text(str(step))
        report("training", step, int(steps))
        time.sleep(0.01)
    return _make(job, report)


_DOES: dict[str, Callable[..., Done]] = {
    "make": _make,
    "slow": _slow,
    "remark": _remark,
    "fail": _fail,
    "raise": _raise,
    "forget": _forget,
    "miscount": _miscount,
    "die": _die,
    "hang": _hang,
    "wait": _wait,
    "orphan": _leave_one_behind,
    "print": _print,
    "train": _train,
}
