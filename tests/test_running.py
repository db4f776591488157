"""`wavemock run`, as its user meets it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree.ElementTree import parse

import pytest
from click.testing import CliRunner

from mock_server.running import run

RUN = [sys.executable, "-W", "ignore", "-m", "mock_server", "run"]
DEAF = """
import os, sys
import requests
key = {"Authorization": f"Bearer {os.environ['WAVESPEED_API_KEY']}"}
for session in sys.argv[2:]:
    api = f"{os.environ['WAVEMOCK_URL']}{session}/api/v3"
    given = {"prompt": "x [[mock:instant]]"}
    task = requests.post(f"{api}/wavespeed-ai/flux-schnell-lora", json=given, headers=key).json()
    for _ in range(5):
        requests.get(f"{api}/predictions/{task['data']['id']}/result", headers=key)
sys.exit(int(sys.argv[1]))
"""
"""A client that polls on when its task has ended: with which exit code, and in which sessions."""


def told(
    *arguments: str | Path, text: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *arguments],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        check=False,
    )


def python(code: str, *arguments: str) -> tuple[str, ...]:
    """A command that runs the code."""
    return ("--", sys.executable, "-c", code, *arguments)


def answers(url: str) -> bool:
    parts = urlsplit(url)
    with socket.socket() as asking:
        return asking.connect_ex((parts.hostname, parts.port)) == 0


def begun(code: str, *before: str) -> subprocess.Popen[str]:
    """A run whose command says its mock's address in its first line."""
    first = "import os, signal, sys; print(os.environ['WAVEMOCK_URL'], flush=True)\n"
    return subprocess.Popen(
        [*before, *RUN, "--no-audit", *python(first + code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whoever runs the tests in the background has them ignore it.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - it takes no lock
    )


def test_the_command_finds_the_mock_in_its_environment_and_no_real_key() -> None:
    code = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('WAVE')}))"
    found = json.loads(told("--no-audit", *python(code), env={"WAVESPEED_API_KEY": "a-real-key"}).stdout)
    url = found["WAVEMOCK_URL"]
    assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+", url)
    assert found == {"WAVEMOCK_URL": url, "WAVESPEED_BASE_URL": url, "WAVESPEED_API_KEY": "wavemock"}


def test_the_flags_before_the_command_are_those_of_serve() -> None:
    code = (
        "import os, requests; e = os.environ\n"
        "key = {'Authorization': 'Bearer ' + e['WAVEMOCK_CONTROL_TOKEN']}\n"
        "data = requests.get(e['WAVEMOCK_URL'] + '/_mock/health', headers=key).json()['data']\n"
        "print(data['scenario'], data['magic'], e['WAVESPEED_API_KEY'])"
    )
    flags = ("--scenario", "slow", "--no-magic", "--api-key", "one", "--api-key=two", "--seed=-3")
    done = told(*flags, "--control-token", "secret", *python(code))
    assert (done.returncode, done.stdout) == (0, "slow False one\n")
    assert done.stderr.endswith("nothing found in 0 requests\n")


def test_what_the_command_reads_writes_and_exits_with_is_passed_through() -> None:
    code = "import sys; print(sys.stdin.read().upper()); print('no', file=sys.stderr); sys.exit(7)"
    done = told("--no-audit", *python(code), text="hello")
    assert (done.returncode, done.stdout, done.stderr) == (7, "HELLO\n", "no\n")


def test_a_command_that_a_signal_ends_is_told_as_a_shell_tells_it() -> None:
    assert told("--no-audit", *python("import os; os.kill(os.getpid(), 9)")).returncode == 137


def test_a_command_that_there_is_not_is_one_line_and_127() -> None:
    done = told("--", "there-is-no-such-command")
    assert (done.returncode, done.stderr) == (
        127,
        "Error: there-is-no-such-command: there is no such command.\n",
    )


def test_a_command_that_cannot_be_executed_is_one_line_and_126(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("true\n")
    done = told("--", tmp_path / "script")
    assert (done.returncode, done.stderr) == (
        126,
        f"Error: {tmp_path}/script: cannot be executed: Permission denied.\n",
    )


def test_a_mock_that_does_not_start_is_one_line_and_2() -> None:
    done = told("--workers", "2", "--", "true")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"Error: --workers: several processes need a store.*\n", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing argument 'COMMAND...'"),
        (("--host", "0.0.0.0", "--", "true"), "No such option"),
        (("--allow", "no-such-rule", "--", "true"), "there is no rule 'no-such-rule'"),
        (("--no-audit", "--fail-on-audit", "--", "true"), "--no-audit leaves nothing to --fail-on-audit"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(run, arguments)
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_is_passed_on_and_the_mock_ends_after_the_command(number: signal.Signals) -> None:
    code = f"signal.signal({int(number)}, lambda *_: sys.exit(5))\nprint('set', flush=True)\nsignal.pause()"
    process = begun(code)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert process.stdout.readline() == "set\n"
    assert answers(url)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors, answers(url)) == (5, "", False)


IN_A_TERMINAL = (sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])")


def test_a_terminals_ctrl_c_reaches_the_command() -> None:
    code = "signal.signal(signal.SIGINT, lambda *_: sys.exit(5))\nprint('set', flush=True)\nsignal.pause()"
    process = begun(code, *IN_A_TERMINAL)
    assert process.stdin is not None
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert process.stdout.readline().strip() == "set"
    process.stdin.write("\x03")
    _, errors = process.communicate(timeout=60)
    assert (errors, answers(url)) == ("", False)


def test_a_terminals_ctrl_c_is_not_passed_on_to_a_command_that_the_terminal_signals_itself() -> None:
    code = (
        "os.setpgid(0, 0)\n"  # so that what arrives here was passed on
        "signal.signal(signal.SIGINT, lambda *_: print('passed on', flush=True))\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit('ended'))\n"
        "print(os.getppid(), flush=True)\n"
        "while True: signal.pause()"
    )
    process = begun(code, *IN_A_TERMINAL)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    passing = int(process.stdout.readline())
    process.stdin.write("\x03")
    process.stdin.flush()
    assert process.stdout.read(2) == "^C"
    os.kill(passing, signal.SIGTERM)
    assert process.communicate(timeout=60)[0].strip() == "ended"


def test_a_sigterm_while_the_mock_starts_ends_both(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.yaml")
    process = subprocess.Popen([*RUN, "--openapi", tmp_path, "--", "true"], stderr=subprocess.PIPE, text=True)
    # It opens when the mock wants to read it, which then waits for what is never written.
    with (tmp_path / "model.yaml").open("w") as document:
        process.terminate()
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (143, "")
        with pytest.raises(BrokenPipeError):
            os.write(document.fileno(), b"x")


def test_what_was_charged_and_found_is_told_for_all_sessions_together() -> None:
    done = told(*python(DEAF, "0", "", "/_session/one"))
    assert (done.returncode, done.stdout) == (0, "")
    assert re.findall(r"^  (session one: )?polled \d times", done.stderr, re.MULTILINE) == [
        "",
        "session one: ",
    ]
    assert "tasks accepted: 2, charged 0.0" in done.stderr
    assert done.stderr.endswith("2 warnings found in 12 requests\n")


@pytest.mark.parametrize(
    ("flags", "own", "code"),
    [
        ([], "0", 0),
        (["--fail-on-audit"], "0", 1),
        (["--fail-on-audit"], "3", 3),
        (["--fail-on-audit", "--allow", "polled-after-end"], "0", 0),
    ],
)
def test_a_finding_fails_a_command_that_succeeds_where_that_is_wanted(
    flags: list[str], own: str, code: int
) -> None:
    assert told(*flags, *python(DEAF, own, "")).returncode == code


def test_the_audit_can_be_had_as_junit(tmp_path: Path) -> None:
    told("--junit", tmp_path / "audit.xml", *python(DEAF, "0", "/_session/one"))
    failures = parse(tmp_path / "audit.xml").findall(".//testcase[@name='polled-after-end']/failure")
    assert [str(each.get("message")).partition(" polled")[0] for each in failures] == ["session one:"]


def test_an_audit_that_cannot_be_written_is_2_where_the_command_succeeded(tmp_path: Path) -> None:
    done = told("--junit", tmp_path / "no/audit.xml", "--", "true")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        f"Error: --junit {tmp_path}/no/audit.xml: No such file or directory",
    )


def test_a_mock_that_dies_meanwhile_is_told_and_is_2() -> None:
    code = (
        "import os, signal, subprocess\n"
        "for line in subprocess.check_output(['ps', '-A', '-o', 'pid=,ppid='], text=True).splitlines():\n"
        "    pid, parent = map(int, line.split())\n"
        "    if parent == os.getppid() and pid != os.getpid(): os.kill(pid, signal.SIGKILL)"
    )
    done = told(*python(code))
    assert done.returncode == 2
    assert re.fullmatch(r"\nError: the audit cannot be told: .* does not answer: .*\n", done.stderr)
