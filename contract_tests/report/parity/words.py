"""Two targets side by side, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from contract_tests.case import Finding, Report, Verdict
from contract_tests.parity import OUTCOMES, SIDES, Outcome, Pair, Parity, Remark, status_of
from contract_tests.report.cells import layers, models, tally
from contract_tests.report.words import VERDICT_WORDS, said

_MOST_CASES = 3
Counts = Mapping[Verdict, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How many findings there are of something, on either side."""

    name: str
    one: Counts
    other: Counts

    @property
    def alike(self) -> bool:
        """Whether the counts are the same."""
        return dict(self.one) == dict(self.other)


def rows(parity: Parity) -> Mapping[str, Sequence[Row]]:
    """The counts by layer, by model, and of all."""
    of_layer = [_row(parity, layer, _by_layer(layer)) for layer in layers(parity.one)]
    of_model = [_row(parity, said(model) or "the target", _by_model(model)) for model in models(parity.one)]
    return {"layer": of_layer, "model": of_model, "": [_row(parity, "all", lambda _: True)]}


def _by_layer(layer: str) -> Callable[[Finding], bool]:
    return lambda finding: finding.case.layer == layer


def _by_model(model: str) -> Callable[[Finding], bool]:
    return lambda finding: finding.case.model == model


def _row(parity: Parity, name: str, counts: Callable[[Finding], bool]) -> Row:
    return Row(
        name=name,
        one=tally(filter(counts, parity.one.findings)),
        other=tally(filter(counts, parity.other.findings)),
    )


def numbers(counts: Counts) -> str:
    """Counts in one word: proven/refuted/not proven."""
    return "/".join(map(str, counts.values()))


def sides(parity: Parity) -> list[tuple[str, Report]]:
    """Each report under its letter."""
    return list(zip(SIDES, (parity.one, parity.other), strict=True))


def found(pair: Pair) -> list[tuple[str, Finding]]:
    """Each finding under the letter of its side."""
    return list(zip(SIDES, (pair.one, pair.other), strict=True))


def telling(finding: Finding) -> str:
    """A verdict, the status of the last answer, and the message, in one line."""
    status = status_of(finding)
    silent = "no answer" if finding.exchanges else "nothing sent"
    answer = silent if status is None else f"HTTP {status}"
    return f"{finding.verdict}, {answer}" + (f": {said(finding.message)}" if finding.message else "")


def shown(remark: Remark) -> str:
    """Where a remark was seen: the first few cases, and how many more."""
    more = len(remark.cases) - _MOST_CASES
    names = "; ".join(said(each) for each in remark.cases[:_MOST_CASES])
    return names + (f"; and {more:,} more" if more > 0 else "")


def counted(parity: Parity) -> Mapping[Outcome, int]:
    """How many cases came to what."""
    return {outcome: len(parity.of(outcome)) for outcome in OUTCOMES}


def word(parity: Parity) -> str:
    """The verdict on both: kept, broken or could not run."""
    return VERDICT_WORDS[parity.exit_code]


def counts(parity: Parity) -> str:
    """How many cases came to what, in words."""
    number = counted(parity)
    told = [
        f"{number['alike']:,} case{'s' * (number['alike'] != 1)} alike",
        *(f"{number[each]:,} {_PLURALS[each]}" for each in _PLURALS),
    ]
    remarks = len(parity.remarks)
    return ", ".join(told) + f"; {remarks:,} remark{'s' * (remarks != 1)} on answers"


_PLURALS: Mapping[Outcome, str] = {
    "differs": "that differ",
    "broken by both": "broken by both",
    "not proven by one": "not proven by one alone",
}


def headline(parity: Parity) -> str:
    """The verdict on both in one line."""
    return f"{word(parity)}: {counts(parity)}" + "".join(f"; {each}" for each in stops(parity))


def stops(parity: Parity) -> Iterator[str]:
    """Why a run stopped before its end."""
    for side, report in sides(parity):
        if report.stopped:
            yield f"{side} stopped before the end: {said(report.stopped)}"
