"""What the contract suite says of mock servers that serve this project's OpenAPI document, and of this one.

Each serves the same merged document, as it comes from the box, and is asked by the same suite over HTTP. They
are made for any document, and keep no tasks; the table shows what a document alone can promise, and what not.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import click
from verify import mock, serving

from contract_tests.case import LAYERS, Finding, Report, Verdict
from contract_tests.run import Options, verify

VERDICTS: tuple[Verdict, ...] = ("proven", "refuted", "not proven")
PATIENCE = 2.0
SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A server that is compared: how it tells its version, and how it serves a document on a port."""

    name: str
    version: list[str]
    serve: Callable[[Path, int], list[str]]


def prism(path: str) -> Peer:
    return Peer(
        name="Prism",
        version=[path, "--version"],
        serve=lambda document, port: [path, "mock", str(document), "-p", str(port)],
    )


def mockoon(path: str) -> Peer:
    options = ["--hostname", "127.0.0.1", "--disable-log-to-file"]
    return Peer(
        name="Mockoon",
        version=[path, "--version"],
        serve=lambda document, port: [
            *(path, "start", "--data", str(document), "--port", str(port)),
            *options,
        ],
    )


def specmatic(path: str) -> Peer:
    return Peer(
        name="Specmatic",
        version=[path, "--version"],
        serve=lambda document, port: [
            *(path, "mock", str(document), "--host", "127.0.0.1", "--port", str(port)),
        ],
    )


def wavemock() -> Peer:
    return Peer(
        name="wavemock",
        version=[sys.executable, "-W", "ignore", "-m", "mock_server", "--version"],
        serve=lambda _document, port: mock("current", port),
    )


def version(peer: Peer) -> str:
    """The name and the version of a peer; its name alone where it does not tell."""
    told = subprocess.run(peer.version, capture_output=True, text=True, check=False, timeout=120).stdout
    found = re.search(r"\d+\.\d+\.\d+", told)
    return f"{peer.name} {found[0]}" if found else peer.name


def judged(peer: Peer, document: Path) -> Report:
    """What the suite finds. Raw bytes go to a server of their own: should it fall, all else is known."""
    last = ("raw",)
    reports = []
    for layers in (tuple(layer for layer in LAYERS if layer not in last), last):
        with serving(peer.name, lambda port: peer.serve(document, port), document.parent) as url:
            reports.append(verify(Options(url=url, layers=layers, seconds=SECONDS, patience=PATIENCE)))
    first, second = reports
    return replace(
        first,
        findings=first.findings + second.findings,
        stopped=first.stopped or second.stopped,
        sent=first.sent + second.sent,
        seconds=first.seconds + second.seconds,
    )


def tell(title: str, reports: dict[str, Report], *, pages_only: bool) -> None:
    """Prints a table: what came of the cases of each layer, as proven / refuted / not proven."""
    click.echo(f"\n{title}\n\n| | {' | '.join(LAYERS)} | all |")
    click.echo(f"|---|{'---|' * (len(LAYERS) + 1)}")
    for name, report in reports.items():
        kept = [each for each in report.findings if each.case.source == "page" or not pages_only]
        cells = [counted(each for each in kept if each.case.layer == layer) for layer in LAYERS]
        click.echo(f"| {name} | {' | '.join(cells)} | {counted(kept)} |")


def counted(findings: Iterable[Finding]) -> str:
    verdicts = [each.verdict for each in findings]
    return " / ".join(str(verdicts.count(verdict)) for verdict in VERDICTS) if verdicts else "-"


def ended(name: str, report: Report) -> str:
    """How a peer's runs ended, in one line."""
    said = f"{name}: exit code {report.exit_code}, {report.sent} requests in {report.seconds:.0f} s"
    if report.stopped:
        at = next(each for each in report.findings if each.message == report.stopped)
        said += f"; stopped at the {at.case.layer} case `{at.case.id}`: {report.stopped}"
    return said


KNOWN: Mapping[str, tuple[str, Callable[[str], Peer]]] = {
    "Prism": ("prism", prism),
    "Mockoon": ("mockoon-cli", mockoon),
    "Specmatic": ("specmatic", specmatic),
}
"""The other servers: how each one's command is called, and what is made of where it is."""


@click.command(
    params=[
        click.Option(
            [f"--{name.lower()}"], default=shutil.which(command), metavar="PATH", help=f"{name}'s command."
        )
        for name, (command, _) in KNOWN.items()
    ]
)
def main(**paths: str | None) -> None:
    """Let the contract suite judge other mock servers of the same document, where they are installed."""
    peers = [wavemock()]
    for name, (_, make) in KNOWN.items():
        path = paths[name.lower()]
        if path is None:
            click.echo(f"{name} is not here, and left out; --{name.lower()} says where it is", err=True)
        else:
            peers.append(make(str(Path(path).absolute())))
    reports: dict[str, Report] = {}
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder, "openapi.yaml")
        told = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "mock_server", "openapi"], capture_output=True, check=True
        )
        document.write_bytes(told.stdout)
        for peer in peers:
            name = version(peer)
            click.echo(f"{name} ...", err=True)
            reports[name] = judged(peer, document)
    tell("All cases (proven / refuted / not proven):", reports, pages_only=False)
    tell("Those that a page speaks of:", reports, pages_only=True)
    click.echo()
    for name, report in reports.items():
        click.echo(f"- {ended(name, report)}")


if __name__ == "__main__":
    main()
