"""What is answered when the server itself is at fault, or the client has gone."""

import logging

import pytest

from conftest import KEY, Client, MakeClient
from mock_server import handlers

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
