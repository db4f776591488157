"""What Schemathesis sends follows from its seed alone."""

import pytest
from strict_runs import in_process, over_http

from conftest import MakeClient, StartServer

Requests = list[tuple[str, str, str]]


@pytest.fixture(scope="module")
def kept() -> dict[str, Requests]:
    """What was sent with a seed, for the tests that compare it."""
    return {}


@pytest.fixture
def once(kept: dict[str, Requests], make_client: MakeClient) -> Requests:
    """What is sent with the seed 3 in process."""
    if not kept:
        kept["once"] = in_process(make_client, "", 3).requests
    return kept["once"]


def test_the_same_seed_sends_the_same_requests_once_more(once: Requests, make_client: MakeClient) -> None:
    assert in_process(make_client, "", 3).requests == once


def test_the_same_seed_sends_the_same_requests_over_http(once: Requests, serve: StartServer) -> None:
    assert over_http(serve, "", 3).requests == once


def test_another_seed_sends_other_requests(once: Requests, make_client: MakeClient) -> None:
    assert in_process(make_client, "", 4).requests != once
