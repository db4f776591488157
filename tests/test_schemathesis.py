"""Schemathesis, all phases and strict, finds nothing: on every edition, in process and over HTTP."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from strict_runs import config, in_process, over_http, run

from conftest import MakeClient, StartServer

PREFIXES = {"current": "", "flux-lora": "/editions/flux-lora"}


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


def test_the_control_plane_keeps_its_own_document(serve: StartServer) -> None:
    url = f"{serve().url}/_mock/openapi.json"
    assert not run(schemathesis.openapi.from_url(url, config=config(1))).failures
