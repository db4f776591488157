"""The functions that stand in for those of `time` and `asyncio` while time is virtual."""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from mock_server.testing.patching import from_client

HOMES = frozenset({"asyncio", "asyncio.tasks", "time"})
"""The modules whose own names are replaced."""
_SECOND = 1_000_000_000


class Timekeeper(Protocol):
    """Whoever passes the time. What is returned is in nanoseconds."""

    running: bool

    def slept(self) -> int:
        """How much virtual time has passed since the beginning."""
        ...

    def sleep(self, seconds: float) -> None:
        """Lets a thread sleep."""
        ...

    def sleep_in_loop(self, seconds: float) -> Coroutine[Any, Any, None]:
        """Lets a task sleep."""
        ...


def replacements(keeper: Timekeeper, *, wall: int) -> dict[tuple[str, str], Callable[..., Any]]:
    """For each function, by module and name, one that goes by virtual time where a client calls it.

    `wall` is the virtual moment as it is now, in nanoseconds since the Unix epoch. When the keeper no longer
    runs, all of them are as the functions that they replace.
    """
    found: dict[tuple[str, str], Callable[..., Any]] = {
        ("time", "sleep"): _sleep(keeper, time.sleep),
        ("asyncio", "sleep"): _sleep_in_loop(keeper, asyncio.sleep),
    }
    for name, began in (
        ("time", wall),
        ("monotonic", time.monotonic_ns()),
        ("perf_counter", time.perf_counter_ns()),
    ):
        found["time", name] = _seconds(keeper, getattr(time, name), began)
        found["time", f"{name}_ns"] = _nanoseconds(keeper, getattr(time, f"{name}_ns"), began)
    return found


def _sleep(keeper: Timekeeper, real: Callable[[float], None]) -> Callable[[float], None]:
    def sleep(seconds: float, /) -> None:
        if keeper.running and seconds > 0 and from_client(sys._getframe(1), carried=True):
            keeper.sleep(seconds)
        else:
            real(seconds)

    return sleep


def _sleep_in_loop(
    keeper: Timekeeper, real: Callable[..., Coroutine[Any, Any, Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def sleep(delay: float, result: Any = None) -> Any:
        # While a coroutine takes its first step, the frame before it is whoever awaits it.
        if not keeper.running or delay <= 0 or not from_client(sys._getframe(1), carried=True):
            return await real(delay, result)
        await keeper.sleep_in_loop(delay)
        return result

    return sleep


def _seconds(keeper: Timekeeper, real: Callable[[], float], began: int) -> Callable[[], float]:
    def tell() -> float:
        virtual = keeper.running and from_client(sys._getframe(1))
        return (began + keeper.slept()) / _SECOND if virtual else real()

    return tell


def _nanoseconds(keeper: Timekeeper, real: Callable[[], int], began: int) -> Callable[[], int]:
    def tell() -> int:
        virtual = keeper.running and from_client(sys._getframe(1))
        return began + keeper.slept() if virtual else real()

    return tell
