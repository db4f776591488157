"""Which scenario a submit gets, and the grammar in which it is said."""

from typing import Any

import httpx
import pytest

from conftest import Client, MakeClient
from mock_server.errors import Refusal
from mock_server.scenarios import MAGIC_SEEDS, SCENARIOS
from mock_server.scripts import magic_in, read_scenario

SUBMIT = "/api/v3/wavespeed-ai/flux-schnell-lora"
TRAIN = "/api/v3/wavespeed-ai/flux-dev-lora-trainer"


def submit(
    client: Client, *, header: str = "", query: str = "", key: str = "test-key", **given: Any
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}", **({"X-Mock-Scenario": header} if header else {})}
    return client.post(SUBMIT + query, {"prompt": "x", **given}, headers=headers)


def chosen(client: Client, **how: Any) -> str:
    answer = submit(client, **how)
    assert answer.status_code == 200, answer.text
    return str(client.inside(answer.json()["data"]["id"])["scenario"])


def test_a_header_chooses(client: Client) -> None:
    assert chosen(client, header="slow") == "slow"


def test_a_query_chooses(client: Client) -> None:
    assert chosen(client, query="?__scenario=slow") == "slow"


def test_a_query_may_be_encoded(client: Client) -> None:
    assert chosen(client, query="?__scenario=slow%3B%20processing%3D3s") == "slow; processing=3s"


def test_a_key_chooses(client: Client) -> None:
    assert chosen(client, key="mk_slow") == "slow"


def test_a_key_may_have_parameters(client: Client) -> None:
    assert chosen(client, key="mk_failed; error=out of memory") == "failed; error=out of memory"


def test_the_control_plane_chooses_for_all_that_follow(client: Client) -> None:
    client.post("/_mock/scenario", {"scenario": "slow"})
    assert [chosen(client), chosen(client)] == ["slow", "slow"]


def test_the_control_plane_chooses_for_as_many_as_it_is_told(client: Client) -> None:
    client.post("/_mock/scenario", {"scenario": "slow", "times": 1})
    assert [chosen(client), chosen(client)] == ["slow", "normal"]


def test_the_control_plane_chooses_for_one_model(client: Client) -> None:
    client.post("/_mock/scenario", {"scenario": "slow", "model": "wavespeed-ai/flux-dev-lora"})
    assert chosen(client) == "normal"


def test_what_was_chosen_can_be_taken_back(client: Client) -> None:
    client.post("/_mock/scenario", {"scenario": "slow"})
    client.request("DELETE", "/_mock/scenario")
    assert chosen(client) == "normal"


def test_header_comes_before_query_before_key_before_control_plane(client: Client) -> None:
    client.post("/_mock/scenario", {"scenario": "queued"})
    ways: dict[str, Any] = {"header": "slow", "query": "?__scenario=stuck", "key": "mk_nsfw"}
    found = [chosen(client, **ways)]
    for way in list(ways):
        del ways[way]
        found.append(chosen(client, **ways))
    assert found == ["slow", "stuck", "nsfw", "queued"]


def test_a_token_in_the_prompt_chooses(client: Client) -> None:
    assert chosen(client, prompt="[[mock:slow; processing=3s]] a cat") == "slow; processing=3s"


def test_a_token_in_the_trigger_word_chooses(client: Client) -> None:
    given = {"images_data_url": "https://example.com/a.zip", "trigger_word": "[[mock:failed]]"}
    answer = client.post(TRAIN, given)
    assert client.inside(answer.json()["data"]["id"])["scenario"] == "failed"


def test_a_reserved_seed_chooses(client: Client) -> None:
    assert chosen(client, seed=9_999_990_010) == "failed"


@pytest.mark.parametrize(("seed", "scenario"), MAGIC_SEEDS.items())
def test_each_reserved_seed_names_its_scenario(seed: int, scenario: str) -> None:
    assert magic_in((), seed) == (scenario, f"seed {seed}")


def test_every_scenario_but_the_normal_one_has_a_seed_of_its_own() -> None:
    assert len(MAGIC_SEEDS) == len(SCENARIOS) - 1


def test_without_magic_inputs_are_inputs(make_client: MakeClient) -> None:
    client = make_client(magic=False)
    assert chosen(client, prompt="[[mock:failed]]", seed=9_999_990_010) == "normal"


def test_a_header_comes_before_magic_and_magic_before_the_control_plane(client: Client) -> None:
    client.post("/_mock/scenario", {"scenario": "queued"})
    magic = {"prompt": "[[mock:stuck]]"}
    assert (chosen(client, header="slow", **magic), chosen(client, **magic)) == ("slow", "stuck")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("bogus", "there is no 'bogus'; there are: normal, instant"),
        ("slow; processing=fast", "'fast' is no span of time; write 500ms"),
        ("slow; speed=3", "there is no 'speed'; there are: progression"),
        ("slow; processing=1s; processing=2s", "processing stands there twice"),
        ("normal; outcome=cancelled", "no final status 'cancelled'; there are: completed, failed, never"),
        ("normal; error=x", "only what fails has one"),
        ("failed; nsfw=true", "what fails has no outputs"),
        ("manual; created=3s", "progression=manual knows no stays"),
        ("polls; created=3s", "'3s' is no whole number"),
        ("normal; nsfw=maybe", "there is no 'maybe'; there are: true, false"),
        ("normal; fault=503; on=moon", "there is no 'moon'; there are: submit"),
        ("normal; fault=bogus", "there is no 'bogus'; there are: latency"),
        ("normal; fault=503; field=x", "there is no 'field'; there are: retry-after"),
        ("normal; fault=503; probability=2", "probability is a number from 0 to 1"),
        ("normal; = ; x", "cannot be read; write NAME; key=value"),
        ("x" * 2001, "2001 characters are too many"),
    ],
)
def test_a_scenario_that_cannot_be_is_refused_with_what_would_be_right(
    client: Client, text: str, reason: str
) -> None:
    answer = submit(client, header=text)
    assert (answer.status_code, reason in answer.json()["message"]) == (400, True), answer.text


@pytest.mark.parametrize("key", ["mk_bogus", "mk_"])
def test_a_key_that_names_no_scenario_is_refused_and_begins_nothing(client: Client, key: str) -> None:
    answer = submit(client, key=key)
    assert (answer.status_code, client.get("/_mock/health").json()["data"]["predictions"]) == (
        (400, 0) if key != "mk_" else (200, 1)
    )


def test_a_scenario_that_cannot_be_is_not_taken_by_the_control_plane(client: Client) -> None:
    assert client.post("/_mock/scenario", {"scenario": "bogus"}).status_code == 400


def test_a_trainer_has_no_safety_checker_and_so_no_nsfw(client: Client) -> None:
    given = {"images_data_url": "https://example.com/a.zip"}
    answer = client.post(TRAIN, given, headers={"X-Mock-Scenario": "nsfw"})
    assert (answer.status_code, "safety checker" in answer.json()["message"]) == (400, True)


def test_stays_are_as_long_as_they_are_said_to_be(client: Client) -> None:
    answer = submit(client, header="created=5s; processing=7s")
    events = client.inside(answer.json()["data"]["id"])["events"]
    assert [event["at"][17:23] for event in events] == _later(events[0]["at"], 5, 12)


def _later(first: str, *seconds: int) -> list[str]:
    begin = float(first[17:23])
    return [first[17:23], *(f"{(begin + each) % 60:06.3f}" for each in seconds)]


def test_a_quoted_text_may_hold_what_parts_the_parameters() -> None:
    assert read_scenario(r'failed; error="a; b=\"c\""', what="x").error == 'a; b="c"'


def test_parameters_alone_change_the_normal_scenario() -> None:
    assert read_scenario("created=3s", what="x").created.low == 3


def test_a_fault_can_be_part_of_a_scenario() -> None:
    fault = read_scenario("slow; fault=503; on=poll; times=2; retry-after=1.5s", what="x").fault
    assert fault is not None
    assert (fault.kind, fault.on, fault.times, fault.retry_after) == ("503", "poll", 2, 1500)


def test_the_fault_of_a_scenario_can_be_given_other_parameters() -> None:
    fault = read_scenario("rate-limited; retry-after=5s; times=3", what="x").fault
    assert fault is not None
    assert (fault.kind, fault.retry_after, fault.times) == ("429", 5000, 3)


def test_a_standing_scenario_is_checked_against_the_servers_own(make_client: MakeClient) -> None:
    client = make_client(scenario="manual")
    assert client.post("/_mock/scenario", {"scenario": "created=3s"}).status_code == 400


def test_what_names_where_the_text_came_from() -> None:
    with pytest.raises(Refusal) as caught:
        read_scenario("bogus", what="the API key")
    assert caught.value.message.startswith("the API key: ")


def test_the_catalogue_tells_what_a_client_must_do(client: Client) -> None:
    told = client.get("/_mock/scenarios").json()["data"]
    assert [each["name"] for each in told["scenarios"] if each["advice"]] == list(SCENARIOS)


def test_a_model_that_there_is_not_is_refused_by_the_control_plane(client: Client) -> None:
    answer = client.post("/_mock/scenario", {"scenario": "slow", "model": "wavespeed-ai/flux-dev"})
    assert (answer.status_code, "wavespeed-ai/flux-dev-lora" in answer.json()["message"]) == (400, True)
