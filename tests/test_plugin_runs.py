"""The plugin in whole runs of pytest: in this process, in others, in parallel, interrupted and killed."""

import contextlib
import signal
import time
from pathlib import Path

import pytest

from mock_server.testing import WavemockError, WavemockServer
from mock_server.testing.starting import find_server

pytest_plugins = ["pytester"]

CLIENT = """
import os, signal, time
from pathlib import Path
import pytest, requests

MODEL = "wavespeed-ai/flux-schnell-lora"

def submit(wavemock):
    url = f"{wavemock.url}/api/v3/{MODEL}"
    return requests.post(url, json={"prompt": "x"}, headers={"Authorization": "Bearer k"}, timeout=30)
"""
ONE_SUBMIT = """
def test_it(wavemock):
    Path("url").write_text(wavemock.server.url)
    assert submit(wavemock).status_code == 200
    wavemock.assert_charged(times=1)
"""


@pytest.fixture
def shared(wavemock_server: WavemockServer) -> str:
    """The option for the server of this run."""
    return f"--wavemock-url={wavemock_server.url}"


@pytest.fixture(autouse=True)
def no_server_of_the_outer_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAVEMOCK_URL", raising=False)


def write(pytester: pytest.Pytester, text: str) -> None:
    pytester.makepyfile(CLIENT + text)


def answers(url: str) -> bool:
    with contextlib.suppress(WavemockError):
        return bool(find_server(url).url)
    return False


def test_a_run_starts_a_server_and_stops_it(pytester: pytest.Pytester) -> None:
    write(pytester, ONE_SUBMIT)
    pytester.runpytest_inprocess("-p", "no:cacheprovider", "--strict-markers").assert_outcomes(passed=1)
    assert not answers(Path("url").read_text())


def test_a_server_that_runs_is_used_and_left_running(
    pytester: pytest.Pytester, shared: str, wavemock_server: WavemockServer
) -> None:
    write(pytester, ONE_SUBMIT)
    pytester.runpytest_inprocess(shared).assert_outcomes(passed=1)
    assert answers(wavemock_server.url)


def test_the_server_can_be_named_in_the_ini_file(
    pytester: pytest.Pytester, wavemock_server: WavemockServer
) -> None:
    write(pytester, ONE_SUBMIT)
    pytester.makeini(f"[pytest]\nwavemock_url = {wavemock_server.url}/")
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    assert Path("url").read_text() == wavemock_server.url


def test_the_environment_goes_before_the_ini_file(
    pytester: pytest.Pytester, wavemock_server: WavemockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pytester, ONE_SUBMIT)
    pytester.makeini("[pytest]\nwavemock_url = http://127.0.0.1:1")
    monkeypatch.setenv("WAVEMOCK_URL", wavemock_server.url)
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_flags_for_the_server_stand_in_the_ini_file(pytester: pytest.Pytester) -> None:
    write(
        pytester,
        """
def test_it(wavemock):
    submit(wavemock)
    assert [each.scenario for each in wavemock.predictions] == ["failed; error=no luck"]
""",
    )
    pytester.makeini('[pytest]\nwavemock_args = --scenario "failed; error=no luck" --control-token t0ken')
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_server_that_does_not_start_is_one_error_without_a_trace(pytester: pytest.Pytester) -> None:
    write(pytester, ONE_SUBMIT + "\ndef test_that(wavemock):\n    pass\n")
    pytester.makeini("[pytest]\nwavemock_args = --scenario nonsense")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=2)
    text = result.stdout.str()
    assert ("wavemock did not start (exit code 2):" in text, "there is no 'nonsense'" in text) == (True, True)
    assert "Traceback" not in text
    assert "starting.py" not in text


def test_a_server_that_is_not_there_is_one_error_without_a_trace(pytester: pytest.Pytester) -> None:
    write(pytester, ONE_SUBMIT)
    result = pytester.runpytest_inprocess("--wavemock-url=http://127.0.0.1:1")
    result.assert_outcomes(errors=1)
    assert "control.py" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*http://127.0.0.1:1/_mock/health: the server does not answer: *"])


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("senario='slow'", "takes balance, fault, frozen, level, scenario by name, not senario."),
        ("'slow'", "by name, not 'slow'."),
        ("scenario='nonsense'", "there is no 'nonsense'"),
    ],
)
def test_a_mark_that_makes_no_sense_is_an_error(
    pytester: pytest.Pytester, shared: str, mark: str, said: str
) -> None:
    write(pytester, f"@pytest.mark.wavemock({mark})\ndef test_it(wavemock):\n    pass\n")
    result = pytester.runpytest_inprocess(shared, "--strict-markers")
    result.assert_outcomes(errors=1)
    assert said in result.stdout.str()


def test_a_failure_points_at_the_test_and_shows_what_came_in(pytester: pytest.Pytester, shared: str) -> None:
    write(
        pytester,
        """
def test_it(wavemock):
    submit(wavemock)
    wavemock.assert_called(kind="poll")
""",
    )
    result = pytester.runpytest_inprocess(shared)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">*wavemock.assert_called(kind=*poll*)",
            "E*AssertionError: Expected at least one request with kind='poll', and there were none.",
            "*- wavemock requests -*",
            "#1 * submit: POST /api/v3/wavespeed-ai/flux-schnell-lora -> 200; created",
        ]
    )
    assert "session.py" not in result.stdout.str()


def test_the_plugin_can_be_left_out(pytester: pytest.Pytester) -> None:
    write(pytester, ONE_SUBMIT)
    result = pytester.runpytest_inprocess("-p", "no:wavemock")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'wavemock' not found*"])


def test_the_fixtures_are_described(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--fixtures", "-v")
    for name in ("wavemock", "wavemock_server *session scope*", "virtual_time", "webhook_inbox"):
        result.stdout.fnmatch_lines([f"{name} -- *plugin.py:*", "    *"])


# Parallel runs and early ends, each in a process of its own.

CROWD = """
@pytest.mark.parametrize("number", range(12))
def test_it(wavemock, number):
    wavemock.freeze()
    before = wavemock.read_clock()
    if number % 2:
        wavemock.fault("503; on=submit; times=always")
    wavemock.scenario(f"created=0s; processing={number + 1}s")
    answers = [submit(wavemock).status_code for _ in range(3)]
    assert answers == [503 if number % 2 else 200] * 3
    assert len(wavemock.requests) == 3
    assert len(wavemock.predictions) == (0 if number % 2 else 3)
    assert wavemock.read_clock() == before
    events = wavemock.advance(number + 1)
    assert [each.text for each in events] == ([] if number % 2 else ["processing -> completed"] * 3)
"""


def test_tests_of_two_workers_on_one_server_never_see_each_other(
    pytester: pytest.Pytester, shared: str
) -> None:
    write(pytester, CROWD)
    pytester.runpytest_subprocess("-n", "2", shared).assert_outcomes(passed=12)


SPREAD = """
@pytest.mark.parametrize("number", range(2))
def test_it(wavemock, worker_id, number):
    Path(f"url-{worker_id}").write_text(wavemock.server.url)
    deadline = time.monotonic() + 30
    while len(list(Path().glob("url-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
"""


def test_each_worker_has_a_server_of_its_own_where_none_is_named(pytester: pytest.Pytester) -> None:
    write(pytester, SPREAD)
    pytester.runpytest_subprocess("-n", "2").assert_outcomes(passed=2)
    assert len({path.read_text() for path in Path().glob("url-*")}) == 2


def url_of_a_run_that_gets(how: signal.Signals, pytester: pytest.Pytester) -> str:
    write(
        pytester,
        f"""
def test_it(wavemock):
    Path("url").write_text(wavemock.server.url)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been ignored from the start
    os.kill(os.getpid(), {int(how)})
    time.sleep(60)
""",
    )
    pytester.runpytest_subprocess(timeout=60)
    return Path("url").read_text()


def test_an_interrupted_run_stops_its_server(pytester: pytest.Pytester) -> None:
    assert not answers(url_of_a_run_that_gets(signal.SIGINT, pytester))


def test_the_server_of_a_run_that_is_killed_ends_by_itself(pytester: pytest.Pytester) -> None:
    url = url_of_a_run_that_gets(signal.SIGKILL, pytester)
    deadline = time.monotonic() + 30
    while answers(url) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not answers(url)
