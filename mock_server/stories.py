"""Tells how a simulated task will go, from its scenario: every event, to the end."""

from dataclasses import dataclass

from mock_server.prediction import Event, Status, Step
from mock_server.scenarios import FAILURE, Scenario, Stay

_STEPS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What lies ahead of a prediction: events with dates, and steps without."""

    events: tuple[Event, ...]
    steps: tuple[Step, ...] = ()


def tell(
    scenario: Scenario,
    *,
    at: int,
    seconds: float,
    luck: int,
    outputs: tuple[str, ...],
    checked: bool,
    free_at: int | None = 0,
) -> Story:
    """The whole story of one prediction that begins `at` (milliseconds since the Unix epoch), end included.

    `seconds` is what a run of the model takes, `luck` at least 32 random bits that settle how long the stays
    are, `outputs` the names of what it will have made, `checked` whether a safety checker looks at them. It
    does not begin to run before `free_at`; None: never.
    """
    created = Event(at=at, status=Status.CREATED)
    if scenario.progression in {"time", "immediate"}:
        begun, ended = at, at
        if scenario.progression == "time":
            if free_at is None:
                return Story(events=(created,))
            begun = max(at + _length(scenario.created, luck % _STEPS, seconds), free_at)
            ended = begun + _length(scenario.processing, luck // _STEPS % _STEPS, seconds)
        processing = Event(at=begun, status=Status.PROCESSING)
        end = ending(scenario, at=ended, outputs=outputs, checked=checked)
        return Story(events=(created, processing) if end is None else (created, processing, end))
    processing = Event(at=at, status=Status.PROCESSING)
    end = ending(scenario, at=at, outputs=outputs, checked=checked)
    ends = () if end is None else (end,)
    if scenario.progression == "manual":
        return Story(
            events=(created,), steps=tuple(Step(event=each, polls=None) for each in (processing, *ends))
        )
    first = Step(event=processing, polls=round(scenario.created.low) + 1)
    rest = [Step(event=each, polls=round(scenario.processing.low)) for each in ends]
    return Story(events=(created,), steps=(first, *rest))


def ending(scenario: Scenario, *, at: int, outputs: tuple[str, ...], checked: bool) -> Event | None:
    """The final event; None where there is no end."""
    if scenario.outcome is None:
        return None
    if scenario.outcome is Status.FAILED:
        return Event(at=at, status=Status.FAILED, error=scenario.error or FAILURE)
    flags = tuple(scenario.nsfw and checked for _ in outputs)
    return Event(at=at, status=Status.COMPLETED, outputs=outputs, nsfw=flags)


def _length(stay: Stay, part: int, seconds: float) -> int:
    chosen = stay.low + (stay.high - stay.low) * part / (_STEPS - 1)
    return round(chosen * 1000 * (seconds if stay.of_run else 1))
