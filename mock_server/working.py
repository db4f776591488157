"""The worker beside a server on one machine: its flags, its process, and what happens when that ends."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from mock_server.errors import BadConfiguration

_NEEDED = ("torch", "diffusers", "peft", "transformers", "accelerate", "safetensors")
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_SOUND_SECONDS = 60
_UNUSABLE = 2
_END_SECONDS = 15
"""For what comes after the grace: a step that does not end is killed, and a silent database given up."""

_OPTIONS = (
    click.option(
        "--checkpoint",
        metavar="DIR|ID",
        help="FLUX.1 dev weights in the layout of diffusers, or a hub id. [default: the small offline FLUX]",
    ),
    click.option(
        "--checkpoint-schnell", metavar="DIR|ID", help="The same for FLUX.1 schnell. [default: as above]"
    ),
    click.option("--device", default="auto", show_default=True, metavar="NAME", help="cpu, cuda or cuda:1."),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "bf16", "fp16", "fp32"]),
        default="auto",
        show_default=True,
        help="Of the weights; auto is bf16 on a GPU and fp32 elsewhere.",
    ),
    click.option("--compile/--no-compile", default=False, show_default=True, help="Compile the transformer."),
    click.option(
        "--attention",
        metavar="NAME",
        help="A backend of diffusers' attention, such as _native_cudnn. [default: torch's choice]",
    ),
    click.option(
        "--safety",
        default="none",
        show_default=True,
        metavar="CHECKER",
        help="Who looks for unsafe content: none, nudenet, onnx:FILE or hf:DIR.",
    ),
    click.option(
        "--fetch-from",
        multiple=True,
        metavar="HOST",
        help="Fetch what inputs name from this host, HOST:PORT or network, or from `public` ones; "
        "may be repeated. [default: nowhere but from this server]",
    ),
    click.option(
        "--loras",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="DIR",
        help="LoRAs that inputs may name by their file name.",
    ),
    click.option(
        "--processes",
        default=1,
        show_default=True,
        type=click.IntRange(1, 64),
        help="How many GPUs a training uses, each by a process of its own.",
    ),
    click.option(
        "--hub", is_flag=True, default=False, help="Fetch LoRAs and checkpoints named by a hub id from there."
    ),
    click.option(
        "--grace",
        default=10.0,
        show_default=True,
        type=click.FloatRange(0),
        metavar="SECONDS",
        help="How long a job may go on after SIGTERM or Ctrl-C before it is handed back.",
    ),
    click.option(
        "--job-timeout",
        type=click.FloatRange(0, min_open=True),
        metavar="SECONDS",
        help="A job that takes longer has failed. [default: no limit]",
    ),
)


WORKER_FLAGS = (
    "checkpoint",
    "checkpoint_schnell",
    "device",
    "dtype",
    "compile",
    "attention",
    "safety",
    "fetch_from",
    "loras",
    "processes",
    "hub",
    "grace",
    "job_timeout",
)
"""The names of their parameters."""


retention_option = click.option(
    "--retention",
    "retention_days",
    default=7.0,
    show_default=True,
    type=click.FloatRange(0.001),
    metavar="DAYS",
    help="How long outputs and uploads are kept, on the server's clock.",
)
"""Of the server, and of each worker, which keeps the outputs."""


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags of a worker to a command; its parameters bear their names."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def flags_of(values: Mapping[str, Any]) -> list[str]:
    """The flags of a worker as a command line, from the values that a command was given."""
    flags: list[str] = []
    for name in WORKER_FLAGS:
        flag, value = f"--{name.replace('_', '-')}", values[name]
        if isinstance(value, bool):
            flags += [flag] * value
        else:
            several = value if isinstance(value, tuple) else () if value is None else (value,)
            for each in several:
                flags += [flag, str(each)]
    return flags


def require_extra() -> None:
    """Raises BadConfiguration where what a worker needs is not installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise BadConfiguration(
            f"--backend gpu needs the extra `reference` ({', '.join(missing)} missing): "
            "pip install 'wavemock[reference]', or --workers-elsewhere"
        )


class Supervisor:
    """Keeps one worker going in a process of its own until it is stopped."""

    def __init__(self, arguments: list[str], *, grace: float) -> None:
        self._command = [sys.executable, "-m", "mock_server.testing.launch", "worker", *arguments]
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_going, name="wavemock-worker", daemon=True)
        self._patience = grace + _END_SECONDS
        self._came_up = False
        self.unusable = False

    def start(self) -> None:
        """Starts the worker."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the worker in order: it finishes what is short, and hands back the rest."""
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self._patience)
            process.kill()
        self._thread.join()

    def _keep_going(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            code, sound = self._run_once()
            if self._stopping.is_set():
                return
            if code == _UNUSABLE and not self._came_up:
                # It has said why, and would say it again; the main thread takes it from here. Where another
                # has worked as this one was told, something has happened that may pass.
                self.unusable = True
                os.kill(os.getpid(), signal.SIGTERM)
                return
            pause = _FIRST_PAUSE if sound else min(pause * 2, _LONGEST_PAUSE)
            click.echo(f"The worker has ended ({_told(code)}); another starts in {pause:g} s.", err=True)
            self._stopping.wait(pause)

    def _run_once(self) -> tuple[int, bool]:
        """Runs a worker to its end: its exit code, and whether it had been at it for a while."""
        sound = threading.Event()
        # Its standard input ends with this process, however that ends, and the worker with it.
        # A session of its own: a Ctrl-C at the terminal is for the server, which tells the worker once.
        with subprocess.Popen(  # noqa: S603 - our own
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            with self._lock:
                self._process = process
                if self._stopping.is_set():
                    process.terminate()
            timer = threading.Timer(_SOUND_SECONDS, sound.set)
            timer.daemon = True
            timer.start()
            assert process.stdout is not None  # noqa: S101 - a pipe, as it was told
            if line := process.stdout.readline():  # the only one: it is ready
                self._came_up = True
                click.echo(line, nl=False)
            code = process.wait()
            timer.cancel()
        return code, sound.is_set()


def _told(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


@contextlib.contextmanager
def worker_beside(arguments: list[str], *, grace: float) -> Iterator[None]:
    """A worker for as long as the server runs, whose `--grace` is among the arguments.

    Raises BadConfiguration where it cannot work as it is told.
    """
    supervisor = Supervisor(arguments, grace=grace)
    supervisor.start()
    try:
        yield
    finally:
        supervisor.stop()
        if supervisor.unusable:
            raise BadConfiguration("the worker cannot work as it is told; see above")
