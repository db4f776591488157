"""Schemathesis in all phases, strict, its requests going the same way as those of other layers."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import schemathesis
from schemathesis.engine import Status, events, from_schema

from contract_tests.case import Broken, Case, Stopped, Unproven
from contract_tests.exchange import Exchange, Request
from contract_tests.session import Session

PHASES = {
    "EXAMPLES": "examples",
    "COVERAGE": "coverage",
    "FUZZING": "fuzzing",
    "STATEFUL_TESTING": "stateful",
}
_EXAMPLES = 20
_NEEDED = 1000  # about as many tasks as all phases begin
_REFUSED = (400, 401, 403, 404, 405, 415, 422)
_BAD_REQUEST = 400
_BEYOND = "Schemathesis, beyond the pages"
# Of errors and their forms no page tells, nor of texts and fields that a schema allows by not naming them.
_READINGS = ("unsupported_method", "ignored_auth", "missing_required_header", "positive_data_acceptance")
_LONG = 300
_NO_ANSWER = 599
_OURS = (
    "Host", "Connection", "User-Agent", "Accept-Encoding", "Transfer-Encoding", "Content-Length",
    "X-Schemathesis-Testcaseid",  # drawn anew in every run
)  # fmt: skip
_HOP = ("connection", "transfer-encoding", "content-length", "keep-alive")
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(kw_only=True)
class Run:
    """What one run of Schemathesis came to: failures by operation and phase, and how much was sent."""

    failures: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    defaults: dict[str, tuple[str, Exchange]] = field(default_factory=dict)
    ended: Exception | None = None


def cases(session: Session) -> Iterator[Case]:
    """A case for each operation and phase, and those that see to it that none of them was empty."""
    names = {model.path: (str(model), model.documented, True) for model in session.models}
    for version in sorted({model.version for model in session.models}):
        shown = any(model.documented for model in session.models if model.version == version)
        for path in (f"/api/{version}/predictions/{{id}}/result", f"/api/{version}/predictions/{{id}}"):
            names[path] = (f"{version}/predictions", shown and path.endswith("result"), False)
    for path, (name, documented, submits) in names.items():
        checks = {f"Schemathesis, {phase}": partial(_phase_kept, path, phase) for phase in PHASES.values()}
        checks["Schemathesis, accepted and refused"] = partial(_not_vacuous, path, submits)
        if submits:
            checks["Schemathesis, defaults"] = partial(_defaults_kept, path)
        checks[_BEYOND] = partial(_phase_kept, path, _BEYOND)
        for label, check in checks.items():
            yield Case(
                layer="generated",
                model=name,
                field="",
                rule="generated",
                label=label if path.endswith("result") or submits else f"{label}, by the short address",
                source="page" if documented and label != _BEYOND else "reading",
                says="what the schema allows is accepted, nothing else is, and every answer keeps its schema",
                check=check,
            )


def _run(session: Session) -> Run:
    """The one run that all cases look at; made by the first of them. Raises what ended it."""
    if "generated" not in session.memo:
        budget = session.target.manners.budget
        if budget is not None and budget < _NEEDED:
            raise Unproven(f"it may begin {_NEEDED} tasks, and --budget {budget} does not allow that")
        session.memo["generated"] = _execute(session)
    run: Run = session.memo["generated"]
    if run.ended is not None:
        raise run.ended
    return run


def _execute(session: Session) -> Run:
    run = Run()
    schema = schemathesis.openapi.from_dict(_document(session), config=_config(session))
    schema.app = partial(_gateway, session, run)
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _take_in(run, event)
        elif isinstance(event, events.Interrupted):
            raise KeyboardInterrupt
        elif isinstance(event, events.NonFatalError | events.FatalError) and run.ended is None:
            run.failures.setdefault(("", ""), []).append(str(event))
        if run.ended is not None:
            break
    return run


def _document(session: Session) -> dict[str, Any]:
    """The document with the operations of the models that were chosen and that the target serves."""
    paths = {model.path for model in session.models if session.serves(model)}
    versions = tuple(f"/api/{model.version}/predictions/" for model in session.models)
    kept = {
        path: item
        for path, item in session.document["paths"].items()
        if path in paths or (path.startswith(versions) and "{" in path)
    }
    names = {operation["operationId"] for item in kept.values() for operation in item.values()}
    return {**session.document, "paths": {path: _trimmed(item, names) for path, item in kept.items()}}


def _trimmed(item: Any, names: set[str]) -> Any:
    """The item without links to operations that are not there, and without what no page says.

    That is fields in requests, of which one asks the target to hold its answer until the task has ended, and
    that an answer has no other fields than those.
    """
    if isinstance(item, list):
        return [_trimmed(each, names) for each in item]
    if not isinstance(item, dict):
        return item
    item = {key: _trimmed(value, names) for key, value in item.items() if key != "additionalProperties"}
    if "links" in item:
        item["links"] = {
            name: link for name, link in item["links"].items() if link.get("operationId") in names
        }
    if "requestBody" in item:
        content = item["requestBody"]["content"]["application/json"]
        shown = {
            name: each for name, each in content["schema"]["properties"].items() if not each.get("x-platform")
        }
        kept = {**content, "schema": {**content["schema"], "properties": shown}}
        item["requestBody"] = {**item["requestBody"], "content": {"application/json": kept}}
    return item


def _config(session: Session) -> Any:
    scheme = next(iter(session.document["components"]["securitySchemes"]), "apiKey")
    return schemathesis.Config.from_dict(
        {
            "seed": session.seed,
            "auth": {"openapi": {scheme: {"bearer": session.target.key}}},
            # The database of examples would make a second run another than the first.
            "generation": {
                "max-examples": _EXAMPLES,
                "with-security-parameters": False,
                "mode": "all",
                "database": "none",
            },
            "checks": {
                "positive_data_acceptance": {"expected-statuses": [200, 404]},
                "negative_data_rejection": {"expected-statuses": list(_REFUSED)},
                # A server for tests may take any key.
                "ignored_auth": {"enabled": not session.takes_any_key},
            },
            # What goes through here is a gateway: its literals say nothing about the target.
            "analysis": {"constants": {"enabled": False}},
        }
    )  # fmt: skip


async def _gateway(session: Session, run: Run, scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application that sends what it gets to the target."""
    if scope["type"] != "http":
        raise RuntimeError("only requests go through here")
    message = await receive()
    body = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    status, headers, answer = await asyncio.to_thread(_forward, session, run, _request(session, scope, body))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def _forward(session: Session, run: Run, request: Request) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    try:
        if run.ended is not None:
            raise run.ended
        exchange = session.send(request)
        _look_at_defaults(session, run, exchange)
    except Broken as error:
        return _NO_ANSWER, [(b"content-type", b"text/plain")], str(error).encode()
    except (Stopped, Unproven) as error:
        run.ended = error
        return _NO_ANSWER, [(b"content-type", b"text/plain")], str(error).encode()
    headers = [
        (name.encode(), value.encode("latin-1")) for name, value in exchange.headers if name not in _HOP
    ]
    return exchange.status, headers, exchange.body


def _request(session: Session, scope: Scope, body: bytes) -> Request:
    names = {name.decode("latin-1").title(): value.decode("latin-1") for name, value in scope["headers"]}
    for ours in _OURS:
        names.pop(ours, None)
    keyed = names.get("Authorization") == f"Bearer {session.target.key}"
    if keyed:
        del names["Authorization"]
    query = scope["query_string"].decode("latin-1")
    method = scope["method"]
    return Request(
        method=method,
        path=scope["raw_path"].decode("latin-1") + (f"?{query}" if query else ""),
        headers=tuple(names.items()),
        body=body if body or method == "POST" else None,
        keyed=keyed,
        paid=True,
    )


def _look_at_defaults(session: Session, run: Run, exchange: Exchange) -> None:
    """Notes what the target filled in otherwise than the table has it."""
    model = next((each for each in session.models if each.path == exchange.request.path), None)
    if model is None or exchange.request.method != "POST" or not exchange.accepted or not session.has_control:
        return
    inside = session.control(f"/predictions/{exchange.data.get('id')}")
    received, given = inside.get("received"), inside.get("input")
    if not isinstance(received, dict) or not isinstance(given, dict):
        return
    for each in model.request:
        wanted = received.get(each.name, each.default)
        if "[]" not in each.name and wanted is not None and given.get(each.name) != wanted:
            said = f"{each.name}: {given.get(each.name)!r} is understood instead of {wanted!r}"
            run.defaults.setdefault(model.path, (said, exchange))


def _take_in(run: Run, event: events.ScenarioFinished) -> None:
    phase = PHASES.get(event.phase.name, event.phase.name.lower())
    where: dict[str, str] = {}
    for name, interaction in event.recorder.interactions.items():
        case = event.recorder.cases[name].value
        where[name] = case.path
        run.sent[case.path, phase] += 1
        if interaction.response is not None:
            run.statuses[case.path, interaction.response.status_code] += 1
    for name, checks in event.recorder.checks.items():
        answer = event.recorder.interactions[name].response if name in where else None
        bad = answer is not None and answer.status_code >= _BAD_REQUEST
        for check in checks:
            if check.status != Status.SUCCESS:
                info = check.failure_info
                said = f"{check.name}: {str(info.failure if info else '')[:_LONG]}"
                beyond = check.name in _READINGS or (bad and check.name.endswith("_conformance"))
                at = where.get(name, "")
                run.failures.setdefault((at, _BEYOND if beyond else phase), []).append(said)


def _phase_kept(path: str, phase: str, session: Session) -> None:
    _require(session, path)
    run = _run(session)
    found = run.failures.get((path, phase), []) + run.failures.get(("", ""), [])
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise Broken(f"{found[0]}{more}")
    if not any(run.sent[path, each] for each in (PHASES.values() if phase == _BEYOND else (phase,))):
        raise Unproven("Schemathesis sent nothing there")


def _not_vacuous(path: str, submits: bool, session: Session) -> None:
    _require(session, path)
    run = _run(session)
    accepted = run.statuses[path, 200]
    refused = sum(run.statuses[path, status] for status in _REFUSED)
    if not refused or (submits and not accepted):
        raise Broken(f"of all that was sent, {accepted} requests were accepted and {refused} refused")


def _defaults_kept(path: str, session: Session) -> None:
    _require(session, path)
    run = _run(session)
    if path in run.defaults:
        raise Broken(*run.defaults[path])
    if not session.has_control:
        raise Unproven("the target has no control plane, and nothing else shows what it filled in")


def _require(session: Session, path: str) -> None:
    for model in session.models:
        if model.path == path:
            session.require(model)
