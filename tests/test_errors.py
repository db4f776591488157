"""What is answered when the server itself is at fault, or the client has gone."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from conftest import KEY, Client, MakeClient
from mock_server import handlers
from mock_server.errors import StoreUnavailable
from mock_server.sql_store import SqlStore

POLL = "/api/v3/predictions/{}/result"


def broken(*_: object) -> None:
    raise ZeroDivisionError("a secret at /some/path")


def test_a_mistake_of_the_server_is_an_envelope_that_tells_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prediction_id = client.submit()
    monkeypatch.setattr(handlers, "task_object", broken)
    answer = client.get(POLL.format(prediction_id))
    assert (answer.status_code, answer.json()) == (
        500,
        {"code": 500, "message": "The server made a mistake; its log says which."},
    )


def test_a_mistake_of_the_server_is_in_its_log(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prediction_id = client.submit()
    monkeypatch.setattr(handlers, "task_object", broken)
    client.get(POLL.format(prediction_id))
    logged = [record for record in caplog.records if record.name == "wavemock"]
    assert [(record.levelno, record.exc_info is not None) for record in logged] == [(logging.ERROR, True)]


def test_a_client_that_goes_away_while_it_sends_leaves_no_task_behind(make_client: MakeClient) -> None:
    client = make_client()
    arriving: list[dict[str, object]] = [
        {"type": "http.request", "body": b'{"pro', "more_body": True},
        {"type": "http.disconnect"},
    ]
    messages = iter(arriving)
    headers = [(name.lower().encode(), value.encode()) for name, value in KEY.items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v3/wavespeed-ai/flux-schnell-lora",
        "raw_path": b"",
        "query_string": b"",
        "root_path": "",
        "headers": [*headers, (b"content-type", b"application/json")],
        "scheme": "http",
    }
    sent: list[object] = []

    async def receive() -> dict[str, object]:
        return next(messages)

    async def send(message: object) -> None:
        sent.append(message)

    client.loop.run_until_complete(client.app(scope, receive, send))
    assert client.get("/_mock/health").json()["data"]["predictions"] == 0


def test_a_mistyped_model_is_answered_with_the_nearest_one(client: Client) -> None:
    answer = client.post("/api/v3/wavespeed-ai/flux-dev-lroa", {"prompt": "x"})
    assert (
        answer.status_code,
        answer.json()["message"].endswith("Did you mean /api/v3/wavespeed-ai/flux-dev-lora?"),
    ) == (404, True)


def test_a_method_that_a_path_lacks_is_answered_with_those_that_it_has(client: Client) -> None:
    answer = client.get("/api/v3/wavespeed-ai/flux-dev-lora")
    assert (answer.status_code, answer.headers["Allow"], answer.json()["code"]) == (405, "POST", 405)


def poll_until_the_store_fails(client: Client, prediction_id: str, fails: Callable[[str], None]) -> list[str]:
    """The types of the messages that a poll is answered with; `fails` is called with each."""
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def send(message: Any) -> None:
        sent.append(message["type"])
        fails(message["type"])

    scope = {
        "type": "http",
        "method": "GET",
        "path": POLL.format(prediction_id),
        "raw_path": b"",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in KEY.items()],
        "scheme": "http",
    }
    client.loop.run_until_complete(client.app(scope, receive, send))
    return sent


def unavailable(*_: object, **__: object) -> Any:
    raise StoreUnavailable("too many calls wait")


def in_a_database(make_client: MakeClient, tmp_path: object, scenario: str) -> tuple[Client, str]:
    client = make_client(store=f"sqlite:///{tmp_path}/s.db")
    prediction_id = client.submit(scenario=scenario)
    client.clock(speed=1000)
    return client, prediction_id


def test_an_answer_that_has_begun_is_cut_off_and_no_other_begins(
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: object,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client, prediction_id = in_a_database(make_client, tmp_path, "instant; fault=slow; on=poll; seconds=60")
    sent: list[str] = []

    def fails(kind: str) -> None:
        sent.append(kind)
        if kind == "http.response.start":
            monkeypatch.setattr(SqlStore, "clock_state", unavailable)

    with pytest.raises(ConnectionError):
        poll_until_the_store_fails(client, prediction_id, fails)
    assert sent == ["http.response.start"]


def test_an_answer_stands_although_it_cannot_be_noted(
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: object,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client, prediction_id = in_a_database(make_client, tmp_path, "instant; fault=status; on=poll")

    def fails(kind: str) -> None:
        if kind == "http.response.body":
            monkeypatch.setattr(SqlStore, "clock_state", unavailable)
            monkeypatch.setattr(SqlStore, "append", unavailable)

    sent = poll_until_the_store_fails(client, prediction_id, fails)
    assert sent == ["http.response.start", "http.response.body"]
