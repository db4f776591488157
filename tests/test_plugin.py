"""The fixtures `wavemock` and `webhook_inbox`: one test's own world, and an address for webhooks."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import wavespeed

from mock_server import testing
from mock_server.testing import VirtualTime, Wavemock, WavemockError, WavemockServer, WebhookInbox
from mock_server.testing.session import session_name
from mock_server.testing.starting import find_server, started_server
from mock_server.webhooks.signing import headers_of

SCHNELL = "wavespeed-ai/flux-schnell-lora"
DEV = "wavespeed-ai/flux-dev-lora"


def sdk(wavemock: Wavemock) -> wavespeed.Client:
    return wavespeed.Client(api_key="any-key", base_url=wavemock.url)


def submit(wavemock: Wavemock, model: str = SCHNELL, *, prompt: str = "x", key: str = "any-key") -> str:
    answer = requests.post(
        f"{wavemock.url}/api/v3/{model}",
        json={"prompt": prompt},
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    )
    return str(answer.json()["data"]["id"])


def poll(wavemock: Wavemock, prediction: str) -> requests.Response:
    url = f"{wavemock.url}/api/v3/predictions/{prediction}/result"
    return requests.get(url, headers={"Authorization": "Bearer any-key"}, timeout=30)


def said_by(check: Any, **given: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        check(**given)
    return str(caught.value)


# The session.


def test_the_plugin_imports_nothing_but_itself_and_pytest() -> None:
    script = (
        "import sys, pytest; before = {*sys.modules}; import mock_server.testing.plugin; "
        "print(*sorted({*sys.modules} - before))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["mock_server", "mock_server.testing", "mock_server.testing.plugin"]


@pytest.mark.parametrize("name", testing.__all__)
def test_every_name_for_annotations_is_there(name: str) -> None:
    assert getattr(testing, name).__name__ == name


def test_a_name_that_is_not_there_is_an_error_as_ever() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Wavemocks'"):
        testing.Wavemocks  # noqa: B018


def test_a_session_is_found_by_its_key_as_by_its_url(wavemock: Wavemock) -> None:
    client = wavespeed.Client(api_key=wavemock.key, base_url=wavemock.server.url)
    client.run(SCHNELL, {"prompt": "x"}, poll_interval=0.1)
    wavemock.assert_called(model=SCHNELL, kind="submit", times=1)


@pytest.mark.parametrize("name", ["test_it[a/b c-ü]", "x" * 200, "[]", "_._"])
def test_a_sessions_name_is_good_in_urls_and_in_keys(name: str, wavemock_server: WavemockServer) -> None:
    session = Wavemock(wavemock_server, session_name(name))
    client = wavespeed.Client(api_key=session.key, base_url=wavemock_server.url)
    client._submit(SCHNELL, {"prompt": "x"})
    assert len(session.predictions) == 1
    session.close()


def test_tests_of_the_same_name_have_sessions_of_their_own() -> None:
    assert session_name("test_it") != session_name("test_it")


def test_two_sessions_see_nothing_of_each_other(wavemock: Wavemock, wavemock_server: WavemockServer) -> None:
    other = Wavemock(wavemock_server, session_name("other"))
    other.freeze()
    other.fault("503; times=always; on=any")
    prediction = submit(wavemock)
    seen = (poll(wavemock, prediction).status_code, poll(other, prediction).status_code)
    assert (seen, other.predictions, [each.status for each in other.requests]) == ((200, 503), [], [503])
    other.close()


def test_a_session_is_forgotten_when_it_is_closed(wavemock_server: WavemockServer) -> None:
    session = Wavemock(wavemock_server, session_name("short"))
    submit(session)
    session.close()
    assert (session.predictions, session.requests) == ([], [])
    session.let_go()


def test_the_environment_leads_a_client_to_the_session(wavemock: Wavemock) -> None:
    env = wavemock.env
    client = wavespeed.Client(api_key=env["WAVESPEED_API_KEY"], base_url=env["WAVESPEED_BASE_URL"])
    client._submit(SCHNELL, {"prompt": "x"})
    assert len(wavemock.predictions) == 1


def test_a_request_is_told_with_its_model_and_what_became_of_it(wavemock: Wavemock) -> None:
    prediction = submit(wavemock)
    poll(wavemock, prediction)
    seen = [(each.kind, each.model, each.status, each.prediction) for each in wavemock.requests]
    assert seen == [("submit", SCHNELL, 200, prediction), ("poll", SCHNELL, 200, prediction)]


def test_a_submit_that_is_refused_is_one_of_its_model_too(wavemock: Wavemock) -> None:
    with pytest.raises(RuntimeError, match="HTTP 400"):
        sdk(wavemock).run(SCHNELL, {})
    wavemock.assert_called(model=SCHNELL, status=400, times=1)


def test_more_requests_than_a_page_holds_are_all_there(
    wavemock: Wavemock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mock_server.testing.session._PAGE", 2)
    made = [submit(wavemock) for _ in range(5)]
    assert [each.prediction for each in wavemock.requests] == made
    assert [each.id for each in wavemock.predictions] == made


def test_what_the_fixtures_ask_is_no_request_of_the_client(wavemock: Wavemock) -> None:
    wavemock._control.call("GET", f"/api/v3/predictions/{submit(wavemock)}/result", key="any-key")
    assert [each.kind for each in wavemock.requests] == ["submit"]


# What happens.


def test_a_scenario_is_that_of_every_task_from_then_on(wavemock: Wavemock) -> None:
    wavemock.scenario('failed; error="out of memory"')
    with pytest.raises(RuntimeError, match="out of memory"):
        sdk(wavemock).run(SCHNELL, {"prompt": "x"}, poll_interval=0.1)


def test_a_scenario_can_be_that_of_one_model_and_one_task(wavemock: Wavemock) -> None:
    wavemock.scenario("stuck", model=SCHNELL, times=1)
    for model in (DEV, SCHNELL, SCHNELL):
        submit(wavemock, model)
    assert [each.scenario for each in wavemock.predictions] == ["normal", "stuck", "normal"]


def test_an_unknown_scenario_is_refused_in_the_servers_words(wavemock: Wavemock) -> None:
    with pytest.raises(WavemockError, match=r"HTTP 400: .*there is no 'nonsense'; there are: .*normal"):
        wavemock.scenario("nonsense")


def test_a_fault_strikes_until_its_block_ends(wavemock: Wavemock) -> None:
    prediction = submit(wavemock)
    with wavemock.fault("503; on=poll; times=always"):
        assert poll(wavemock, prediction).status_code == 503
    assert poll(wavemock, prediction).status_code == 200


def test_a_fault_that_is_used_up_can_still_be_disarmed(wavemock: Wavemock) -> None:
    armed = wavemock.fault("503; on=poll")
    poll(wavemock, submit(wavemock))
    armed.disarm()
    armed.disarm()


def test_an_advance_tells_what_it_caused(wavemock: Wavemock) -> None:
    wavemock.freeze()
    wavemock.scenario("created=1s; processing=3s")
    prediction = submit(wavemock)
    events = wavemock.advance("2s")
    assert [(each.what, each.subject, each.text) for each in events] == [
        ("task", prediction, "created -> processing")
    ]


def test_time_can_be_sped_up_frozen_and_resumed(wavemock: Wavemock) -> None:
    changes: list[Callable[[], None]] = [lambda: wavemock.speed(60), wavemock.freeze, wavemock.resume]
    seen = []
    for change in changes:
        change()
        clock = requests.get(f"{wavemock.url}/_mock/clock", timeout=30).json()["data"]
        seen.append((clock["speed"], clock["running"]))
    assert seen == [(60, True), (60, False), (60, True)]


@pytest.mark.wavemock(scenario="manual")
def test_a_test_can_decide_how_a_task_ends(wavemock: Wavemock) -> None:
    first, second = submit(wavemock), submit(wavemock)
    assert wavemock.complete(first).status == "completed"
    assert wavemock.fail(second, "no luck").status == "failed"
    assert poll(wavemock, second).json()["data"]["error"] == "no luck"


def test_a_task_is_shown_as_it_was_understood(wavemock: Wavemock) -> None:
    shown = wavemock.prediction(submit(wavemock, prompt="A cat"))
    assert (shown.received, shown.input["prompt"], "seed" in shown.defaulted) == (
        {"prompt": "A cat"},
        "A cat",
        True,
    )


@pytest.mark.wavemock(level="bronze", frozen=True, fault=["503; on=poll", "500; on=output"])
def test_a_mark_says_how_a_session_begins(wavemock: Wavemock) -> None:
    health = requests.get(f"{wavemock.url}/_mock/health", timeout=30).json()["data"]
    assert (wavemock.account(balance=5)["level"], health["running"], len(health["armed"])) == (
        "bronze",
        False,
        2,
    )


@pytest.mark.wavemock(scenario="failed", balance=1)
class TestMarks:
    @pytest.mark.wavemock(scenario="nsfw")
    def test_the_nearest_mark_wins(self, wavemock: Wavemock) -> None:
        submit(wavemock)
        assert [each.scenario for each in wavemock.predictions] == ["nsfw"]


# What must be so.


def test_a_call_that_came_is_given_back(wavemock: Wavemock) -> None:
    prediction = submit(wavemock)
    (found,) = wavemock.assert_called(model="flux-schnell-lora", method="POST")
    assert found.prediction == prediction


def test_a_call_that_did_not_come_is_told_with_what_was_nearest(wavemock: Wavemock) -> None:
    submit(wavemock)
    said = said_by(wavemock.assert_called, model=DEV, kind="submit")
    assert "Expected at least one request with model='wavespeed-ai/flux-dev-lora', kind='submit'" in said
    assert "but model is 'wavespeed-ai/flux-schnell-lora'" in said


def test_the_nearest_call_is_told_first(wavemock: Wavemock) -> None:
    poll(wavemock, submit(wavemock))
    said = said_by(wavemock.assert_called, model=DEV, kind="submit", status=200)
    assert said.index(" submit: POST") < said.index(" poll: GET")


def test_a_call_that_came_too_often_is_told_with_each(wavemock: Wavemock) -> None:
    submit(wavemock)
    submit(wavemock)
    said = said_by(wavemock.assert_called, kind="submit", times=1)
    assert "Expected 1 request with kind='submit', and there were 2." in said
    assert said.count("POST /api/v3/wavespeed-ai/flux-schnell-lora -> 200") == 2


def test_no_call_at_all_is_told_with_the_likely_reason(wavemock: Wavemock) -> None:
    assert "Was the client given wavemock.url" in said_by(wavemock.assert_called)


def test_a_call_can_be_expected_not_to_come(wavemock: Wavemock) -> None:
    wavemock.assert_called(kind="upload", times=0)


def test_a_misspelt_field_is_an_error_and_no_missing_call(wavemock: Wavemock) -> None:
    with pytest.raises(TypeError, match="'modell'"):
        wavemock.assert_called(modell="x")


def test_a_task_is_charged_even_where_its_answer_was_lost(wavemock: Wavemock) -> None:
    wavemock.fault("reset; on=submit; after-commit=true")
    with pytest.raises(RuntimeError, match="did not return a response"):
        sdk(wavemock).run(SCHNELL, {"prompt": "x"})
    wavemock.assert_charged(times=1)


def test_a_task_that_is_charged_twice_is_told(wavemock: Wavemock) -> None:
    submit(wavemock)
    submit(wavemock)
    said = said_by(wavemock.assert_charged)
    assert "Expected 1 task to be accepted and charged, and there were 2" in said
    assert "charged again" in said


def hurry(wavemock: Wavemock) -> None:
    wavemock.freeze()
    prediction = submit(wavemock)
    for _ in range(6):
        poll(wavemock, prediction)
        wavemock.advance("50ms")


def test_a_bad_citizen_is_told_what_it_did_and_what_to_do(wavemock: Wavemock) -> None:
    hurry(wavemock)
    said = said_by(wavemock.assert_good_citizen)
    assert "error polled-too-fast:" in said
    assert "Wait 2 s or more between polls" in said
    assert "assert_good_citizen(allow={'polled-too-fast'})" in said


def test_what_is_allowed_is_not_held_against_a_client(wavemock: Wavemock) -> None:
    hurry(wavemock)
    wavemock.assert_good_citizen(allow={"polled-too-fast"})


def test_a_note_is_not_held_against_a_client(wavemock: Wavemock) -> None:
    headers = {"Authorization": "Bearer any-key", "User-Agent": ""}
    requests.get(f"{wavemock.url}/api/v3/predictions/0/result", headers=headers, timeout=30)
    assert [each["rule"] for each in wavemock.audit] == ["no-user-agent"]
    wavemock.assert_good_citizen()


def test_a_rule_that_is_allowed_is_named_in_a_set(wavemock: Wavemock) -> None:
    with pytest.raises(TypeError, match="write a set of rules"):
        wavemock.assert_good_citizen(allow="polled-too-fast")


# The server.


def test_a_server_that_does_not_start_says_why() -> None:
    with (
        pytest.raises(WavemockError, match=r"(?s)wavemock did not start \(exit code 2\).*no-such-scenario"),
        started_server(["--scenario", "no-such-scenario"], directory=Path.cwd()),
    ):
        pass


def test_an_address_where_nobody_answers_is_one_error() -> None:
    with pytest.raises(
        WavemockError, match=r"http://127\.0\.0\.1:1/_mock/health: the server does not answer"
    ):
        find_server("http://127.0.0.1:1")


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://h", "http://", "http://h:99999", "http://h?x=1"])
def test_what_is_no_address_is_refused_as_such(url: str) -> None:
    with pytest.raises(WavemockError, match="no address of a server"):
        find_server(url)


def test_a_server_that_is_no_wavemock_is_not_taken_for_one(webhook_inbox: WebhookInbox) -> None:
    with pytest.raises(WavemockError, match="no answer of wavemock's"):
        find_server(webhook_inbox.url)


def test_no_proxy_of_the_environment_is_asked(
    wavemock_server: WavemockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert find_server(wavemock_server.url).url == wavemock_server.url


# Webhooks.

SECRET = "whsec_secret-of-the-session"


@pytest.fixture
def inbox(webhook_inbox: WebhookInbox, monkeypatch: pytest.MonkeyPatch) -> WebhookInbox:
    monkeypatch.setattr(Wavemock, "webhook_secret", lambda _: SECRET)
    return webhook_inbox


def send(inbox: WebhookInbox, wavemock: Wavemock, *, secret: str = SECRET, **task: str) -> int:
    body = json.dumps({"id": "t1", "status": "completed", **task}).encode()
    now = int(datetime.fromisoformat(wavemock.read_clock()).timestamp())
    headers = headers_of(secret, "wh1", now, body)
    return httpx.post(inbox.url, content=body, headers=headers, trust_env=False).status_code


def test_a_webhook_is_kept_and_its_signature_checked(inbox: WebhookInbox, wavemock: Wavemock) -> None:
    send(inbox, wavemock)
    event = inbox.wait("completed", prediction="t1")
    assert (event.verified, event.reason, event.json["id"], event.answered) == (True, "", "t1", 200)


def test_a_bad_signature_is_told_with_its_reason(inbox: WebhookInbox, wavemock: Wavemock) -> None:
    send(inbox, wavemock, secret="whsec_another")
    event = inbox.wait()
    assert (event.verified, "another secret" in event.reason) == (False, True)


def test_a_signature_is_as_old_as_the_sessions_clock_says(inbox: WebhookInbox, wavemock: Wavemock) -> None:
    wavemock.advance("7d")
    send(inbox, wavemock)
    assert inbox.wait().verified


def test_each_webhook_is_waited_for_once(inbox: WebhookInbox, wavemock: Wavemock) -> None:
    send(inbox, wavemock)
    send(inbox, wavemock, status="failed")
    send(inbox, wavemock)
    assert [inbox.wait().status, inbox.wait("completed").status, inbox.wait().status] == [
        "completed",
        "completed",
        "failed",
    ]


def test_a_webhook_that_does_not_come_is_told_with_what_came(inbox: WebhookInbox, wavemock: Wavemock) -> None:
    send(inbox, wavemock, status="failed")
    said = said_by(inbox.wait, status="completed", timeout=0.01)
    assert said.splitlines() == [
        "No webhook that says 'completed' came within 0.01 s of real time.",
        "What came:",
        "  failed of task t1",
    ]


def test_an_inbox_can_fail_as_often_as_it_is_told(inbox: WebhookInbox, wavemock: Wavemock) -> None:
    inbox.respond(500, times=2)
    inbox.respond(404)
    assert [send(inbox, wavemock) for _ in range(4)] == [500, 500, 404, 200]


@pytest.mark.wavemock(scenario="created=0s; processing=10m")
def test_a_training_tells_its_end_by_a_webhook_that_comes_again_until_it_is_taken(
    wavemock: Wavemock, virtual_time: VirtualTime, webhook_inbox: WebhookInbox
) -> None:
    webhook_inbox.respond(500)
    prediction = submit(wavemock, f"{SCHNELL}?webhook={webhook_inbox.url}")
    virtual_time.advance("10m")
    first = webhook_inbox.wait("completed", prediction=prediction)
    virtual_time.advance("1h")
    second = webhook_inbox.wait("completed", prediction=prediction)
    assert [(each.answered, each.verified) for each in (first, second)] == [(500, True), (200, True)]
    assert second.headers["webhook-id"] == first.headers["webhook-id"]
    assert [each["state"] for each in wavemock.webhooks] == ["delivered"]


@pytest.mark.usefixtures("virtual_time")
def test_waiting_for_a_webhook_takes_real_time(inbox: WebhookInbox) -> None:
    assert "Nothing came" in said_by(inbox.wait, timeout=0.01)


def test_what_is_no_json_is_kept_too(inbox: WebhookInbox) -> None:
    httpx.post(inbox.url, content=b"\xff", trust_env=False)
    event = inbox.wait()
    assert (event.json, event.status, event.body, event.verified) == (None, "", b"\xff", False)
