"""How a simulated story goes, in one table."""

from collections.abc import Mapping
from dataclasses import dataclass

from mock_server.prediction import Event, Status

_STEPS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A way for a prediction to go.

    `advice` is what a client has to do about it. `created` and `processing` are the shortest and the longest
    stay in these states: the former in seconds, the latter in multiples of what the contract says a run takes
    (None: for ever). `error` is why it fails, and empty where it completes. `nsfw` flags every output.
    """

    name: str
    advice: str
    created: tuple[float, float] = (0.2, 0.5)
    processing: tuple[float, float] | None = (0.9, 1.1)
    error: str = ""
    nsfw: bool = False


SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(name="normal", advice="Poll until completed, then fetch the outputs."),
        Scenario(
            name="instant",
            advice="Take a result that is there at the first poll, without having seen `processing`.",
            created=(0, 0),
            processing=(0, 0),
        ),
        Scenario(
            name="slow", advice="Keep polling, less and less often; do not submit again.", processing=(18, 22)
        ),
        Scenario(
            name="queued",
            advice="Be patient with a long `created`; it is a queue, not an error.",
            created=(25, 35),
        ),
        Scenario(
            name="failed",
            advice="Stop polling, and show `data.error` to whoever asked.",
            error="The model could not finish the task (simulated failure).",
        ),
        Scenario(name="stuck", advice="Give up after a time limit of your own.", processing=None),
        Scenario(name="nsfw", advice="Look at `has_nsfw_contents` before showing an output.", nsfw=True),
    )
}


def tell(
    scenario: Scenario, *, at: int, seconds: float, luck: int, outputs: tuple[str, ...], checked: bool
) -> tuple[Event, ...]:
    """The whole story of one prediction that begins `at` (milliseconds since the Unix epoch), end included.

    `seconds` is what a run of the model takes, `luck` at least 32 random bits that settle how long the stays
    are, `outputs` the names of what it will have made, `checked` whether a safety checker looks at them.
    """
    begun = at + _between(scenario.created, luck % _STEPS, 1000)
    events = (Event(at=at, status=Status.CREATED), Event(at=begun, status=Status.PROCESSING))
    if scenario.processing is None:
        return events
    ended = begun + _between(scenario.processing, luck // _STEPS % _STEPS, 1000 * seconds)
    if scenario.error:
        return (*events, Event(at=ended, status=Status.FAILED, error=scenario.error))
    flags = tuple(scenario.nsfw and checked for _ in outputs)
    return (*events, Event(at=ended, status=Status.COMPLETED, outputs=outputs, nsfw=flags))


def _between(bounds: tuple[float, float], part: int, unit: float) -> int:
    low, high = bounds
    return round((low + (high - low) * part / (_STEPS - 1)) * unit)
