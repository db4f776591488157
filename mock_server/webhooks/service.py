"""Sends webhooks in the background, as the clock runs."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from mock_server.webhooks import deliveries
from mock_server.webhooks.courier import Courier, Office, run_due

T = TypeVar("T")

_LOOK_SECONDS = 0.05
_PAUSE_SECONDS = 1.0
_log = logging.getLogger("wavemock")


class Bell:
    """Wakes one loop from any thread. What rings while nobody waits is heard at the next wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rung = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def wake(self) -> None:
        """Rings it; costs little, and never waits."""
        with self._lock, contextlib.suppress(RuntimeError):  # the loop may have been closed
            if self._loop is None:
                self._rung.set()
            else:
                self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self) -> None:
        """Returns when it has been rung since the last time."""
        with self._lock:
            self._loop = asyncio.get_running_loop()
        await self._rung.wait()
        self._rung.clear()


async def serve_forever(courier: Courier, offices: Callable[[], list[Office]], bell: Bell) -> None:
    """Sends what falls due in any session, until cancelled. A slow receiver holds up its own session only.

    `offices` gives every session that may have any. Ring the bell whenever a delivery was kept: while nothing
    is pending, this only waits for it. What fell due while no server ran is sent at the start, dated then.
    """
    rounds: dict[str, asyncio.Task[None]] = {}
    rung: set[str] = set()
    try:
        for office in await patiently(partial(courier.run, offices)):
            await patiently(partial(courier.run, _recover, office))
        while True:
            rounds = {name: each for name, each in rounds.items() if not each.done()}
            for office in await patiently(partial(courier.run, offices)):
                rung.add(office.name)
                if office.name not in rounds:
                    rounds[office.name] = asyncio.create_task(_attend(courier, office, rung))
            await bell.wait()
    finally:
        for each in rounds.values():
            each.cancel()
        await asyncio.gather(*rounds.values(), return_exceptions=True)


def _recover(office: Office) -> None:
    deliveries.recover(office.store, office.now())


async def _attend(courier: Courier, office: Office, rung: set[str]) -> None:
    """Sees to one session until nothing is pending. Its name in `rung` says that something may have come."""
    while office.name in rung:
        rung.discard(office.name)
        await patiently(partial(_send_all, courier, office))


async def _send_all(courier: Courier, office: Office) -> None:
    while (first := await courier.run(deliveries.due, office.store)) is not None:
        now = await courier.run(office.now)
        if first.due is not None and first.due <= now:
            await run_due(courier, office, until=now)
        else:
            await asyncio.sleep(_LOOK_SECONDS)


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """What `work` gives, tried until it does: a store can be locked for a while, which must not end this.

    A trouble is told when it begins.
    """
    told = ""
    while True:
        try:
            return await work()
        except Exception as error:  # noqa: BLE001 - nobody is left behind this who could start it again
            trouble = f"{type(error).__name__}: {error}"
            if trouble != told:
                _log.warning("webhooks: %s; more tries follow", trouble)
            told = trouble
            await asyncio.sleep(_PAUSE_SECONDS)
