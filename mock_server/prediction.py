"""What was asked of a model, and the dated events of what became of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from mock_server.faults import Fault


class Status(StrEnum):
    """The four states that the API pages document for a task."""

    CREATED = "created"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Whether nothing follows this state."""
        return self in {Status.COMPLETED, Status.FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of a prediction's status. A future date means that it has yet to happen.

    `at` is in milliseconds since the Unix epoch, on the server's clock. `outputs` are file names, one per
    output, and `nsfw` one flag per output; both only when completed. `error` only when failed.
    """

    at: int
    status: Status
    error: str = ""
    outputs: tuple[str, ...] = ()
    nsfw: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happens next, but not at a date: at the `polls`-th poll since the step before.

    None: only when somebody says so. The event's own date says nothing.
    """

    event: Event
    polls: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One task: which model, how its story goes, and its events in the order of their dates.

    `id` is 32 hexadecimal digits; everything random about the prediction follows from it. `created_at` is in
    milliseconds since the Unix epoch. `inline` means that outputs are answered as base64 instead of URLs.
    `makes` are the file names of what it will have made if it completes. `steps` are those to come that have
    no date, and `polls` counts since the last of them. `fault` is what its later requests will meet with,
    `draws` how many chances that has had, and `webhook` where its end is reported.

    `job` says that a worker does it: its events are appended as they happen, and their dates are not waited
    for. `attempt` is the number of the try that counts, 0 before the first, by `worker`; `spared` are those
    that were handed back in order.
    """

    id: str
    model: str
    edition: str
    version: str
    scenario: str
    created_at: int
    inline: bool = False
    makes: tuple[str, ...] = ()
    events: tuple[Event, ...]
    steps: tuple[Step, ...] = ()
    polls: int = 0
    fault: Fault | None = None
    draws: int = 0
    webhook: str = ""
    job: bool = False
    attempt: int = 0
    worker: str = ""
    spared: int = 0

    @property
    def ends_at(self) -> int | None:
        """When the final event happens, or None while no end is in sight."""
        last = self.events[-1]
        return last.at if last.status.final else None

    def seen_at(self, now: int) -> tuple[Event, ...]:
        """The events that have happened by `now`; never empty, since a prediction begins with one."""
        if self.job:
            # They were written when they happened, by a machine whose clock may be ahead of this one's.
            return self.events
        return tuple(event for event in self.events if event.at <= now) or self.events[:1]

    def polled(self, now: int) -> "Prediction":
        """The same after one more poll, at `now`, which may be the one that a step waits for."""
        if not self.steps or self.steps[0].polls is None:
            return self
        polls, events, steps = self.polls + 1, self.events, self.steps
        now = max(now, events[-1].at)
        while steps and steps[0].polls is not None and polls >= steps[0].polls:
            events, steps, polls = (*events, replace(steps[0].event, at=now)), steps[1:], 0
        return replace(self, events=events, steps=steps, polls=polls)

    def moved(self, now: int, *events: Event) -> "Prediction":
        """The same with `events` in place of everything that has not happened by `now`."""
        seen = self.seen_at(now)
        # Nothing happens before what has happened, even where a worker with a clock ahead has dated that.
        now = max(now, seen[-1].at)
        return replace(self, events=seen + tuple(replace(event, at=now) for event in events), steps=())


def luck_of(prediction_id: str) -> int:
    """60 random bits that belong to one prediction alone."""
    return int(prediction_id[:15], 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The request behind a prediction.

    `received` is the JSON text of the body as it came in. `defaults` maps the JSON pointer of each field
    that was left out to the documented default that took its place. `warnings` are remarks for the author
    of the client: unknown fields, inputs that could not be read.
    """

    received: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def input(self) -> dict[str, Any]:
        """The effective input: what was received, with the defaults in place."""
        value: dict[str, Any] = json.loads(self.received)
        for pointer, default in self.defaults.items():
            place: Any = value
            *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
            for parent in parents:
                place = place[int(parent)] if isinstance(place, list) else place[parent]
            place[last] = default
        return value
