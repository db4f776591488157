"""When faults strike, and that they are seen."""

import random
from pathlib import Path

import httpx
import pytest

from conftest import Client, MakeClient
from mock_server.faults import Fault, read_fault, text_of

SUBMIT = "/api/v3/wavespeed-ai/flux-schnell-lora"


def arm(client: Client, fault: str) -> str:
    answer = client.post("/_mock/faults", {"fault": fault})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["id"])


def submit(client: Client) -> httpx.Response:
    return client.post(SUBMIT, {"prompt": "x"})


def statuses(client: Client, count: int) -> list[int]:
    return [submit(client).status_code for _ in range(count)]


def test_a_fault_strikes_once_unless_it_is_told_otherwise(client: Client) -> None:
    arm(client, "503; on=submit")
    assert statuses(client, 3) == [503, 200, 200]


def test_a_fault_strikes_as_often_as_it_is_told(client: Client) -> None:
    arm(client, "503; on=submit; times=2")
    assert statuses(client, 3) == [503, 503, 200]


def test_a_fault_can_strike_always(client: Client) -> None:
    arm(client, "503; on=submit; times=always")
    assert set(statuses(client, 5)) == {503}


def test_the_oldest_fault_strikes_first(client: Client) -> None:
    arm(client, "502; on=submit")
    arm(client, "503; on=submit")
    assert statuses(client, 3) == [502, 503, 200]


def test_chance_is_the_same_for_the_same_seed(make_client: MakeClient) -> None:
    found = []
    for seed in (7, 7, 8):
        client = make_client()
        arm(client, f"503; on=submit; probability=0.5; seed={seed}")
        found.append(statuses(client, 24))
    assert found[0] == found[1] != found[2]


def test_chance_strikes_about_as_often_as_it_is_said_to() -> None:
    fault = Fault(kind="503", on="submit", times=None, probability=0.3, seed=1)
    assert 250 < sum(fault.strikes(draw) for draw in range(1000)) < 350


def test_chance_can_be_bounded() -> None:
    fault = Fault(kind="503", on="submit", times=2, probability=0.3, seed=1)
    assert sum(fault.strikes(draw) for draw in range(100)) == 2


def test_a_fault_strikes_only_where_it_belongs(client: Client) -> None:
    task = client.submit()
    arm(client, "503; on=poll")
    assert submit(client).status_code == 200
    assert client.get(f"/api/v3/predictions/{task}").status_code == 503


def test_a_fault_anywhere_strikes_whatever_comes_first(client: Client) -> None:
    arm(client, "503; on=any")
    assert client.get(f"/api/v3/predictions/{'0' * 32}").status_code == 503


def test_a_fault_disarms_itself_when_its_time_is_over(client: Client) -> None:
    arm(client, "503; on=submit; times=always; for=1m")
    client.clock(advance="61s")
    assert submit(client).status_code == 200


def test_a_request_that_is_wrong_is_told_so_and_uses_up_no_fault(client: Client) -> None:
    arm(client, "503; on=submit")
    assert client.post(SUBMIT, {}).status_code == 400
    assert submit(client).status_code == 503


def test_health_shows_what_is_armed(client: Client) -> None:
    arm(client, "503; on=submit; times=2")
    submit(client)
    armed = client.get("/_mock/health").json()["data"]["armed"]
    assert armed == ["503; on=submit; times=2"]


def test_health_shows_nothing_on_a_server_that_was_left_alone(client: Client) -> None:
    assert client.get("/_mock/health").json()["data"]["armed"] == []


def test_what_is_spent_is_no_longer_armed(client: Client) -> None:
    arm(client, "503; on=submit")
    submit(client)
    assert client.get("/_mock/faults").json()["data"]["faults"] == []


def test_a_fault_counts_its_chances_and_strikes(client: Client) -> None:
    arm(client, "503; on=submit; times=3")
    statuses(client, 2)
    fault = client.get("/_mock/faults").json()["data"]["faults"][0]
    assert (fault["chances"], fault["strikes"]) == (2, 2)


def test_one_fault_can_be_disarmed(client: Client) -> None:
    arm(client, "502; on=submit")
    client.request("DELETE", f"/_mock/faults/{arm(client, '503; on=submit')}")
    assert statuses(client, 2) == [502, 200]


def test_all_faults_can_be_disarmed(client: Client) -> None:
    arm(client, "502; on=submit")
    arm(client, "503; on=submit")
    assert client.request("DELETE", "/_mock/faults").json()["data"]["disarmed"] == 2
    assert submit(client).status_code == 200


def test_a_fault_that_is_not_armed_cannot_be_disarmed(client: Client) -> None:
    assert client.request("DELETE", "/_mock/faults/000000000001").status_code == 404


def test_a_fault_of_a_task_counts_for_the_task_wherever_it_strikes(client: Client) -> None:
    task = client.submit(scenario="instant; fault=latency; seconds=0s; on=any")
    client.result(task)
    client.get(client.result(task)["outputs"][0])
    struck = [each["fault"] for each in client.get("/_mock/requests").json()["data"]["requests"]]
    assert [bool(each) for each in struck] == [True, False, False, False]


def test_what_is_spent_makes_room_for_more(client: Client) -> None:
    for _ in range(1000):
        arm(client, "503; on=submit; for=1s")
    client.clock(advance="2s")
    assert client.post("/_mock/faults", {"fault": "503"}).status_code == 200


def test_armed_faults_outlast_any_number_of_requests(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(store=f"sqlite:///{tmp_path}/s.db", journal=5)
    arm(client, "503; on=upload; times=always")
    for _ in range(10):
        submit(client)
    arm(client, "502; on=upload")
    assert len(client.get("/_mock/faults").json()["data"]["faults"]) == 2


def test_a_poll_that_was_held_tells_what_is_true_when_it_is_answered(client: Client) -> None:
    client.clock(resume=True, speed=10_000)
    task = client.submit(scenario="polls; fault=latency; seconds=1h; on=poll; times=always")
    told = [client.result(task) for _ in range(4)]
    assert told[-1]["status"] == "completed"
    assert told[-1]["executionTime"] >= 0


@pytest.mark.parametrize("text", ["503; times=0", "503; times=-1", "503; seed=x"])
def test_a_number_that_makes_no_sense_is_refused(client: Client, text: str) -> None:
    assert client.post("/_mock/faults", {"fault": text}).status_code == 400


def test_a_fault_that_cannot_be_is_refused(client: Client) -> None:
    answer = client.post("/_mock/faults", {"fault": "expired; on=submit"})
    assert (answer.status_code, "there are: output" in answer.json()["message"]) == (400, True)


def test_a_reset_disarms(client: Client) -> None:
    arm(client, "503; on=submit")
    client.post("/_mock/reset")
    assert submit(client).status_code == 200


def test_after_commit_the_task_is_there_though_the_answer_is_not(client: Client) -> None:
    arm(client, "502; on=submit; after-commit=true")
    assert submit(client).status_code == 502
    assert client.get("/_mock/health").json()["data"]["predictions"] == 1


def test_before_commit_there_is_no_task(client: Client) -> None:
    arm(client, "502; on=submit")
    submit(client)
    assert client.get("/_mock/health").json()["data"]["predictions"] == 0


def test_the_journal_tells_what_went_wrong_on_purpose(client: Client) -> None:
    arm(client, "502; on=submit; after-commit=true")
    submit(client)
    entry = client.get("/_mock/requests").json()["data"]["requests"][0]
    assert (entry["fault"], entry["committed"], entry["told"]) == (
        "502; on=submit; times=1; after-commit=true",
        True,
        "",
    )


def test_without_a_connection_a_reset_is_an_exception(client: Client) -> None:
    arm(client, "reset; on=submit")
    with pytest.raises(ConnectionResetError):
        submit(client)


def test_a_fault_reads_as_it_is_written() -> None:
    chance = random.Random(5)
    for _ in range(300):
        kind = chance.choice(["429; retry-after=1500ms", "hang; seconds=3s", "missing; field=urls", "status"])
        more = chance.choice(["", "; on=poll", "; times=always", "; probability=0.25; seed=9", "; for=2m"])
        fault = read_fault(kind + more, what="x")
        assert read_fault(text_of(fault), what="x") == fault
