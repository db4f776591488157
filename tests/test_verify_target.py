"""How the contract suite treats a target: one that is gone, silent, busy, hostile, or dear."""

import asyncio
import contextlib
import shlex
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
from bad_targets import (
    SUBMIT,
    Answer,
    Asked,
    BadTarget,
    drip,
    flood,
    hang,
    kept,
    listening,
    reply,
    reset,
    speaking,
    task,
)
from reports import a_case, printed

from contract_tests import target as target_module
from contract_tests.case import Broken, Report, Unproven
from contract_tests.exchange import Request
from contract_tests.report import html, json_file, junit, words
from contract_tests.run import BadOptions, Options, chosen, examine, open_session, verify
from contract_tests.session import Session
from contract_tests.target import Manners, Target, is_local

MODEL = "v3/flux-schnell-lora"
METHODS = f"{MODEL} by *"  # by GET, PUT, PATCH and DELETE: two requests, then one for each
FIRST = f"{MODEL} the first answer"
GONE = "closed the connection without an answer in HTTP"
ONE_LETTER = b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of a run, and how long it wished to wait in between."""

    report: Report
    waits: list[float]

    @property
    def verdicts(self) -> list[str]:
        return [each.verdict for each in self.report.findings]

    @property
    def messages(self) -> set[str]:
        return {each.message for each in self.report.findings if each.message}


def examined(target: BadTarget, *cases: str, seconds: float = 5, budget: int | None = None) -> Run:
    """Runs cases, all of the layer where none is named, without really waiting."""
    waits: list[float] = []

    async def sleep(wanted: float) -> None:
        waits.append(wanted)

    options = Options(
        url=target.url, only=(MODEL,), layers=("protocol",), case=cases, seconds=seconds, budget=budget
    )
    session = open_session(options)
    session.target.manners = replace(session.target.manners, sleep=sleep)
    with contextlib.closing(session.target):
        return Run(report=examine(session, chosen(session, options), options), waits=waits)


def but(breaks: Callable[[Asked], bool], how: Callable[[socket.socket], bytes]) -> Answer:
    """A target that is fine but for some requests."""
    return lambda target, wire, asked: how(wire) if breaks(asked) else kept(target, wire, asked)


def is_put(asked: Asked) -> bool:
    return asked.method == "PUT"


def is_post(asked: Asked) -> bool:
    return asked.method == "POST"


def busy(times: int, answer: bytes) -> Answer:
    """A target that has no time for the first few PUTs."""

    def answered(target: BadTarget, wire: socket.socket, asked: Asked) -> bytes:
        puts = sum(map(is_put, target.asked))
        return answer if is_put(asked) and puts <= times else kept(target, wire, asked)

    return answered


def test_a_target_that_keeps_it_all_is_proven() -> None:
    with speaking(kept) as target:
        run = examined(target, METHODS)
    assert (run.report.exit_code, run.report.stopped, run.verdicts) == (0, "", ["proven"] * 4)


def cases_in(command: str) -> list[str]:
    return [word for flag, word in pairwise(shlex.split(command)) if flag == "--case"]


def test_a_run_of_some_cases_is_repeated_with_these_alone() -> None:
    with speaking(kept) as target:
        report = examined(target, METHODS, FIRST).report
    assert cases_in(report.again) == [METHODS, FIRST]


def test_one_case_of_a_run_of_some_is_repeated_without_the_others() -> None:
    with speaking(kept) as target:
        report = examined(target, METHODS, FIRST).report
    case = report.findings[0].case
    assert cases_in(words.again(report, case)) == [case.id]


def test_nothing_at_the_address_ends_the_run() -> None:
    with listening(lambda *_: None) as target:
        target.die()
        run = examined(target, METHODS)
    assert (run.report.exit_code, run.report.sent, run.verdicts) == (2, 1, ["not proven"] * 4)
    assert run.messages == {run.report.stopped}
    assert run.report.stopped.startswith(f"{target.url} cannot be reached: ")


def dies(at: int) -> Answer:
    def answered(target: BadTarget, wire: socket.socket, asked: Asked) -> bytes:
        if len(target.asked) == at:
            target.die()
        return kept(target, wire, asked)

    return answered


def test_what_was_found_before_the_target_died_is_kept() -> None:
    with speaking(dies(5)) as target:
        run = examined(target, METHODS)
    assert (run.report.exit_code, run.verdicts) == (2, ["proven", "proven", "not proven", "not proven"])
    assert run.messages == {run.report.stopped}
    assert "does not answer any more" in run.report.stopped


def test_a_target_that_broke_a_promise_and_died_is_broken() -> None:
    with speaking(dies(8)) as target:
        run = examined(target, f"{MODEL} urls.get", METHODS)
    assert (run.report.exit_code, run.verdicts[0], run.verdicts[-1]) == (1, "refuted", "not proven")


def test_a_target_that_is_gone_gets_a_few_seconds_to_come_back() -> None:
    with speaking(dies(5)) as target:
        run = examined(target, METHODS)
    assert run.waits == [0.2, 1.0, 3.0]


@pytest.mark.parametrize("how", [hang, lambda wire: drip(wire, ONE_LETTER)], ids=["hangs", "drips"])
def test_a_target_without_a_whole_answer_in_time_ends_the_run(how: Callable[[socket.socket], bytes]) -> None:
    with speaking(lambda _target, wire, _asked: how(wire)) as target:
        run = examined(target, seconds=0.15)
    assert (run.report.exit_code, run.report.sent) == (2, 1)
    assert run.report.stopped == f"{target.url} gave no complete answer within 0.15 s"
    assert run.report.seconds < 5


@pytest.mark.parametrize("how", [hang, lambda wire: drip(wire, ONE_LETTER)], ids=["hangs", "drips"])
def test_a_target_that_goes_on_being_silent_is_not_waited_for_for_hours(
    how: Callable[[socket.socket], bytes],
) -> None:
    with speaking(but(is_post, how)) as target:
        run = examined(target, seconds=0.1)
    assert sum(map(is_post, target.asked)) == 12
    assert (run.report.exit_code, run.verdicts[:12]) == (1, ["refuted"] * 11 + ["not proven"])
    assert run.report.findings[0].message == "gave no complete answer within 0.1 s"
    assert "in a row" in run.report.stopped


def test_a_time_limit_is_for_each_answer() -> None:
    def slow(target: BadTarget, wire: socket.socket, asked: Asked) -> bytes:
        time.sleep(0.1)
        return kept(target, wire, asked)

    with speaking(slow) as target:
        run = examined(target, METHODS, seconds=0.5)
    assert (run.report.exit_code, run.report.sent) == (0, 6)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (reset, "reset the connection instead of answering"),
        (lambda _: b"garbage\r\n\r\n", "does not answer in HTTP: illegal status line"),
        (lambda _: reply(403), "answered with HTTP 403 instead of 405"),
        (lambda _: reply(503), "answered with HTTP 503 instead of 405"),
        (lambda _: reply(302, location=SUBMIT), "answered with HTTP 302 instead of 405"),
    ],
    ids=["reset", "garbage", "403", "503 without a time", "redirect"],
)
def test_one_bad_answer_is_one_broken_promise(how: Callable[[socket.socket], bytes], message: str) -> None:
    with speaking(but(is_put, how)) as target:
        run = examined(target, METHODS)
    assert run.verdicts == ["proven", "refuted", "proven", "proven"]
    assert (run.report.findings[1].message[: len(message)], run.waits) == (message, [])


def test_an_answer_without_an_end_is_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module, "LARGEST", 100_000)
    with speaking(but(is_put, flood)) as target:
        run = examined(target, METHODS)
    assert run.verdicts == ["proven", "refuted", "proven", "proven"]
    assert run.messages == {"answered with more than 100000 bytes"}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (bytes(range(256)) * 4, "does not answer in HTTP"),
        (b"220 mail.example ESMTP ready\r\n500 Unrecognized\r\n", GONE),
        (b"<html>as in 1991</html>\n", GONE),
        (b"\x15\x03\x03\x00\x02\x02\x46", "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "does not answer in HTTP"),
        (b"", GONE),
    ],
    ids=["bytes", "smtp", "http/0.9", "tls", "half an answer", "nothing"],
)
def test_what_does_not_speak_http_ends_the_run(said: bytes, message: str) -> None:
    def speaks(_: BadTarget, wire: socket.socket) -> None:
        wire.recv(65536)
        wire.sendall(said)

    with listening(speaks) as target:
        run = examined(target, METHODS)
    assert (run.report.exit_code, run.report.sent) == (2, 1)
    assert run.report.stopped.startswith(f"{target.url} {message}")


def test_no_tls_where_it_is_expected_ends_the_run() -> None:
    def speaks(_: BadTarget, wire: socket.socket) -> None:
        wire.recv(65536)
        wire.sendall(reply(400))

    with listening(speaks) as target:
        report = verify(
            Options(url=target.url.replace("http:", "https:"), only=(MODEL,), layers=("protocol",))
        )
    assert (report.exit_code, report.sent) == (2, 1)
    assert "cannot be reached: [SSL" in report.stopped


def test_a_redirect_is_not_followed() -> None:
    with speaking(kept) as other, speaking(lambda *_: reply(302, location=f"{other.url}/x")) as target:
        examined(target, METHODS)
    assert other.connections == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_ends_the_run_at_once(status: int) -> None:
    with speaking(lambda *_: reply(status)) as target:
        run = examined(target)
    assert (run.report.exit_code, [each.method for each in target.asked]) == (
        2,
        ["GET", *["GET", "POST"] * 2],
    )
    assert run.report.stopped == f"{target.url} refuses the key: HTTP {status}; give it with --api-key"
    assert target.good == 0


@pytest.mark.parametrize("then", [401, 403])
def test_a_key_that_is_refused_from_some_time_on_ends_the_run(then: int) -> None:
    def revoked(target: BadTarget, wire: socket.socket, asked: Asked) -> bytes:
        if len(target.asked) < 4:
            return kept(target, wire, asked)
        return reply(401 if asked.method == "PUT" else then)

    with speaking(revoked) as target:
        run = examined(target, METHODS)
    assert run.report.stopped == f"{target.url} refuses the key: HTTP 401; give it with --api-key"
    assert len(target.asked) == 8
    assert run.verdicts == ["proven", "not proven", "not proven", "not proven"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_target_is_asked_again_when_it_says(status: int) -> None:
    with speaking(busy(2, reply(status, Retry_After="7"))) as target:
        run = examined(target, METHODS)
    assert (run.waits, run.verdicts) == ([7.0, 7.0], ["proven"] * 4)


@pytest.mark.parametrize(
    ("asks", "waits"),
    [
        ("Wed, 21 Oct 2065 07:28:00 GMT", 1.0),
        ("soon", 1.0),
        ("-5", 1.0),
        ("²", 1.0),
        ("inf", 1.0),
        ("0", 0.0),
        ("86400", 60.0),
        ("9" * 5_000, 60.0),
    ],
    ids=["date", "word", "negative", "other digits", "inf", "zero", "day", "huge"],
)
def test_no_target_is_waited_for_longer_than_a_minute(asks: str, waits: float) -> None:
    with speaking(busy(1, reply(429, Retry_After=asks))) as target:
        run = examined(target, METHODS)
    assert (run.waits, run.report.exit_code) == ([waits], 0)


def test_a_request_that_the_target_has_no_time_for_is_not_proven() -> None:
    with speaking(busy(4, reply(429))) as target:
        run = examined(target, METHODS)
    assert run.verdicts == ["proven", "not proven", "proven", "proven"]
    assert (run.messages, run.waits) == ({"the target is too busy: HTTP 429"}, [1.0, 2.0, 4.0])


def test_a_target_that_is_busy_from_the_start_ends_the_run() -> None:
    with speaking(lambda *_: reply(429)) as target:
        run = examined(target)
    assert (run.report.exit_code, run.report.stopped) == (2, f"{target.url} is too busy: HTTP 429")
    assert len(target.asked) == 4


def test_a_target_that_stays_busy_ends_the_run() -> None:
    with speaking(but(is_post, lambda _: reply(429))) as target:
        run = examined(target)
    assert (run.report.exit_code, run.report.stopped) == (
        2,
        f"{target.url} is too busy: HTTP 429, 3 requests in a row",
    )
    assert len(run.waits) == 9


@pytest.mark.parametrize("how", [reset, lambda _: reply(429)], ids=["silent", "busy"])
def test_trouble_that_passes_does_not_add_up(how: Callable[[socket.socket], bytes]) -> None:
    async def sleep(_: float) -> None:
        pass

    with speaking(but(is_put, how)) as heard:
        target = Target(url=heard.url, key="k", manners=Manners(sleep=sleep))
        with contextlib.closing(target):
            for _ in range(6):
                with pytest.raises((Broken, Unproven)):
                    target.send(Request(method="PUT", path=SUBMIT))
                target.send(Request(method="GET", path=SUBMIT))


def test_requests_keep_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    clock = SimpleNamespace(monotonic=lambda: now, perf_counter=lambda: now)
    monkeypatch.setattr(target_module, "time", clock)
    with speaking(kept) as heard:
        target = Target(url=heard.url, key="k", manners=Manners(rate=5, sleep=sleep))
        with contextlib.closing(target):
            for _ in range(11):
                target.greet()
    assert now == pytest.approx(1_002.0)


def test_without_a_budget_no_task_is_begun() -> None:
    with speaking(kept) as target:
        run = examined(target, budget=0)
    assert (target.good, run.report.begun) == (0, 0)
    assert "it would begin a task, and --budget 0 allows no more" in run.messages


def test_a_budget_is_not_exceeded() -> None:
    with speaking(kept) as target:
        run = examined(target, budget=3)
    assert (target.good, run.report.begun) == (3, 3)


def test_a_target_that_begins_tasks_unasked_gets_no_more_requests_for_some() -> None:
    with speaking(lambda target, *_: task(target.url, 1)) as target:
        run = examined(target, budget=0)
    assert sum(map(is_post, target.asked)) == 1
    assert "the target began tasks that it should have refused; nothing more is sent to it" in run.messages


def test_nothing_proven_is_never_a_success() -> None:
    with speaking(kept) as target:
        run = examined(target, FIRST, budget=0)
    assert (run.report.exit_code, run.verdicts) == (2, ["not proven"])


def manners_for(url: str, budget: int | None = None) -> Manners:
    session = open_session(Options(url=url, budget=budget))
    with contextlib.closing(session.target):
        return session.target.manners


def test_on_another_machine_no_task_is_begun_unless_somebody_says_so() -> None:
    assert manners_for("http://192.0.2.1").budget == 0
    assert manners_for("http://192.0.2.1", 5).budget == 5


def test_another_machine_gets_few_requests_a_second() -> None:
    assert manners_for("http://192.0.2.1").rate == 5


def test_this_machine_gets_as_many_tasks_and_requests_as_it_takes() -> None:
    manners = manners_for("http://127.0.0.1:1")
    assert (manners.budget, manners.rate) == (None, None)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.3.2.1:80", "localhost", "LOCALHOST:1", "a.localhost", "[::1]:8"]
)
def test_an_address_of_this_machine_is_known_as_one(host: str) -> None:
    assert is_local(f"http://{host}/x")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1.example.com",
        "127.evil.example",
        "localhost.example",
        "notlocalhost",
        "0.0.0.0",
        "10.0.0.1",
        "[::2]",
    ],
)
def test_an_address_that_only_looks_like_this_machine_is_another_one(host: str) -> None:
    assert not is_local(f"http://{host}/x")


@pytest.mark.parametrize("key", ["hush-1234", "hushhushhush"])
def test_no_report_tells_the_key_even_where_the_target_does(key: str) -> None:
    def echoes(target: BadTarget, wire: socket.socket, asked: Asked) -> bytes:
        if asked.path != SUBMIT:
            return reply(404)
        return task(target.url, 1, model=key, error=asked.headers.get("authorization", ""))

    with speaking(echoes) as target:
        options = Options(url=target.url, key=key, only=(MODEL,), layers=("protocol",))
        report = verify(options)
    assert target.asked[0].headers["authorization"] == f"Bearer {key}"
    for said in (printed(report), html.render(report), junit.render(report), json_file.render(report)):
        assert key not in said


def test_a_key_that_no_header_can_carry_is_refused_without_telling_it() -> None:
    with pytest.raises(BadOptions) as refused:
        open_session(Options(key="hush-1234\n"))
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_does_not_stand_between_programs_on_one_machine(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with speaking(kept) as proxy, speaking(kept) as target:
        monkeypatch.setenv(name, proxy.url)
        run = examined(target, METHODS)
    assert (proxy.connections, run.report.exit_code) == ([], 0)


def test_a_proxy_that_cannot_be_used_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1")
    with pytest.raises(BadOptions, match="gopher"):
        open_session(Options(url="http://192.0.2.1"))


@pytest.mark.parametrize("name", ["é", "中", "a\nb", "\x00", "x" * 100_000], ids=ascii)
def test_an_id_that_cannot_be_asked_for_is_a_broken_promise(name: str) -> None:
    with speaking(lambda target, *_: task(target.url, 1, id=name)) as target:
        run = examined(target, f"{MODEL} both versions")
    assert run.verdicts == ["refuted"]
    assert "gave an address that nothing can be sent to" in next(iter(run.messages))


def test_a_target_is_let_go_of_while_a_thread_waits_for_its_answer() -> None:
    reached = threading.Event()

    def waits(_target: BadTarget, wire: socket.socket, _asked: Asked) -> bytes:
        reached.set()
        return hang(wire)

    with speaking(waits) as heard:
        target = Target(url=heard.url, key="k", manners=Manners(seconds=60))

        def greets() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                target.greet()

        thread = threading.Thread(target=greets)
        thread.start()
        assert reached.wait(30)
        target.close()
        thread.join(30)
        assert not thread.is_alive()
        target.close()


def outcome(*checks: Callable[[Session], None]) -> Report:
    """What comes of cases that do as they are told."""
    with speaking(kept) as target:
        options = Options(url=target.url, only=(MODEL,))
        session = open_session(options)
        cases = [
            a_case(f"{number}", layer="protocol", model=MODEL, field="", check=check)
            for number, check in enumerate(checks)
        ]
        with contextlib.closing(session.target):
            return examine(session, cases, options)


def fine(_: Session) -> None:
    pass


def interrupted(_: Session) -> None:
    raise KeyboardInterrupt


def mistaken(_: Session) -> None:
    raise KeyError("id")


def test_ctrl_c_ends_a_run_with_what_was_found() -> None:
    report = outcome(fine, interrupted, fine)
    assert [each.verdict for each in report.findings] == ["proven", "not proven", "not proven"]
    assert (report.exit_code, report.stopped) == (2, "it was interrupted")


def test_a_case_that_fails_of_itself_is_not_proven_and_the_rest_goes_on() -> None:
    report = outcome(mistaken, fine)
    assert [each.verdict for each in report.findings] == ["not proven", "proven"]
    assert report.findings[0].message.startswith("the suite failed: KeyError at test_verify_target.py:")
