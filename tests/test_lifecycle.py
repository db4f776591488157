"""How predictions move, on a clock that stands still until it is moved."""

import re
from typing import Any

import pytest

from conftest import Client, MakeClient

MODELS = ["flux-dev-lora", "flux-schnell-lora", "flux-dev-lora-trainer", "flux-dev-lora-trainer-turbo"]


def statuses(client: Client, prediction_id: str, *, seconds: int = 60, step: float = 0.25) -> list[str]:
    """The statuses in the order in which a poll every `step` seconds sees them."""
    seen = [client.result(prediction_id)["status"]]
    for _ in range(int(seconds / step)):
        client.clock(advance=step)
        status = client.result(prediction_id)["status"]
        if status != seen[-1]:
            seen.append(status)
    return seen


@pytest.mark.parametrize("model", MODELS)
def test_a_prediction_is_created_then_processing_then_completed(client: Client, model: str) -> None:
    assert statuses(client, client.submit(model), step=0.1, seconds=10) == [
        "created",
        "processing",
        "completed",
    ]


def test_a_prediction_does_not_move_while_the_clock_stands_still(client: Client) -> None:
    prediction_id = client.submit()
    assert {client.result(prediction_id)["status"] for _ in range(20)} == {"created"}


def test_an_instant_one_is_completed_at_the_first_poll(client: Client) -> None:
    assert client.result(client.submit(scenario="instant"))["status"] == "completed"


def test_even_an_instant_one_is_answered_as_created(client: Client) -> None:
    answer = client.post(
        "/api/v3/wavespeed-ai/flux-schnell-lora", {"prompt": "x"}, headers={"X-Mock-Scenario": "instant"}
    )
    assert answer.json()["data"]["status"] == "created"


def test_a_slow_one_takes_its_time(client: Client) -> None:
    prediction_id = client.submit("flux-dev-lora", scenario="slow")
    client.clock(advance=50)
    assert client.result(prediction_id)["status"] == "processing"


def test_a_queued_one_stays_created_for_long(client: Client) -> None:
    prediction_id = client.submit(scenario="queued")
    client.clock(advance=25)
    assert client.result(prediction_id)["status"] == "created"


def test_a_queued_one_completes_in_the_end(client: Client) -> None:
    assert statuses(client, client.submit(scenario="queued")) == ["created", "processing", "completed"]


def test_a_failing_one_ends_in_failed(client: Client) -> None:
    assert statuses(client, client.submit(scenario="failed"))[-1] == "failed"


def test_a_failed_one_says_why_and_has_no_outputs(client: Client) -> None:
    prediction_id = client.submit(scenario="failed")
    client.clock(advance=60)
    data = client.result(prediction_id)
    assert (bool(data["error"]), data["outputs"], data["has_nsfw_contents"]) == (True, [], [])


def test_a_stuck_one_never_ends(client: Client) -> None:
    prediction_id = client.submit(scenario="stuck")
    client.clock(advance="10000h")
    assert client.result(prediction_id)["status"] == "processing"


def test_an_nsfw_one_flags_every_output(client: Client) -> None:
    prediction_id = client.submit(scenario="nsfw", num_images=3)
    client.clock(advance=60)
    assert client.result(prediction_id)["has_nsfw_contents"] == [True, True, True]


def test_without_the_safety_checker_nothing_is_flagged(client: Client) -> None:
    prediction_id = client.submit(scenario="nsfw", enable_safety_checker=False)
    client.clock(advance=60)
    assert client.result(prediction_id)["has_nsfw_contents"] == [False]


def test_there_is_a_flag_and_an_output_per_image(client: Client) -> None:
    prediction_id = client.submit(scenario="instant", num_images=4)
    data = client.result(prediction_id)
    assert (len(data["outputs"]), data["has_nsfw_contents"]) == (4, [False] * 4)


def test_there_are_no_outputs_before_the_end(client: Client) -> None:
    data = client.result(client.submit())
    assert (data["outputs"], data["has_nsfw_contents"], data["timings"]) == ([], [], {"inference": 0})


def test_the_time_that_it_took_is_that_between_processing_and_completed(client: Client) -> None:
    prediction_id = client.submit("flux-dev-lora")
    client.clock(advance=60)
    data = client.result(prediction_id)
    assert data["timings"]["inference"] == data["executionTime"] == pytest.approx(3000, rel=0.1)


@pytest.mark.parametrize("scenario", ["normal", "failed", "stuck"])
def test_every_field_that_clients_need_is_always_there(client: Client, scenario: str) -> None:
    prediction_id = client.submit(scenario=scenario)
    for _ in range(5):
        client.clock(advance=0.4)
        data = client.result(prediction_id)
        assert not [name for name, value in data.items() if value is None]
        assert set(data) == {
            "id", "model", "outputs", "urls", "has_nsfw_contents", "status", "created_at", "error",
            "executionTime", "timings",
        }  # fmt: skip


def test_id_address_and_date_stay_what_they_were(client: Client) -> None:
    prediction_id = client.submit()
    fixed = [{name: client.result(prediction_id)[name] for name in ("id", "urls", "created_at", "model")}]
    client.clock(advance=60)
    fixed.append({name: client.result(prediction_id)[name] for name in ("id", "urls", "created_at", "model")})
    assert fixed[0] == fixed[1]


def test_an_id_is_32_lower_case_hexadecimal_digits(client: Client) -> None:
    assert re.fullmatch("[0-9a-f]{32}", client.submit())


@pytest.mark.parametrize("path", ["/api/{}/predictions/{}/result", "/api/{}/predictions/{}"])
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_both_versions_and_both_addresses_tell_the_same(client: Client, version: str, path: str) -> None:
    prediction_id = client.submit()
    assert client.get(path.format(version, prediction_id)).json()["data"] == client.result(prediction_id)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_address_to_poll_is_on_the_version_that_was_asked(client: Client, version: str) -> None:
    data = client.post(f"/api/{version}/wavespeed-ai/flux-schnell-lora", {"prompt": "x"}).json()["data"]
    assert data["urls"]["get"] == f"http://127.0.0.1:8080/api/{version}/predictions/{data['id']}/result"


def test_the_address_to_poll_names_the_host_that_was_asked(client: Client) -> None:
    headers = {"Host": "mock.test:1234"}
    data = client.post("/api/v3/wavespeed-ai/flux-schnell-lora", {"prompt": "x"}, headers=headers).json()[
        "data"
    ]
    assert data["urls"]["get"].startswith("http://mock.test:1234/api/v3/")


def test_a_public_url_stands_in_for_the_host(make_client: MakeClient) -> None:
    client = make_client(public_url="https://mock.example/base/")
    data = client.post("/api/v3/wavespeed-ai/flux-schnell-lora", {"prompt": "x"}).json()["data"]
    assert data["urls"]["get"].startswith("https://mock.example/base/api/v3/predictions/")


def test_an_edition_answers_below_its_own_prefix_and_polls_there(client: Client) -> None:
    data = client.post("/editions/flux-lora/api/v2/wavespeed-ai/flux-dev-lora", {}).json()["data"]
    assert client.get(data["urls"]["get"]).json()["data"]["id"] == data["id"]
    assert "/editions/flux-lora/api/v2/predictions/" in data["urls"]["get"]


def test_an_edition_at_the_root_brings_its_own_defaults(make_client: MakeClient) -> None:
    client = make_client(edition="flux-lora")
    prediction_id = client.post("/api/v2/wavespeed-ai/flux-dev-lora", {}).json()["data"]["id"]
    given = client.inside(prediction_id)["input"]
    assert (given["strength"], given["guidance_scale"], given["prompt"]) == (0.6, 5.0, "")


def test_an_unknown_scenario_is_refused_with_those_that_there_are(client: Client) -> None:
    answer = client.post(
        "/api/v3/wavespeed-ai/flux-schnell-lora", {"prompt": "x"}, headers={"X-Mock-Scenario": "nope"}
    )
    assert (answer.status_code, "instant" in answer.json()["message"]) == (400, True)


def test_the_servers_scenario_holds_where_a_request_names_none(make_client: MakeClient) -> None:
    client = make_client(scenario="instant")
    data = client.post("/api/v3/wavespeed-ai/flux-schnell-lora", {"prompt": "x"}).json()["data"]
    assert client.result(data["id"])["status"] == "completed"


def submit_all(client: Client) -> list[dict[str, Any]]:
    """One prediction of each model, as it stands after a minute."""
    client.clock(freeze=True)
    ids = [client.submit(model, enable_base64_output=False) for model in MODELS]
    client.clock(advance=60)
    results = [client.result(prediction_id) for prediction_id in ids]
    return [{name: data[name] for name in ("id", "outputs", "timings")} for data in results]


def test_the_same_seed_gives_the_same_ids_and_timings(make_client: MakeClient) -> None:
    assert submit_all(make_client(seed=1)) == submit_all(make_client(seed=1))


def test_another_seed_gives_others(make_client: MakeClient) -> None:
    one, other = submit_all(make_client(seed=1)), submit_all(make_client(seed=2))
    assert [data["id"] for data in one] != [data["id"] for data in other]


def test_a_synchronous_submit_is_held_until_the_end(make_client: MakeClient) -> None:
    client = make_client(scenario="normal")
    data = client.post(
        "/api/v3/wavespeed-ai/flux-schnell-lora", {"prompt": "x", "enable_sync_mode": True}
    ).json()["data"]
    assert (data["status"], len(data["outputs"])) == ("completed", 1)


def test_a_synchronous_submit_that_fails_says_so(make_client: MakeClient) -> None:
    client = make_client(scenario="failed")
    body = {"prompt": "x", "enable_sync_mode": True}
    data = client.post("/api/v3/wavespeed-ai/flux-schnell-lora", body).json()["data"]
    assert (data["status"], bool(data["error"])) == ("failed", True)


def test_a_synchronous_submit_that_takes_too_long_answers_that_the_task_goes_on(
    make_client: MakeClient,
) -> None:
    client = make_client(scenario="stuck", sync_seconds=0.2)
    body = {"prompt": "x", "enable_sync_mode": True}
    answer = client.post("/api/v3/wavespeed-ai/flux-schnell-lora", body)
    data = answer.json()["data"]
    assert (answer.status_code, answer.json()["code"]) == (200, 200)
    assert (data["status"], data["code"]) == ("processing", 5004)
    assert data["error"].startswith("Sync mode timed out after 0.2 seconds")
