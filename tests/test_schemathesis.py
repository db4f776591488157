"""Schemathesis, all phases and strict, finds nothing: on every edition, in process and over HTTP."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
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
PREFIXES = {"current": "", "flux-lora": "/editions/flux-lora"}


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


@pytest.fixture(params=["in process", "over http"])
def sent(request: pytest.FixtureRequest, make_client: MakeClient, serve: StartServer) -> Iterator[Any]:
    if request.param == "in process":
        yield lambda prefix, seed: in_process(make_client, prefix, seed)
    else:
        yield lambda prefix, seed: over_http(serve, prefix, seed)


@pytest.mark.parametrize("edition", PREFIXES)
def test_an_edition_keeps_its_own_document(sent: Any, edition: str) -> None:
    result = sent(PREFIXES[edition], 1)
    assert not result.failures
    # Not by silence: all phases ran, and what they sent was accepted and refused in earnest.
    assert set(result.phases) == {"EXAMPLES", "COVERAGE", "FUZZING", "STATEFUL_TESTING"}
    assert min(result.statuses[status] for status in (200, 400, 401, 404, 405, 415)) > 5
    assert result.statuses[200] > 250


def test_the_same_seed_sends_the_same_requests_wherever_they_go(
    make_client: MakeClient, serve: StartServer
) -> None:
    once, again = (in_process(make_client, "", 3).requests for _ in range(2))
    assert once == again == over_http(serve, "", 3).requests


def test_another_seed_sends_other_requests(make_client: MakeClient) -> None:
    one, other = (in_process(make_client, "", seed).requests for seed in (3, 4))
    assert one != other


def test_the_control_plane_keeps_its_own_document(serve: StartServer) -> None:
    url = f"{serve().url}/_mock/openapi.json"
    assert not run(schemathesis.openapi.from_url(url, config=config(1))).failures
