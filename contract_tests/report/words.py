"""A report in words: nothing secret, and nothing that a terminal, a browser or a parser would obey."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from contract_tests.exchange import ELIDED, curl, secret, shown
from contract_tests.layers.raw_replay import RawExchange
from contract_tests.layers.raw_replay import command as raw_command
from contract_tests.report.cells import tally

if TYPE_CHECKING:
    from contract_tests.case import Case, Finding, Report, Verdict
    from contract_tests.exchange import Exchange, Headers

VERDICT_WORDS = ("kept", "broken", "could not run")
"""The verdict on a whole run by its exit code."""
WORD_VERDICTS: Mapping[str, Verdict] = dict(
    zip(VERDICT_WORDS, ("proven", "refuted", "not proven"), strict=True)
)
"""The verdict on one case that a verdict on a whole run is shown like."""
_MOST_OF_A_BODY = 400
_MOST_OF_A_COMMAND = 6_000
_MOST_OF_A_HEADER = 300
_MOST_HEADERS = 40
_MOST_OF_A_MESSAGE = 600
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]{0,20}://)[^/?#\s@\"'<>]+@", re.IGNORECASE)
_PARAMETER = re.compile(r"([?&;]([^=&?;\s\"'<>]{1,80})=)[^&;\s\"'<>]+")
_BEARER = re.compile(r"(\bbearer\s+)(?=\S*[0-9])[\w.~+/=-]{8,}", re.IGNORECASE)
_KEY_OPTION = re.compile(r"(--(?:api-)?key[= ]+)('[^']*'|\"[^\"]*\"|[^\s'\"]+)")


def visible(text: str, keep: str = "") -> str:
    """The text with every character that does not print shown by its escape, but those in `keep`."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
        for each in text
    )


def discreet(text: str) -> str:
    """The text without keys: a URL's user and secret parameters, a bearer token, a key given to a command."""
    text = _USER.sub(rf"\1{ELIDED}@", text)
    text = _PARAMETER.sub(lambda match: match[1] + ELIDED if secret(match[2]) else match[0], text)
    return _KEY_OPTION.sub(rf"\1{ELIDED}", _BEARER.sub(rf"\1{ELIDED}", text))


def said(text: str, most: int = _MOST_OF_A_MESSAGE, keep: str = "") -> str:
    """Any text, discreet and visible. What is long loses its middle: its end matters as much as its start."""
    text = discreet(text)
    if len(text) > most:
        text = f"{text[: most * 2 // 3]} … {text[-(most // 3) :]}"
    return visible(text, keep)


def body(text: bytes | None, most: int = _MOST_OF_A_BODY, keep: str = "") -> str:
    """A body, shortened to about `most` characters."""
    return visible(discreet(shown(text, most)), keep)


def headers(pairs: Headers) -> list[tuple[str, str]]:
    """Headers as they may be shown; the values of secret ones are not."""
    return [
        (
            said(name, _MOST_OF_A_HEADER),
            ELIDED if secret(name) and value else said(value, _MOST_OF_A_HEADER),
        )
        for name, value in pairs[:_MOST_HEADERS]
    ]


def command(exchange: Exchange, url: str, most: int = _MOST_OF_A_COMMAND, keep: str = "") -> str:
    """The command that sends a request again: curl, or what sends bytes as they are."""
    if isinstance(exchange, RawExchange):
        return said(raw_command(exchange.sent, url), most, keep)
    return said(curl(exchange.request, url), most, keep)


def line(exchange: Exchange) -> str:
    """A request and the status of its answer, in one short line."""
    return f"{said(exchange.request.method, 40)} {said(exchange.request.path, 100)} - HTTP {exchange.status}"


def claim(case: Case) -> tuple[str, str]:
    """Who makes the claim, and the claim."""
    return ("the page says" if case.source == "page" else "our reading"), said(case.says)


def again(report: Report, case: Case | None = None) -> str:
    """The command that repeats one case; the whole run without one, or where none can be repeated alone."""
    alone = f"{report.alone} --case {shlex.quote(case.id)}" if case and report.alone else ""
    return said(alone or report.again, _MOST_OF_A_COMMAND)


def story(report: Report, finding: Finding, most: int = _MOST_OF_A_BODY) -> list[tuple[str, str]]:
    """What is to be known of a finding, each part in one line under its name."""
    told = [claim(finding.case), ("found", said(finding.message))]
    if finding.exchanges:
        last = finding.exchanges[-1]
        told.append(("sent", command(last, report.url, most)))
        told.append(("came back", f"HTTP {last.status} {body(last.body, most)}".strip()))
    return [*told, ("again", again(report, finding.case))]


def word(report: Report) -> str:
    """The verdict on the whole run: kept, broken or could not run."""
    return VERDICT_WORDS[report.exit_code]


def counts(report: Report) -> str:
    """How many promises came to what."""
    number = tally(report.findings)
    proven = f"{number['proven']:,} promise{'s' * (number['proven'] != 1)} proven"
    return f"{proven}, {number['refuted']:,} broken, {number['not proven']:,} not proven"


def headline(report: Report) -> str:
    """The verdict on the whole run in one line."""
    stopped = said(report.stopped)
    if report.exit_code == 2:
        why = stopped or "nothing was proven"
        return f"could not run: {why} ({counts(report)})" if report.findings else f"could not run: {why}"
    return f"{word(report)}: {counts(report)}" + (f"; stopped before the end: {stopped}" if stopped else "")


def duration(seconds: float) -> str:
    """A time for a person."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
