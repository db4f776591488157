"""Two targets side by side, for a browser: one file that asks for nothing from outside and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract_tests.case import Finding, Report, Verdict
from contract_tests.parity import Outcome, Pair, Parity, status_of
from contract_tests.report.cells import VERDICTS
from contract_tests.report.html import GLYPHS, style, template
from contract_tests.report.parity.words import Row, counts, found, rows, shown, sides, stops, word
from contract_tests.report.words import again, body, claim, command, duration, said

_HERE = Path(__file__).parent
_HEADS: Mapping[Outcome, str] = {
    "differs": "Differs",
    "broken by both": "Broken by both",
    "not proven by one": "Not proven by one alone",
}
_MOST_PAIRS = 100
_MOST_OF_A_COMMAND = 1_200
_LINES = "\n\t"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """One side of a case; `sent` and `body` are empty where nothing was sent."""

    side: str
    verdict: Verdict
    status: int | None
    message: str
    sent: str
    body: str
    again: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A case that is not alike on both sides. `who` makes the claim `says`."""

    id: str
    layer: str
    who: str
    says: str
    told: Sequence[_Told]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The cases of one outcome; `left_out` are those that there is no room for."""

    head: str
    number: int
    lines: Sequence[_Line]
    left_out: int


def render(parity: Parity) -> str:
    """The page."""
    return template(_HERE / "parity.html.jinja").render(
        css=style(),
        word=word(parity),
        counts=counts(parity),
        stops=list(stops(parity)),
        facts=_facts(parity),
        again=said(parity.again),
        tables=_tables(parity),
        parts=[_part(parity, head, parity.of(outcome)) for outcome, head in _HEADS.items()],
        remarks=[
            (len(each.cases), said(each.request), said(each.says), shown(each)) for each in parity.remarks
        ],
        verdicts=VERDICTS,
        glyphs=GLYPHS,
    )


def _facts(parity: Parity) -> list[tuple[str, str]]:
    runs = [
        (
            side,
            f"{said(each.url)}: {duration(each.seconds)}, {each.sent:,} requests, {each.begun:,} tasks begun",
        )
        for side, each in sides(parity)
    ]
    return [*runs, ("Edition", said(parity.one.edition)), ("Seed", str(parity.one.seed))]


def _tables(parity: Parity) -> Mapping[str, Sequence[Row]]:
    found_rows = rows(parity)
    return {kind: [*each, *found_rows[""]] for kind, each in found_rows.items() if kind}


def _part(parity: Parity, head: str, pairs: Sequence[Pair]) -> _Part:
    lines = [_line(parity, each) for each in pairs[:_MOST_PAIRS]]
    return _Part(head=head, number=len(pairs), lines=lines, left_out=len(pairs) - len(lines))


def _line(parity: Parity, pair: Pair) -> _Line:
    who, says = claim(pair.case)
    reports = dict(sides(parity))
    return _Line(
        id=said(pair.case.id),
        layer=said(pair.case.layer),
        who=who,
        says=says,
        told=[_told(reports[side], side, finding) for side, finding in found(pair)],
    )


def _told(report: Report, side: str, finding: Finding) -> _Told:
    last = finding.exchanges[-1] if finding.exchanges else None
    return _Told(
        side=side,
        verdict=finding.verdict,
        status=status_of(finding),
        message=said(finding.message),
        sent=command(last, report.url, _MOST_OF_A_COMMAND, _LINES) if last else "",
        body=body(last.body, keep=_LINES) if last else "",
        again=again(report, finding.case),
    )
