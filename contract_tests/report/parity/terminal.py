"""Two targets side by side, for whoever sits before a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from contract_tests.parity import Outcome, Pair, Parity
from contract_tests.report.parity.words import (
    found,
    headline,
    numbers,
    rows,
    shown,
    sides,
    telling,
    word,
)
from contract_tests.report.terminal import INDENT, STYLES, fit, line, wrapped
from contract_tests.report.words import WORD_VERDICTS, claim, said

_MOST_PAIRS = 40
_MOST_REMARKS = 40
_HEADS: Mapping[Outcome, tuple[str, str]] = {
    "differs": ("differs", "bold red"),
    "broken by both": ("broken by both", "bold red"),
    "not proven by one": ("not proven by one", "bold yellow"),
}


def show(parity: Parity, console: Console, directory: Path | None = None) -> None:
    """Prints it all; `directory` is where the files are written."""
    for side, report in sides(parity):
        line(console, f"{side}  {said(report.url)}")
    line(console, "")
    console.print(_table(parity, console))
    line(console, "")
    for outcome in _HEADS:
        _show_pairs(outcome, parity.of(outcome), console, directory)
    _show_remarks(parity, console, directory)
    line(console, f"again:  {said(parity.again)}")
    line(console, headline(parity), f"bold {STYLES[WORD_VERDICTS[word(parity)]]}")


def _table(parity: Parity, console: Console) -> Table:
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("", overflow="fold")
    for side, _ in sides(parity):
        table.add_column(side, justify="right", no_wrap=True)
    for kind, each in rows(parity).items():
        for row in each:
            texts = (row.name, numbers(row.one), numbers(row.other))
            style = "" if row.alike else STYLES["not proven"]
            table.add_row(*(Text(fit(text, console)) for text in texts), style=style if kind else "bold")
        table.add_section()
    table.caption = Text("proven/refuted/not proven")
    table.caption_justify = "left"
    return table


def _show_pairs(outcome: Outcome, pairs: Sequence[Pair], console: Console, directory: Path | None) -> None:
    head, style = _HEADS[outcome]
    for pair in pairs[:_MOST_PAIRS]:
        line(console, f"{head}: {said(pair.case.id)}", style)
        who, says = claim(pair.case)
        wrapped(console, f"{INDENT}{who}: ", says)
        for side, finding in found(pair):
            wrapped(console, f"{INDENT}{side}: ", telling(finding))
    if pairs:
        _show_rest(len(pairs) - _MOST_PAIRS, console, directory)


def _show_remarks(parity: Parity, console: Console, directory: Path | None) -> None:
    if not parity.remarks:
        return
    line(console, "answers are made differently (this decides nothing)", f"bold {STYLES['not proven']}")
    for remark in parity.remarks[:_MOST_REMARKS]:
        wrapped(console, f"{len(remark.cases):>7,}  ", f"{said(remark.request)}: {said(remark.says)}")
        wrapped(console, f"{'':>9}", f"seen in {shown(remark)}")
    _show_rest(len(parity.remarks) - _MOST_REMARKS, console, directory)


def _show_rest(number: int, console: Console, directory: Path | None) -> None:
    if number > 0:
        line(console, f"and {number:,} more" + (f"; all are in {said(str(directory))}" if directory else ""))
    line(console, "")
