"""The time that everything on the server goes by."""

import time
from collections.abc import Callable
from dataclasses import dataclass
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
    """How a server's time stands to the machine's: shifted by `offset`, or standing still at `frozen_at`.

    Both in milliseconds. Frozen records, so that a store can keep one and several processes can share it.
    """

    offset: int = 0
    frozen_at: int | None = None

    def at(self, real: int) -> int:
        """The server's time when the machine's is `real`."""
        return real + self.offset if self.frozen_at is None else self.frozen_at

    def freeze(self, real: int) -> "ClockState":
        """Time stands still from now on."""
        return ClockState(offset=self.offset, frozen_at=self.at(real))

    def advance(self, by: int) -> "ClockState":
        """Time jumps ahead by `by` milliseconds, whether it runs or stands still; never back."""
        if by < 0:
            raise ValueError("time can only be moved ahead")
        if self.frozen_at is None:
            return ClockState(offset=self.offset + by)
        return ClockState(offset=self.offset, frozen_at=self.frozen_at + by)

    def resume(self, real: int) -> "ClockState":
        """Time runs on from where it stands, at the machine's pace."""
        return ClockState(offset=self.at(real) - real)


class ClockShelf(Protocol):
    """Where a clock's state is kept; a store is one."""

    def clock_state(self) -> ClockState:
        """The state as it stands."""
        ...

    def change_clock(self, change: Callable[[ClockState], ClockState]) -> ClockState:
        """Replaces the state by what `change` makes of it, in one step, and returns the new one."""
        ...


class ManualClock:
    """A clock that can be frozen, advanced and resumed; its state lives on a shelf that others may share."""

    def __init__(self, *, real: Clock, shelf: ClockShelf) -> None:
        self._real = real
        self._shelf = shelf

    def now(self) -> int:
        """The server's time."""
        return self._shelf.clock_state().at(self._real.now())

    def running(self) -> bool:
        """Whether time runs, or stands still."""
        return self._shelf.clock_state().frozen_at is None

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

    def resume(self) -> ClockState:
        """Lets time run again."""
        return self._shelf.change_clock(lambda state: state.resume(self._real.now()))
