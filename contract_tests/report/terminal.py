"""The report for whoever sits before a terminal, and for a log: how far it is, and what it came to."""

from __future__ import annotations

import contextlib
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from contract_tests.case import Finding, Report, Verdict
from contract_tests.report.cells import VERDICTS, Cell, cells, layers, models, reasons, tally
from contract_tests.report.words import WORD_VERDICTS, headline, said, story, word

STYLES: Mapping[Verdict, str] = {"proven": "green", "refuted": "red", "not proven": "yellow"}
_MOST_CELLS = 20
_MOST_REASONS = 12
_MOST_OF_A_LINE = 240
_ANY_WIDTH = 1_000
INDENT = " " * 4
_LABEL = 15


@contextlib.contextmanager
def progress(total: int, console: Console | None = None) -> Iterator[Callable[[Finding], None]]:
    """Shows how far a run of `total` cases is, on stderr; nothing at all where that is no terminal.

    Gives what is to be called with every finding.
    """
    console = console or Console(stderr=True)
    if not console.file.isatty() or console.is_dumb_terminal:
        yield lambda _: None
        return
    counted: Counter[Verdict] = Counter()
    bar = Progress(
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[counted]}", markup=False, table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[case]}", markup=False, table_column=Column(no_wrap=True, overflow="crop", ratio=1)
        ),
        console=console,
        expand=True,
        transient=True,
    )

    def advance(finding: Finding) -> None:
        counted[finding.verdict] += 1
        bar.update(
            task,
            advance=1,
            counted=", ".join(f"{counted[each]} {each}" for each in VERDICTS),
            case=fit(said(finding.case.id), console),
        )

    with bar:
        task = bar.add_task("", total=total, counted="", case="")
        yield advance


def show(report: Report, console: Console, directory: Path | None = None) -> None:
    """Prints the whole report; `directory` is where the other reports are written."""
    if report.findings:
        console.print(_overview(report, console))
        line(console, "")
    refuted = [each for each in cells(report).values() if each.verdict == "refuted"]
    for cell in refuted[:_MOST_CELLS]:
        _show_cell(report, cell, console)
    if len(refuted) > _MOST_CELLS:
        where = f"; all of them are in {said(str(directory))}" if directory else ""
        line(console, f"and {len(refuted) - _MOST_CELLS:,} more that are broken{where}", "bold red")
        line(console, "")
    _show_reasons(report, console)
    line(console, headline(report), f"bold {STYLES[WORD_VERDICTS[word(report)]]}")


def fit(text: str, console: Console) -> str:
    """The text with what the console's encoding lacks shown by its escape."""
    return text.encode(console.encoding, "backslashreplace").decode(console.encoding)


def line(console: Console, text: str, style: str = "") -> None:
    """One line, never broken here, so that a command can be copied whole."""
    console.print(Text(fit(text, console), style=style), soft_wrap=True)


Columns = Mapping[str, Callable[[Sequence[Finding]], str]]


def _overview(report: Report, console: Console) -> Table:
    """Models by layers, or where that is too wide models by verdicts."""
    wide = _table(report, {layer: _of_layer(layer) for layer in layers(report)}, console)
    wide.caption = Text("proven/refuted/not proven")
    wide.caption_justify = "left"
    if console.measure(wide, options=console.options.update_width(_ANY_WIDTH)).maximum <= console.width:
        return wide
    return _table(report, {verdict: _of_verdict(verdict) for verdict in VERDICTS}, console)


def _of_layer(layer: str) -> Callable[[Sequence[Finding]], str]:
    def counted(findings: Sequence[Finding]) -> str:
        found = [each for each in findings if each.case.layer == layer]
        numbers = list(tally(found).values())
        while len(numbers) > 1 and not numbers[-1]:
            numbers.pop()
        return "/".join(map(str, numbers)) if found else "-"

    return counted


def _of_verdict(verdict: Verdict) -> Callable[[Sequence[Finding]], str]:
    return lambda findings: f"{tally(findings)[verdict]:,}"


def _table(report: Report, columns: Columns, console: Console) -> Table:
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, padding=(0, 0))
    table.add_column("model", overflow="fold")
    for name in columns:
        table.add_column(Text(fit(said(name), console)), justify="right", no_wrap=True)
    for model in models(report):
        found = [each for each in report.findings if each.case.model == model]
        table.add_row(*_row(said(model) or "the target", found, columns, console), style=_style(found))
    table.add_section()
    table.add_row(*_row("all", report.findings, columns, console), style="bold")
    return table


def _row(name: str, findings: Sequence[Finding], columns: Columns, console: Console) -> list[Text]:
    return [Text(fit(text, console)) for text in (name, *(column(findings) for column in columns.values()))]


def _style(findings: Iterable[Finding]) -> str:
    return STYLES["refuted"] if tally(findings)["refuted"] else ""


def _show_cell(report: Report, cell: Cell, console: Console) -> None:
    finding, *others = cell.worst
    name = " ".join(said(part) for part in (cell.model, cell.field, cell.rule) if part)
    line(console, f"refuted: {name} ({len(others) + 1} of {len(cell.findings)})", "bold red")
    for label, text in story(report, finding, _MOST_OF_A_LINE):
        start = f"{INDENT}{label + ':':<{_LABEL}}"
        if label in {"sent", "again"}:
            line(console, start + text)
        else:
            wrapped(console, start, text)
    line(console, "")


def wrapped(console: Console, start: str, text: str) -> None:
    """A text of as many lines as it takes, `start` before the first, and as much room before the others."""
    width = max(console.width, len(start) + 20)
    rest = " " * len(start)
    for each in textwrap.wrap(text, width, initial_indent=start, subsequent_indent=rest) or [start]:
        line(console, each.rstrip())


def _show_reasons(report: Report, console: Console) -> None:
    found = reasons(report)
    if not found:
        return
    line(console, "not proven, because", f"bold {STYLES['not proven']}")
    for reason, number in found[:_MOST_REASONS]:
        wrapped(console, f"{number:>7,}  ", said(reason))
    if len(found) > _MOST_REASONS:
        rest = found[_MOST_REASONS:]
        line(console, f"{sum(number for _, number in rest):>7,}  for {len(rest):,} other reasons")
    line(console, "")
