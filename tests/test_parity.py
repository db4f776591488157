"""Two targets side by side: what differs is shown, and decides; what only looks different is a remark."""

import contextlib
import io
import json
import re
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from bad_targets import Answer, Asked, BadTarget, kept, reply, speaking
from click.testing import CliRunner, Result
from reports import MODEL, a_case, a_finding, a_report, an_exchange
from rich.console import Console

from contract_tests.case import Finding, Report, Verdict
from contract_tests.cli import verify
from contract_tests.exchange import Exchange
from contract_tests.parity import Outcome, Parity, compare, shape_of
from contract_tests.report.files import write_parity
from contract_tests.report.parity import html, json_file, junit, terminal
from contract_tests.run import Options
from contract_tests.session import Session
from contract_tests.sides import Side, examine_sides, open_side

METHODS = ("--layer", "protocol", "--only", MODEL, "--case", f"{MODEL} by *")
NOBODY = "http://127.0.0.1:9"
OTHER = "http://127.0.0.1:8081"


def both(*pairs: tuple[Finding, Finding]) -> Parity:
    one, other = zip(*pairs, strict=True)
    return compare(a_report(*one), a_report(*other, url=OTHER), again="wavemock verify --parity A B")


def of_verdicts(one: Verdict, other: Verdict) -> Parity:
    return both((a_finding(one, message=f"A {one}"), a_finding(other, message=f"B {other}")))


OUTCOMES: list[tuple[Verdict, Verdict, Outcome, int]] = [
    ("proven", "proven", "alike", 0),
    ("proven", "refuted", "differs", 1),
    ("refuted", "proven", "differs", 1),
    ("refuted", "not proven", "differs", 1),
    ("refuted", "refuted", "broken by both", 1),
]


@pytest.mark.parametrize(("one", "other", "outcome", "code"), OUTCOMES)
def test_two_verdicts_come_to_one_outcome(one: Verdict, other: Verdict, outcome: Outcome, code: int) -> None:
    parity = of_verdicts(one, other)
    assert ([each.outcome for each in parity.pairs], parity.exit_code) == ([outcome], code)


@pytest.mark.parametrize("turned", [False, True])
def test_what_one_alone_cannot_be_seen_to_keep_is_no_difference(turned: bool) -> None:
    pairs = [(a_finding(), a_finding()), (a_finding("not proven"), a_finding("proven"))]
    parity = both(*((two, one) if turned else (one, two) for one, two in pairs))
    assert ([each.outcome for each in parity.pairs], parity.exit_code) == (["alike", "not proven by one"], 0)


def test_a_side_that_could_not_run_is_not_said_to_keep_anything() -> None:
    one = a_report(a_finding())
    gone = a_report(a_finding("not proven"), stopped="it is gone")
    assert compare(one, gone, again="").exit_code == 2


def answering(one: object, other: object, path: str = "/api/v3/x", status: int = 200) -> tuple[str, ...]:
    """What is remarked on two answers."""

    def finding(value: object, code: int) -> Finding:
        exchange = an_exchange(path=path, body=json.dumps(value).encode())
        return a_finding(exchange=replace(exchange, status=code))

    return tuple(each.says for each in both((finding(one, 200), finding(other, status))).remarks)


def test_a_shape_has_the_kinds_at_every_place() -> None:
    shape = shape_of({"a/b": [1, "x", {"c": None}], "d": True, "e": 1.5})
    assert {pointer: sorted(kinds) for pointer, kinds in shape.items()} == {
        "": ["object"],
        "/a~1b": ["array"],
        "/a~1b/*": ["number", "object", "string"],
        "/a~1b/*/c": ["null"],
        "/d": ["boolean"],
        "/e": ["number"],
    }


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ({"a": 1}, {"a": 2}, ()),
        ({"a": 1}, {"a": 1.5}, ()),
        ({"a": {"b": 1}}, {}, ("/a: object, by A alone",)),
        ({}, {"a": [1]}, ("/a: array, by B alone",)),
        ({"a": None}, {"a": "x"}, ("/a: null by A, string by B",)),
        ({"a": {"b": 1}}, {"a": None}, ("/a: object by A, null by B",)),
        ({"a": []}, {"a": [{"b": 1}]}, ()),
        ({"a": [{}]}, {"a": [{"b": 1}]}, ("/a/*/b: number, by B alone",)),
        ({"a": [1]}, {"a": ["x"]}, ("/a/*: number by A, string by B",)),
        ([], {}, ("the answer: array by A, object by B",)),
    ],
    ids=str,
)
def test_answers_that_are_made_differently_are_remarked_on(
    one: object, other: object, says: tuple[str, ...]
) -> None:
    assert answering(one, other) == says


def test_another_status_is_remarked_on_instead_of_another_shape() -> None:
    assert answering({"a": 1}, {}, status=422) == ("HTTP 200 by A, HTTP 422 by B",)


def test_an_endless_answer_is_not_compared_for_ever() -> None:
    assert len(shape_of({str(number): 1 for number in range(100_000)})) <= 5_000


def test_what_the_control_plane_tells_is_not_compared() -> None:
    assert answering({"a": 1}, {}, path="/_mock/predictions/1") == ()


def remarks(one: Exchange, other: Exchange) -> list[tuple[str, str]]:
    parity = both((a_finding(exchange=one), a_finding(exchange=other)))
    return [(each.request, each.says) for each in parity.remarks]


def test_answers_about_two_tasks_are_compared() -> None:
    one, other = (
        an_exchange(method="GET", path=f"/api/v3/predictions/{name}/result?x=1", body=body)
        for name, body in (("1", b"{}"), ("2", b'{"a": 1}'))
    )
    assert remarks(one, other) == [("GET /api/v3/predictions/{id}/result", "/a: number, by B alone")]


def test_answers_to_different_requests_are_not_compared() -> None:
    one, other = an_exchange(body=b"{}"), an_exchange(path="/api/v3/y", body=b'{"a": 1}')
    assert remarks(one, other) == []


def test_what_is_no_json_is_not_compared() -> None:
    assert remarks(an_exchange(body=b"{}"), an_exchange(body=b"<p>")) == []


def test_a_remark_stands_once_with_all_cases_that_show_it() -> None:
    one, other = an_exchange(body=b"{}"), an_exchange(body=b'{"a": 1}')
    cases = [a_case("4"), a_case("5")]
    parity = both(
        *((a_finding(case=case, exchange=one), a_finding(case=case, exchange=other)) for case in cases)
    )
    assert [each.cases for each in parity.remarks] == [tuple(case.id for case in cases)]


MIXED = both(
    (a_finding(), a_finding()),
    (
        a_finding("refuted", case=a_case("5"), message="too many", exchange=an_exchange(body=b"{}")),
        a_finding(case=a_case("5"), exchange=an_exchange(body=b'{"a": 1}')),
    ),
    (
        a_finding("refuted", case=a_case("6"), message="one says so"),
        a_finding("refuted", case=a_case("6"), message="the other says so"),
    ),
    (
        a_finding("not proven", case=a_case("7", layer="raw"), message="no clock"),
        a_finding(case=a_case("7", layer="raw")),
    ),
)
HEADLINE = (
    "broken: 1 case alike, 1 that differ, 1 broken by both, 1 not proven by one alone; 1 remark on answers"
)


def printed(parity: Parity, directory: Path | None = None) -> str:
    stream = io.StringIO()
    terminal.show(parity, Console(file=stream, width=100), directory)
    return stream.getvalue()


def test_the_terminal_shows_both_sides_of_all_that_is_not_alike() -> None:
    said = printed(MIXED)
    for line in (
        f"differs: {MODEL} num_images 5",
        "    A: refuted, HTTP 200: too many",
        "    B: proven, HTTP 200",
        f"broken by both: {MODEL} num_images 6",
        "    A: refuted, HTTP 200: one says so",
        "    B: refuted, HTTP 200: the other says so",
        f"not proven by one: {MODEL} num_images 7",
        "    A: not proven, HTTP 200: no clock",
        "      1  POST /api/v3/x: /a: number, by B alone",
    ):
        assert line in said.splitlines()
    assert said.splitlines()[-1] == HEADLINE


def test_the_terminal_tells_silence_from_nothing_to_answer() -> None:
    silent = replace(a_finding("refuted"), exchanges=(replace(an_exchange(), status=0),))
    said = printed(both((silent, replace(a_finding("not proven"), exchanges=()))))
    assert "    A: refuted, no answer" in said
    assert "    B: not proven, nothing sent" in said


def test_the_terminal_counts_layers_and_models_for_both() -> None:
    found = re.findall(
        r"^(boundary|raw|v3/flux-schnell-lora|all) +(\S+) +(\S+)$", printed(MIXED), re.MULTILINE
    )
    assert found == [
        ("boundary", "1/2/0", "2/1/0"),
        ("raw", "0/0/1", "1/0/0"),
        (MODEL, "1/2/1", "3/1/0"),
        ("all", "1/2/1", "3/1/0"),
    ]


def test_the_terminal_says_where_the_rest_is() -> None:
    pair = (a_finding("refuted"), a_finding())
    said = printed(both(*[pair] * 45), Path("out"))
    assert (said.count("differs: "), "and 5 more; all are in out" in said) == (40, True)


def test_the_page_shows_both_sides_and_runs_nothing_that_a_target_sent() -> None:
    evil = "<script>alert(1)</script>"
    case = a_case(evil, says=evil)
    one = a_finding(
        "refuted", case=case, message=evil, exchange=an_exchange(body=evil.encode(), path=f"/{evil}")
    )
    said = html.render(both((one, a_finding(case=case))))
    assert "<script" not in said
    assert said.count("&lt;script&gt;") >= 5
    for part in ("A: refuted", "B: proven", 'href="A/report.html"', "default-src 'none'"):
        assert part in said
    assert not re.search(r'(?:src|href)="(?!A/report|B/report)', said)


def test_the_page_of_2500_differences_stays_below_3_mb() -> None:
    large = an_exchange(sent=b'"' * 3_000, body=b"<" * 100_000)
    pairs = [
        (a_finding("refuted", case=case, exchange=large), a_finding(case=case, exchange=large))
        for case in map(a_case, map(str, range(2_500)))
    ]
    page = html.render(both(*pairs))
    assert len(page.encode()) < 3_000_000
    assert "2400 more are in parity.json" in page


def test_the_json_has_what_a_program_needs() -> None:
    told = json.loads(json_file.render(MIXED))
    assert (told["verdict"], told["exit_code"]) == ("broken", 1)
    assert told["counts"] == {"differs": 1, "broken by both": 1, "not proven by one": 1, "alike": 1}
    assert [told["sides"][side]["url"] for side in "AB"] == ["http://127.0.0.1:8080", OTHER]
    pair = told["pairs"][0]
    assert (pair["id"], pair["outcome"]) == (f"{MODEL} num_images 5", "differs")
    assert [(pair[side]["verdict"], pair[side]["status"]) for side in "AB"] == [
        ("refuted", 200),
        ("proven", 200),
    ]
    assert told["remarks"] == [
        {"request": "POST /api/v3/x", "says": "/a: number, by B alone", "cases": [f"{MODEL} num_images 5"]}
    ]


def test_a_ci_server_counts_what_either_breaks_and_what_either_cannot_prove() -> None:
    root = ET.fromstring(junit.render(MIXED))
    assert [root.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "2", "0", "1"]
    assert [each.get("type") for each in root.iter("failure")] == ["Differs", "Broken"]
    assert "A: refuted, HTTP 200: too many; B: proven, HTTP 200" in {
        each.get("message") for each in root.iter("failure")
    }


def test_a_ci_server_hears_of_a_run_that_stopped() -> None:
    gone = a_report(a_finding("not proven"), stopped="it is gone")
    root = ET.fromstring(junit.render(compare(a_report(a_finding()), gone, again="")))
    assert [each.get("message") for each in root.iter("error")] == ["B stopped before the end: it is gone"]


def test_each_side_has_its_own_reports_in_a_folder(tmp_path: Path) -> None:
    write_parity(MIXED, tmp_path)
    assert sorted(str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*") if each.is_file()) == [
        *(f"{side}/{name}" for side in "AB" for name in ("junit.xml", "report.html", "report.json")),
        *("parity.html", "parity.json", "parity.junit.xml"),
    ]
    assert json.loads((tmp_path / "B" / "report.json").read_text())["url"] == OTHER


def raises(_: Session) -> None:
    raise KeyboardInterrupt


def test_the_second_is_left_alone_once_somebody_pressed_ctrl_c() -> None:
    case = a_case(check=raises)
    with speaking(kept) as one, speaking(kept) as two:
        options = [Options(url=each.url, only=(MODEL,)) for each in (one, two)]
        sides = [replace(open_side(each, *options), cases=[case]) for each in options]
        outcome = examine_sides(sides)
        for side in sides:
            side.session.target.close()
    assert isinstance(outcome, Report)
    assert (outcome.stopped, two.asked) == ("it was interrupted", [])


def opened(one: Options, other: Options) -> list[Side]:
    sides = [open_side(each, one, other) for each in (one, other)]
    for side in sides:
        side.session.target.close()
    return sides


def test_raw_bytes_go_to_neither_where_one_is_elsewhere() -> None:
    one, other = opened(Options(url=NOBODY), Options(url="http://mock.example"))
    assert "raw" not in {case.layer for case in one.cases}
    assert [case.id for case in one.cases] == [case.id for case in other.cases]


def test_raw_bytes_go_to_both_where_both_are_here() -> None:
    one, other = opened(Options(url=NOBODY), Options(url=NOBODY))
    assert "raw" in {case.layer for case in one.cases} & {case.layer for case in other.cases}


def run(*flags: str) -> Result:
    """What the command says, and its exit code."""
    return CliRunner().invoke(verify, flags, prog_name="wavemock verify")


def no_puts(target: BadTarget, wire: socket.socket, asked: Asked) -> bytes:
    """Keeps it all, but for what a PUT gets."""
    return reply(404) if asked.method == "PUT" else kept(target, wire, asked)


def compared(one: Answer, other: Answer, *flags: str) -> Result:
    with speaking(one) as first, speaking(other) as second:
        return run("--parity", first.url, second.url, *flags)


def last_line(text: str) -> str:
    return text.rstrip().rsplit("\n", 1)[-1]


def test_two_that_keep_it_all_are_exit_code_0() -> None:
    done = compared(kept, kept, *METHODS)
    assert (done.exit_code, done.stderr) == (0, "")
    assert last_line(done.stdout).startswith("kept: 4 cases alike, 0 that differ")


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (kept, no_puts, "3 cases alike, 1 that differ"),
        (no_puts, no_puts, "3 cases alike, 0 that differ, 1 broken"),
    ],
    ids=["by one", "by both"],
)
def test_a_broken_promise_is_exit_code_1(one: Answer, other: Answer, told: str) -> None:
    done = compared(one, other, *METHODS)
    assert (done.exit_code, done.stderr) == (1, "")
    assert last_line(done.stdout).startswith(f"broken: {told}")
    assert "B: refuted, HTTP 404: answered with HTTP 404 instead of 405" in done.stdout


def test_the_command_that_repeats_it_names_both() -> None:
    with speaking(kept) as one, speaking(kept) as two:
        said = run("--parity", one.url, two.url, *METHODS).stdout
    assert f"again:  wavemock verify --parity {one.url} {two.url} --seed 0" in said


def test_nothing_at_one_address_is_exit_code_2() -> None:
    with speaking(kept) as one:
        done = run("--parity", one.url, NOBODY, *METHODS)
    assert done.exit_code == 2
    assert f"B stopped before the end: {NOBODY} cannot be reached" in last_line(done.stdout)


def unsure(target: BadTarget, wire: socket.socket, asked: Asked) -> bytes:
    """Too busy for one of the requests."""
    return reply(429, retry_after="0") if asked.method == "DELETE" else kept(target, wire, asked)


@pytest.mark.parametrize(("flags", "code"), [((), 0), (("--strict",), 1)], ids=["usual", "strict"])
def test_what_one_alone_cannot_prove_counts_only_under_strict(flags: Sequence[str], code: int) -> None:
    done = compared(kept, unsure, *METHODS, *flags)
    assert done.exit_code == code, done.stdout
    assert f"not proven by one: {MODEL} by DELETE" in done.stdout


def test_both_get_the_same_requests() -> None:
    with speaking(kept) as one, speaking(kept) as two:
        run("--parity", one.url, two.url, "--case", f"{MODEL} seed *", "--seed", "3")
    assert len(one.asked) > 30
    assert [(each.method, each.path, each.body) for each in one.asked] == [
        (each.method, each.path, each.body) for each in two.asked
    ]


def test_the_reports_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    compared(kept, no_puts, *METHODS, "--report", str(tmp_path))
    assert json.loads((tmp_path / "parity.json").read_text())["counts"]["differs"] == 1
    assert (tmp_path / "A" / "report.html").exists()


def test_the_cases_of_both_are_listed_once() -> None:
    done = run("--parity", NOBODY, NOBODY, *METHODS, "--list")
    assert done.stdout.splitlines() == [f"{MODEL} by {each}" for each in ("GET", "PUT", "PATCH", "DELETE")]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--parity",), "--parity: name two servers."),
        (("--parity", NOBODY), "--parity: name two servers, not 1."),
        (("--parity", NOBODY, NOBODY, NOBODY), "--parity: name two servers, not 3."),
        ((NOBODY, NOBODY), "There is more than one server; --parity compares two."),
        ((), "Missing argument 'URL'."),
    ],
    ids=["none", "one", "three", "two without", "nothing"],
)
def test_another_number_of_servers_is_answered_with_the_usage(flags: Sequence[str], said: str) -> None:
    done = run(*flags)
    assert (done.exit_code, done.stdout, last_line(done.stderr)) == (2, "", f"Error: {said}")


def test_a_report_of_one_target_is_as_before(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path), speaking(kept) as target:
        assert run(target.url, *METHODS, "--report", "out").exit_code == 0
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"report.html", "junit.xml", "report.json"}
