"""Runs of Schemathesis, all phases and strict, in process and over HTTP."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis.engine import Status, events, from_schema

from conftest import MakeClient, StartServer

KEY = "the-one-key"
STRICT = {
    "auth": {"openapi": {"apiKey": {"bearer": KEY}}},
    "generation": {"max-examples": 25, "with-security-parameters": False, "mode": "all", "database": "none"},
    # What is valid is accepted, or its id is unknown; what is not is refused for what it is.
    "checks": {
        "positive_data_acceptance": {"expected-statuses": [200, 404]},
        "negative_data_rejection": {"expected-statuses": [400, 401, 404, 405, 415]},
    },
    "operations": [
        # What has ended cannot be cancelled, and a file can be too large; no schema says so.
        {
            "include-operation-id": ["cancel-prediction", "announce-upload"],
            "checks": {"positive_data_acceptance": {"expected-statuses": [200, 400, 404, 413]}},
        },
        # A grammar that no pattern describes, and moves that depend on where a task stands.
        {
            "include-operation-id": ["arm-fault", "set-scenario", "advance-prediction"],
            "checks": {"positive_data_acceptance": {"expected-statuses": [200, 400, 404, 409]}},
        },
    ],
    # Literals mined from an application in process would make that run another than the one over HTTP.
    "analysis": {"constants": {"enabled": False}},
}
DATE = re.compile(rb"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}(?::|%3A)[0-9]{2}(?::|%3A)[0-9]{2}\.[0-9]{3}Z")


@dataclass
class Run:
    """What one run of Schemathesis sent, and what it made of the answers."""

    requests: list[tuple[str, str, str]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    phases: Counter[str] = field(default_factory=Counter)


def body_of(request: Any) -> bytes:
    """The body, without what is another one each time: the boundary of a form, and the dates of answers."""
    body = DATE.sub(b"", request.body or b"")
    boundary = re.match(rb"--([0-9a-f]{32})(?:--)?\r\n", body)
    return body.replace(boundary[1], b"") if boundary else body


def run(schema: Any) -> Run:
    result = Run()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            for interaction in event.recorder.interactions.values():
                result.phases[event.phase.name] += 1
                request = interaction.request
                digest = hashlib.sha256(body_of(request)).hexdigest()
                target = DATE.sub(b"", request.uri.encode()).decode().split("/", 3)[3]
                result.requests.append((request.method, f"/{target}", digest))
                if interaction.response is not None:
                    result.statuses[interaction.response.status_code] += 1
            result.failures += [
                f"{event.label}: {check.name}: {check.failure_info.failure if check.failure_info else ''}"
                for checks in event.recorder.checks.values()
                for check in checks
                if check.status != Status.SUCCESS
            ]
        elif isinstance(event, events.NonFatalError | events.FatalError):
            result.failures.append(str(event))
    return result


def config(seed: int) -> Any:
    return schemathesis.Config.from_dict({**STRICT, "seed": seed})


def in_process(make_client: MakeClient, prefix: str, seed: int) -> Run:
    client = make_client(scenario="instant", seed=1, api_keys=(KEY,))
    schema = schemathesis.openapi.from_asgi(f"{prefix}/openapi.json", client.app, config=config(seed))
    schema.app = client.app
    return run(schema)


def over_http(serve: StartServer, prefix: str, seed: int) -> Run:
    url = serve("--scenario", "instant", "--seed", "1", "--api-key", KEY).url
    return run(schemathesis.openapi.from_url(f"{url}{prefix}/openapi.json", config=config(seed)))
