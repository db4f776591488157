"""Moves a clock from one sleeper's waking to the next, when nobody is left who may be about to sleep."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic
from time import sleep as real_sleep
from weakref import WeakSet

from mock_server.testing.attending import OWN, Post, tasks_at_work, threads_at_work
from mock_server.testing.control import WavemockError

_SECOND = 1_000_000_000
_LOOK_SECONDS = 0.0003
# Whoever is at the same thing for longer, in real time, is not waited for until it does something else: it
# waits for another in a way that cannot be seen, such as a lock, or for a server that does not answer.
_PATIENCE_SECONDS = 0.2
_PATIENCE_WITH_SERVERS_SECONDS = 1.0
# Who was not looked at for longer may have done something else and come back.
_FORGET_SECONDS = 0.25


def _set(woken: "asyncio.Future[None]") -> None:
    if not woken.done():
        woken.set_result(None)


@dataclass(eq=False, slots=True, kw_only=True)
class _Sleeper:
    """Somebody asleep until `target`, in nanoseconds; `who` is the identifier of a thread, or a task."""

    target: int
    who: Hashable
    wake: Callable[[], None]


class SleepKeeper:
    """Knows who sleeps until when, and moves the time, in a thread of its own.

    `move` is called with the nanoseconds that will have passed, before those are woken who sleep until then.
    """

    def __init__(self, move: Callable[[int], None]) -> None:
        self.running = False
        self._move = move
        self._slept = 0
        self._changed = threading.Condition()
        self._asleep: list[_Sleeper] = []
        self._waking: set[_Sleeper] = set()
        self._loops: dict[asyncio.AbstractEventLoop, int] = {}
        self._bystanders = WeakSet(set(threading.enumerate()) - {threading.current_thread()})
        self._seen: dict[Hashable, tuple[Post, float]] = {}
        self._looked = 0.0
        self._failure: Exception | None = None
        self._mover = threading.Thread(target=self._move_on, name=f"{OWN}clock", daemon=True)

    def start(self) -> None:
        """Begins to move time as soon as somebody sleeps."""
        self.running = True
        self._mover.start()

    def stop(self) -> None:
        """Ends it, and wakes everybody."""
        with self._changed:
            self.running = False
            self._wake(list(self._asleep))
            self._changed.notify_all()
        self._mover.join()

    def slept(self) -> int:
        """How many nanoseconds have passed."""
        return self._slept

    def sleep(self, seconds: float) -> None:
        """Lets the calling thread sleep. Raises WavemockError where time cannot be moved."""
        gate = threading.Lock()
        gate.acquire()
        self._bystanders.discard(threading.current_thread())
        sleeper = self._lie_down(seconds, threading.get_ident(), gate.release)
        try:
            gate.acquire()
        finally:
            self._get_up(sleeper)
        self._raise_failure()

    async def sleep_in_loop(self, seconds: float) -> None:
        """Lets the calling task sleep. Raises WavemockError where time cannot be moved."""
        loop = asyncio.get_running_loop()
        woken = loop.create_future()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody sleeps in it
                loop.call_soon_threadsafe(_set, woken)

        self._loops[loop] = threading.get_ident()
        sleeper = self._lie_down(seconds, asyncio.current_task(), wake)
        try:
            await woken
        finally:
            self._get_up(sleeper)
        self._raise_failure()

    def _lie_down(self, seconds: float, who: Hashable, wake: Callable[[], None]) -> _Sleeper:
        with self._changed:
            sleeper = _Sleeper(target=self._slept + round(seconds * _SECOND), who=who, wake=wake)
            self._asleep.append(sleeper)
            if self._failure is not None or not self.running:
                self._wake([sleeper])
            self._changed.notify_all()
        return sleeper

    def _get_up(self, sleeper: _Sleeper) -> None:
        with self._changed:
            self._waking.discard(sleeper)
            if sleeper in self._asleep:
                self._asleep.remove(sleeper)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise WavemockError(f"time could not be moved: {self._failure}") from self._failure

    def _wake(self, sleepers: list[_Sleeper]) -> None:
        for sleeper in sleepers:
            self._asleep.remove(sleeper)
            self._waking.add(sleeper)
            sleeper.wake()

    # The rest is for the thread that moves the time.

    def _move_on(self) -> None:
        while self._wait_for_sleepers():
            self._wait_for_workers()
            try:
                self._move_to_next()
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody else is left to wake the sleepers
                with self._changed:
                    self._failure = error
                    self._wake(list(self._asleep))
                return

    def _wait_for_sleepers(self) -> bool:
        with self._changed:
            while self.running and not self._asleep:
                self._changed.wait()
            return self.running

    def _wait_for_workers(self) -> None:
        """Returns when nobody is at work who may be about to sleep for a shorter time than the sleepers."""
        quiet = 0
        while self.running:
            quiet = 0 if self._somebody_works() else quiet + 1
            # A thread that has just been given work looks idle for a moment; two looks apart see it.
            if quiet > 1 or (quiet and self._one_alone()):
                return
            real_sleep(_LOOK_SECONDS)

    def _one_alone(self) -> bool:
        threads = (each for each in threading.enumerate() if not each.name.startswith(OWN))
        return not self._loops and sum(each not in self._bystanders for each in threads) < 2

    def _somebody_works(self) -> bool:
        """Whether somebody is at work who has not been waited for long enough."""
        found, now = self._workers(), monotonic()
        known = self._seen if now - self._looked < _FORGET_SECONDS else {}
        self._looked = now
        self._seen = {who: (post, _since(known.get(who), post, now)) for who, post in found.items()}
        return any(
            now - since <= (_PATIENCE_WITH_SERVERS_SECONDS if post.talks else _PATIENCE_SECONDS)
            for post, since in self._seen.values()
        )

    def _workers(self) -> dict[Hashable, Post]:
        with self._changed:
            found: dict[Hashable, Post] = dict.fromkeys(self._waking, Post(at=None))
            asleep = {sleeper.who for sleeper in self._asleep}
        threads = {who for who in asleep if isinstance(who, int)}
        seen = threads_at_work(but=threads, bystanders=set(self._bystanders))
        found.update(seen.workers)
        self._loops.update(seen.loops)
        for loop, thread in list(self._loops.items()):
            if loop.is_closed():
                del self._loops[loop]
            elif thread not in threads:
                found.update(tasks_at_work(loop, but=asleep))
        return found

    def _move_to_next(self) -> None:
        with self._changed:
            if not self._asleep:
                return
            target = max(self._slept, min(sleeper.target for sleeper in self._asleep))
        self._move(target)
        with self._changed:
            self._slept = target
            self._wake([sleeper for sleeper in self._asleep if sleeper.target <= target])


def _since(known: tuple[Post, float] | None, post: Post, now: float) -> float:
    return known[1] if known is not None and known[0] == post else now
