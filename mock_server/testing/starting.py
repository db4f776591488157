"""Starts `wavemock serve` for a test run, or finds the one that runs."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from mock_server.testing.control import Control, WavemockError

_START_SECONDS = 60
_STOP_SECONDS = 10
_LOOK_SECONDS = 0.01
_SHOWN = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class WavemockServer:
    """A server that answers. `url` has no slash at its end; `owned` says that this run started it.

    `token` opens its control plane to other machines, and is None where it needs none.
    """

    url: str
    owned: bool
    token: str | None = None


def find_server(url: str, *, token: str | None = None) -> WavemockServer:
    """The server at `url`. Raises WavemockError where it does not answer as wavemock does."""
    control = Control(url, token=token)
    try:
        health = control.call("GET", "/_mock/health")
    finally:
        control.close()
    if not isinstance(health, dict) or health.get("status") != "ok":
        raise WavemockError(f"{control.url} answers, and is no wavemock.")
    return WavemockServer(url=control.url, owned=False, token=token)


@contextlib.contextmanager
def started_server(flags: Sequence[str], *, directory: Path) -> Iterator[WavemockServer]:
    """A server of one's own on a free port, until the end of the block. `directory` is where it works.

    Raises WavemockError with what it said where it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="wavemock-") as place:
        ready, said = Path(place, "ready"), Path(place, "said")
        command = [sys.executable, "-P", "-W", "ignore", "-m", "mock_server.testing.launch", "serve"]
        with said.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - this Python, with the flags of the project's own file
                [*command, "--port", "0", *flags, "--ready-file", str(ready)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=directory,
                # Ctrl-C is for pytest, which stops the server when the last test has let go of it.
                start_new_session=True,
            )
        try:
            url = _wait(process, ready, said)
            yield WavemockServer(url=url, owned=True, token=_token_in(flags))
        finally:
            _stop(process)


def _wait(process: "subprocess.Popen[bytes]", ready: Path, said: Path) -> str:
    deadline = monotonic() + _START_SECONDS
    while not ready.exists():
        if process.poll() is not None:
            raise WavemockError(
                f"wavemock did not start (exit code {process.returncode}):\n{_tail(said)}".rstrip()
            )
        if monotonic() > deadline:
            raise WavemockError(f"wavemock was not ready within {_START_SECONDS} s:\n{_tail(said)}".rstrip())
        sleep(_LOOK_SECONDS)
    return ready.read_text().strip()


def _tail(said: Path) -> str:
    return said.read_text(errors="replace")[-_SHOWN:]


def _token_in(flags: Sequence[str]) -> str | None:
    for place, flag in enumerate(flags):
        if flag == "--control-token" and place + 1 < len(flags):
            return flags[place + 1]
        if flag.startswith("--control-token="):
            return flag.partition("=")[2]
    return None


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.communicate(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
