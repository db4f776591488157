"""Reports made by hand."""

import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from contract_tests.case import Case, Finding, Report, Source, Verdict
from contract_tests.exchange import Exchange, Headers, Request
from contract_tests.report import terminal
from contract_tests.session import Session

MODEL = "v3/flux-schnell-lora"
REFUSED = "accepted, although 5 is more than 4"
ESCAPE = "\x1b]0;owned\x07"


def a_case(
    label: str = "5",
    *,
    field: str = "num_images",
    rule: str = "maximum",
    model: str = MODEL,
    layer: str = "boundary",
    source: Source = "page",
    says: str = "at most 4 images",
    check: Callable[[Session], None] = lambda _: None,
) -> Case:
    return Case(
        layer=layer,
        model=model,
        field=field,
        rule=rule,
        label=label,
        source=source,
        says=says,
        check=check,
    )


def an_exchange(
    *,
    method: str = "POST",
    path: str = "/api/v3/x",
    sent: bytes | None = b'{"num_images": 5}',
    body: bytes = b'{"code": 200}',
    request_headers: Headers = (),
    headers: Headers = (),
) -> Exchange:
    request = Request(method=method, path=path, headers=request_headers, body=sent)
    return Exchange(request=request, status=200, headers=headers, body=body, seconds=0.01)


def a_finding(
    verdict: Verdict = "proven",
    *,
    case: Case | None = None,
    message: str = "",
    exchange: Exchange | None = None,
) -> Finding:
    return Finding(
        case=case or a_case(),
        verdict=verdict,
        message=message,
        exchanges=(exchange or an_exchange(),),
        seconds=0.25,
    )


def a_report(*findings: Finding, stopped: str = "", url: str = "http://127.0.0.1:8080") -> Report:
    again = f"wavemock verify {url} --seed 7"
    return Report(
        url=url,
        edition="current",
        seed=7,
        findings=findings,
        stopped=stopped,
        sent=3123,
        begun=41,
        seconds=72.3,
        again=again,
        alone=again,
    )


BROKEN = a_report(a_finding("refuted", message=REFUSED), a_finding(case=a_case("4")))


MIXED = a_report(
    a_finding(),
    a_finding("refuted", message=REFUSED),
    a_finding("not proven", message="no clock", case=a_case("x", layer="raw", model="")),
)


def printed(report: Report, *, width: int = 80, directory: Path | None = None) -> str:
    console = Console(file=io.StringIO(), width=width)
    terminal.show(report, console, directory)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
