"""Sees who is at work in this process, and may be about to sleep."""

import asyncio
import sys
import threading
from collections.abc import Container, Hashable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from types import CoroutineType, FrameType
from typing import Any

OWN = "wavemock-"
"""How the names of this package's own threads begin."""

_CONVERSATIONS = {"http.client", "select", "selectors", "socket", "ssl"}
_JOINS = {"_wait_for_tstate_lock", "join"}
# A task that is innermost in one of these waits for another, or for a thread.
_WAITING = {"asyncio.queues", "asyncio.taskgroups", "asyncio.tasks", "asyncio.threads"}
# The same in anyio: a group waits for its tasks, and in its pytest plugin a task waits for the test.
_ANYIO = "anyio._backends._asyncio"
_ANYIO_WAITING = {"__aexit__", "_call_in_runner_task", "run_sync_in_worker_thread"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What somebody is at, which is another thing as soon as it does something else.

    `talks` says that it may be a conversation with a server, which takes as long as it takes.
    """

    at: Hashable
    talks: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendance:
    """Who is at work, each at what; and the loops that run, with the identifiers of their threads."""

    workers: dict[Hashable, Post] = field(default_factory=dict)
    loops: dict[asyncio.AbstractEventLoop, int] = field(default_factory=dict)


def threads_at_work(*, but: Set[int], bystanders: Set[threading.Thread]) -> Attendance:
    """Every thread that does not wait for another, and the loops of those that wait in one.

    Except those whose identifiers are in `but`, the bystanders, and this package's own.
    """
    found = Attendance()
    threads = threading.enumerate()
    frames = sys._current_frames()
    for thread in threads:
        if thread in bystanders or thread.ident in but or thread.name.startswith(OWN):
            continue
        frame = frames.get(thread.ident) if thread.ident is not None else None
        if frame is None:  # it is just being started
            found.workers[thread] = Post(at=None)
        elif (loop := _loop_that_waits(frame)) is not None:
            found.loops[loop] = thread.ident or 0
        elif not _waits(frame, threads):
            talks = frame.f_globals.get("__name__") in _CONVERSATIONS
            found.workers[thread] = Post(at=(id(frame), frame.f_lasti), talks=talks)
    return found


def _waits(frame: FrameType, threads: Container[threading.Thread]) -> bool:
    """Whether a thread waits for another, which has not yet done what it waits for.

    Whoever was told to go on may not have had its turn; its frame is still where it waited.
    """
    module, function = str(frame.f_globals.get("__name__", "")), frame.f_code.co_name
    if module == "threading" and function == "wait":
        waiters = getattr(frame.f_locals.get("self"), "_waiters", ())
        return any(each is frame.f_locals.get("waiter") for each in list(waiters))
    if module == "threading" and function in _JOINS:
        return frame.f_locals.get("self") in threads
    if module == "concurrent.futures.thread" and function == "_worker":
        work: Any = frame.f_locals.get("work_queue")
        return work is not None and work.qsize() == 0
    # A loop that is not made in Python has no frames, but for that of whoever runs it.
    return module.startswith("asyncio.") or (module, function) == ("selectors", "select")


def _loop_that_waits(frame: FrameType) -> asyncio.AbstractEventLoop | None:
    """The loop that a thread is in, where that waits for something to happen."""
    if frame.f_globals.get("__name__") != "selectors":
        return None
    outer: FrameType | None = frame
    while outer is not None:
        if outer.f_code.co_name == "run_forever":
            loop = outer.f_locals.get("self")
            return loop if isinstance(loop, asyncio.AbstractEventLoop) else None
        outer = outer.f_back
    return None


def tasks_at_work(loop: asyncio.AbstractEventLoop, *, but: Container[Hashable]) -> Mapping[Hashable, Post]:
    """Every task of a loop that does not wait for another task or thread. Any thread may ask."""
    return dict(_tasks_at_work(loop, but))


def _tasks_at_work(
    loop: asyncio.AbstractEventLoop, but: Container[Hashable]
) -> Iterator[tuple[Hashable, Post]]:
    if getattr(loop, "_ready", ()):  # something is due in it
        yield loop, Post(at=None)
    try:
        tasks = asyncio.all_tasks(loop)
    except RuntimeError:  # so many come and go that they cannot be listed
        return
    for task in tasks:
        waiter: Any = getattr(task, "_fut_waiter", None)
        if task in but and waiter is not None and not waiter.done():
            continue
        if waiter is None or waiter.done() or not _waits_for_others(task, waiter):
            yield task, Post(at=id(waiter))


def _waits_for_others(task: "asyncio.Task[Any]", waiter: Any) -> bool:
    if isinstance(waiter, asyncio.Task) or type(waiter).__name__ == "_GatheringFuture":
        return True
    callbacks = [each[0] for each in getattr(waiter, "_callbacks", None) or ()]
    if any(getattr(each, "__qualname__", "").startswith("_chain_future.") for each in callbacks):
        return True  # a thread's work, by run_in_executor
    inner: Any = task.get_coro()
    while isinstance(inner, CoroutineType) and isinstance(inner.cr_await, CoroutineType):
        inner = inner.cr_await
    frame = inner.cr_frame if isinstance(inner, CoroutineType) else None
    if frame is None:
        return False
    module = frame.f_globals.get("__name__")
    return module in _WAITING or (module == _ANYIO and frame.f_code.co_name in _ANYIO_WAITING)
