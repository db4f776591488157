"""The worker beside a server: the flags that it is handed, and what a user is told when it cannot work."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from workplace import until, workplace_at

from mock_server.working import WORKER_FLAGS, Supervisor, flags_of, worker_options


def test_what_a_server_was_told_its_worker_is_told() -> None:
    told: list[dict[str, object]] = []

    @click.command()
    @worker_options
    def command(**values: object) -> None:
        told.append(values)

    given = ["--checkpoint", "a", "--checkpoint-schnell", "b", "--device", "cuda:1", "--dtype", "fp16"]
    given += ["--compile", "--attention", "native", "--safety", "nudenet", "--fetch-from", "public"]
    given += ["--fetch-from", "10.0.0.0/8", "--loras", ".", "--processes", "2", "--hub"]
    given += ["--grace", "2.5", "--job-timeout", "60"]
    for flags in (given, []):
        assert CliRunner().invoke(command, flags).exit_code == 0
        assert CliRunner().invoke(command, flags_of(told[-1])).exit_code == 0
        assert told[-1] == told[-2]
    assert set(told[0]) == set(WORKER_FLAGS)


def serve(*flags: str) -> tuple[int, str]:
    run = [sys.executable, "-W", "ignore", "-m", "mock_server", "serve", "--port", "0", *flags]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


def test_a_worker_that_cannot_work_ends_the_server_with_its_reason() -> None:
    code, said = serve("--backend", "gpu", "--checkpoint", "/nowhere")
    assert (code, "--checkpoint: /nowhere is not a directory" in said, "Traceback" in said) == (
        2,
        True,
        False,
    )


def test_a_store_of_jobs_does_not_outlast_their_results() -> None:
    code, said = serve("--backend", "gpu", "--store", "sqlite:///x.db")
    assert (code, "--store: with --backend gpu it needs --data DIR" in said) == (2, True)


def test_workers_elsewhere_need_what_is_shared() -> None:
    code, said = serve("--backend", "gpu", "--workers-elsewhere")
    assert (code, "--store and --data" in said) == (2, True)


@pytest.fixture
def told_to_end() -> Iterator[list[int]]:
    """Whether this process was told to end, as the server is by a supervisor whose worker cannot work."""
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    yield told
    signal.signal(signal.SIGTERM, before)


_WORKER = """
import pathlib, sys
runs = pathlib.Path(sys.argv[1])
before = runs.read_text() if runs.exists() else ""
runs.write_text(f"{before}.")
if before:
    sys.exit(2)
print("ready", flush=True)
sys.exit(1)
"""


def test_a_worker_that_has_worked_is_tried_again_whatever_ends_it(
    told_to_end: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mock_server.working._FIRST_PAUSE", 0.01)
    runs = tmp_path / "runs"
    supervisor = Supervisor([], grace=0)
    supervisor._command = [sys.executable, "-c", _WORKER, str(runs)]
    supervisor.start()
    until(lambda: told_to_end or (runs.exists() and len(runs.read_text()) > 2))
    supervisor.stop()
    assert (told_to_end, supervisor.unusable) == ([], False)


def test_a_step_that_does_not_end_is_handed_back_when_the_server_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(here), str(here.parent))))
    with workplace_at(f"sqlite:///{tmp_path}/store.db", tmp_path) as place:
        where = ["--store", place.url, "--data", str(tmp_path), "--runner", "job_runners:make"]
        supervisor = Supervisor([*where, "--grace", "0"], grace=0)
        job = place.submit("hang")
        supervisor.start()
        until(place.begun)
        supervisor.stop()
        assert (place.find(job).spared, place.find(job).worker) == (1, "")
