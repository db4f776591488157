"""Runs the cases of the layers against a target, one after the other, and makes a report of it."""

import fnmatch
import re
import shlex
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from contract_tests.case import LAYERS, MISHAP, Broken, Case, Finding, Report, Stopped, Unproven
from contract_tests.document import read_document
from contract_tests.exchange import Exchange, Request, without_key
from contract_tests.judges import appoint
from contract_tests.layers import boundary, defaults, generated, judging, lifecycle, machine, protocol, raw
from contract_tests.session import JSON, Session
from contract_tests.table import DOCUMENTED, Model, read_models, read_results
from contract_tests.target import Manners, Target, is_local
from contract_tests.watch import Watch

_KEPT = 3
_KIND_RATE = 5.0
_KEY = re.compile("[!-~]+")
INTERRUPTED = "it was interrupted"
"""Why a run stopped that somebody ended by Ctrl-C."""

CASES: Mapping[str, Callable[[Session], Iterator[Case]]] = {
    "boundary": boundary.cases,
    "defaults": defaults.cases,
    "protocol": protocol.cases,
    "lifecycle": lifecycle.cases,
    "machine": machine.cases,
    "generated": generated.cases,
    "raw": raw.cases,
    "judges": judging.cases,
}


class BadOptions(Exception):
    """Options that no run can be made of; says what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run is asked for. `app` puts an ASGI application in the place of the network.

    `budget` is how many tasks may be begun; None is none on other machines, and any number on this one.
    `only` and `case` are patterns of names of models and of cases; empty ones pick all. `seconds` is how long
    an answer may take, `patience` how long a task, `wait` how long the target may take to be there.
    """

    url: str = "http://127.0.0.1:8080"
    app: Any = None
    key: str = "wavemock-verify"
    edition: str = "current"
    only: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    case: tuple[str, ...] = ()
    seed: int = 0
    budget: int | None = None
    seconds: float = 10.0
    patience: float = 120.0
    wait: float = 0.0
    pages_only: bool = False
    openapi: Path | None = None
    table: Path = DOCUMENTED


def open_session(options: Options) -> Session:
    """A session with a target that nothing has been sent to yet.

    Raises BadOptions, BadTable or BadDocument where the options make no sense.
    """
    document = read_document(options.edition, options.openapi)
    models = read_models(options.edition, options.table)
    for only in options.only:
        if not any(_called(model, only) for model in models):
            raise BadOptions(f"no model of the edition {options.edition} is called {only}")
    if not _KEY.fullmatch(options.key):
        raise BadOptions("the key has to be of printing ASCII characters, without spaces")
    local = options.app is not None or is_local(options.url)
    manners = Manners(
        budget=options.budget if options.budget is not None or local else 0,
        seconds=options.seconds,
        rate=None if local else _KIND_RATE,
    )
    try:
        target = Target(
            url=options.url, key=options.key, manners=manners, app=options.app, doors=_doors(models)
        )
    except (httpx.InvalidURL, ValueError, ImportError, OSError) as error:
        # The address, a proxy of the environment or the certificates are not what httpx takes.
        raise BadOptions(f"cannot be spoken to: {error}") from error
    return Session(
        target=target,
        models=tuple(
            model
            for model in models
            if not options.only or any(_called(model, only) for only in options.only)
        ),
        results=read_results(options.edition, options.table),
        watch=Watch(judges=appoint(document)),
        document=document,
        seed=options.seed,
        patience=options.patience,
    )


def _doors(models: Iterable[Model]) -> tuple[Request, ...]:
    """Requests that begin no task and need a key, on each version: a result, and a submit to be refused."""
    found: dict[str, Request] = {}
    for model in models:
        poll = model.result.format(id=0)
        found[poll] = Request(method="GET", path=poll)
        refused = Request(method="POST", path=model.path, headers=(JSON,), body=b"[]")
        found.setdefault(model.version, refused)
    return tuple(found.values())


def _called(model: Model, pattern: str) -> bool:
    names = (model.name, str(model), f"{model.vendor}/{model.name}")
    return any(fnmatch.fnmatch(name, pattern) for name in names)


def chosen(session: Session, options: Options) -> list[Case]:
    """The cases that the options ask for, in the order in which they run.

    Where only judges are asked for, all that they are to judge is among them; a report leaves that out.
    Raises BadOptions where there are none, or none of a name that is asked for.
    """
    layers = layers_of(options)
    everything = [
        case
        for layer in LAYERS
        if layer in layers or (layer != "raw" and "judges" in layers)
        for case in CASES[layer](session)
        if not (options.pages_only and case.source == "reading")
    ]
    found = [case for case in everything if _asked_for(case, layers, options.case)]
    for each in options.case:
        if not any(_matches(case, each) for case in found):
            raise BadOptions(f"there is no case {each}")
    if found and all(case.layer == "judges" for case in found):
        return everything  # there is something to judge only when others have sent it
    if not found:
        raise BadOptions("there are no cases")
    return found


def _asked_for(case: Case, layers: Collection[str], patterns: Collection[str]) -> bool:
    return case.layer in layers and (not patterns or any(_matches(case, each) for each in patterns))


def layers_of(options: Options) -> tuple[str, ...]:
    """Those asked for, or all; raw bytes go to other people's machines only where somebody asks for it."""
    local = options.app is not None or is_local(options.url)
    return options.layers or tuple(layer for layer in LAYERS if local or layer != "raw")


def _matches(case: Case, pattern: str) -> bool:
    return case.id == pattern or fnmatch.fnmatchcase(case.id, pattern)


def verify(options: Options, told: Callable[[Finding], None] = lambda _: None) -> Report:
    """Runs everything that the options ask for; `told` hears of each finding as it is made.

    Raises BadOptions, BadTable and BadDocument before anything is sent.
    """
    session = open_session(options)
    try:
        return examine(session, chosen(session, options), options, told)
    finally:
        session.target.close()


def examine(
    session: Session,
    cases: Iterable[Case],
    options: Options,
    told: Callable[[Finding], None] = lambda _: None,
) -> Report:
    """Runs the cases; after the target has gone, or somebody pressed Ctrl-C, the rest is not proven."""
    began = time.perf_counter()
    layers = layers_of(options)
    stopped = ""
    findings = []
    try:
        session.target.greet(wait=options.wait)
    except (Stopped, KeyboardInterrupt) as error:
        stopped = _reason(error, options)
    for case in cases:
        if stopped and case.layer != "judges":  # they send nothing
            finding = Finding(case=case, verdict="not proven", message=stopped)
        else:
            try:
                finding = find(session, case)
            except (Stopped, KeyboardInterrupt) as error:
                stopped = _reason(error, options)
                finding = Finding(
                    case=case,
                    verdict="not proven",
                    message=stopped,
                    exchanges=tuple(_discreet(each, options.key) for each in session.exchanges[-_KEPT:]),
                )
                if stopped == INTERRUPTED:  # a target that is gone works on nothing
                    session.end_tasks()
        findings.append(finding)
        told(finding)
    return Report(
        url=options.url,
        edition=options.edition,
        seed=options.seed,
        findings=tuple(each for each in findings if _asked_for(each.case, layers, options.case)),
        stopped=stopped,
        sent=session.target.sent,
        begun=session.target.begun,
        seconds=time.perf_counter() - began,
        again=command(options),
        alone=command(replace(options, case=())),
    )


def _reason(error: Stopped | KeyboardInterrupt, options: Options) -> str:
    return without_key(str(error), options.key) if isinstance(error, Stopped) else INTERRUPTED


def _discreet(exchange: Exchange, key: str) -> Exchange:
    """The exchange without the key, which a target may have sent back."""
    return replace(
        exchange,
        headers=tuple((name, without_key(value, key)) for name, value in exchange.headers),
        body=without_key(exchange.body.decode("latin-1"), key).encode("latin-1"),
    )


def find(session: Session, case: Case) -> Finding:
    """Runs one case. Raises Stopped where the target is gone."""
    began = time.perf_counter()
    session.exchanges.clear()
    finding = Finding(case=case, verdict="proven", message="")
    telling = None
    try:
        case.check(session)
    except Broken as error:
        telling = error.exchange
        finding = replace(finding, verdict="refuted", message=str(error))
    except Unproven as error:
        finding = replace(finding, verdict="not proven", message=str(error))
    except Stopped:
        raise
    except Exception as error:  # noqa: BLE001 - a target may answer anything; the other cases are still due
        finding = replace(finding, verdict="not proven", message=_mishap(error))
    exchanges = session.exchanges[-_KEPT:]
    if telling is not None:
        exchanges = [each for each in exchanges if each is not telling] + [telling]
    key = session.target.key
    finding = replace(
        finding,
        message=without_key(finding.message, key),
        exchanges=tuple(_discreet(each, key) for each in exchanges),
        seconds=time.perf_counter() - began,
    )
    session.end_tasks()
    return finding


def _mishap(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{MISHAP} {type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"


def command(options: Options, other: str = "") -> str:
    """The command that repeats a run, or that of two targets. A key is left to the environment."""
    usual = Options()
    urls = ["--parity", options.url, other] if other else [options.url]
    parts = ["wavemock", "verify", *urls, "--seed", str(options.seed)]
    for flag, name in _FLAGS.items():
        value = getattr(options, name)
        if value != getattr(usual, name):
            for each in value if isinstance(value, tuple) else (value,):
                parts += (
                    [flag] if each is True else [flag, f"{each:g}" if isinstance(each, float) else str(each)]
                )
    return shlex.join(parts)


_FLAGS: Mapping[str, str] = {
    "--edition": "edition",
    "--only": "only",
    "--layer": "layers",
    "--case": "case",
    "--budget": "budget",
    "--timeout": "seconds",
    "--patience": "patience",
    "--pages-only": "pages_only",
    "--openapi": "openapi",
    "--table": "table",
}
