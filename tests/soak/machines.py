"""The processes under test: started, killed, stopped for a while, and looked after all the time."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 240
_ROOT = Path(__file__).parents[2]
_UNFENCED = Path(__file__).parent / "unfenced"


@dataclass(kw_only=True)
class Machine:
    """A command that is kept running. `mark` is what it says once it works; `down` how long it stays away."""

    name: str
    arguments: Sequence[str]
    mark: str
    folder: Path
    fenced: bool = True
    down: float = 0.2
    starts: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _back_at: float = 0
    _thaws: Callable[[], bool] | None = field(default=None, repr=False)

    def start(self) -> None:
        paths = [str(_ROOT / "tests"), str(_ROOT), *([] if self.fenced else [str(_UNFENCED)])]
        self.starts += 1
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "mock_server", *self.arguments],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"},
            )

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.name}-{self.starts}.log"

    @property
    def log(self) -> str:
        """What it has said since its last start."""
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def works(self) -> bool:
        """Whether it is up, and not stopped."""
        return (
            self._process is not None
            and self._process.poll() is None
            and self._thaws is None
            and self.mark in self.log
        )

    def kill_children(self) -> None:
        """Kills the processes that it has started."""
        told = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        for pid in told.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._back_at = time.monotonic() + self.down

    def freeze(self) -> None:
        """Stops it where it is, until it is let go on as if nothing had been."""
        os.kill(self.pid, signal.SIGSTOP)
        self._thaws = lambda: False

    def thaw(self) -> None:
        """Lets it go on."""
        self._thaws = None
        os.kill(self.pid, signal.SIGCONT)

    def thaw_when(self, may: Callable[[], bool], *, at_least: float, at_most: float) -> None:
        """Lets it go on once it may, after that many seconds."""
        began = time.monotonic()

        def thaws() -> bool:
            seconds = time.monotonic() - began
            return seconds > at_most or (seconds > at_least and may())

        self._thaws = thaws

    def tend(self) -> None:
        """Starts it again where it is down, and lets it go on where it was stopped for long enough."""
        now = time.monotonic()
        if self._thaws is not None and self._thaws():
            self.thaw()
        if self._process is None or (self._process.poll() is not None and now > self._back_at):
            self.start()

    def end(self) -> str:
        """Ends it in order; what was wrong with how it ended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            code = self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return f"{self.name} does not end when it is told to"
        return f"{self.name} ended with {code}: {self.log[-500:]}" if code else ""

    def abandon(self) -> None:
        """Kills it, where it is still there."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def server(folder: Path, name: str, store: str) -> Machine:
    """A server that leaves its work to workers elsewhere; its port stays the same."""
    port = str(free_port())
    where = ("--store", store, "--data", str(folder), "--port", port)
    flags = ("--backend", "gpu", "--workers-elsewhere", "--journal", "100")
    return Machine(
        name=f"server-{name}-{port}", arguments=("serve", *where, *flags), mark="Docs:", folder=folder
    )


def worker(folder: Path, name: str, store: str, *, stale: float, fenced: bool) -> Machine:
    """A worker with jobs that need no model."""
    where = ("--store", store, "--data", str(folder), "--name", name)
    flags = ("--stale", f"{stale}", "--runner", "soak.runners:make")
    return Machine(
        name=f"worker-{name}",
        arguments=("worker", *where, *flags),
        mark="is ready",
        folder=folder,
        fenced=fenced,
    )


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def url_of(machine: Machine) -> str:
    """The address of a server."""
    return f"http://127.0.0.1:{machine.name.rpartition('-')[2]}"
