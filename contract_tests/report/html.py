"""The report for a browser: one file that asks for nothing from outside and runs nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from contract_tests.case import Finding, Report, Verdict
from contract_tests.report.cells import VERDICTS, WORST_FIRST, Cell, cells, models, reasons, tally
from contract_tests.report.words import (
    again,
    body,
    claim,
    command,
    counts,
    duration,
    headers,
    line,
    said,
    word,
)

_HERE = Path(__file__).parent
GLYPHS: Mapping[Verdict, str] = {"proven": "✓", "refuted": "✗", "not proven": "?"}
_ROOM = 1_200_000  # characters for all that was sent and came back, which keeps the file below 3 MB
_MOST_BEFORE = 6
_LINES = "\n\t"
_WHOLE = "(as a whole)"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What was sent and what came back, for the page. `before` are earlier exchanges, a line each."""

    before: Sequence[str]
    request: str
    sent_headers: Sequence[tuple[str, str]]
    sent: str
    status: int
    headers: Sequence[tuple[str, str]]
    body: str
    curl: str

    @property
    def size(self) -> int:
        """How many characters of the page it takes, about."""
        pairs = (*self.sent_headers, *self.headers)
        texts = (
            *self.before,
            self.request,
            self.sent,
            self.body,
            self.curl,
            *(part for pair in pairs for part in pair),
        )
        return sum(len(escape(text)) + 30 for text in texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A finding on the page. `who` makes the claim `says`; `told` is None where there is none, or no room."""

    id: str
    layer: str
    verdict: Verdict
    who: str
    says: str
    message: str
    request: str
    again: str
    told: _Told | None
    left_out: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Square:
    """A cell on the page, under an anchor; `number` of its findings have its verdict."""

    anchor: str
    model: str
    field: str
    rule: str
    verdict: Verdict
    number: int
    lines: Sequence[_Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Matrix:
    """The cells of one model. Rules of several fields have a column; `others` are the rest of a row."""

    model: str
    number: Mapping[Verdict, int]
    rules: Sequence[str]
    rows: Sequence[_Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """The cells of one field, one for each column or None, and those without a column."""

    field: str
    squares: Sequence[_Square | None]
    others: Sequence[_Square]


def render(report: Report) -> str:
    """The page."""
    told = _all_told(report)
    squares = [
        _square(report, cell, f"c{number}", told)
        for number, cell in enumerate(cells(report).values(), start=1)
    ]
    return template(_HERE / "report.html.jinja").render(
        css=style(),
        word=word(report),
        counts=counts(report),
        stopped=said(report.stopped),
        number=tally(report.findings),
        facts=_facts(report),
        again=again(report),
        matrices=[_matrix(report, model, squares) for model in dict.fromkeys(map(_name, models(report)))],
        squares={each: [square for square in squares if square.verdict == each] for each in VERDICTS},
        reasons=[(said(reason), number) for reason, number in reasons(report)],
        glyphs=GLYPHS,
    )


def style() -> Markup:
    """The style sheet of every page."""
    return Markup((_HERE / "report.css").read_text(encoding="utf-8"))  # noqa: S704 - a file of ours


@cache
def template(file: Path) -> Template:
    """A page to be filled in; whatever is put into it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(file.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(file.name)


def _facts(report: Report) -> list[tuple[str, str]]:
    return [
        ("Target", said(report.url)),
        ("Edition", said(report.edition)),
        ("Seed", str(report.seed)),
        ("Duration", duration(report.seconds)),
        ("Requests", f"{report.sent:,}"),
        ("Tasks begun", f"{report.begun:,}"),
    ]


def _all_told(report: Report) -> Mapping[int, _Told]:
    """What was sent and came back by the `id()` of its finding; the refuted first, while there is room."""
    found: dict[int, _Told] = {}
    left = _ROOM
    for verdict in ("refuted", "not proven"):
        for finding in report.of(verdict):
            if left <= 0:
                return found
            if finding.exchanges:
                told = _told(report, finding)
                left -= told.size
                found[id(finding)] = told
    return found


def _told(report: Report, finding: Finding) -> _Told:
    last = finding.exchanges[-1]
    return _Told(
        before=[line(each) for each in finding.exchanges[:-1][-_MOST_BEFORE:]],
        request=f"{said(last.request.method, 40)} {said(last.request.path)}",
        sent_headers=headers(last.request.headers),
        sent=body(last.request.body, keep=_LINES),
        status=last.status,
        headers=headers(last.headers),
        body=body(last.body, keep=_LINES),
        curl=command(last, report.url, keep=_LINES),
    )


def _name(model: str) -> str:
    return said(model) or "the target"


def _square(report: Report, cell: Cell, anchor: str, told: Mapping[int, _Told]) -> _Square:
    worst_first = sorted(cell.findings, key=lambda each: WORST_FIRST.index(each.verdict))
    return _Square(
        anchor=anchor,
        model=_name(cell.model),
        field=said(cell.field),
        rule=said(cell.rule),
        verdict=cell.verdict,
        number=len(cell.worst),
        lines=[_line(report, each, told.get(id(each))) for each in worst_first],
    )


def _line(report: Report, finding: Finding, told: _Told | None) -> _Line:
    who, says = claim(finding.case)
    return _Line(
        id=said(finding.case.id),
        layer=said(finding.case.layer),
        verdict=finding.verdict,
        who=who,
        says=says,
        message=said(finding.message),
        request=line(finding.exchanges[-1]) if finding.exchanges else "nothing was sent",
        again=again(report, finding.case),
        told=told,
        left_out=told is None and bool(finding.exchanges),
    )


def _matrix(report: Report, model: str, squares: Sequence[_Square]) -> _Matrix:
    own = [each for each in squares if each.model == model]
    fields = list(dict.fromkeys(each.field for each in own))
    shared = Counter(each.rule for each in own if each.field)
    # In the order of the whole run, so that every model's columns stand alike.
    rules = [rule for rule in dict.fromkeys(each.rule for each in squares) if shared[rule] > 1]
    rows = []
    for field in sorted(fields, key=bool):
        of_field = {each.rule: each for each in own if each.field == field}
        columns = rules if field else []
        rows.append(
            _Row(
                field=field or _WHOLE,
                squares=[of_field.get(rule) if rule in columns else None for rule in rules],
                others=[each for rule, each in of_field.items() if rule not in columns],
            )
        )
    number = tally(each for each in report.findings if _name(each.case.model) == model)
    return _Matrix(model=model, number=number, rules=rules, rows=rows)
