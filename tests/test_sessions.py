"""Sessions: worlds of their own on one server."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import Client, MakeClient
from mock_server.desk import Desks

SUBMIT = "/api/v3/wavespeed-ai/flux-schnell-lora"


def submit(client: Client, *, session: str = "", key: str = "test-key") -> httpx.Response:
    prefix = f"/_session/{session}" if session else ""
    return client.post(prefix + SUBMIT, {"prompt": "x"}, headers={"Authorization": f"Bearer {key}"})


def health(client: Client, session: str = "") -> dict[str, object]:
    prefix = f"/_session/{session}" if session else ""
    data: dict[str, object] = client.get(f"{prefix}/_mock/health").json()["data"]
    return data


def test_a_session_in_the_path_has_predictions_of_its_own(client: Client) -> None:
    submit(client, session="a")
    assert (health(client)["predictions"], health(client, "a")["predictions"]) == (0, 1)


def test_a_key_can_name_a_session(client: Client) -> None:
    submit(client, key="ms_a")
    assert (health(client)["predictions"], health(client, "a")["predictions"]) == (0, 1)


def test_the_session_in_the_path_comes_before_that_of_the_key(client: Client) -> None:
    submit(client, session="a", key="ms_b")
    assert health(client, "a")["predictions"] == 1


def test_addresses_in_answers_lead_back_into_the_session(client: Client) -> None:
    url = submit(client, key="ms_a").json()["data"]["urls"]["get"]
    assert url.startswith("http://127.0.0.1:8080/_session/a/api/v3/predictions/")


def test_outputs_are_found_without_a_key(client: Client) -> None:
    url = submit(client, key="ms_a").json()["data"]["urls"]["get"]
    client.post("/_session/a/_mock/clock", {"advance": "1m"})
    output = client.get(url.removeprefix("http://127.0.0.1:8080")).json()["data"]["outputs"][0]
    assert client.get(output, headers={"Authorization": ""}).status_code == 200


def test_one_session_does_not_find_what_is_anothers(client: Client) -> None:
    prediction = submit(client, session="a").json()["data"]["id"]
    assert client.get(f"/_session/b/api/v3/predictions/{prediction}").status_code == 404


def test_each_session_has_a_clock_of_its_own(client: Client) -> None:
    client.post("/_session/a/_mock/clock", {"freeze": True, "advance": "1h"})
    assert str(health(client, "a")["now"]) > str(health(client, "b")["now"])


def test_each_session_has_faults_of_its_own(client: Client) -> None:
    client.post("/_session/a/_mock/faults", {"fault": "503; on=submit"})
    assert [submit(client, session=each).status_code for each in ("b", "a")] == [200, 503]


def test_each_session_has_a_scenario_of_its_own(client: Client) -> None:
    client.post("/_session/a/_mock/scenario", {"scenario": "failed"})
    assert (health(client, "a")["standing"], health(client, "b")["standing"]) == ({"*": "failed"}, {})


def test_each_session_has_a_journal_of_its_own(client: Client) -> None:
    submit(client, session="a")
    assert client.get("/_session/b/_mock/requests").json()["data"]["requests"] == []


def test_a_reset_ends_the_session_and_no_other(client: Client) -> None:
    submit(client, session="a")
    submit(client, session="b")
    client.post("/_session/a/_mock/reset")
    assert (health(client)["sessions"], health(client, "b")["predictions"]) == (["b"], 1)


def test_the_server_lists_its_sessions(client: Client) -> None:
    submit(client, session="b")
    submit(client, session="a")
    assert health(client)["sessions"] == ["a", "b"]


@pytest.mark.parametrize("name", ["%2e%2e", ".hidden", "a%2fb", "a b", "x" * 65, "é", ""])
def test_a_name_that_is_none_is_refused(client: Client, name: str) -> None:
    assert client.get(f"/_session/{name}/_mock/health").status_code in {400, 404}


def test_ids_of_the_same_seed_are_the_same_in_each_session(make_client: MakeClient) -> None:
    client = make_client(seed=7)
    ids = {submit(client, session=each).json()["data"]["id"] for each in ("a", "b")}
    assert len(ids) == 1


def test_sessions_live_in_a_database_too(make_client: MakeClient, tmp_path: object) -> None:
    client = make_client(store=f"sqlite:///{tmp_path}/s.db")
    submit(client, session="a")
    client.post("/_session/a/_mock/faults", {"fault": "503; on=submit"})
    client.post("/_session/a/_mock/clock", {"freeze": True})
    assert [submit(client, session=each).status_code for each in ("a", "b")] == [503, 200]
    assert (health(client)["sessions"], health(client, "a")["running"]) == (["a", "b"], False)
    client.post("/_session/a/_mock/reset")
    assert health(client)["sessions"] == ["b"]


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/v3/balance", "/outputs/x", "/uploads/x", "/_mock/outputs/x"]
)
def test_a_request_without_a_key_begins_no_session(client: Client, path: str) -> None:
    client.get(f"/_session/a{path}", headers={"Authorization": ""})
    assert health(client)["sessions"] == []


@pytest.mark.parametrize("path", ["/outputs/{}/0.png", "/uploads/{}.png"])
def test_no_file_is_found_in_a_session_that_there_is_not(client: Client, path: str) -> None:
    answer = client.get("/_session/a" + path.format("0" * 32))
    assert (answer.status_code, answer.json()["message"]) == (404, "There is no session a.")


def journal(client: Client, session: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/_session/{session}/_mock/requests").json()["data"]["requests"]
    return found


def test_what_leads_nowhere_is_in_the_journal_of_a_session_that_there_is(client: Client) -> None:
    submit(client, session="a")
    client.get("/_session/a/nothing")
    assert [each["status"] for each in journal(client, "a")] == [200, 404]


def test_a_first_submit_that_is_refused_is_in_the_journal(client: Client) -> None:
    client.post(f"/_session/a{SUBMIT}", {"prompt": 5})
    assert [each["status"] for each in journal(client, "a")] == [400]


def test_a_reset_removes_the_folder_of_the_session(client: Client, tmp_path: Path) -> None:
    url = submit(client, key="ms_a").json()["data"]["urls"]["get"]
    client.post("/_session/a/_mock/clock", {"advance": "1m"})
    client.get(client.get(url).json()["data"]["outputs"][0])
    folders = list(tmp_path.glob("*/sessions/*"))
    client.post("/_session/a/_mock/reset")
    assert ([each.name for each in folders], list(tmp_path.glob("*/sessions/*"))) == (["a"], [])


def test_a_session_that_is_only_asked_has_no_folder(client: Client, tmp_path: Path) -> None:
    submit(client, session="a")
    assert list(tmp_path.glob("*/sessions")) == []


def test_of_many_desks_those_asked_for_last_stay_at_hand() -> None:
    def make(session: str) -> Any:
        return f"desk {session}"

    desks = Desks(make, most=2)
    for each in "abac":
        desks.named(each)
    assert [desks.at_hand(each) is not None for each in ["", *"abc"]] == [True, True, False, True]


@pytest.mark.parametrize("key", ["ms_", "ms_..", "ms_a b", "ms_tests/test_x.py"])
def test_a_key_that_names_no_session_is_refused(client: Client, key: str) -> None:
    assert submit(client, key=key).status_code == 400


def test_more_may_follow_the_session_in_a_key(client: Client) -> None:
    submit(client, key="ms_a.and-more")
    assert health(client)["sessions"] == ["a"]


def test_a_session_by_itself_tells_where_its_page_is(client: Client) -> None:
    answer = client.get("/_session/a")
    assert (answer.status_code, "/_session/a/_mock/" in answer.json()["message"]) == (400, True)
