"""The official Python SDK, unmodified, over a real port."""

import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import safetensors
import wavespeed
from PIL import Image, ImageChops, ImageStat

from conftest import Server, StartServer

DEV = "wavespeed-ai/flux-dev-lora"
SCHNELL = "wavespeed-ai/flux-schnell-lora"
PROMPT = {"prompt": "A lighthouse in a storm", "enable_base64_output": False}


@pytest.fixture
def sdk(server: Server) -> wavespeed.Client:
    return wavespeed.Client(api_key="any-key", base_url=server.url)


def fetch(url: str) -> bytes:
    answer = requests.get(url, timeout=30)
    assert answer.status_code == 200
    return answer.content


def test_the_sdk_is_the_one_that_this_was_measured_with() -> None:
    assert wavespeed.__version__ == "2.0.5"


def test_a_run_gives_two_images_of_the_size_that_was_asked_for(sdk: wavespeed.Client) -> None:
    result = sdk.run(DEV, {**PROMPT, "num_images": 2, "size": "640*512"}, poll_interval=0.1)
    images = [Image.open(io.BytesIO(fetch(url))) for url in result["outputs"]]
    assert [image.size for image in images] == [(640, 512), (640, 512)]


def test_schnell_runs_on_nothing_but_a_prompt(sdk: wavespeed.Client) -> None:
    result = sdk.run(SCHNELL, {"prompt": "A lighthouse"}, poll_interval=0.1)
    assert Image.open(io.BytesIO(fetch(result["outputs"][0]))).size == (1024, 1024)


@pytest.mark.parametrize(
    ("model", "given", "rank"),
    [
        ("wavespeed-ai/flux-dev-lora-trainer", {"images_data_url": "https://example.com/a.zip"}, 16),
        (
            "wavespeed-ai/flux-dev-lora-trainer-turbo",
            {"data": "https://example.com/a.zip", "lora_rank": 4},
            4,
        ),
    ],
)
def test_a_trainer_gives_a_lora_that_loads(
    sdk: wavespeed.Client, model: str, given: dict[str, Any], rank: int
) -> None:
    result = sdk.run(model, {**given, "trigger_word": "p3r5on"}, poll_interval=0.1)
    tensors = dict(safetensors.deserialize(fetch(result["outputs"][0])))  # type: ignore[no-untyped-call]
    assert {min(tensor["shape"]) for tensor in tensors.values()} == {rank}


def test_what_a_trainer_made_can_be_used_as_a_lora(sdk: wavespeed.Client) -> None:
    trained = sdk.run("wavespeed-ai/flux-dev-lora-trainer-turbo", {"data": "https://e.com/a.zip"})
    loras = [{"path": trained["outputs"][0], "scale": 1}]
    assert sdk.run(SCHNELL, {"prompt": "p3r5on", "loras": loras}, poll_interval=0.1)["outputs"]


def test_what_was_made_can_be_the_start_of_the_next_image(sdk: wavespeed.Client) -> None:
    first = sdk.run(SCHNELL, {"prompt": "One", "seed": 7, "size": "512*512"}, poll_interval=0.1)["outputs"][0]
    given = {**PROMPT, "image": first, "strength": 0.0, "seed": 8, "size": "512*512"}
    second = sdk.run(DEV, given, poll_interval=0.1)["outputs"][0]
    other = sdk.run(DEV, {**given, "image": ""}, poll_interval=0.1)["outputs"][0]
    assert difference(first, second) < difference(first, other) / 4


def difference(one: str, other: str) -> float:
    """How far two images are apart, per channel and pixel."""
    left, right = (Image.open(io.BytesIO(fetch(url))).convert("RGB") for url in (one, other))
    return sum(ImageStat.Stat(ImageChops.difference(left, right)).mean)


def failing(serve: StartServer, scenario: str, *flags: str) -> wavespeed.Client:
    return wavespeed.Client(api_key="k", base_url=serve("--scenario", scenario, *flags).url)


def test_a_failed_task_is_the_sdks_error_with_the_reason_in_it(serve: StartServer) -> None:
    sdk = failing(serve, "failed")
    with pytest.raises(RuntimeError, match=r"Prediction failed \(task_id: [0-9a-f]{32}\): The model could"):
        sdk.run(SCHNELL, {"prompt": "x"}, poll_interval=0.1)


def test_sync_mode_answers_with_the_outputs_at_once(sdk: wavespeed.Client) -> None:
    result = sdk.run(SCHNELL, {"prompt": "x"}, enable_sync_mode=True)
    assert fetch(result["outputs"][0])


def test_sync_mode_that_takes_too_long_says_where_to_look_later(serve: StartServer) -> None:
    sdk = failing(serve, "stuck", "--sync-timeout", "0.3")
    result = sdk.run_no_throw(SCHNELL, {"prompt": "x"}, enable_sync_mode=True)
    assert (result["status"], "Query the result later at" in result["error"]) == ("processing", True)


def test_sync_mode_of_a_failing_task_raises_its_error(serve: StartServer) -> None:
    sdk = failing(serve, "failed")
    with pytest.raises(RuntimeError, match="Prediction failed"):
        sdk.run(SCHNELL, {"prompt": "x"}, enable_sync_mode=True)


def test_a_stuck_task_ends_in_the_sdks_own_time_limit(serve: StartServer) -> None:
    sdk = failing(serve, "stuck")
    with pytest.raises(TimeoutError, match=r"timed out after 0\.5 seconds"):
        sdk.run(SCHNELL, {"prompt": "x"}, timeout=0.5, poll_interval=0.1)


def test_a_request_out_of_range_is_refused_with_the_reason_in_the_sdks_error(sdk: wavespeed.Client) -> None:
    with pytest.raises(RuntimeError, match=r"HTTP 400.*num_inference_steps.*at most 8"):
        sdk.run(SCHNELL, {"prompt": "x", "num_inference_steps": 9})


def test_a_wrong_key_is_refused_as_401(serve: StartServer) -> None:
    sdk = wavespeed.Client(api_key="wrong", base_url=serve("--api-key", "right").url)
    with pytest.raises(RuntimeError, match="HTTP 401"):
        sdk.run(SCHNELL, {"prompt": "x"})


def test_many_tasks_at_once_all_end_well(sdk: wavespeed.Client) -> None:
    def run(number: int) -> str:
        given = {"prompt": f"Picture {number}", "size": "512*512"}
        return str(sdk.run(SCHNELL, given, poll_interval=0.2)["outputs"][0])

    with ThreadPoolExecutor(16) as pool:
        outputs = list(pool.map(run, range(32)))
    assert len(set(outputs)) == 32


WHOLE = ["created", "processing", "completed"]
STORIES = {
    "normal": WHOLE,
    "instant": ["created", "completed"],
    "slow": WHOLE,
    "queued": WHOLE,
    "failed": ["created", "processing", "failed"],
    "stuck": ["created", "processing"],
    "nsfw": WHOLE,
}


def test_fifty_interleaved_tasks_each_see_their_own_story(serve: StartServer) -> None:
    url = serve().url
    names = [list(STORIES)[number % len(STORIES)] for number in range(50)]
    with requests.Session() as http:
        http.headers["Authorization"] = "Bearer k"
        http.post(f"{url}/_mock/clock", json={"freeze": True})
        answers = [
            http.post(f"{url}/api/v3/{SCHNELL}", json={"prompt": name}, headers={"X-Mock-Scenario": name})
            for name in names
        ]
        stories = {answer.json()["data"]["id"]: [answer.json()["data"]["status"]] for answer in answers}
        for _ in range(60):
            http.post(f"{url}/_mock/clock", json={"advance": 0.75})
            for prediction_id, story in stories.items():
                data = http.get(f"{url}/api/v2/predictions/{prediction_id}/result").json()["data"]
                if story[-1] != data["status"]:
                    story.append(data["status"])
    assert list(stories.values()) == [STORIES[name] for name in names]


def test_a_poll_every_second_is_how_the_sdk_waits(sdk: wavespeed.Client) -> None:
    began = time.monotonic()
    sdk.run(SCHNELL, {"prompt": "x"})
    assert time.monotonic() - began >= 1
