"""Every scenario and every fault, as the official SDK or a bare client meets with it.

The clock of each test's session runs a thousand times as fast as the machine's.
"""

import io
import re
import socket
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
import requests
from bench import SCHNELL, Bench
from PIL import Image

from conftest import Server
from mock_server.faults import KINDS, WEBHOOK
from mock_server.scenarios import SCENARIOS

FAST = 1000
DRIVEN: dict[str, str] = {}
"""Which test drives which scenario or fault."""

Test = Callable[[Bench], None]


def drives(*names: str) -> Callable[[Test], Test]:
    """Says which scenarios and faults a test drives; the first is the one that its bench's key asks for."""

    def note(test: Test) -> Test:
        for name in names:
            DRIVEN[name] = test.__name__
        return pytest.mark.situation(names[0] if names[0] in SCENARIOS else "normal")(test)

    return note


@pytest.fixture
def bench(server: Server, request: pytest.FixtureRequest) -> Iterator[Bench]:
    marker = request.node.get_closest_marker("situation")
    made = Bench(server=server.url, key=f"mk_{marker.args[0] if marker else 'normal'}")
    made.control("clock", {"speed": FAST})
    yield made
    made.control("reset", method="POST")


def fetched(url: str) -> bytes:
    answer = requests.get(url, timeout=30)
    assert answer.status_code == 200
    return answer.content


def decoded(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


@drives("normal")
def test_normal_ends_with_an_image(bench: Bench) -> None:
    assert decoded(fetched(bench.run()[0])).size == (1024, 1024)


@drives("instant")
def test_instant_is_over_at_the_first_poll(bench: Bench) -> None:
    bench.run()
    assert [each["told"] for each in bench.journal("poll")] == ["completed"]


@drives("slow")
def test_slow_takes_twenty_times_as_long(bench: Bench) -> None:
    assert bench.run()
    answer = bench.poll(bench.tasks()[0]["id"]).json()["data"]
    assert 18_000 <= answer["executionTime"] <= 22_000


@drives("queued")
def test_queued_says_created_for_half_a_minute(bench: Bench) -> None:
    bench.control("clock", {"freeze": True})
    task = bench.accepted()
    bench.control("clock", {"advance": "24s"})
    assert bench.status(task) == "created"
    bench.control("clock", {"advance": "20s"})
    assert bench.status(task) == "completed"


@drives("polls")
def test_polls_move_the_task_on(bench: Bench) -> None:
    bench.control("clock", {"freeze": True})
    task = bench.accepted()
    told = [bench.status(task) for _ in range(5)]
    assert told == ["created", "processing", "processing", "completed", "completed"]


@drives("manual")
def test_manual_moves_on_when_it_is_told_to(bench: Bench) -> None:
    task = bench.accepted()
    bench.control("clock", {"advance": "1h"})
    assert bench.status(task) == "created"
    bench.control(f"predictions/{task}/advance", {"to": "processing"})
    assert bench.status(task) == "processing"
    bench.control(f"predictions/{task}/advance", {"to": "failed", "error": "CUDA out of memory"})
    assert bench.poll(task).json()["data"]["error"] == "CUDA out of memory"


@drives("failed")
def test_failed_is_the_sdks_error_with_the_reason(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match=r"Prediction failed .*could not finish the task"):
        bench.run()


@drives("worker-error")
def test_a_worker_error_is_run_again_where_the_sdk_was_told_to_and_paid_twice(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="HTTP 503"):
        bench.sdk.run("wavespeed-ai/flux-schnell-lora", {"prompt": "x"}, max_retries=1, poll_interval=0.02)
    assert len(bench.tasks()) == 2


@drives("dropped")
def test_dropped_fails_without_ever_processing(bench: Bench) -> None:
    bench.control("clock", {"freeze": True})
    task = bench.accepted()
    told = []
    for _ in range(5):
        told.append(bench.status(task))
        bench.control("clock", {"advance": "10s"})
    assert told == ["created"] * 4 + ["failed"]


@drives("stuck")
def test_stuck_ends_in_the_sdks_own_time_limit(bench: Bench) -> None:
    with pytest.raises(TimeoutError, match="timed out"):
        bench.sdk.run("wavespeed-ai/flux-schnell-lora", {"prompt": "x"}, timeout=0.3, poll_interval=0.05)


@drives("nsfw")
def test_nsfw_flags_every_output(bench: Bench) -> None:
    bench.run(num_images=2)
    assert bench.poll(bench.tasks()[0]["id"]).json()["data"]["has_nsfw_contents"] == [True, True]


@drives("rate-limited", "429")
def test_rate_limited_refuses_the_first_try_and_takes_the_next(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="Failed to submit prediction: HTTP 429"):
        bench.run()
    assert bench.submit().status_code == 200
    assert [each["status"] for each in bench.journal("submit")] == [429, 200]


def test_a_429_says_when_to_come_back(bench: Bench) -> None:
    bench.control("faults", {"fault": "429; retry-after=7s"})
    assert bench.submit().headers["Retry-After"] == "7"


@drives("unavailable", "503")
def test_unavailable_is_over_after_two_polls(bench: Bench) -> None:
    assert bench.run()
    assert [each["status"] for each in bench.journal("poll")][:3] == [503, 503, 200]


@drives("flaky", "500")
def test_flaky_is_over_after_three_polls(bench: Bench) -> None:
    assert bench.run()
    assert [each["status"] for each in bench.journal("poll")][:4] == [500, 500, 500, 200]


@drives("502")
def test_a_bad_gateway_is_met_once_where_it_is_armed_once(bench: Bench) -> None:
    bench.control("faults", {"fault": "502; on=poll"})
    assert bench.run()
    assert [each["status"] for each in bench.journal("poll")][:2] == [502, 200]


@drives("lost-answer")
def test_a_lost_answer_has_begun_a_task(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="may already have been created"):
        bench.run()
    assert len(bench.tasks()) == 1


@drives("gateway-timeout", "504")
def test_a_gateway_timeout_has_begun_a_task(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="HTTP 504"):
        bench.run()
    assert len(bench.tasks()) == 1


@drives("half-answer", "truncate")
def test_half_an_answer_has_begun_a_task(bench: Bench) -> None:
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        bench.run()
    assert len(bench.tasks()) == 1


@drives("wrong-code", "code-401")
def test_a_200_that_says_401_is_no_success_for_the_sdk(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match=r"No request ID in response: .*401"):
        bench.run()
    assert bench.tasks() == []


@drives("reset")
def test_a_poll_that_is_reset_is_tried_again(bench: Bench) -> None:
    assert bench.run()
    assert [each["status"] for each in bench.journal("poll")][:2] == [0, 200]


def raw(bench: Bench) -> socket.socket:
    """A connection on which a submit has been sent."""
    address = urlsplit(bench.server)
    connection = socket.create_connection((address.hostname or "", address.port or 0), timeout=30)
    body = b'{"prompt": "x"}'
    head = f"POST /_session/{bench.name}/api/v3/{SCHNELL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_a_reset_is_a_reset_and_no_close(bench: Bench) -> None:
    bench.control("faults", {"fault": "reset; on=submit"})
    with raw(bench) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)


def test_half_an_answer_promises_the_whole_and_then_ends(bench: Bench) -> None:
    bench.control("faults", {"fault": "truncate; on=submit"})
    with raw(bench) as connection, connection.makefile("rb") as told:
        head, _, body = told.read().partition(b"\r\n\r\n")
    promised = re.search(rb"content-length: ([0-9]+)", head)
    assert promised is not None
    assert 0 < len(body) < int(promised[1])


@drives("hanging", "hang")
def test_a_poll_that_hangs_is_given_up_and_tried_again(bench: Bench) -> None:
    bench.control("clock", {"speed": 1})
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(
            f"{bench.url}/api/v3/predictions/{bench.accepted()}/result",
            headers={"Authorization": "Bearer k"},
            timeout=0.3,
        )
    bench.control("clock", {"speed": FAST})
    assert bench.run()


@drives("dripping", "slow")
def test_a_dripping_answer_arrives_in_the_end(bench: Bench) -> None:
    bench.run()
    polls = bench.journal("poll")
    assert polls[0]["fault"].startswith("slow")
    assert polls[0]["status"] == 200


@drives("latency")
def test_latency_holds_every_answer_for_two_seconds_of_the_clock(bench: Bench) -> None:
    bench.control("clock", {"freeze": True})
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(
            f"{bench.url}/api/v3/wavespeed-ai/flux-schnell-lora",
            json={"prompt": "x"},
            headers={"Authorization": "Bearer mk_latency"},
            timeout=0.3,
        )
    bench.control("clock", {"resume": True})
    assert bench.run()


@drives("cancelled", "status")
def test_cancelled_ends_the_sdks_run(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="Prediction cancelled"):
        bench.run()


@drives("timed-out")
def test_timed_out_ends_the_sdks_run(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="Prediction timeout"):
        bench.run()


@drives("no-outputs", "missing")
def test_missing_outputs_are_nothing_for_the_sdk(bench: Bench) -> None:
    assert bench.run() == []


@drives("null-outputs", "null")
def test_null_outputs_are_handed_on_by_the_sdk(bench: Bench) -> None:
    assert bench.run() is None


@pytest.mark.parametrize("field", ["id", "status", "urls", "timings"])
def test_any_field_can_be_missing(bench: Bench, field: str) -> None:
    bench.control("faults", {"fault": f"missing; field={field}"})
    assert field not in bench.poll(bench.accepted()).json()["data"]


@drives("expired")
def test_expired_outputs_are_gone(bench: Bench) -> None:
    assert requests.get(bench.run()[0], timeout=30).status_code == 410


@drives("corrupt")
def test_corrupt_outputs_do_not_decode(bench: Bench) -> None:
    with pytest.raises(OSError, match="cannot identify"):
        decoded(fetched(bench.run()[0]))


@drives("half-output")
def test_half_an_output_is_whole_at_the_second_try(bench: Bench) -> None:
    url = bench.run()[0]
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(url, timeout=30)
    assert decoded(fetched(url)).size == (1024, 1024)


def test_every_scenario_is_driven_by_a_test() -> None:
    assert set(SCENARIOS) <= set(DRIVEN)


def test_every_fault_of_a_request_is_driven_by_a_test() -> None:
    assert {kind.name for kind in KINDS.values() if WEBHOOK not in kind.places} <= set(DRIVEN)
