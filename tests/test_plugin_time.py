"""The fixture `virtual_time`: sleeps that take no time, here and on the server alike."""

import asyncio
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import pairwise
from types import ModuleType
from typing import Any

import httpx
import pytest
import wavespeed

from mock_server.testing import VirtualTime, Wavemock, WavemockError, moving
from mock_server.testing.moving import SleepKeeper

TRAINER = "wavespeed-ai/flux-dev-lora-trainer"
TRAINING = {"images_data_url": "https://example.com/a.zip", "trigger_word": "p3r5on"}
TEN_MINUTES = "created=0s; processing=10m"


@pytest.fixture
def sdk(wavemock: Wavemock) -> wavespeed.Client:
    return wavespeed.Client(api_key="any-key", base_url=wavemock.url)


@pytest.mark.wavemock(scenario=TEN_MINUTES)
def test_a_ten_minute_training_runs_with_the_unmodified_sdk(
    sdk: wavespeed.Client, wavemock: Wavemock, virtual_time: VirtualTime
) -> None:
    assert sdk.run(TRAINER, TRAINING, poll_interval=5)["outputs"]
    assert virtual_time.slept == 600
    wavemock.assert_called(kind="poll", times=121)


@pytest.mark.wavemock(scenario="stuck")
def test_the_clients_own_time_limit_ends_at_its_virtual_moment(
    sdk: wavespeed.Client, virtual_time: VirtualTime
) -> None:
    with pytest.raises(TimeoutError, match="timed out after 60 seconds"):
        sdk.run(TRAINER, TRAINING, poll_interval=5, timeout=60)
    assert virtual_time.slept == 60


@pytest.mark.wavemock(scenario=TEN_MINUTES)
def test_polls_come_in_exactly_even_steps_of_the_servers_clock(
    sdk: wavespeed.Client, wavemock: Wavemock, virtual_time: VirtualTime
) -> None:
    sdk.run(TRAINER, TRAINING, poll_interval=2.5)
    at = [each.at for each in wavemock.requests if each.kind == "poll"]
    assert {later - earlier for earlier, later in pairwise(at)} == {timedelta(seconds=2.5)}


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize("name", ["time", "monotonic", "perf_counter"])
def test_every_clock_of_the_process_tells_what_was_slept(name: str) -> None:
    seconds, nanoseconds = getattr(time, name), getattr(time, f"{name}_ns")
    before, before_ns = seconds(), nanoseconds()
    time.sleep(90)
    assert (round(seconds() - before, 3), nanoseconds() - before_ns) == (90, 90_000_000_000)


@pytest.mark.usefixtures("virtual_time")
def test_time_stands_still_between_sleeps() -> None:
    first = time.monotonic_ns()
    subprocess.run([sys.executable, "-c", ""], check=True)
    assert time.monotonic_ns() == first


def test_the_process_and_the_server_agree_on_the_moment(
    wavemock: Wavemock, virtual_time: VirtualTime
) -> None:
    time.sleep(12.5)
    server = datetime.fromisoformat(wavemock.read_clock())
    assert (server.timestamp(), server) == (time.time(), virtual_time.now)


def test_what_is_below_a_millisecond_adds_up_on_the_server(
    wavemock: Wavemock, virtual_time: VirtualTime
) -> None:
    before = datetime.fromisoformat(wavemock.read_clock())
    for _ in range(10):
        time.sleep(0.0004)
    assert datetime.fromisoformat(wavemock.read_clock()) - before == timedelta(milliseconds=4)


def test_threads_that_sleep_at_once_do_not_add_up(virtual_time: VirtualTime) -> None:
    def doze(_: int) -> None:
        for _ in range(12):
            time.sleep(5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(doze, range(8)))
    assert virtual_time.slept == 60


def moments(log: list[tuple[float, str]], name: str, pause: float, times: int, began: float) -> None:
    for _ in range(times):
        time.sleep(pause)
        log.append((time.monotonic() - began, name))


def test_threads_wake_in_the_order_of_their_moments(virtual_time: VirtualTime) -> None:
    log: list[tuple[float, str]] = []
    began = time.monotonic()
    threads = [
        threading.Thread(target=moments, args=(log, "slow", 5, 2, began)),
        threading.Thread(target=moments, args=(log, "quick", 2, 4, began)),
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    expected = [(2, "quick"), (4, "quick"), (5, "slow"), (6, "quick"), (8, "quick"), (10, "slow")]
    assert [(round(at), name) for at, name in log] == expected


@pytest.mark.wavemock(scenario=TEN_MINUTES)
def test_parallel_trainings_of_the_sdk_take_as_long_as_one(
    sdk: wavespeed.Client, wavemock: Wavemock, virtual_time: VirtualTime
) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: sdk.run(TRAINER, TRAINING, poll_interval=20), range(4)))
    assert virtual_time.slept == 600
    for task in wavemock.predictions:
        wavemock.assert_called(kind="poll", prediction=task.id, times=31)


async def train(http: httpx.AsyncClient, pause: float) -> None:
    submitted = await http.post(f"/api/v3/{TRAINER}", json=TRAINING)
    url = submitted.json()["data"]["urls"]["get"]
    while (await http.get(url)).json()["data"]["status"] != "completed":  # noqa: ASYNC110 - as clients do
        await asyncio.sleep(pause)


def asynchronously(wavemock: Wavemock, *pauses: float) -> None:
    async def all_of_them() -> None:
        headers = {"Authorization": "Bearer any-key"}
        async with httpx.AsyncClient(base_url=wavemock.url, headers=headers, trust_env=False) as http:
            await asyncio.gather(*(train(http, pause) for pause in pauses))

    asyncio.run(all_of_them())


@pytest.mark.wavemock(scenario=TEN_MINUTES)
def test_an_asynchronous_client_trains_in_no_time(wavemock: Wavemock, virtual_time: VirtualTime) -> None:
    asynchronously(wavemock, 10)
    assert virtual_time.slept == 600
    wavemock.assert_called(kind="poll", times=61)


@pytest.mark.wavemock(scenario=TEN_MINUTES)
def test_asynchronous_trainings_in_parallel_take_as_long_as_one(
    wavemock: Wavemock, virtual_time: VirtualTime
) -> None:
    asynchronously(wavemock, 20, 30, 60)
    assert virtual_time.slept == 600
    found = [len(wavemock.assert_called(kind="poll", prediction=task.id)) for task in wavemock.predictions]
    assert sorted(found) == [11, 21, 31]


def test_a_sleep_that_is_cancelled_moves_nothing() -> None:
    moves: list[int] = []
    keeper = SleepKeeper(moves.append)
    keeper.start()

    async def cancel() -> None:
        sleeper = asyncio.create_task(keeper.sleep_in_loop(2))
        await asyncio.sleep(0)
        sleeper.cancel()
        await keeper.sleep_in_loop(5)

    asyncio.run(cancel())
    keeper.stop()
    assert moves == [5_000_000_000]


def test_a_sleep_in_a_loop_gives_its_result(virtual_time: VirtualTime) -> None:
    assert asyncio.run(asyncio.sleep(7, "awake")) == "awake"
    assert virtual_time.slept == 7


def test_a_sleep_that_a_pool_is_given_is_the_clients(virtual_time: VirtualTime) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 30).result()
    assert virtual_time.slept == 30


@pytest.mark.usefixtures("virtual_time")
def test_time_limits_of_the_standard_library_are_real() -> None:
    assert not threading.Event().wait(0.001)
    with pytest.raises(queue.Empty):
        queue.Queue[int]().get(timeout=0.001)

    async def wait() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(wait())


@pytest.mark.usefixtures("virtual_time")
def test_a_sleep_of_less_than_nothing_is_refused_as_ever() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        time.sleep(-1)


def client_module(text: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("somebodys_client")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(text, module.__dict__)
    return module


def patched(wavemock: Wavemock, meanwhile: Callable[[], Any]) -> None:
    found = VirtualTime(wavemock)
    found.start()
    try:
        meanwhile()
    finally:
        found.stop()


def test_names_that_a_client_has_imported_are_moved_and_put_back(
    wavemock: Wavemock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.sleep
    module = client_module("from time import sleep as pause", monkeypatch)
    seen: list[object] = []
    patched(wavemock, lambda: seen.append(module.pause))
    assert seen != [real]
    assert module.pause is real


def test_a_module_that_is_imported_meanwhile_gets_the_real_functions_in_the_end(
    wavemock: Wavemock, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules: list[ModuleType] = []
    text = "from time import monotonic\nfrom asyncio import sleep"
    patched(wavemock, lambda: modules.append(client_module(text, monkeypatch)))
    assert (modules[0].monotonic, modules[0].sleep) == (time.monotonic, asyncio.sleep)


def test_everything_is_as_it_was_in_the_end(wavemock: Wavemock) -> None:
    names = ("sleep", "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
    before = [*(getattr(time, name) for name in names), asyncio.sleep, asyncio.tasks.sleep]
    patched(wavemock, lambda: None)
    assert [*(getattr(time, name) for name in names), asyncio.sleep, asyncio.tasks.sleep] == before


def test_whoever_still_sleeps_in_the_end_is_woken() -> None:
    keeper = SleepKeeper(lambda _: None)
    keeper.start()
    sleeper = threading.Thread(target=keeper.sleep, args=(5,))
    sleeper.start()
    # This thread is at work and not asleep, which holds time up; so the other sleeps on.
    keeper.stop()
    sleeper.join()
    assert keeper.slept() == 0


def test_advancing_the_session_moves_the_client_too(wavemock: Wavemock, virtual_time: VirtualTime) -> None:
    before = time.monotonic()
    wavemock.advance("90s")
    assert (round(time.monotonic() - before, 3), virtual_time.slept) == (90, 90)


@pytest.mark.wavemock(scenario="created=1s; processing=3s")
def test_an_advance_tells_what_it_made_happen(sdk: wavespeed.Client, virtual_time: VirtualTime) -> None:
    sdk._submit(TRAINER, TRAINING)
    assert [each.text for each in virtual_time.advance("2s")] == ["created -> processing"]
    assert [each.text for each in virtual_time.advance(2)] == ["processing -> completed"]


@pytest.mark.parametrize("by", ["a while", -1])
def test_an_advance_by_nonsense_is_refused(by: Any, virtual_time: VirtualTime) -> None:
    with pytest.raises(WavemockError, match="advance"):
        virtual_time.advance(by)


@pytest.mark.usefixtures("virtual_time")
def test_nobody_else_moves_the_clock_meanwhile(wavemock: Wavemock) -> None:
    for move in (wavemock.resume, wavemock.reset, lambda: wavemock.speed(60)):
        with pytest.raises(WavemockError, match="virtual_time moves the clock"):
            move()


def test_a_sleep_ends_with_an_error_where_the_clock_cannot_be_moved() -> None:
    def refuse(_: int) -> None:
        raise WavemockError("the server does not answer")

    keeper = SleepKeeper(refuse)
    keeper.start()
    for _ in range(2):
        with pytest.raises(WavemockError, match="time could not be moved: the server does not answer"):
            keeper.sleep(5)
    keeper.stop()


def test_a_thread_that_never_sleeps_does_not_hold_up_time_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "_PATIENCE_SECONDS", 0.02)
    held = threading.Lock()
    held.acquire()
    keeper = SleepKeeper(lambda _: None)
    worker = threading.Thread(target=held.acquire)
    worker.start()
    keeper.start()
    for _ in range(3):
        keeper.sleep(5)
    held.release()
    worker.join()
    keeper.stop()
    assert keeper.slept() == 15_000_000_000
