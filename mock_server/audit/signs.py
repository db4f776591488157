"""What the checks of the audit look at, and what they bring back."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mock_server.audit.trails import Trail, may_tell_end, trails
from mock_server.journal import Numbered
from mock_server.prediction import Prediction

Severity = Literal["error", "warning", "note"]
"""A note is no failure."""
PATIENCE = 10_000
"""After how many milliseconds of silence a client no longer means to ask.

The slowest of the clients that are known polls every five seconds.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matter:
    """What is audited: all that a client did until `now`, in milliseconds since the Unix epoch.

    `lists` are those of the requests that told a client what became of all its tasks, `delivered` the ids of
    tasks whose end a webhook has delivered. Submits of the same body more than `window` milliseconds apart
    have nothing to do with each other.
    """

    entries: tuple[Numbered, ...]
    lists: tuple[Numbered, ...]
    trails: Mapping[str, Trail]
    now: int
    root_edition: str
    delivered: frozenset[str]
    window: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """Something that a check saw: how bad it is, what happened, and the entries that show it."""

    severity: Severity
    message: str
    seen: tuple[Numbered, ...]
    prediction: str = ""


def matter_of(
    entries: Iterable[Numbered],
    predictions: Iterable[Prediction],
    *,
    now: int,
    root_edition: str,
    delivered: Collection[str],
    window: int,
) -> Matter:
    """The same, put in the order in which checks need it."""
    entries = tuple(entries)
    return Matter(
        entries=entries,
        lists=tuple(each for each in entries if _is_list(each)),
        trails=trails(entries, predictions),
        now=now,
        root_edition=root_edition,
        delivered=frozenset(delivered),
        window=window,
    )


def ended_for_good(matter: Matter, trail: Trail) -> bool:
    """Whether the task ended so long ago that a client which still meant to ask would have."""
    ends = trail.prediction.ends_at if trail.prediction else None
    return ends is not None and ends + PATIENCE <= matter.now


def nobody_knows_the_end(matter: Matter, trail: Trail) -> bool:
    """Whether no answer about the task and no webhook can have told any client that it ended."""
    asked = (*trail.polls, *((trail.submit,) if trail.submit else ()))
    return trail.id not in matter.delivered and not any(may_tell_end(each.entry) for each in asked)


def may_have_seen_a_list(matter: Matter, trail: Trail, since: int) -> bool:
    """Whether the client asked for the list of its tasks after `since`, which tells what became of each."""
    key = trail.submit.entry.key if trail.submit else ""
    return any(each.entry.key == key and each.entry.ended >= since for each in matter.lists)


def _is_list(each: Numbered) -> bool:
    entry = each.entry
    return entry.kind == "platform" and entry.path.endswith("/predictions") and entry.status == 200


def seconds(span: float) -> str:
    """A span in milliseconds as a text in seconds."""
    return f"{span / 1000:.2f} s" if span < 10_000 else f"{span / 1000:.0f} s"


def times(number: int) -> str:
    """Once, twice, 3 times."""
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
