"""The time that everything on the server goes by."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol


class Clock(Protocol):
    """Tells the time in milliseconds since the Unix epoch."""

    def now(self) -> int:
        """The present moment."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> int:
        """Wall-clock time."""
        return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockState:
    """How a server's time stands to the machine's.

    Shifted by `offset`, `speed` times as fast since the machine's time was `since`, or standing still at
    `frozen_at`; all but the speed in milliseconds. Frozen records, so that a store can keep one and several
    processes can share it.
    """

    offset: int = 0
    frozen_at: int | None = None
    speed: float = 1
    since: int = 0

    def at(self, real: int) -> int:
        """The server's time when the machine's is `real`."""
        if self.frozen_at is not None:
            return self.frozen_at
        return real + self.offset + round((real - self.since) * (self.speed - 1))

    def freeze(self, real: int) -> "ClockState":
        """Time stands still from now on."""
        return replace(self, frozen_at=self.at(real))

    def advance(self, by: int) -> "ClockState":
        """Time jumps ahead by `by` milliseconds, whether it runs or stands still; never back."""
        if by < 0:
            raise ValueError("time can only be moved ahead")
        if self.frozen_at is None:
            return replace(self, offset=self.offset + by)
        return replace(self, frozen_at=self.frozen_at + by)

    def run(self, real: int, *, speed: float | None = None) -> "ClockState":
        """Time runs on from where it stands, at the speed it had or, if given, at `speed`."""
        speed = self.speed if speed is None else speed
        return ClockState(offset=self.at(real) - real, speed=speed, since=real)

    def hurry(self, real: int, speed: float) -> "ClockState":
        """The speed changes, now or, while time stands still, for when it runs again."""
        return self.run(real, speed=speed) if self.frozen_at is None else replace(self, speed=speed)


class ClockShelf(Protocol):
    """Where a clock's state is kept; a store is one."""

    def clock_state(self) -> ClockState:
        """The state as it stands."""
        ...

    def change_clock(self, change: Callable[[ClockState], ClockState]) -> ClockState:
        """Replaces the state by what `change` makes of it, in one step, and returns the new one."""
        ...


class ManualClock:
    """A clock that can be frozen, advanced and sped up; its state lives on a shelf that others may share."""

    def __init__(self, *, real: Clock, shelf: ClockShelf) -> None:
        self._real = real
        self._shelf = shelf

    def now(self) -> int:
        """The server's time."""
        return self._shelf.clock_state().at(self._real.now())

    def speed(self) -> float:
        """How many seconds pass here in one of the machine's; 0 while time stands still."""
        state = self._shelf.clock_state()
        return state.speed if state.frozen_at is None else 0

    def state(self) -> ClockState:
        """How this clock stands to the machine's."""
        return self._shelf.clock_state()

    def ahead(self) -> int:
        """By how many milliseconds this clock differs from the machine's."""
        real = self._real.now()
        return self._shelf.clock_state().at(real) - real

    def freeze(self) -> ClockState:
        """Stops time where it is."""
        return self._shelf.change_clock(lambda state: state.freeze(self._real.now()))

    def advance(self, by: int) -> ClockState:
        """Moves time ahead by `by` milliseconds."""
        return self._shelf.change_clock(lambda state: state.advance(by))

    def hurry(self, speed: float) -> ClockState:
        """Makes time run `speed` times as fast as the machine's."""
        return self._shelf.change_clock(lambda state: state.hurry(self._real.now(), speed))

    def resume(self) -> ClockState:
        """Lets time run again."""
        return self._shelf.change_clock(lambda state: state.run(self._real.now()))
