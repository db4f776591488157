"""Who counts as at work while others sleep: whoever may sleep next, and nobody who waits for a sleeper."""

import asyncio
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mock_server.testing.attending import tasks_at_work, threads_at_work


class Held:
    """What others wait for in these tests, until it is let go."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.future: Future[None] = Future()
        self.queue: queue.Queue[None] = queue.Queue()
        self.lock = threading.Lock()
        self.lock.acquire()
        self.thread = threading.Thread(target=self.lock.acquire)
        self.thread.start()

    def let_go(self) -> None:
        self.event.set()
        self.future.set_result(None)
        self.queue.put(None)
        self.lock.release()
        self.thread.join()


def run_a_loop(held: Held) -> None:
    async def wait() -> None:
        while not held.event.is_set():  # noqa: ASYNC110 - the loop has to wait by itself
            await asyncio.sleep(0.01)

    asyncio.run(wait())


def wait_for_a_pool(held: Held) -> None:
    with ThreadPoolExecutor(1) as pool:
        list(pool.map(lambda _: held.event.wait(), range(1)))


WAITS: list[Callable[[Held], Any]] = [
    lambda held: held.event.wait(),
    lambda held: held.future.result(),
    lambda held: held.queue.get(),
    lambda held: held.thread.join(),
    wait_for_a_pool,
    run_a_loop,
]


def comes_true(check: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not (found := check()) and time.monotonic() < deadline:
        time.sleep(0.001)
    return found


def at_work(thread: threading.Thread) -> bool:
    return thread in threads_at_work(but=set(), bystanders=set()).workers


@pytest.mark.parametrize("wait", WAITS)
def test_a_thread_that_waits_for_another_is_not_at_work(wait: Callable[[Held], Any]) -> None:
    held = Held()
    thread = threading.Thread(target=wait, args=(held,))
    thread.start()
    assert comes_true(lambda: not at_work(thread))
    held.let_go()
    thread.join()


def test_a_thread_that_waits_for_nobody_known_is_at_work() -> None:
    held = Held()
    assert at_work(held.thread)
    held.let_go()


def test_a_thread_that_was_told_to_go_on_is_at_work_before_it_has_its_turn() -> None:
    told = threading.Condition()

    def wait() -> None:
        with told:
            told.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    assert comes_true(lambda: not at_work(thread))
    with told:
        told.notify()
        assert at_work(thread)  # it cannot go on: this thread has the lock
    thread.join()


def test_an_idle_thread_of_a_pool_is_not_at_work() -> None:
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.current_thread).result()
        assert comes_true(lambda: not at_work(thread))


def test_a_loop_that_waits_in_a_thread_is_found() -> None:
    held = Held()
    thread = threading.Thread(target=run_a_loop, args=(held,))
    thread.start()
    assert comes_true(lambda: thread.ident in threads_at_work(but=set(), bystanders=set()).loops.values())
    held.let_go()
    thread.join()


def names_at_work(wait: Callable[[asyncio.Event, threading.Event], Awaitable[Any]]) -> set[str]:
    """The names of the tasks at work while one named `waiter` waits."""
    found: set[str] = set()

    async def look() -> None:
        event, thread_event = asyncio.Event(), threading.Event()
        waiter = asyncio.create_task(_named(wait, event, thread_event), name="waiter")
        for _ in range(5):
            await asyncio.sleep(0)
        seen = tasks_at_work(asyncio.get_running_loop(), but=set())
        found.update(each.get_name() for each in seen if isinstance(each, asyncio.Task))
        event.set()
        thread_event.set()
        await waiter

    asyncio.run(look())
    return found


async def _named(
    wait: Callable[[asyncio.Event, threading.Event], Awaitable[Any]],
    event: asyncio.Event,
    thread_event: threading.Event,
) -> None:
    await wait(event, thread_event)


async def in_a_group(event: asyncio.Event, _: threading.Event) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(event.wait())


async def in_a_group_of_anyio(event: asyncio.Event, _: threading.Event) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(event.wait)


async def by_an_executor(_: asyncio.Event, thread_event: threading.Event) -> None:
    await asyncio.get_running_loop().run_in_executor(None, thread_event.wait)


@pytest.mark.parametrize(
    "wait",
    [
        lambda event, _: asyncio.gather(event.wait()),
        lambda event, _: asyncio.create_task(event.wait()),
        lambda event, _: asyncio.wait([asyncio.ensure_future(event.wait())]),
        lambda _, thread_event: asyncio.to_thread(thread_event.wait),
        lambda _, thread_event: anyio.to_thread.run_sync(thread_event.wait),
        by_an_executor,
        in_a_group,
        in_a_group_of_anyio,
    ],
)
def test_a_task_that_waits_for_others_is_not_at_work(wait: Any) -> None:
    assert "waiter" not in names_at_work(wait)


def test_a_task_that_waits_for_what_may_be_a_server_is_at_work() -> None:
    assert "waiter" in names_at_work(lambda event, _: event.wait())
