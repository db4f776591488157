"""Two targets side by side, for a program."""

from __future__ import annotations

import json
from typing import Any

from contract_tests.case import Finding, Report
from contract_tests.parity import Pair, Parity, status_of
from contract_tests.report.cells import tally
from contract_tests.report.parity.words import Row, counted, found, rows, sides, word
from contract_tests.report.words import again, said
from contract_tests.report.words import word as word_of

_MOST_OF_A_MESSAGE = 2_000


def render(parity: Parity) -> str:
    """One JSON object, with its keys always in this order.

    `verdict` is kept, broken or could not run, and `exit_code` 0, 1 or 2; `sides` are the two runs, whose own
    reports lie in the folders A and B; `counts` has a number for each outcome of a case. `rows` are the
    counts by layer and by model. `pairs` are the cases that are not alike; `status` is the HTTP status of the
    last answer, null where there was none. `remarks` tell where answers are made differently.
    """
    value = {
        "verdict": word(parity),
        "exit_code": parity.exit_code,
        "again": said(parity.again, _MOST_OF_A_MESSAGE),
        "counts": counted(parity),
        "sides": {side: _side(report) for side, report in sides(parity)},
        "rows": [_row(kind, row) for kind, each in rows(parity).items() if kind for row in each],
        "pairs": [_pair(parity, each) for each in parity.pairs if each.outcome != "alike"],
        "remarks": [
            {
                "request": said(each.request),
                "says": said(each.says),
                "cases": [said(case) for case in each.cases],
            }
            for each in parity.remarks
        ],
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _side(report: Report) -> dict[str, Any]:
    return {
        "url": said(report.url),
        "verdict": word_of(report),
        "stopped": said(report.stopped, _MOST_OF_A_MESSAGE),
        "edition": said(report.edition),
        "seed": report.seed,
        "sent": report.sent,
        "begun": report.begun,
        "seconds": round(report.seconds, 3),
        "counts": tally(report.findings),
    }


def _row(kind: str, row: Row) -> dict[str, Any]:
    return {"of": kind, "name": row.name, "A": row.one, "B": row.other}


def _pair(parity: Parity, pair: Pair) -> dict[str, Any]:
    case, reports = pair.case, dict(sides(parity))
    return {
        "id": said(case.id),
        "layer": said(case.layer),
        "model": said(case.model),
        "field": said(case.field),
        "rule": said(case.rule),
        "source": case.source,
        "says": said(case.says),
        "outcome": pair.outcome,
        **{side: _finding(reports[side], finding) for side, finding in found(pair)},
    }


def _finding(report: Report, finding: Finding) -> dict[str, Any]:
    return {
        "verdict": finding.verdict,
        "message": said(finding.message, _MOST_OF_A_MESSAGE),
        "status": status_of(finding),
        "again": again(report, finding.case),
    }
