"""The report for a program."""

from __future__ import annotations

import json
from typing import Any

from contract_tests.case import Finding, Report
from contract_tests.exchange import Exchange
from contract_tests.report.cells import Cell, cells, tally
from contract_tests.report.words import again, body, command, headers, said, word

_MOST_OF_A_BODY = 4_000
_MOST_OF_A_MESSAGE = 2_000
_LINES = "\n\t"


def render(report: Report) -> str:
    """One JSON object, with its keys always in this order.

    `verdict` is kept, broken or could not run, and `exit_code` 0, 1 or 2; `stopped` is empty where the run
    came to its end; `again` is the command that repeats it, or one case; `sent` counts requests and
    `begun` tasks; `seconds` are seconds. `counts` has a number for each verdict: proven, refuted, not proven.
    A cell's `findings` are ids. A finding's `source` is page or reading; its `exchanges` end with the telling
    one. Headers are pairs of name and value. A body is text: what is no UTF-8 and what does not print stands
    escaped, base64 and what is beyond 4,000 characters is left out; it is null where none was sent.
    """
    value = {
        "verdict": word(report),
        "exit_code": report.exit_code,
        "url": said(report.url),
        "edition": said(report.edition),
        "seed": report.seed,
        "stopped": said(report.stopped, _MOST_OF_A_MESSAGE),
        "again": again(report),
        "sent": report.sent,
        "begun": report.begun,
        "seconds": round(report.seconds, 3),
        "counts": tally(report.findings),
        "cells": [_cell(each) for each in cells(report).values()],
        "findings": [_finding(report, each) for each in report.findings],
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "model": said(cell.model),
        "field": said(cell.field),
        "rule": said(cell.rule),
        "verdict": cell.verdict,
        "counts": tally(cell.findings),
        "findings": [said(each.case.id) for each in cell.findings],
    }


def _finding(report: Report, finding: Finding) -> dict[str, Any]:
    case = finding.case
    return {
        "id": said(case.id),
        "layer": said(case.layer),
        "model": said(case.model),
        "field": said(case.field),
        "rule": said(case.rule),
        "source": case.source,
        "says": said(case.says),
        "verdict": finding.verdict,
        "message": said(finding.message, _MOST_OF_A_MESSAGE),
        "seconds": round(finding.seconds, 3),
        "again": again(report, case),
        "exchanges": [_exchange(report, each) for each in finding.exchanges],
    }


def _exchange(report: Report, exchange: Exchange) -> dict[str, Any]:
    request = exchange.request
    return {
        "request": {
            "method": said(request.method),
            "path": said(request.path, _MOST_OF_A_MESSAGE),
            "headers": headers(request.headers),
            "body": None if request.body is None else body(request.body, _MOST_OF_A_BODY, _LINES),
        },
        "answer": {
            "status": exchange.status,
            "headers": headers(exchange.headers),
            "body": body(exchange.body, _MOST_OF_A_BODY, _LINES),
        },
        "curl": command(exchange, report.url, keep=_LINES),
    }
