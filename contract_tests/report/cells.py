"""Findings put together: what is known of each rule of each field of each model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from contract_tests.case import LAYERS, Finding, Report, Verdict

Key = tuple[str, str, str]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
WORST_FIRST: tuple[Verdict, ...] = ("refuted", "not proven", "proven")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One rule of one field of one model, and all findings about it in the order of the run."""

    model: str
    field: str
    rule: str
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """That of its worst finding."""
        return min((each.verdict for each in self.findings), key=WORST_FIRST.index)

    @property
    def worst(self) -> tuple[Finding, ...]:
        """The findings that make its verdict."""
        return tuple(each for each in self.findings if each.verdict == self.verdict)


def cells(report: Report) -> Mapping[Key, Cell]:
    """The cells by model, field and rule, in the order in which the run came to them."""
    found: dict[Key, list[Finding]] = {}
    for each in report.findings:
        found.setdefault((each.case.model, each.case.field, each.case.rule), []).append(each)
    return {
        (model, field, rule): Cell(model=model, field=field, rule=rule, findings=tuple(findings))
        for (model, field, rule), findings in found.items()
    }


def tally(findings: Iterable[Finding]) -> Mapping[Verdict, int]:
    """How many findings there are of each verdict."""
    counted = Counter(each.verdict for each in findings)
    return {verdict: counted[verdict] for verdict in VERDICTS}


def reasons(report: Report) -> list[tuple[str, int]]:
    """Why things were not proven, and how many of them, the commonest reason first."""
    return Counter(each.message for each in report.of("not proven")).most_common()


def layers(report: Report) -> list[str]:
    """The layers that have findings, in the order in which they run."""
    found = dict.fromkeys(each.case.layer for each in report.findings)
    return [layer for layer in LAYERS if layer in found] + [layer for layer in found if layer not in LAYERS]


def models(report: Report) -> list[str]:
    """The models that have findings, in the order in which the run came to them."""
    return list(dict.fromkeys(each.case.model for each in report.findings))
