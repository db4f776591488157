"""The worker beside a server: the flags that it is handed, and what a user is told when it cannot work."""

import subprocess
import sys

import click
from click.testing import CliRunner

from mock_server.working import WORKER_FLAGS, flags_of, worker_options


def test_what_a_server_was_told_its_worker_is_told() -> None:
    told: list[dict[str, object]] = []

    @click.command()
    @worker_options
    def command(**values: object) -> None:
        told.append(values)

    given = ["--checkpoint", "a", "--checkpoint-schnell", "b", "--device", "cuda:1", "--dtype", "fp16"]
    given += ["--compile", "--attention", "native", "--safety", "nudenet", "--fetch-from", "public"]
    given += ["--fetch-from", "10.0.0.0/8", "--loras", ".", "--processes", "2", "--hub"]
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


def test_workers_elsewhere_need_what_is_shared() -> None:
    code, said = serve("--backend", "gpu", "--workers-elsewhere")
    assert (code, "--store and --data" in said) == (2, True)
