"""Who gets in."""

import httpx
import pytest

from conftest import Client, MakeClient

POLL = "/api/v3/predictions/x/result"


@pytest.mark.parametrize("header", ["Bearer k", "bearer k", "BEARER  k ", "Bearer " + "k" * 5000])
def test_any_key_opens_a_server_that_names_none(client: Client, header: str) -> None:
    assert client.get(POLL, headers={"Authorization": header}).status_code == 404


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic k", "k", "Bearerk"])
def test_without_a_key_nothing_opens(client: Client, header: str) -> None:
    answer = client.get(POLL, headers={"Authorization": header})
    assert (answer.status_code, answer.json()["code"]) == (401, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_only_the_keys_that_are_named_open(make_client: MakeClient) -> None:
    client = make_client(api_keys=("one", "two"))
    codes = [
        client.get(POLL, headers={"Authorization": f"Bearer {k}"}).status_code
        for k in ("one", "two", "three")
    ]
    assert codes == [404, 404, 401]


def test_the_key_is_looked_at_before_the_body(client: Client) -> None:
    answer = client.post("/api/v3/wavespeed-ai/flux-dev-lora", content=b"{", headers={"Authorization": ""})
    assert answer.status_code == 401


def test_results_want_a_key_and_outputs_do_not(client: Client) -> None:
    data = client.result(client.submit(scenario="instant"))
    codes = [
        client.get(url, headers={"Authorization": ""}).status_code
        for url in (data["urls"]["get"], data["outputs"][0])
    ]
    assert codes == [401, 200]


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost:1", "[::1]:8080", "127.1.2.3", "LOCALHOST", ""]
)
def test_the_control_plane_answers_on_loopback(client: Client, host: str) -> None:
    assert client.get("/_mock/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:8080", "localhost.evil.example"]
)
def test_a_name_that_merely_points_here_does_not_open_the_control_plane(client: Client, host: str) -> None:
    assert client.get("/_mock/health", headers={"Host": host}).status_code == 403


def test_a_page_from_elsewhere_cannot_reset_the_server(client: Client) -> None:
    assert client.post("/_mock/reset", headers={"Origin": "https://evil.example"}).status_code == 403


def from_elsewhere(client: Client) -> Client:
    http = httpx.AsyncClient(
        transport=httpx.ASGITransport(client.app, client=("192.0.2.7", 5)), base_url="http://127.0.0.1:8080"
    )
    return Client(app=client.app, loop=client.loop, http=http)


def test_another_machine_does_not_get_into_the_control_plane(client: Client) -> None:
    answer = from_elsewhere(client).get("/_mock/predictions")
    assert (answer.status_code, "--control-token" in answer.json()["message"]) == (403, True)


def test_the_control_token_lets_another_machine_in(make_client: MakeClient) -> None:
    client = from_elsewhere(make_client(control_token="sesame"))
    codes = [
        client.get("/_mock/health", headers=headers).status_code
        for headers in ({"Authorization": "Bearer sesame"}, {"Authorization": "Bearer open"}, {})
    ]
    assert codes == [200, 401, 401]


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_what_comes_through_a_proxy_does_not_get_into_the_control_plane(client: Client, name: str) -> None:
    assert client.get("/_mock/health", headers={name: "192.0.2.7"}).status_code == 403
