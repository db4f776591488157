"""Every finding of the audit, provoked by a real client: the official SDK, or a bare one."""

import http.client
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
import requests
import wavespeed
from bench import SCHNELL, Bench

from conftest import Server
from mock_server.audit.rules import RULES

DRIVEN: set[str] = set()
Test = Callable[[Bench], None]


def drives(rule: str) -> Callable[[Test], Test]:
    """Says which rule a test drives."""
    DRIVEN.add(rule)
    return lambda test: test


@pytest.fixture
def bench(server: Server) -> Iterator[Bench]:
    made = Bench(server=server.url)
    made.control("clock", {"freeze": True})
    yield made
    made.control("reset", method="POST")


def findings(bench: Bench) -> dict[str, str]:
    """Rule and severity of each."""
    return {each["rule"]: each["severity"] for each in bench.control("audit")["findings"]}


def poll_every(bench: Bench, task: str, pause: str, times: int) -> None:
    for _ in range(times):
        bench.poll(task)
        bench.control("clock", {"advance": pause})


def test_the_sdk_as_it_is_gets_nothing_worse_than_a_note(bench: Bench) -> None:
    bench.control("clock", {"resume": True, "speed": 20})
    sdk = wavespeed.Client(api_key="k", base_url=bench.url)
    sdk.run(SCHNELL, {"prompt": "x"}, poll_interval=0.1)
    assert set(findings(bench).values()) <= {"note"}


@drives("polled-too-fast")
def test_the_sdk_at_a_twentieth_of_a_second_polls_too_fast(bench: Bench) -> None:
    bench.control("clock", {"resume": True})
    bench.sdk.run(SCHNELL, {"prompt": "x"}, poll_interval=0.05)
    assert findings(bench)["polled-too-fast"] == "error"


@drives("no-backoff")
def test_polling_every_half_second_for_minutes_is_no_backoff(bench: Bench) -> None:
    task = bench.accepted(headers={"X-Mock-Scenario": "processing=10m"})
    poll_every(bench, task, "600ms", 160)
    assert findings(bench)["no-backoff"] == "warning"


@drives("ignored-retry-after")
def test_the_sdk_ignores_retry_after(bench: Bench) -> None:
    bench.control("clock", {"resume": True})
    bench.control("faults", {"fault": "503; on=poll; retry-after=5s"})
    bench.run()
    assert findings(bench)["ignored-retry-after"] == "warning"


@drives("polled-after-end")
def test_polling_on_after_the_end_is_seen(bench: Bench) -> None:
    task = bench.accepted(headers={"X-Mock-Scenario": "instant"})
    poll_every(bench, task, "5s", 4)
    assert findings(bench) == {"polled-after-end": "warning"}


@drives("never-polled")
def test_a_task_that_nobody_asks_about_is_seen(bench: Bench) -> None:
    bench.accepted()
    bench.control("clock", {"advance": "10m"})
    assert findings(bench) == {"never-polled": "warning"}


@drives("gave-up-on-error")
def test_giving_up_at_the_first_error_is_seen(bench: Bench) -> None:
    task = bench.accepted()
    bench.control("faults", {"fault": "502; on=poll"})
    assert bench.poll(task).status_code == 502
    bench.control("clock", {"advance": "10m"})
    assert findings(bench) == {"gave-up-on-error": "warning"}


@drives("retried-client-error")
def test_sending_what_was_refused_once_more_is_seen(bench: Bench) -> None:
    for _ in range(3):
        assert bench.submit(num_images=99).status_code == 400
        bench.control("clock", {"advance": "5s"})
    assert findings(bench) == {"retried-client-error": "warning"}


def test_a_refused_key_that_is_tried_again_is_seen(bench: Bench) -> None:
    for _ in range(3):
        url = f"{bench.url}/api/v3/{SCHNELL}"
        assert requests.post(url, json={"prompt": "x"}, timeout=30).status_code == 401
        bench.control("clock", {"advance": "5s"})
    assert findings(bench) == {"retried-client-error": "warning"}


@drives("retried-submit")
def test_submitting_again_after_a_lost_answer_is_paid_twice(bench: Bench) -> None:
    bench.control("faults", {"fault": "reset; on=submit; after-commit=true"})
    for attempt in range(2):
        try:
            bench.poll(bench.accepted(prompt="the same"))
        except requests.ConnectionError:
            assert attempt == 0
        bench.control("clock", {"advance": "2s"})
    assert findings(bench)["retried-submit"] == "error"


@drives("used-unfinished")
def test_fetching_an_output_before_the_end_is_seen(bench: Bench) -> None:
    task = bench.accepted(headers={"X-Mock-Scenario": "processing=1m"})
    bench.poll(task)
    assert requests.get(f"{bench.url}/outputs/{task}/0.png", timeout=30).status_code == 404
    assert findings(bench)["used-unfinished"] == "error"


@drives("hard-coded-result-url")
def test_polling_another_address_than_the_one_that_was_told_is_seen(bench: Bench) -> None:
    task = bench.accepted(headers={"X-Mock-Scenario": "instant"})
    url = f"{bench.url}/api/v2/predictions/{task}/result"
    requests.get(url, headers={"Authorization": f"Bearer {bench.key}"}, timeout=30)
    assert findings(bench) == {"hard-coded-result-url": "note"}


@drives("key-in-query")
def test_a_key_in_the_address_is_seen_and_not_kept(bench: Bench) -> None:
    bench.accepted(query="?api_key=very-secret", headers={"X-Mock-Scenario": "stuck"})
    assert findings(bench) == {"key-in-query": "error"}
    assert "very-secret" not in str(bench.journal())


@drives("no-user-agent")
def test_a_client_without_a_name_is_seen(bench: Bench) -> None:
    address = urlsplit(bench.url)
    connection = http.client.HTTPConnection(address.netloc, timeout=30)
    connection.request("GET", f"{address.path}/api/v3/models", headers={"Authorization": "Bearer k"})
    connection.getresponse().read()
    connection.close()
    assert findings(bench) == {"no-user-agent": "note"}


def test_every_rule_is_driven_by_a_real_client() -> None:
    assert set(RULES) == DRIVEN
