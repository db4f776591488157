"""`wavemock verify` as a person and a CI server meet it: the real command, in a process of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bad_targets import Asked, BadTarget, hang, kept, speaking

from conftest import Server
from contract_tests.cli import verify
from contract_tests.table import DOCUMENTED

MODEL = "v3/flux-schnell-lora"
SMALL = ("--layer", "protocol", "--only", MODEL)
METHODS = (*SMALL, "--case", f"{MODEL} by *")
PROGRAM = (sys.executable, "-W", "ignore", "-m", "mock_server", "verify")
NOBODY = "http://127.0.0.1:9"
FILES = {"report.html", "junit.xml", "report.json"}
WITHOUT = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "schemathesis" else found(name, *more)
from mock_server.cli import main
main()
"""


def run(
    *flags: str, cwd: Path | None = None, program: Sequence[str] = PROGRAM, **env: str
) -> "subprocess.CompletedProcess[str]":
    """What the command says, and its exit code."""
    return subprocess.run(
        [*program, *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env={**os.environ, **env},
    )


def refusal(*flags: str) -> str:
    """The one line with which the command refuses to run; nothing else may be said."""
    done = run(*flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def last_line(text: str) -> str:
    return text.rstrip().rsplit("\n", 1)[-1]


def told(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    return found


def test_help_shows_every_flag() -> None:
    said = run("--help").stdout
    flags = [flag for each in verify.params for flag in each.opts if flag.startswith("-")]
    assert len(flags) > 10
    assert [flag for flag in flags if not re.search(rf"^  {flag}\b", said, re.MULTILINE)] == []


def test_a_kept_contract_is_exit_code_0_and_nothing_on_standard_error(server: Server) -> None:
    done = run(server.url, "--layer", "protocol", "--only", "flux-schnell-lora")
    assert (done.returncode, done.stderr) == (0, "")
    assert last_line(done.stdout).startswith("kept: ")


def test_nothing_at_the_address_is_exit_code_2_and_a_last_line_that_says_so() -> None:
    done = run(NOBODY, *METHODS)
    assert (done.returncode, done.stderr) == (2, "")
    assert last_line(done.stdout).startswith(f"could not run: {NOBODY} cannot be reached: ")


def test_the_report_is_written_where_the_command_was_called(server: Server, tmp_path: Path) -> None:
    assert run(server.url, *METHODS, "--report", "new/out", cwd=tmp_path).returncode == 0
    assert {each.name for each in (tmp_path / "new" / "out").iterdir()} == FILES


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with speaking(kept) as target:
        said = refusal(target.url, *METHODS, "--report", str(tmp_path / "file" / "out"))
    assert said == f"Error: --report {tmp_path / 'file' / 'out'}: Not a directory\n"
    assert target.connections == []


def test_what_was_found_is_told_even_where_the_report_cannot_be_written(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "report.html").mkdir()
    done = run(server.url, *METHODS, "--report", str(tmp_path))
    assert (done.returncode, done.stderr) == (2, f"Error: --report {tmp_path}: Is a directory\n")
    assert last_line(done.stdout) == "kept: 4 promises proven, 0 broken, 0 not proven"


def test_one_case_can_be_run_alone(server: Server, tmp_path: Path) -> None:
    case = f"{MODEL} num_inference_steps max+1"
    assert run(server.url, "--case", case, "--report", str(tmp_path)).returncode == 0
    assert [each["id"] for each in told(tmp_path)["findings"]] == [case]


def test_cases_can_be_listed_by_a_pattern_and_nothing_is_sent() -> None:
    with speaking(kept) as target:
        done = run(target.url, *METHODS, "--list")
    assert done.stdout.splitlines() == [f"{MODEL} by {each}" for each in ("GET", "PUT", "PATCH", "DELETE")]
    assert (done.returncode, target.connections) == (0, [])


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--case", "no such case"), "no such case"),
        (("--case", f"{MODEL} by GET", "--case", "no such case"), "no such case"),
        (("--only", "flux-nonsense"), "flux-nonsense"),
        (("--only", "flux-schnell-lora", "--only", "flux-nonsense"), "flux-nonsense"),
        (("--edition", "flux-nonsense"), "flux-nonsense"),
        (("--table", "no-such-file.csv"), "no-such-file.csv"),
        (("--api-key", ""), "key"),
    ],
    ids=["case", "second case", "model", "second model", "edition", "table", "key"],
)
def test_what_does_not_exist_is_refused_in_one_line(flags: Sequence[str], names: str) -> None:
    assert names in refusal(NOBODY, *flags)


@pytest.mark.parametrize(
    "flags",
    [
        (NOBODY, "--layer", "nonsense"),
        (NOBODY, "--openapi", "no-such-directory"),
        (NOBODY, "--timeout", "0"),
        (NOBODY, "--budget", "-1"),
        ("127.0.0.1:8080",),
        ("ftp://127.0.0.1",),
        ("http://",),
        ("http://127.0.0.1:99999",),
        ("http://[::1",),
        ("http://127.0.0.1/?key=1",),
        ("http://127.0 .0.1",),
        (),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_answered_with_the_usage(flags: Sequence[str]) -> None:
    done = run(*flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: ")
    assert "Traceback" not in done.stderr


def test_a_broken_table_is_refused_with_its_line(tmp_path: Path) -> None:
    lines = DOCUMENTED.read_text(encoding="utf-8").splitlines()
    table = tmp_path / "mine.csv"
    table.write_text("\n".join([*lines[:4], lines[4].replace(",", ";"), *lines[5:]]), encoding="utf-8")
    assert refusal(NOBODY, "--table", str(table)).startswith(f"Error: {table}:5: ")


OLDER = ("--edition", "flux-lora", "--layer", "boundary", "--case", "v2/flux-dev-lora num_inference_steps *")


def test_an_older_edition_is_kept_where_it_is_served(server: Server) -> None:
    assert run(f"{server.url}/editions/flux-lora", *OLDER).returncode == 0


def test_an_older_edition_is_broken_where_another_one_is_served(server: Server) -> None:
    done = run(server.url, *OLDER)
    assert done.returncode == 1
    assert "refuted: v2/flux-dev-lora num_inference_steps range" in done.stdout
    assert "the page says: " in done.stdout


UNSURE = (*SMALL, "--case", "v3/predictions a wrong key", "--case", "v3/predictions no key")


@pytest.mark.parametrize(("flags", "code"), [((), 0), (("--strict",), 1)], ids=["usual", "strict"])
def test_what_is_not_proven_is_a_failure_only_under_strict(
    server: Server, flags: Sequence[str], code: int
) -> None:
    assert run(server.url, *UNSURE, *flags).returncode == code


def test_strict_does_not_hide_that_nothing_could_be_told() -> None:
    assert run(NOBODY, *METHODS, "--strict").returncode == 2


def test_readings_can_be_left_out() -> None:
    listed = run(NOBODY, *SMALL, "--list", "--pages-only").stdout.splitlines()
    assert f"{MODEL} no key" in listed
    assert f"{MODEL} by GET" not in listed


def test_the_key_comes_from_the_environment() -> None:
    with speaking(kept) as target:
        run(target.url, *METHODS, WAVESPEED_API_KEY="hush-1234")
    assert {each.headers["authorization"] for each in target.asked} == {"Bearer hush-1234"}


def test_the_key_is_told_nowhere(tmp_path: Path) -> None:
    with speaking(kept) as target:
        done = run(target.url, *SMALL, "--api-key", "hush-1234", "--report", str(tmp_path))
    assert done.returncode == 1
    assert "hush" not in done.stdout + done.stderr
    assert [each.name for each in tmp_path.iterdir() if "hush" in each.read_text(encoding="utf-8")] == []


def test_ctrl_c_ends_a_run_with_a_report(tmp_path: Path) -> None:
    reached = threading.Event()

    def answer(target: BadTarget, wire: socket.socket, asked: Asked) -> bytes:
        if asked.method != "PUT":
            return kept(target, wire, asked)
        reached.set()
        return hang(wire)

    flags = (*METHODS, "--timeout", "60", "--report", str(tmp_path))
    with (
        speaking(answer) as target,
        subprocess.Popen(
            [*PROGRAM, target.url, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Who runs in the background may have been told to ignore it.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - it takes no lock
        ) as process,
    ):
        assert reached.wait(30)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (2, "")
    assert last_line(said).startswith("could not run: it was interrupted")
    assert [each["verdict"] for each in told(tmp_path)["findings"]] == ["proven", *["not proven"] * 3]


@pytest.mark.parametrize("flags", [METHODS, (*SMALL, "--list")], ids=["run", "list"])
def test_a_reader_that_goes_away_changes_nothing(server: Server, flags: Sequence[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [*PROGRAM, server.url, *flags],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_extra_is_told_in_one_line() -> None:
    done = run("verify", NOBODY, program=(sys.executable, "-W", "ignore", "-c", WITHOUT))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: this needs the extra `verify` (schemathesis missing): pip install 'wavemock[verify]'\n"
    )
