"""`wavemock audit`, as its user meets it."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import parse

import pytest
from click.testing import CliRunner, Result

from mock_server.audit.cli import audit
from mock_server.audit.rules import RULES

FINDING = {
    "rule": "polled-too-fast",
    "severity": "error",
    "message": "polled 9 times after a pause of less than 0.25 s",
    "advice": "Wait 2 s or more.",
    "prediction": "1" * 32,
    "count": 9,
    "entries": [2, 3, 4, 5, 6],
    "first_at": "2026-01-01T00:00:00.000Z",
    "last_at": "2026-01-01T00:00:01.000Z",
}
NOTE = {**FINDING, "rule": "no-user-agent", "severity": "note", "prediction": "", "count": 1, "entries": [1]}
LEDGER = {
    "accepted": 3,
    "charged": 0.06,
    "duplicates_charged": 0.02,
    "duplicates": ["2" * 32],
    "never_fetched": [],
    "answers_lost": ["1" * 32],
    "tasks": [],
}


@dataclass(kw_only=True)
class Stand:
    """A server in the place of a mock: what it answers by path, and what it was asked."""

    url: str = ""
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)

    def has(self, *findings: dict[str, Any], session: str = "") -> None:
        data = {"findings": list(findings), "requests": 12}
        self.says(f"{session}/_mock/audit", {"code": 200, "message": "success", "data": data})

    def says(self, path: str, body: Any, status: int = 200) -> None:
        self.answers[path] = (status, json.dumps(body).encode())


@pytest.fixture
def stand() -> Iterator[Stand]:
    found = Stand()
    found.held.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.held.wait()
            found.asked.append((self.path, self.headers.get("authorization", "")))
            status, body = found.answers.get(self.path, (404, b"<html>"))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_port}"
        yield found
        server.shutdown()
        thread.join()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(audit, arguments)


def test_no_finding_is_success(stand: Stand) -> None:
    stand.has()
    done = run(stand.url)
    assert (done.exit_code, done.stdout) == (0, "nothing found in 12 requests\n")


@pytest.mark.parametrize("severity", ["error", "warning"])
def test_a_finding_fails(stand: Stand, severity: str) -> None:
    stand.has({**FINDING, "severity": severity})
    assert run(stand.url).exit_code == 1


def test_a_note_does_not_fail(stand: Stand) -> None:
    stand.has(NOTE)
    done = run(stand.url)
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "1 note found in 12 requests")


def test_a_finding_is_told_with_evidence_and_advice(stand: Stand) -> None:
    stand.has(FINDING)
    assert run(stand.url).stdout.splitlines() == [
        f"error: polled-too-fast  task {'1' * 32}",
        "  polled 9 times after a pause of less than 0.25 s",
        "  -> Wait 2 s or more.",
        "  requests 2, 3, 4, 5, 6 and 4 more, 2026-01-01T00:00:00.000Z to 2026-01-01T00:00:01.000Z",
        "",
        "1 error found in 12 requests",
    ]


def test_an_allowed_rule_is_not_told_and_does_not_fail(stand: Stand) -> None:
    stand.has(FINDING, NOTE)
    done = run(stand.url, "--allow", "polled-too-fast")
    assert done.exit_code == 0
    assert "polled-too-fast" not in done.stdout
    assert done.stdout.splitlines()[-1] == "1 note found in 12 requests (1 allowed)"


def test_a_rule_that_does_not_exist_cannot_be_allowed() -> None:
    done = run("--allow", "nonsense")
    assert done.exit_code == 2
    assert "there is no rule 'nonsense'" in done.stderr


def test_a_session_is_asked_for_in_the_path(stand: Stand) -> None:
    stand.has(FINDING, session="/_session/mine")
    assert run(stand.url, "--session", "mine").exit_code == 1
    assert run(stand.url + "/", "--session", "mine").exit_code == 1


def test_a_session_with_another_kind_of_name_is_refused() -> None:
    done = run("--session", "../x")
    assert (done.exit_code, "--session" in done.stderr) == (2, True)


def test_a_token_is_sent_as_the_bearer_key(stand: Stand) -> None:
    stand.has()
    run(stand.url, "--token", "sesame")
    run(stand.url)
    assert [key for _, key in stand.asked] == ["Bearer sesame", ""]


def test_json_is_what_the_server_said_without_what_is_allowed(stand: Stand) -> None:
    stand.has(FINDING, NOTE)
    done = run(stand.url, "--json", "--allow", "no-user-agent")
    assert json.loads(done.stdout) == {"findings": [FINDING], "requests": 12}
    assert done.exit_code == 1


def test_the_ledger_is_told_when_it_is_wanted(stand: Stand) -> None:
    stand.has()
    stand.says("/_mock/ledger", {"code": 200, "message": "success", "data": LEDGER})
    assert run(stand.url, "--ledger").stdout.splitlines() == [
        "tasks accepted: 3, charged 0.06",
        f"  duplicates: 1 ({'2' * 32}), charged 0.02",
        "  completed and never fetched: 0",
        f"  accepted, and the answer lost: 1 ({'1' * 32})",
        "",
        "nothing found in 12 requests",
    ]
    assert json.loads(run(stand.url, "--ledger", "--json").stdout)["ledger"] == LEDGER


def test_junit_has_a_test_case_for_every_rule(stand: Stand, tmp_path: Path) -> None:
    stand.has(FINDING, NOTE)
    file = tmp_path / "audit.xml"
    assert run(stand.url, "--junit", str(file), "--allow", "key-in-query").exit_code == 1
    suite = parse(file).getroot()[0]
    assert [case.get("name") for case in suite] == list(RULES)
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == (str(len(RULES)), "1", "1")
    failure = suite.find("testcase[@name='polled-too-fast']/failure")
    assert failure is not None
    assert failure.get("message") == FINDING["message"]
    assert suite.find("testcase[@name='no-user-agent']/failure") is None


def test_a_file_that_cannot_be_written_is_said_in_one_line(stand: Stand, tmp_path: Path) -> None:
    stand.has()
    done = run(stand.url, "--junit", str(tmp_path / "missing" / "audit.xml"))
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)


def test_no_server_is_said_in_one_line(stand: Stand) -> None:
    done = run("http://127.0.0.1:1")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "cannot be reached" in done.stderr


@pytest.mark.parametrize(
    "url", ["ftp://x", "localhost", "http://", "http://x y", "http://x:99999", "http://x?a"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    assert (run(url).exit_code, "is no address" in run(url).stderr) == (2, True)


STRANGE: dict[str, Any] = {
    "a page": (404, b"<html>nothing</html>"),
    "another API": (404, b'{"code": 404, "message": "There is nothing at /_mock/audit."}'),
    "a closed door": (403, b'{"code": 403, "message": "Not from here."}'),
    "no findings": (200, b'{"data": {}}'),
    "findings of another kind": (200, b'{"data": {"findings": [{"rule": 1}]}}'),
    "an unknown severity": (200, json.dumps({"data": {"findings": [{**FINDING, "severity": "x"}]}}).encode()),
    "a list": (200, b"[]"),
    "deep nesting": (200, b"[" * 100_000),
    "nothing": (200, b""),
    "bytes": (200, b"\xff\xfe"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_what_is_no_mock_cannot_be_judged(stand: Stand, what: str) -> None:
    stand.answers["/_mock/audit"] = STRANGE[what]
    done = run(stand.url)
    assert (done.exit_code, done.stderr.count("\n"), done.stdout) == (2, 1, "")


def test_a_ledger_of_another_kind_cannot_be_told(stand: Stand) -> None:
    stand.has()
    for strange in (
        {},
        {**LEDGER, "duplicates": [1]},
        {**LEDGER, "charged": None},
        {**LEDGER, "accepted": 1e999},
    ):
        stand.says("/_mock/ledger", {"data": strange})
        assert run(stand.url, "--ledger").exit_code == 2, strange


def test_a_server_cannot_give_orders_to_the_terminal(stand: Stand, tmp_path: Path) -> None:
    stand.has({**FINDING, "message": "\x1b[2J\nfake\ud800"})
    file = tmp_path / "audit.xml"
    done = run(stand.url, "--junit", str(file))
    assert "\x1b" not in done.stdout
    assert "  [2J fake" in done.stdout
    assert "[2J fake" in str(parse(file).getroot()[0][0][0].get("message"))


def test_a_redirect_is_not_followed(stand: Stand) -> None:
    stand.has()
    stand.answers["/_mock/audit"] = (302, b"{}")
    assert run(stand.url).exit_code == 2


def test_a_server_that_never_answers_is_left(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mock_server.audit.cli._SECONDS", 0.05)
    stand.held.clear()
    done = run(stand.url)
    stand.held.set()
    assert (done.exit_code, "has not answered within" in done.stderr) == (2, True)


def test_an_answer_without_end_is_left(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mock_server.audit.cli._MOST_BYTES", 10)
    stand.has(FINDING)
    done = run(stand.url)
    assert (done.exit_code, "more than 10 bytes" in done.stderr) == (2, True)


def test_the_rules_are_listed_without_a_server() -> None:
    done = run("--rules")
    assert done.exit_code == 0
    assert [line.split(" (")[0] for line in done.stdout.splitlines() if line[:1].isalpha()] == list(RULES)


def test_help_says_what_the_exit_codes_mean() -> None:
    assert "Exit code 0" in run("--help").stdout
