"""Webhooks of a whole server, asked for by the official SDK or a bare client, and received by a real one."""

import hashlib
import hmac
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import requests
from bench import Bench
from receiver import Got, Receiver, receiving

from conftest import Server
from mock_server.faults import KINDS, WEBHOOK

FAULTS: set[str] = set()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def bench(server: Server) -> Iterator[Bench]:
    made = Bench(server=server.url)
    made.control("clock", {"freeze": True})
    yield made
    made.control("reset", method="POST")


def secret(bench: Bench) -> str:
    answer = requests.get(
        f"{bench.url}/api/v3/webhook/secret", headers={"Authorization": "Bearer k"}, timeout=30
    )
    return str(answer.json()["data"]["secret"])


def signed_as_documented(got: Got, secret: str) -> bool:
    """The documented rule, by itself: HMAC-SHA256 of id.timestamp.body, keyed without `whsec_`."""
    version, _, signature = got.headers["webhook-signature"].partition(",")
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    key = secret.removeprefix("whsec_").encode()
    return version == "v3" and hmac.compare_digest(
        signature, hmac.new(key, signed, hashlib.sha256).hexdigest()
    )


def finish(bench: Bench, receiver: Receiver, scenario: str = "normal") -> tuple[str, list[dict[str, Any]]]:
    """A task whose end is reported, and what the clock told happened when an hour had passed."""
    task = bench.accepted(query=f"?webhook={receiver.url}", headers={"X-Mock-Scenario": scenario})
    return task, bench.control("clock", {"advance": "1h"})["events"]


def test_the_end_of_a_task_is_reported_and_signed(bench: Bench, receiver: Receiver) -> None:
    task, _ = finish(bench, receiver)
    assert [got.task["id"] for got in receiver.got] == [task]
    assert signed_as_documented(receiver.got[0], secret(bench))


def test_the_report_is_the_bare_task_with_its_input(bench: Bench, receiver: Receiver) -> None:
    task, _ = finish(bench, receiver)
    polled = bench.poll(task).json()["data"]
    told = receiver.got[0].task
    assert told.pop("input")["prompt"] == "A lighthouse in a storm"
    assert told == polled


def test_a_failure_is_reported_too(bench: Bench, receiver: Receiver) -> None:
    finish(bench, receiver, "failed")
    assert receiver.got[0].task["status"] == "failed"


def test_the_addresses_in_a_report_lead_to_the_outputs(bench: Bench, receiver: Receiver) -> None:
    finish(bench, receiver)
    assert requests.get(receiver.got[0].task["outputs"][0], timeout=30).status_code == 200


def test_a_report_is_dated_when_the_task_ended_and_not_when_the_clock_was_moved(
    bench: Bench, receiver: Receiver
) -> None:
    finish(bench, receiver, "created=1s; processing=9s")
    before = bench.control("clock")["now"]
    sent = int(receiver.got[0].headers["webhook-timestamp"])
    ended = bench.control("webhooks")["webhooks"][0]["ended_at"]
    assert before > ended
    assert abs(sent - _seconds(ended)) <= 1


def test_a_receiver_that_asks_back_sees_the_time_of_the_report(bench: Bench, receiver: Receiver) -> None:
    seen: list[str] = []
    receiver.asks = lambda: seen.append(bench.control("clock")["now"])
    finish(bench, receiver, "created=1s; processing=9s")
    assert seen == [bench.control("webhooks")["webhooks"][0]["ended_at"]]


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_moving_the_clock_tells_of_webhooks_in_order(bench: Bench, receiver: Receiver) -> None:
    task, events = finish(bench, receiver)
    assert [(each["what"], each["subject"]) for each in events] == [
        ("task", task),
        ("task", task),
        ("webhook", task),
    ]


def test_the_sdk_passes_a_webhook_on(bench: Bench, receiver: Receiver) -> None:
    bench.control("clock", {"resume": True, "speed": 1000})
    bench.sdk.run(
        f"wavespeed-ai/flux-schnell-lora?webhook={receiver.url}", {"prompt": "x"}, poll_interval=0.02
    )
    bench.control("clock", {"advance": "1m"})
    assert len(receiver.got) == 1


def test_a_webhook_that_is_not_encoded_keeps_its_own_query(bench: Bench, receiver: Receiver) -> None:
    bench.accepted(query=f"?webhook={receiver.url}?a=1&b=2")
    bench.control("clock", {"advance": "1m"})
    assert bench.control("webhooks")["webhooks"][0]["url"].endswith("/hook?a=1&b=2")


def test_as_time_runs_webhooks_are_sent_by_themselves(bench: Bench, receiver: Receiver) -> None:
    bench.control("clock", {"resume": True, "speed": 1000})
    bench.accepted(query=f"?webhook={receiver.url}")
    _until(lambda: bool(receiver.got))


def _until(holds: Callable[[], bool]) -> None:
    tried = threading.Event()
    for _ in range(600):
        if holds():
            return
        tried.wait(0.05)
    raise AssertionError("it never came true")


def test_a_receiver_that_fails_is_tried_again_with_the_same_id(bench: Bench, receiver: Receiver) -> None:
    receiver.answers = [500, 503]
    finish(bench, receiver)
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1
    assert [got.headers["webhook-timestamp"] for got in receiver.got] == sorted(
        {got.headers["webhook-timestamp"] for got in receiver.got}
    )
    assert len(receiver.got) == 3


def test_after_three_tries_more_it_is_given_up(bench: Bench, receiver: Receiver) -> None:
    receiver.answers = [500] * 10
    finish(bench, receiver)
    assert (len(receiver.got), bench.control("webhooks")["webhooks"][0]["state"]) == (4, "failed")


def test_what_was_given_up_can_be_sent_once_more(bench: Bench, receiver: Receiver) -> None:
    receiver.answers = [500] * 4
    task, _ = finish(bench, receiver)
    told = bench.control(f"webhooks/{task}/redeliver", method="POST")
    assert (told["state"], len(receiver.got)) == ("delivered", 5)


def test_a_task_that_is_moved_by_hand_is_reported(bench: Bench, receiver: Receiver) -> None:
    task = bench.accepted(query=f"?webhook={receiver.url}", headers={"X-Mock-Scenario": "manual"})
    bench.control(f"predictions/{task}/advance", {"to": "failed", "error": "x"})
    bench.control("clock", {"advance": "1s"})
    assert [got.task["error"] for got in receiver.got] == ["x"]


def test_a_task_that_is_moved_by_polls_is_reported(bench: Bench, receiver: Receiver) -> None:
    task = bench.accepted(query=f"?webhook={receiver.url}", headers={"X-Mock-Scenario": "polls"})
    while bench.status(task) != "completed":
        pass
    bench.control("clock", {"advance": "1s"})
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/latest", "http://10.0.0.1/", "http://[fd00:ec2::254]/", "file:///etc/passwd"],
)
def test_an_address_that_is_not_allowed_is_refused_and_the_task_goes_on(bench: Bench, url: str) -> None:
    task = bench.accepted(query=f"?webhook={url}")
    bench.control("clock", {"advance": "1m"})
    shown = bench.control("webhooks")["webhooks"]
    assert [each["state"] for each in shown] in (["refused"], [])
    assert bench.status(task) == "completed"


def test_a_redirect_leads_nowhere(bench: Bench, receiver: Receiver) -> None:
    receiver.answers, receiver.location = [307] * 4, "http://169.254.169.254/"
    finish(bench, receiver)
    attempts = bench.control("webhooks")["webhooks"][0]["attempts"]
    assert [each["status"] for each in attempts] == [307] * 4


Test = Callable[[Bench, Receiver], None]


def drives(name: str) -> Callable[[Test], Test]:
    """Says which fault a test drives."""
    FAULTS.add(name)
    return lambda test: test


@drives("duplicate")
def test_a_duplicate_comes_twice_with_one_id(bench: Bench, receiver: Receiver) -> None:
    finish(bench, receiver, "normal; fault=duplicate")
    assert [got.headers["webhook-id"] for got in receiver.got] == [receiver.got[0].headers["webhook-id"]] * 2


@pytest.mark.parametrize(("fault", "arrive"), [("duplicate; times=1", 3), ("lost; times=1", 1)])
def test_an_armed_fault_strikes_the_next_webhook_and_no_other(
    bench: Bench, receiver: Receiver, fault: str, arrive: int
) -> None:
    bench.control("faults", {"fault": fault})
    for _ in range(2):
        finish(bench, receiver)
    assert len(receiver.got) == arrive


def test_a_task_that_will_not_end_after_all_is_not_reported(bench: Bench, receiver: Receiver) -> None:
    task = bench.accepted(query=f"?webhook={receiver.url}")
    bench.control(f"predictions/{task}/advance", {"to": "processing"})
    bench.control("clock", {"advance": "1h"})
    assert (receiver.got, bench.control("webhooks")["webhooks"]) == ([], [])


def test_a_webhook_does_not_get_into_the_control_plane(bench: Bench) -> None:
    bench.accepted(query=f"?webhook={bench.url}/_mock/reset", headers={"X-Mock-Scenario": "instant"})
    bench.control("clock", {"advance": "1m"})
    attempts = bench.control("webhooks")["webhooks"][0]["attempts"]
    assert {each["status"] for each in attempts} == {403}


@pytest.mark.parametrize("fault", ["lost; probability=0", "latency; on=poll"])
def test_a_fault_that_does_not_strike_a_webhook_means_nothing_to_it(
    bench: Bench, receiver: Receiver, fault: str
) -> None:
    finish(bench, receiver, f"normal; fault={fault}")
    assert len(receiver.got) == 1


@drives("late")
def test_a_late_one_comes_when_it_is_due(bench: Bench, receiver: Receiver) -> None:
    bench.accepted(
        query=f"?webhook={receiver.url}", headers={"X-Mock-Scenario": "normal; fault=late; seconds=5m"}
    )
    bench.control("clock", {"advance": "4m"})
    assert receiver.got == []
    bench.control("clock", {"advance": "2m"})
    assert len(receiver.got) == 1


@drives("stale")
def test_a_stale_one_is_ten_minutes_old_and_signed(bench: Bench, receiver: Receiver) -> None:
    finish(bench, receiver, "normal; fault=stale")
    ended = bench.control("webhooks")["webhooks"][0]["ended_at"]
    assert _seconds(ended) - int(receiver.got[0].headers["webhook-timestamp"]) >= 300
    assert signed_as_documented(receiver.got[0], secret(bench))


@drives("bad-signature")
def test_a_bad_signature_is_none(bench: Bench, receiver: Receiver) -> None:
    finish(bench, receiver, "normal; fault=bad-signature")
    assert not signed_as_documented(receiver.got[0], secret(bench))


@drives("out-of-order")
def test_one_out_of_order_comes_after_a_later_one(bench: Bench, receiver: Receiver) -> None:
    first = bench.accepted(
        query=f"?webhook={receiver.url}",
        headers={"X-Mock-Scenario": "created=1s; processing=1s; fault=out-of-order"},
    )
    second = bench.accepted(
        query=f"?webhook={receiver.url}", headers={"X-Mock-Scenario": "created=5s; processing=5s"}
    )
    bench.control("clock", {"advance": "1h"})
    assert [got.task["id"] for got in receiver.got] == [second, first]


@drives("lost")
def test_a_lost_one_never_comes(bench: Bench, receiver: Receiver) -> None:
    finish(bench, receiver, "normal; fault=lost")
    assert (receiver.got, bench.control("webhooks")["webhooks"][0]["state"]) == ([], "lost")


def test_every_fault_of_a_webhook_is_driven_by_a_test() -> None:
    assert {kind.name for kind in KINDS.values() if WEBHOOK in kind.places} == FAULTS


def test_the_command_says_why_a_signature_fails(bench: Bench, receiver: Receiver) -> None:
    finish(bench, receiver)
    got = receiver.got[0]
    head = "".join(f"{name}: {value}\r\n" for name, value in got.headers.items())
    raw = head.encode() + b"\r\n" + json.dumps(got.task, indent=1).encode()
    command = [sys.executable, "-m", "mock_server", "webhook", "verify", "--secret", secret(bench)]
    done = subprocess.run(
        [*command, "--now", got.headers["webhook-timestamp"]], input=raw, capture_output=True, check=False
    )
    assert (done.returncode, b"written as other JSON" in done.stdout) == (1, True), done
