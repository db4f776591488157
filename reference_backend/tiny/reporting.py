"""How far a stage of the training is: a progress bar on a terminal, a line now and then elsewhere."""

import sys
import time
from dataclasses import dataclass, field

from tqdm import tqdm


@dataclass(slots=True, kw_only=True)
class Reporter:
    """Reports the steps of one stage."""

    stage: str
    every_s: float = 15.0
    _bar: "tqdm[None] | None" = None
    _last: float = field(default_factory=time.monotonic)

    def step(self, done: int, share: float, *, loss: float) -> None:
        """Say that `done` steps, the given share of the stage, are over."""
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(
                    total=100, desc=self.stage, bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}"
                )
            self._bar.set_postfix(step=done, loss=f"{loss:.4f}", refresh=False)
            self._bar.update(100 * share - self._bar.n)
        elif time.monotonic() - self._last >= self.every_s or share >= 1:
            self._last = time.monotonic()
            print(f"{self.stage}: step {done}, {share:.0%}, loss {loss:.4f}", flush=True)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
