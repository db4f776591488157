"""The contract suite's report on a terminal, and its progress."""

import io
import re
import shlex
from pathlib import Path

import pytest
from reports import BROKEN, ESCAPE, MODEL, a_case, a_finding, a_report, an_exchange, printed
from rich.console import Console

from contract_tests.case import Report
from contract_tests.report import terminal


def last_line(report: Report) -> str:
    return printed(report).splitlines()[-1]


def test_the_last_line_says_that_all_is_kept() -> None:
    report = a_report(*[a_finding()] * 1412, *[a_finding("not proven", message="no clock")] * 37)
    assert last_line(report) == "kept: 1,412 promises proven, 0 broken, 37 not proven"


def test_the_last_line_says_what_is_broken() -> None:
    assert last_line(BROKEN) == "broken: 1 promise proven, 1 broken, 0 not proven"


def test_the_last_line_says_that_a_broken_run_stopped_before_its_end() -> None:
    report = a_report(a_finding("refuted"), stopped="gone")
    assert last_line(report).endswith("1 broken, 0 not proven; stopped before the end: gone")


def test_the_last_line_says_why_the_run_could_not_begin() -> None:
    assert (
        last_line(a_report(stopped="http://x cannot be reached"))
        == "could not run: http://x cannot be reached"
    )


def test_the_last_line_says_what_was_known_when_the_run_stopped() -> None:
    said = last_line(a_report(a_finding(), stopped="gone"))
    assert said == "could not run: gone (1 promise proven, 0 broken, 0 not proven)"


def test_a_refuted_cell_is_shown_with_what_was_sent_and_what_came_back() -> None:
    said = printed(BROKEN)
    assert f"refuted: {MODEL} num_images maximum (1 of 2)" in said
    assert "the page says: at most 4 images" in said
    assert "curl -sS -i" in said
    assert 'HTTP 200 {"code": 200}' in said


def test_our_reading_is_not_called_the_page() -> None:
    report = a_report(a_finding("refuted", case=a_case(source="reading")))
    assert "our reading:" in printed(report)
    assert "the page says" not in printed(report)


@pytest.mark.parametrize("label", ["5", "a string's end", 'a "word" $HOME'])
def test_the_command_that_replays_a_case_can_be_pasted(label: str) -> None:
    case = a_case(label)
    said = printed(a_report(a_finding("refuted", case=case)))
    command = next(line for line in said.splitlines() if "again:" in line).partition("again:")[2]
    assert shlex.split(command) == [
        "wavemock",
        "verify",
        "http://127.0.0.1:8080",
        "--seed",
        "7",
        "--case",
        case.id,
    ]


def test_a_command_is_never_broken_into_lines() -> None:
    said = printed(a_report(a_finding("refuted", case=a_case("x" * 200))))
    assert sum("wavemock verify" in line and line.endswith("x'") for line in said.splitlines()) == 1


def test_a_claim_is_broken_into_lines_that_fit() -> None:
    said = printed(a_report(a_finding("refuted", case=a_case(says="word " * 60))))
    assert max(len(line) for line in said.splitlines() if "word" in line) <= 80


def test_a_long_command_keeps_its_end() -> None:
    long = an_exchange(sent=b'{"prompt": "' + b"la " * 900 + b'"}', path="/api/v3/the-end")
    sent = next(
        line
        for line in printed(a_report(a_finding("refuted", exchange=long))).splitlines()
        if "sent:" in line
    )
    assert len(sent) < 300
    assert sent.endswith("/api/v3/the-end")


def test_only_twenty_refuted_cells_are_shown_and_the_rest_is_counted(tmp_path: Path) -> None:
    report = a_report(*(a_finding("refuted", case=a_case(field=f"field{number}")) for number in range(25)))
    said = printed(report, directory=tmp_path, width=400)
    assert said.count("refuted: ") == 20
    assert f"and 5 more that are broken; all of them are in {tmp_path}" in said


def test_reasons_for_what_is_not_proven_are_counted() -> None:
    reasons = ["no clock", "no budget", "no clock"]
    said = printed(a_report(a_finding(), *(a_finding("not proven", message=each) for each in reasons)))
    assert re.search(r"^ +2  no clock\n +1  no budget$", said, re.MULTILINE)


def test_many_reasons_are_summed_up() -> None:
    report = a_report(*(a_finding("not proven", message=f"reason {number}") for number in range(15)))
    assert "3  for 3 other reasons" in printed(report)


def test_a_wide_terminal_sees_models_by_layers() -> None:
    report = a_report(a_finding(), a_finding("refuted"), a_finding("not proven", case=a_case(layer="raw")))
    head, _, row, *_ = printed(report, width=100).splitlines()
    assert head.split() == ["model", "boundary", "raw"]
    assert row.split() == [MODEL, "1/1", "0/0/1"]


def test_a_narrow_terminal_sees_models_by_verdicts() -> None:
    report = a_report(*(a_finding(case=a_case(layer=f"a long layer {number}")) for number in range(9)))
    head, _, row, *_ = printed(report, width=80).splitlines()
    assert head.split() == ["model", "proven", "refuted", "not", "proven"]
    assert row.split() == [MODEL, "9", "0", "0"]


def test_what_is_about_no_model_is_about_the_target() -> None:
    assert re.search("^the target +1", printed(a_report(a_finding(case=a_case(model="")))), re.MULTILINE)


def test_there_is_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    terminal.show(BROKEN, console)
    assert isinstance(console.file, io.StringIO)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", console.file.getvalue())


def test_a_terminal_that_knows_only_ascii_gets_ascii() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    case = a_case("ü", field="ü", rule="ü", model="ü", layer="ü", says="ü")
    report = a_report(a_finding("refuted", case=case, message="→"), a_finding("not proven", message="→"))
    terminal.show(report, Console(file=file, width=80))
    file.flush()
    file.seek(0)
    assert r"\u2192" in file.read()


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    assert "[bold]x[/]" in printed(a_report(a_finding("refuted", message="[bold]x[/]")))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_nothing_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress(1) as advance:
        advance(a_finding())
    assert capsys.readouterr() == ("", "")


def test_progress_counts_and_names_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    with terminal.progress(3, Console(file=file, width=120)) as advance:
        advance(a_finding())
        advance(a_finding("refuted", case=a_case(f"[red]5{ESCAPE}")))
    said = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    assert "2/3" in said
    assert "1 proven, 1 refuted, 0 not proven" in said
    assert rf"{MODEL} num_images [red]5\x1b]0;owned" in said
