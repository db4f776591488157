"""The account's level and credit."""

import asyncio
from pathlib import Path

import httpx
import pytest

from conftest import Client, MakeClient

SUBMIT = "/api/v3/wavespeed-ai/flux-schnell-lora"


def submit(client: Client, images: int = 1) -> httpx.Response:
    return client.post(SUBMIT, {"prompt": "x", "num_images": images})


def level(client: Client, name: str) -> None:
    assert client.post("/_mock/account", {"level": name}).status_code == 200


def test_without_a_level_there_are_no_limits(client: Client) -> None:
    assert {submit(client).status_code for _ in range(20)} == {200}


def test_bronze_gives_two_images_a_minute(client: Client) -> None:
    level(client, "bronze")
    assert [submit(client).status_code for _ in range(3)] == [200, 200, 429]


def test_a_429_says_when_the_next_image_is_to_be_had(client: Client) -> None:
    level(client, "bronze")
    submit(client)
    client.clock(advance="20s")
    submit(client)
    assert submit(client).headers["Retry-After"] == "40"


def test_who_waits_as_told_is_served(client: Client) -> None:
    level(client, "bronze")
    for _ in range(3):
        answer = submit(client)
    client.clock(advance=f"{answer.headers['Retry-After']}s")
    assert submit(client).status_code == 200


def test_images_count_and_not_requests(client: Client) -> None:
    level(client, "bronze")
    assert [submit(client, images=2).status_code, submit(client).status_code] == [200, 429]


def test_more_tasks_than_may_run_wait_in_created(client: Client) -> None:
    level(client, "bronze")
    first = [client.submit(scenario="processing=90s; created=0s") for _ in range(2)]
    client.clock(advance="61s")
    third = client.submit(scenario="instant; progression=time; created=0s; processing=5s")
    assert client.result(third)["status"] == "created"
    client.clock(advance="30s")
    assert (client.result(first[0])["status"], client.result(third)["status"]) == ("completed", "processing")


def test_a_task_behind_ones_that_never_end_never_begins(client: Client) -> None:
    level(client, "bronze")
    for _ in range(2):
        client.submit(scenario="stuck")
    client.clock(advance="61s")
    waiting = client.submit()
    client.clock(advance="10h")
    assert client.result(waiting)["status"] == "created"


def test_the_clock_tells_when_images_are_available_again(client: Client) -> None:
    level(client, "bronze")
    submit(client, images=2)
    events = client.clock(advance="61s")["events"]
    assert [each["text"] for each in events if each["what"] == "refilled"] == [
        "2 images of the minute's are available again"
    ]


def test_every_task_is_paid_for(client: Client) -> None:
    submit(client, images=4)
    assert client.get("/_mock/account").json()["data"]["balance"] == pytest.approx(999_999.96)


def test_who_has_no_credit_begins_nothing(client: Client) -> None:
    client.post("/_mock/account", {"balance": 0.005})
    answer = submit(client)
    assert (answer.status_code, "Insufficient credits" in answer.json()["message"]) == (400, True)
    assert client.get("/_mock/health").json()["data"]["predictions"] == 0


def test_a_level_that_there_is_not_is_refused(client: Client) -> None:
    assert client.post("/_mock/account", {"level": "platinum"}).status_code == 400


@pytest.mark.parametrize("scenario", ["manual", "stuck"])
def test_a_task_that_was_ended_by_hand_makes_room_for_the_next(client: Client, scenario: str) -> None:
    level(client, "bronze")
    for _ in range(2):
        task = client.submit(scenario=scenario)
        client.post(f"/_mock/predictions/{task}/advance", {"to": "completed"})
    client.clock(advance="61s")
    waiting = client.submit()
    client.clock(advance="1m")
    assert client.result(waiting)["status"] == "completed"


def test_a_task_that_could_not_be_kept_is_not_paid_for(make_client: MakeClient) -> None:
    client = make_client(keep=1)
    client.submit(scenario="stuck")
    assert submit(client).status_code == 503
    assert client.get("/_mock/account").json()["data"]["balance"] == pytest.approx(999_999.99)


def test_submits_at_once_share_a_minutes_images(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(store=f"sqlite:///{tmp_path}/s.db")
    level(client, "bronze")

    async def crowd() -> list[int]:
        answers = await asyncio.gather(
            *(client.http.post(SUBMIT, json={"prompt": f"{number}"}) for number in range(12))
        )
        return [answer.status_code for answer in answers]

    assert sorted(client.loop.run_until_complete(crowd())) == [200] * 2 + [429] * 10
