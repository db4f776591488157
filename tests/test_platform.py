"""What the platform has beside its models and uploads: list, prices, credit, history, the secret."""

from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from conftest import Client, MakeClient
from mock_server.catalog import load_catalog
from mock_server.errors import BadConfiguration
from mock_server.platform.history import moment

SCHNELL = "wavespeed-ai/flux-schnell-lora"
DAY = 24 * 3600
HISTORY = "/api/v3/predictions"
DELETE = "/api/v3/predictions/delete"
MODEL = """\
openapi: 3.0.3
info: {title: Mine, version: "1"}
paths:
  /api/v3/acme/mine:
    post:
      x-wavemock: {operation: submit, produces: images, price: 0.25}
      requestBody:
        content:
          application/json:
            schema:
              type: object
              required: [prompt]
              properties:
                prompt: {type: string, nullable: true, example: x, x-mine: 1}
                default: {type: string, default: y}
                x-odd: {type: string, description: A field may be called anything.}
                deep: {type: object, properties: {example: {type: string}, x-deep: {type: string}}}
                enable_sync_mode: {$ref: "common.yaml#/components/schemas/EnableSyncMode"}
      responses:
        "200": {$ref: "common.yaml#/components/responses/Submitted"}
"""


def data(client: Client, path: str, body: Any = None) -> Any:
    answer = client.get(path) if body is None else client.post(path, body)
    assert (answer.status_code, answer.json()["code"]) == (200, 200), answer.text
    return answer.json()["data"]


def ids(client: Client, **wanted: Any) -> list[str]:
    return [each["id"] for each in data(client, HISTORY, wanted)["items"]]


def mine(make_client: MakeClient, folder: Path, **settings: Any) -> Client:
    (folder / "mine.yaml").write_text(MODEL)
    return make_client(openapi=folder, **settings)


# Models, prices, credit.


def test_every_model_is_listed_once_with_its_newest_path_first(client: Client) -> None:
    listed = data(client, "/api/v3/models")
    assert [each["model_id"] for each in listed] == [
        "wavespeed-ai/flux-dev-lora",
        "wavespeed-ai/flux-dev-lora-trainer",
        "wavespeed-ai/flux-dev-lora-trainer-turbo",
        SCHNELL,
    ]
    paths = [schema["api_path"] for schema in listed[-1]["api_schema"]["api_schemas"]]
    assert paths == [f"/api/v3/{SCHNELL}", f"/api/v2/{SCHNELL}"]


def test_a_listed_schema_is_one_that_takes_what_the_server_takes(client: Client) -> None:
    schema = data(client, "/api/v3/models")[-1]["api_schema"]["api_schemas"][0]["request_schema"]
    check = jsonschema_rs.Draft202012Validator(schema)
    assert check.is_valid({"prompt": "x", "num_inference_steps": 8})
    assert not check.is_valid({"prompt": "x", "num_inference_steps": 9})
    assert not check.is_valid({})
    assert schema["x-order-properties"] == list(schema["properties"])


def test_a_listed_schema_has_nothing_that_only_openapi_knows(make_client: MakeClient, tmp_path: Path) -> None:
    client = mine(make_client, tmp_path, only=True)
    [listed] = data(client, "/api/v3/models")
    assert listed["api_schema"]["api_schemas"][0]["request_schema"] == {
        "type": "object",
        "required": ["prompt"],
        "properties": {
            "prompt": {"type": ["string", "null"]},
            "default": {"type": "string", "default": "y"},
            "x-odd": {"type": "string", "description": "A field may be called anything."},
            "deep": {
                "type": "object",
                "properties": {"example": {"type": "string"}, "x-deep": {"type": "string"}},
            },
        },
        "x-order-properties": ["prompt", "default", "x-odd", "deep"],
    }


def test_an_edition_lists_its_own_models(client: Client) -> None:
    listed = data(client, "/editions/flux-lora/api/v3/models")
    assert {each["model_id"] for each in listed} == {"wavespeed-ai/flux-dev-lora", SCHNELL}


def test_a_model_of_ones_own_has_the_platform_around_it(make_client: MakeClient, tmp_path: Path) -> None:
    client = mine(make_client, tmp_path, only=True)
    told = data(client, "/api/v3/model/pricing", {"model_id": "acme/mine"})
    assert told == {"model_id": "acme/mine", "unit_price": 0.25, "currency": "USD"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("/api/v3/acme/mine", "/api/v3/model/pricing", r"mine.yaml:6: POST /api/v3/model/pricing is the"),
        ("    post:\n", "    post:\n      operationId: balance\n", r"mine.yaml:6: operationId 'balance' is"),
    ],
)
def test_what_the_platform_has_cannot_be_taken(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(MODEL.replace(old, new))
    with pytest.raises(BadConfiguration, match=message):
        load_catalog(directory=tmp_path, only=True)


def test_the_platform_is_no_model(client: Client) -> None:
    health = data(client, "/_mock/health")["editions"]
    assert len(health["current"]) == 8
    assert not [path for path in health["current"] if "wavespeed-ai" not in path]


@pytest.mark.parametrize(
    ("inputs", "price"), [({}, 0.01), ({"num_images": 3}, 0.03), ({"num_images": "x"}, 0.01)]
)
def test_a_price_is_what_a_submit_takes(client: Client, inputs: dict[str, Any], price: float) -> None:
    told = data(client, "/api/v3/model/pricing", {"model_id": SCHNELL, "inputs": inputs})
    assert told["unit_price"] == price


def test_a_submit_takes_its_price_from_the_balance(client: Client) -> None:
    client.post("/_mock/account", {"balance": 1})
    client.submit(num_images=3)
    assert data(client, "/api/v3/balance") == {"balance": 0.97}
    assert data(client, "/api/v3/account/balance") == {"balance": 0.97, "currency": "USD"}


def test_an_unknown_model_has_no_price(client: Client) -> None:
    assert client.post("/api/v3/model/pricing", {"model_id": "x"}).status_code == 404


# History.


def test_the_history_is_newest_first(client: Client) -> None:
    made = [client.submit() for _ in range(3)]
    assert ids(client) == made[::-1]


def test_the_history_tells_a_prediction_as_its_result_does(client: Client) -> None:
    prediction_id = client.submit(scenario="instant")
    told = data(client, HISTORY, {})
    assert told == {"page": 1, "items": [client.result(prediction_id)]}


def test_outputs_in_the_history_are_urls_even_where_they_are_answered_as_base64(client: Client) -> None:
    client.submit("flux-dev-lora", scenario="instant")
    [item] = data(client, HISTORY, {})["items"]
    assert item["outputs"][0].startswith("http")


def test_the_history_comes_in_pages(client: Client) -> None:
    made = [client.submit() for _ in range(5)][::-1]
    assert [ids(client, page=page, page_size=2) for page in (1, 2, 3, 4)] == [
        made[:2],
        made[2:4],
        made[4:],
        [],
    ]


@pytest.mark.parametrize("wrong", [{"page": 0}, {"page_size": 0}, {"page_size": 101}, {"created_after": "x"}])
def test_a_page_that_there_cannot_be_is_refused(client: Client, wrong: dict[str, Any]) -> None:
    assert client.post(HISTORY, wrong).status_code == 400


def test_a_page_beyond_all_numbers_is_empty(client: Client) -> None:
    client.submit()
    assert ids(client, page=10**30) == []


def test_the_history_can_be_asked_for_one_model_or_status(client: Client) -> None:
    ended, going = client.submit(scenario="instant"), client.submit("flux-dev-lora", scenario="stuck")
    assert (ids(client, model=SCHNELL), ids(client, status="created")) == ([ended], [going])
    assert ids(client, model=SCHNELL, status="created") == []


def test_the_history_can_be_asked_for_a_span_of_time(client: Client) -> None:
    first = client.submit()
    at = client.result(first)["created_at"]
    client.clock(advance=10)
    second = client.submit()
    assert (ids(client, created_before=at), ids(client, created_after=at)) == ([], [second, first])
    later = client.result(second)["created_at"]
    assert (ids(client, created_before=later), ids(client, created_after=later)) == ([first], [second])


def test_the_history_has_seven_days(client: Client) -> None:
    made = client.submit()
    client.clock(advance=7 * DAY - 0.001)
    before = ids(client)
    client.clock(advance=0.001)
    assert [before, ids(client)] == [[made], []]


def test_the_history_tells_inputs_only_where_they_are_asked_for(client: Client) -> None:
    client.submit(prompt="a cat", seed=9_999_999_999)
    told = [
        data(client, HISTORY, {"include_inputs": each})["items"][0].get("input") for each in (True, False)
    ]
    assert told[0]["prompt"] == "a cat"
    assert told[0]["num_inference_steps"] == 4
    assert told[1] is None


def test_the_history_can_be_had_with_a_get(client: Client) -> None:
    made = [client.submit() for _ in range(3)]
    told = data(client, f"{HISTORY}?page=2&page_size=1&model={SCHNELL}&include_inputs=true")
    assert [(each["id"], each["input"]["prompt"]) for each in told["items"]] == [
        (made[1], "https://example.com/x.zip")
    ]
    assert [each["id"] for each in data(client, HISTORY)["items"]] == made[::-1]


def test_a_get_with_the_media_type_of_a_body_and_none_is_normal(client: Client) -> None:
    for path in (HISTORY, "/api/v3/models", "/api/v3/balance", "/api/v3/webhook/secret"):
        assert client.get(path, headers={"Content-Type": "application/json"}).status_code == 200


def test_the_history_goes_through_more_than_one_chunk(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mock_server.platform.history._CHUNK", 2)
    made = [client.submit() for _ in range(5)][::-1]
    assert ids(client) == made


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:01.5z", 1500),
        ("1970-01-01T00:00:00.1239999999Z", 123),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:30:00-00:30", 0),
        ("1970-01-01T00:00:60Z", 59_000),
        ("9999-12-31T23:59:59-23:59", 253_402_387_139_000),
    ],
)
def test_a_moment_is_read_as_rfc_3339_has_it(text: str, milliseconds: int) -> None:
    assert moment(text) == milliseconds


def test_the_year_0_is_before_everything() -> None:
    assert moment("0000-01-01T00:00:00Z") < moment("0002-01-01T00:00:00Z") < 0


# Deleting and cancelling.


def test_what_was_deleted_is_gone(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client()
    gone, kept = client.submit(scenario="instant"), client.submit(scenario="instant")
    for each in (gone, kept):
        client.get(client.result(each)["outputs"][0])
    assert data(client, DELETE, {"ids": [gone, gone, "unknown", ""]}) == {"deleted_count": 1}
    assert [client.get(f"/api/v2/predictions/{each}").status_code for each in (gone, kept)] == [404, 200]
    assert client.get(f"/outputs/{gone}/0.png").status_code == 404
    assert (ids(client), [file.name for file in tmp_path.glob("*/outputs/*")]) == ([kept], [f"{kept}-0.png"])
    assert data(client, DELETE, {"ids": [gone]}) == {"deleted_count": 0}


@pytest.mark.parametrize("wrong", [{}, {"ids": "x"}, {"ids": [1]}, {"ids": ["x"] * 1001}])
def test_what_is_no_list_of_ids_is_refused(client: Client, wrong: dict[str, Any]) -> None:
    assert client.post(DELETE, wrong).status_code == 400


def test_a_cancelled_prediction_has_failed(client: Client) -> None:
    prediction_id = client.submit()
    told = data(client, f"{HISTORY}/{prediction_id}/cancel", {})
    assert (told["status"], told["error"]) == ("failed", "cancelled by the client")
    client.clock(advance=60)
    assert client.result(prediction_id) == told


def test_what_has_ended_cannot_be_cancelled(client: Client) -> None:
    prediction_id = client.submit(scenario="instant")
    before = client.result(prediction_id)
    assert client.post(f"{HISTORY}/{prediction_id}/cancel").status_code == 400
    assert client.result(prediction_id) == before


def test_the_end_of_a_cancelled_prediction_is_reported(client: Client) -> None:
    path = f"/api/v3/{SCHNELL}?webhook=http://127.0.0.1:9/"
    answer = client.post(path, {"prompt": "x"}, headers={"X-Mock-Scenario": "stuck"})
    prediction_id = answer.json()["data"]["id"]
    before = data(client, "/_mock/webhooks")["webhooks"]
    data(client, f"{HISTORY}/{prediction_id}/cancel", {})
    after = [each["prediction"] for each in data(client, "/_mock/webhooks")["webhooks"]]
    assert (before, after) == ([], [prediction_id])


def test_what_there_is_not_cannot_be_cancelled(client: Client) -> None:
    assert client.post(f"{HISTORY}/none/cancel").status_code == 404


# The secret.


def secret(client: Client, session: str = "") -> str:
    return str(data(client, f"{session}/api/v3/webhook/secret")["secret"])


def test_the_secret_of_a_session_stays_the_same(client: Client) -> None:
    assert secret(client).startswith("whsec_")
    assert secret(client) == secret(client) != secret(client, "/_session/one")


def test_the_secret_follows_from_the_seed(make_client: MakeClient) -> None:
    seeded = [make_client(seed=number) for number in (1, 1, 2)]
    assert [secret(each) == secret(seeded[0]) for each in seeded] == [True, True, False]
    assert secret(seeded[0], "/_session/one") == secret(seeded[1], "/_session/one") != secret(seeded[0])


def test_without_a_seed_each_server_has_another_secret(make_client: MakeClient) -> None:
    assert secret(make_client()) != secret(make_client())


def test_the_secret_outlives_the_server(make_client: MakeClient, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    assert secret(make_client(store=store)) == secret(make_client(store=store))


# Routes, keys, the journal, faults.


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", DELETE, "POST"),
        ("PUT", DELETE, "POST"),
        ("HEAD", DELETE, "POST"),
        ("DELETE", HISTORY, "GET, HEAD, POST"),
        ("GET", f"{HISTORY}/x/cancel", "POST"),
        ("POST", "/api/v3/balance", "GET, HEAD"),
        ("GET", "/api/v3/media/uploads", "POST"),
        ("GET", "/editions/current/api/v3/predictions/delete", "POST"),
    ],
)
def test_another_method_is_405_and_told_which_there_are(
    client: Client, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)


def test_an_id_may_be_called_like_a_path(client: Client) -> None:
    assert client.get(f"{HISTORY}/cancel").status_code == 404
    assert client.get(f"{HISTORY}/delete/result").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v3/models"),
        ("GET", "/api/v3/balance"),
        ("GET", "/api/v3/account/balance"),
        ("GET", "/api/v3/webhook/secret"),
        ("GET", HISTORY),
        ("POST", HISTORY),
        ("POST", DELETE),
        ("POST", f"{HISTORY}/x/cancel"),
        ("POST", "/api/v3/model/pricing"),
    ],
)
def test_all_of_it_wants_a_key(client: Client, method: str, path: str) -> None:
    assert client.request(method, path, headers={"Authorization": ""}).status_code == 401


def test_the_journal_knows_the_platform(client: Client) -> None:
    prediction_id = client.submit()
    client.get("/api/v3/balance")
    client.post(f"{HISTORY}/{prediction_id}/cancel")
    requests = client.get("/_mock/requests").json()["data"]["requests"]
    assert [(each["kind"], each["prediction"]) for each in requests[1:]] == [
        ("platform", ""),
        ("platform", prediction_id),
    ]


def test_an_armed_fault_strikes_the_platform_once(client: Client) -> None:
    assert client.post("/_mock/faults", {"fault": "503; on=platform; times=1"}).status_code == 200
    assert [client.get("/api/v3/balance").status_code for _ in range(2)] == [503, 200]


def test_a_fault_before_deleting_leaves_it_undone_and_one_after_does_not(client: Client) -> None:
    for late, status in (("false", 200), ("true", 404)):
        prediction_id = client.submit()
        client.post("/_mock/faults", {"fault": f"500; on=platform; times=1; after-commit={late}"})
        assert client.post(DELETE, {"ids": [prediction_id]}).status_code == 500
        assert client.get(f"{HISTORY}/{prediction_id}").status_code == status


def test_sessions_do_not_see_each_others_history(client: Client) -> None:
    prediction_id = client.submit()
    other = "/_session/one"
    assert data(client, f"{other}{HISTORY}", {})["items"] == []
    assert data(client, f"{other}{DELETE}", {"ids": [prediction_id]}) == {"deleted_count": 0}
    assert client.post(f"{other}{HISTORY}/{prediction_id}/cancel").status_code == 404


def test_all_of_it_works_on_a_store_in_a_file(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(store=f"sqlite:///{tmp_path}/store.db")
    one, other = client.submit(scenario="stuck"), client.submit(scenario="stuck")
    data(client, f"{HISTORY}/{one}/cancel", {})
    assert ids(client, status="failed") == [one]
    assert data(client, DELETE, {"ids": [one, other]}) == {"deleted_count": 2}
    assert ids(client) == []
