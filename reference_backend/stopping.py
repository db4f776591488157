"""When a worker is to stop: at the first signal in good order, at the second at once."""

import signal
import time
from typing import Any


class Stop:
    """Whether the worker was asked to stop, and how urgently.

    After the first asking a job has `grace` seconds to end.
    """

    def __init__(self, *, grace: float) -> None:
        self._grace = grace
        self._until: float | None = None
        self._hurry = False

    def ask(self) -> None:
        """Asks, and the second time urgently."""
        self._hurry = self._until is not None
        self._until = self._until or time.monotonic() + self._grace

    @property
    def asked(self) -> bool:
        """Whether no job may be begun any more."""
        return self._until is not None

    @property
    def over(self) -> bool:
        """Whether a job that was begun has to be given up."""
        return self.hurried or (self.asked and self._until is not None and time.monotonic() >= self._until)

    @property
    def hurried(self) -> bool:
        """Whether it has to be given up without a step more."""
        return self._hurry

    def listen(self) -> None:
        """Asks whenever this process gets SIGTERM or SIGINT."""
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._on_signal)

    def _on_signal(self, *_: Any) -> None:
        self.ask()
