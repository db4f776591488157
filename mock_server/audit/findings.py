"""The audit: what a client did that it had better not, with the entries that show it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, get_args

from mock_server.audit.ledger import WINDOW
from mock_server.audit.rules import RULES, Rule
from mock_server.audit.signs import Severity, Sign, matter_of
from mock_server.audit.trails import numbers
from mock_server.desk import timestamp
from mock_server.journal import Numbered
from mock_server.prediction import Prediction

_MOST_EVIDENCE = 5
_GRAVITY = {severity: place for place, severity in enumerate(get_args(Severity))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule that was broken about one task, or about no task in particular.

    `message` says what happened, `advice` what to do instead. `entries` are the numbers of at most five of
    the `count` journal entries that show it. `first_at` and `last_at` are the times of the first and the last
    of them all, in milliseconds since the Unix epoch on the server's clock. `prediction` is empty where no
    task is concerned.
    """

    rule: str
    severity: Severity
    message: str
    advice: str
    prediction: str
    count: int
    entries: tuple[int, ...]
    first_at: int
    last_at: int

    @property
    def fails(self) -> bool:
        """Whether it is more than a note."""
        return self.severity != "note"


def audit(
    entries: Iterable[Numbered],
    predictions: Iterable[Prediction],
    *,
    now: int,
    root_edition: str,
    delivered: Collection[str] = (),
    window: int = WINDOW,
) -> tuple[Finding, ...]:
    """What can be said against the client at `now`, the gravest first.

    `root_edition` is the edition at the root, `delivered` are the ids of tasks whose end a webhook has
    delivered, and `window`, in milliseconds, is how far apart two submits of the same body may be to be a
    repetition. What cannot be told for certain is not said.
    """
    matter = matter_of(
        entries, predictions, now=now, root_edition=root_edition, delivered=delivered, window=window
    )
    found = [
        finding
        for rule in RULES.values()
        for finding in _merged(_finding(rule, sign) for sign in rule.check(matter))
    ]
    return tuple(sorted(found, key=lambda finding: (_GRAVITY[finding.severity], finding.first_at)))


def _finding(rule: Rule, sign: Sign) -> Finding:
    moments = [each.entry.at for each in sign.seen]
    return Finding(
        rule=rule.id,
        severity=sign.severity,
        message=sign.message,
        advice=rule.advice,
        prediction=sign.prediction,
        count=len(sign.seen),
        entries=numbers(sign.seen, _MOST_EVIDENCE),
        first_at=min(moments),
        last_at=max(moments),
    )


def _merged(findings: Iterable[Finding]) -> list[Finding]:
    """One finding per task; what concerns no task stays as it is."""
    merged: dict[str, Finding] = {}
    alone = []
    for finding in findings:
        if not finding.prediction:
            alone.append(finding)
        elif (other := merged.get(finding.prediction)) is None:
            merged[finding.prediction] = finding
        else:
            merged[finding.prediction] = _both(other, finding)
    return [*merged.values(), *alone]


def _both(one: Finding, other: Finding) -> Finding:
    """The graver of two, with what shows the other added."""
    graver, milder = sorted((one, other), key=lambda each: _GRAVITY[each.severity])
    return replace(
        graver,
        count=one.count + other.count,
        entries=(graver.entries + milder.entries)[:_MOST_EVIDENCE],
        first_at=min(one.first_at, other.first_at),
        last_at=max(one.last_at, other.last_at),
    )


def findings_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """The findings as the control plane answers them: times as texts."""
    return [
        {
            "rule": finding.rule,
            "severity": finding.severity,
            "message": finding.message,
            "advice": finding.advice,
            "prediction": finding.prediction,
            "count": finding.count,
            "entries": list(finding.entries),
            "first_at": timestamp(finding.first_at),
            "last_at": timestamp(finding.last_at),
        }
        for finding in findings
    ]
