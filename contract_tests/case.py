"""The nouns of a verdict: what one case claims, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from contract_tests.exchange import Exchange
    from contract_tests.session import Session

Source = Literal["page", "reading"]
Verdict = Literal["proven", "refuted", "not proven"]
MISHAP = "the suite failed:"
"""How the reason begins where it was not the target that kept a case from being proven."""
LAYERS = ("boundary", "defaults", "protocol", "lifecycle", "machine", "generated", "raw", "judges")
"""The layers in the order in which they run. The judges come last: they tell of all that was sent before."""


class Broken(Exception):
    """The target broke a promise. `exchange` shows it, where another than the last one does."""

    def __init__(self, message: str, exchange: Exchange | None = None) -> None:
        super().__init__(message)
        self.exchange = exchange


class Unproven(Exception):
    """The promise could not be seen to be kept or broken; says why."""


class Stopped(Exception):
    """Nothing more can be learnt from the target; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One claim about the target, and how to see whether it holds.

    `source` says whether a page makes the claim, or only this project's reading where the pages are silent;
    `says` puts it in words. `check` raises Broken or Unproven where it does not hold or cannot be seen.
    """

    layer: str
    model: str
    field: str
    rule: str
    label: str
    source: Source
    says: str
    check: Callable[[Session], None]

    @property
    def id(self) -> str:
        """A name that a person can read and type."""
        return " ".join(part for part in (self.model, self.field, self.label) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What became of a case. `exchanges` are the last of those that it took, the telling one last."""

    case: Case
    verdict: Verdict
    message: str
    exchanges: tuple[Exchange, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a whole run came to. `stopped` says why it could not go on; it is empty where it came to its end.

    `sent` counts requests, `begun` tasks that the target accepted; `again` is the command that repeats it.
    `alone` repeats one case once `--case` and its id stand behind it; it is empty where none can be repeated.
    """

    url: str
    edition: str
    seed: int
    findings: tuple[Finding, ...]
    stopped: str
    sent: int
    begun: int
    seconds: float
    again: str
    alone: str = ""

    def of(self, verdict: Verdict) -> tuple[Finding, ...]:
        """The findings of one verdict."""
        return tuple(each for each in self.findings if each.verdict == verdict)

    @property
    def exit_code(self) -> int:
        """0 where all is kept as far as was seen, 1 where something is broken, 2 where nothing is known."""
        if self.of("refuted"):
            return 1
        failed = any(each.message.startswith(MISHAP) for each in self.of("not proven"))
        return 2 if self.stopped or failed or not self.of("proven") else 0
