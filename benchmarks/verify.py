"""How long the contract suite takes against the mock, on a port and in its own process, layer by layer.

The suite is one process and the mock another, so two cores are all that a run can use.
"""

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx

from contract_tests.case import LAYERS, Finding, Report
from contract_tests.run import Options, chosen, examine, open_session

EDITIONS = ("current", "flux-lora")
PROBE = "/api/v3/predictions/0/result"
START_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one layer took of a run."""

    cases: int = 0
    requests: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the whole suite: what it came to, and what of it each layer took."""

    report: Report
    layers: Mapping[str, Share]


@contextmanager
def serving(name: str, command: Callable[[int], list[str]], folder: Path | None = None) -> Iterator[str]:
    """The address of a server, once it answers; `folder` is where it runs. It ends with all its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        command(port),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await_answer(name, process, url)
        yield url
    finally:
        for end in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, end)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)


def await_answer(name: str, process: subprocess.Popen[bytes], url: str) -> None:
    began = time.perf_counter()
    while True:
        try:
            httpx.get(url + PROBE, timeout=5)
        except httpx.HTTPError:
            if process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                raise click.ClickException(f"{name} did not start") from None
            time.sleep(0.05)
        else:
            return


def mock(edition: str, port: int) -> list[str]:
    """The command that serves an edition."""
    quiet = [sys.executable, "-W", "ignore", "-m", "mock_server", "serve"]
    return [*quiet, "--port", str(port), "--edition", edition]


def measured(options: Options) -> Run:
    """Runs the suite, and sees which layer took what."""
    layers: dict[str, Share] = {}
    session = open_session(options)
    sent = 0

    def told(finding: Finding) -> None:
        nonlocal sent
        share = layers.get(finding.case.layer, Share())
        layers[finding.case.layer] = Share(
            cases=share.cases + 1,
            requests=share.requests + session.target.sent - sent,
            seconds=share.seconds + finding.seconds,
        )
        sent = session.target.sent

    try:
        report = examine(session, chosen(session, options), options, told)
    finally:
        session.target.close()
    if report.exit_code != 0:
        broken = report.of("refuted")
        raise click.ClickException(
            f"the mock does not keep its contract: {broken[0].case.id}: {broken[0].message}"
            if broken
            else f"the run did not come to its end: {report.stopped}"
        )
    return Run(report=report, layers=layers)


def on_a_port(edition: str) -> Run:
    """A run against a new server."""
    with serving("wavemock", lambda port: mock(edition, port)) as url:
        return measured(Options(url=url, edition=edition))


def in_process(edition: str) -> Run:
    """A run against a new application in this process, which leaves out what needs a connection."""
    with tempfile.TemporaryDirectory() as folder:
        return measured(Options(app=application(edition, Path(folder)), edition=edition))


def application(edition: str, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the server's libraries say to each other's authors
        from mock_server.app import Settings, create_app  # noqa: PLC0415 - after the line above
    return create_app(Settings(data=folder, edition=edition))


WAYS: Mapping[str, Callable[[str], Run]] = {"on a port": on_a_port, "in process": in_process}


def tell(runs: Mapping[tuple[str, str], Sequence[Run]]) -> None:
    """Prints the medians: whole runs, then their layers."""
    click.echo("| | edition | cases | requests | seconds | requests /s |")
    click.echo("|---|---|---|---|---|---|")
    for (way, edition), each in runs.items():
        cells = [
            f"{len(each[0].report.findings)}",
            f"{statistics.median(run.report.sent for run in each):.0f}",
            f"{statistics.median(run.report.seconds for run in each):.1f}",
            f"{statistics.median(run.report.sent / run.report.seconds for run in each):.0f}",
        ]
        click.echo(f"| {way} | {edition} | {' | '.join(cells)} |")
    for way in WAYS:
        click.echo(f"\n{way}:\n")
        click.echo(f"| layer |{''.join(f' {edition}: cases | requests | seconds |' for edition in EDITIONS)}")
        click.echo(f"|---|{'---|' * 3 * len(EDITIONS)}")
        for layer in LAYERS:
            shares = [[run.layers.get(layer, Share()) for run in runs[way, edition]] for edition in EDITIONS]
            click.echo(f"| {layer} | {' | '.join(of_layer(each) for each in shares)} |")
    slowest = max(run.report.seconds for each in runs.values() for run in each)
    click.echo(f"\nThe slowest of {sum(map(len, runs.values()))} runs took {slowest:.1f} s.")


def of_layer(shares: Sequence[Share]) -> str:
    requests = statistics.median(share.requests for share in shares)
    return f"{shares[0].cases} | {requests:.0f} | {statistics.median(share.seconds for share in shares):.2f}"


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
def main(rounds: int) -> None:
    """Measure how long the contract suite takes against the mock, for both editions."""
    click.echo(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {rounds} rounds", err=True)
    runs: dict[tuple[str, str], list[Run]] = {(way, edition): [] for way in WAYS for edition in EDITIONS}
    for number in range(rounds):
        for (way, edition), found in runs.items():
            found.append(WAYS[way](edition))
            seconds = found[-1].report.seconds
            click.echo(f"round {number + 1} of {rounds}, {way}, {edition}: {seconds:.1f} s", err=True)
    tell(runs)


if __name__ == "__main__":
    main()
