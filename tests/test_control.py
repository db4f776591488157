"""Looking inside, moving the clock, forgetting."""

import datetime as dt
import json
from pathlib import Path

import jsonschema
import pytest

from conftest import Client, MakeClient
from mock_server.control.operations import document
from mock_server.control.time import milliseconds

SUBMIT = "/api/v3/wavespeed-ai/flux-schnell-lora"


def test_a_prediction_shows_what_was_received_and_what_it_was_taken_for(client: Client) -> None:
    data = client.inside(client.submit(prompt="x", seed=5))
    assert data["received"] == {"prompt": "x", "seed": 5}
    assert data["input"] == {
        "prompt": "x",
        "seed": 5,
        "strength": 0.8,
        "loras": [],
        "size": "1024*1024",
        "num_inference_steps": 4,
        "guidance_scale": 3.5,
        "num_images": 1,
        "enable_base64_output": False,
        "enable_safety_checker": True,
        "enable_sync_mode": False,
    }


def test_what_was_defaulted_is_what_was_not_received(client: Client) -> None:
    data = client.inside(client.submit(prompt="x", seed=5))
    assert set(data["defaulted"]) == set(data["input"]) - set(data["received"])


def test_a_prediction_has_the_promised_keys(client: Client) -> None:
    promised = {
        "id",
        "model",
        "edition",
        "version",
        "scenario",
        "received",
        "input",
        "defaulted",
        "warnings",
        "events",
    }
    assert promised <= set(client.inside(client.submit()))


def test_events_that_are_to_come_are_shown_as_such(client: Client) -> None:
    events = client.inside(client.submit())["events"]
    assert [(event["status"], event["happened"]) for event in events] == [
        ("created", True),
        ("processing", False),
        ("completed", False),
    ]


def test_the_seed_that_was_drawn_is_told(client: Client) -> None:
    assert 0 <= client.inside(client.submit(seed=-1))["seed"] <= 9999999999


def test_an_unknown_field_is_a_warning_and_a_header(client: Client) -> None:
    answer = client.post(SUBMIT, {"prompt": "x", "max_images": 1})
    inside = client.inside(answer.json()["data"]["id"])
    assert answer.headers["X-Mock-Unknown-Fields"] == "/max_images"
    assert inside["warnings"] == ["unknown field /max_images"]


def test_an_image_that_cannot_be_had_is_a_warning(client: Client) -> None:
    inside = client.inside(client.submit(image="https://example.com/cat.png"))
    assert inside["warnings"] == [
        "image was not looked at: only base64, data URIs and outputs of this server are"
    ]


def test_the_list_is_newest_first(client: Client) -> None:
    ids = [client.submit() for _ in range(3)]
    listed = client.get("/_mock/predictions").json()["data"]["predictions"]
    assert [each["id"] for each in listed] == ids[::-1]


def test_the_list_shows_of_each_what_it_shows_alone(client: Client) -> None:
    prediction_id = client.submit(prompt="x")
    listed = client.get("/_mock/predictions").json()["data"]["predictions"]
    assert listed == [client.inside(prediction_id)]


def test_the_list_shortens_long_texts(client: Client) -> None:
    client.submit(prompt="y" * 5000)
    [listed] = client.get("/_mock/predictions").json()["data"]["predictions"]
    assert listed["received"]["prompt"] == "y" * 200 + "… (5000 characters)"


def test_the_list_goes_on_after_an_id(client: Client) -> None:
    ids = [client.submit() for _ in range(5)]
    page = client.get(f"/_mock/predictions?limit=2&before={ids[3]}").json()["data"]
    assert ([each["id"] for each in page["predictions"]], page["count"]) == ([ids[2], ids[1]], 5)


def test_an_unknown_prediction_is_404(client: Client) -> None:
    assert client.get("/_mock/predictions/nope").status_code == 404


def test_a_limit_out_of_range_is_400(client: Client) -> None:
    assert client.get("/_mock/predictions?limit=1001").status_code == 400


def test_the_clock_stands_still_when_frozen(make_client: MakeClient) -> None:
    client = make_client()
    frozen = client.clock(freeze=True)
    assert (frozen["running"], client.get("/_mock/clock").json()["data"]["now"]) == (False, frozen["now"])


def test_advancing_moves_a_frozen_clock_by_just_so_much(client: Client) -> None:
    before = dt.datetime.fromisoformat(client.get("/_mock/clock").json()["data"]["now"])
    after = dt.datetime.fromisoformat(client.clock(advance="90s")["now"])
    assert after - before == dt.timedelta(seconds=90)


def test_a_running_clock_can_be_advanced_too(make_client: MakeClient) -> None:
    moved = make_client().clock(advance="1h")
    assert (moved["running"], round(moved["ahead"])) == (True, 3600)


def test_a_resumed_clock_goes_on_from_where_it_stood(client: Client) -> None:
    client.clock(advance="1h")
    resumed = client.clock(resume=True)
    assert (resumed["running"], round(resumed["ahead"]) >= 3599) == (True, True)


@pytest.mark.parametrize(
    "change",
    [{}, {"advance": -1}, {"advance": "-1s"}, {"advance": "soon"}, {"freeze": False}, {"stop": True}, []],
)
def test_a_change_that_makes_no_sense_is_400(client: Client, change: object) -> None:
    assert client.post("/_mock/clock", change).status_code == 400


def test_after_the_last_year_that_can_be_written_dates_stand_still(client: Client) -> None:
    for _ in range(80):
        client.clock(advance="999999h")
    assert client.clock(advance=1)["now"] == "9999-12-31T23:59:59.999Z"


@pytest.mark.parametrize(
    ("span", "expected"), [(1.5, 1500), ("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000)]
)
def test_spans_of_time_may_have_units(span: float | str, expected: int) -> None:
    assert milliseconds(span) == expected


def test_a_reset_forgets_predictions_and_outputs(client: Client) -> None:
    prediction_id = client.submit(scenario="instant")
    output = client.result(prediction_id)["outputs"][0]
    assert client.get(output).status_code == 200
    assert client.post("/_mock/reset").json()["data"] == {"forgotten": 1}
    assert [
        client.get(f"/_mock/predictions/{prediction_id}").status_code,
        client.get(output).status_code,
    ] == [404, 404]


def test_a_reset_lets_the_clock_run(client: Client) -> None:
    client.post("/_mock/reset")
    assert client.get("/_mock/clock").json()["data"]["running"] is True


def test_after_a_reset_the_same_ids_belong_to_other_requests(make_client: MakeClient) -> None:
    client = make_client(seed=1, scenario="instant")
    first = client.submit(prompt="one", scenario="instant")
    before = client.get(client.result(first)["outputs"][0]).content
    client.post("/_mock/reset")
    second = client.submit(prompt="two", scenario="instant")
    assert (first == second, client.get(client.result(second)["outputs"][0]).content == before) == (
        True,
        False,
    )


def test_health_names_what_is_served(client: Client) -> None:
    data = client.get("/_mock/health").json()["data"]
    assert (data["status"], SUBMIT in data["editions"]["current"], "failed" in data["scenarios"]) == (
        "ok",
        True,
        True,
    )


def test_no_key_is_needed_inside(client: Client) -> None:
    assert client.get("/_mock/health", headers={"Authorization": ""}).status_code == 200


@pytest.mark.parametrize(
    "request_of",
    [
        lambda c: c.get("/_mock/health"),
        lambda c: c.get("/_mock/predictions"),
        lambda c: c.get("/_mock/predictions/{id}".format(id=c.submit(scenario="instant", num_images=2))),
        lambda c: c.get("/_mock/clock"),
        lambda c: c.post("/_mock/clock", {"freeze": True}),
        lambda c: c.post("/_mock/reset"),
        lambda c: c.get("/_mock/predictions/nope"),
        lambda c: c.get("/_mock/predictions?limit=0"),
    ],
)
def test_answers_are_what_the_control_planes_own_document_says(client: Client, request_of: object) -> None:
    client.submit(scenario="failed")
    answer = request_of(client)  # type: ignore[operator]
    path = answer.request.url.path.removeprefix("/_mock")
    item = next(
        item
        for template, item in document()["paths"].items()
        if len(template.split("/")) == len(path.split("/")) and template.split("/")[1] == path.split("/")[1]
    )
    described = item[answer.request.method.lower()]["responses"][str(answer.status_code)]
    schema = described["content"]["application/json"]["schema"]
    jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker()).validate(answer.json())


def test_integers_beyond_64_bits_are_shown_as_they_came(client: Client) -> None:
    text = '{"prompt": "x", "huge": ' + "9" * 400 + "}"
    answer = client.post(SUBMIT, content=text, headers={"Content-Type": "application/json"})
    inside = client.get(f"/_mock/predictions/{answer.json()['data']['id']}")
    assert inside.json()["data"]["received"] == json.loads(text)


def test_the_store_holds_no_more_than_it_is_told_to(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(keep=3)
    ids = [client.submit(scenario="instant") for _ in range(5)]
    listed = client.get("/_mock/predictions").json()["data"]["predictions"]
    assert [each["id"] for each in listed] == ids[:1:-1]


def test_a_store_full_of_unfinished_tasks_takes_no_more(make_client: MakeClient) -> None:
    client = make_client(keep=1)
    client.submit(scenario="stuck")
    answer = client.post(SUBMIT, {"prompt": "x"})
    assert (answer.status_code, answer.headers["Retry-After"], "--keep" in answer.json()["message"]) == (
        503,
        "1",
        True,
    )
