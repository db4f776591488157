"""One run of the suite against one server, and what is kept of it."""

import contextlib
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from contract_tests.case import Finding
from contract_tests.run import Options, verify
from mock_server.limits import LimitedProtocol

from .client import URL
from .mutant import About
from .population import population
from .server import real

_START_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a run came to.

    `accused` are the layers with a refuted finding of any kind, `found` those with one about the fault.
    `said` are the first refuted findings, those about the fault first. `fell` is how the suite itself failed.
    """

    name: str
    family: str
    accused: tuple[str, ...]
    found: tuple[str, ...]
    said: tuple[str, ...]
    fell: str
    stopped: str
    proven: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to try: a mutant, or with an empty name the server without a fault, in an edition.

    `models` are patterns of those to ask about; none ask about all.
    """

    name: str = ""
    edition: str = "current"
    seed: int = 0
    layers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


def try_one(order: Order) -> Trial:
    """Runs the suite against one server."""
    mutant = population()[order.name] if order.name else None
    began = time.perf_counter()
    findings: tuple[Finding, ...] = ()
    fell = stopped = ""
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = Path(directory)
        app = mutant.make(data) if mutant else real(data, order.edition)
        try:
            with _reachable(app, over_http=mutant is not None and mutant.over_http) as (url, served):
                edition = mutant.edition if mutant else order.edition
                report = verify(
                    Options(
                        url=url,
                        app=served,
                        edition=edition,
                        seed=order.seed,
                        layers=order.layers,
                        only=order.models,
                    )
                )
            findings, stopped = report.findings, report.stopped
        except Exception:  # noqa: BLE001 - whatever a wrong server can bring the suite to is to be told
            fell = traceback.format_exc(limit=-4)
    about = mutant.about if mutant else lambda _: False
    return _trial(order, findings, about, fell=fell, stopped=stopped, seconds=time.perf_counter() - began)


def _trial(
    order: Order, findings: tuple[Finding, ...], about: About, *, fell: str, stopped: str, seconds: float
) -> Trial:
    refuted = [each for each in findings if each.verdict == "refuted"]
    own = [each for each in refuted if about(each)]
    others = [each for each in refuted if each not in own]
    return Trial(
        name=order.name or f"no fault, edition {order.edition}, seed {order.seed}",
        family=population()[order.name].family if order.name else "no fault",
        accused=tuple(dict.fromkeys(each.case.layer for each in refuted)),
        found=tuple(dict.fromkeys(each.case.layer for each in own)),
        said=tuple(_said(each) for each in (*own[:2], *others[:4])),
        fell=fell,
        stopped=stopped,
        proven=sum(each.verdict == "proven" for each in findings),
        seconds=seconds,
    )


def _said(finding: Finding) -> str:
    return f"{finding.case.layer}/{finding.case.rule}: {finding.case.id}: {finding.message[:160]}"


@contextlib.contextmanager
def _reachable(app: ASGIApp, *, over_http: bool) -> Iterator[tuple[str, ASGIApp | None]]:
    """The application in this process, or on a port of its own."""
    if not over_http:
        yield URL, app
        return
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", http=LimitedProtocol)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + _START_SECONDS
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", None
    finally:
        server.should_exit = True
        thread.join(_START_SECONDS)
