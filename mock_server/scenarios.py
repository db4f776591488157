"""How a simulated story goes: one table of named scenarios, and what may be said beside a name."""

from collections.abc import Mapping
from dataclasses import dataclass

from mock_server.faults import KINDS, Fault, read_fault
from mock_server.prediction import Status

PLAIN = "normal"
"""The scenario in which nothing is out of the ordinary. A worker does the work in this one alone."""

PROGRESSIONS = ("time", "polls", "manual", "immediate")
"""What moves a prediction on: the clock, being polled, somebody who says so, or nothing that takes time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """How long a prediction stays in a state: from `low` to `high`, settled by its luck.

    In seconds, or in multiples of what the contract says a run takes; in polls where those move it on.
    """

    low: float
    high: float
    of_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A way for a prediction to go.

    `what` happens, in a line, and `advice` is what a client has to do about it. `outcome` is how it ends;
    None: not at all. `error` is why it fails. `nsfw` flags every output. `fault` is what goes wrong on the
    way. A request whose seed is `magic` gets this one.
    """

    name: str
    what: str
    advice: str
    progression: str = "time"
    created: Stay = Stay(low=0.2, high=0.5)
    processing: Stay = Stay(low=0.9, high=1.1, of_run=True)
    outcome: Status | None = Status.COMPLETED
    error: str = ""
    nsfw: bool = False
    fault: Fault | None = None
    magic: int | None = None


FAILURE = "The model could not finish the task (simulated failure)."
"""Why a task failed, unless there is more to say."""


def _faulty(name: str, magic: int, fault: str, what: str, advice: str) -> Scenario:
    found = read_fault(fault, what=name)
    return Scenario(name=name, what=what, advice=advice or KINDS[found.kind].advice, fault=found, magic=magic)


SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name=PLAIN,
            what="A short queue, then a run of seconds.",
            advice="Poll until completed, then fetch the outputs.",
        ),
        Scenario(
            name="instant",
            what="Completed at the first poll.",
            advice="Take a result that is there at the first poll, without having seen `processing`.",
            progression="immediate",
            magic=9_999_990_000,
        ),
        Scenario(
            name="slow",
            what="Twenty times the usual run.",
            advice="Keep polling, less and less often; do not submit again.",
            processing=Stay(low=18, high=22, of_run=True),
            magic=9_999_990_001,
        ),
        Scenario(
            name="queued",
            what="Half a minute of `created`.",
            advice="Be patient with a long `created`; it is a queue, not an error.",
            created=Stay(low=25, high=35),
            magic=9_999_990_002,
        ),
        Scenario(
            name="polls",
            what="Moved on by polls: one says `created`, two say `processing`, the next has the end.",
            advice="Nothing new; this one needs no clock.",
            progression="polls",
            created=Stay(low=1, high=1),
            processing=Stay(low=2, high=2),
            magic=9_999_990_003,
        ),
        Scenario(
            name="manual",
            what="Moved on by `POST /_mock/predictions/{id}/advance` alone.",
            advice="Nothing new; the test decides when what happens.",
            progression="manual",
            magic=9_999_990_004,
        ),
        Scenario(
            name="failed",
            what="`failed`, with a reason.",
            advice="Stop polling, and show `data.error` to whoever asked.",
            outcome=Status.FAILED,
            error=FAILURE,
            magic=9_999_990_010,
        ),
        Scenario(
            name="worker-error",
            what="`failed`, with a reason that names HTTP 503.",
            advice="Decide whether to run the task again; that is a second bill. The official SDK can.",
            outcome=Status.FAILED,
            error="HTTP 503 from the worker (simulated failure).",
            magic=9_999_990_011,
        ),
        Scenario(
            name="dropped",
            what="Forty seconds of `created`, then `failed` without any `processing`.",
            advice="Do not wait for `processing` before you believe in an end.",
            created=Stay(low=40, high=40),
            processing=Stay(low=0, high=0),
            outcome=Status.FAILED,
            error="The task was dropped from the queue (simulated failure).",
            magic=9_999_990_012,
        ),
        Scenario(
            name="stuck",
            what="`processing` for ever.",
            advice="Give up after a time limit of your own.",
            outcome=None,
            magic=9_999_990_013,
        ),
        Scenario(
            name="nsfw",
            what="Completed, every output flagged.",
            advice="Look at `has_nsfw_contents` before showing an output.",
            nsfw=True,
            magic=9_999_990_014,
        ),
        _faulty(
            "rate-limited",
            9_999_990_429,
            "429; retry-after=2s",
            "The first submit of a request gets 429 and `Retry-After: 2`, the next one is accepted.",
            "Wait for as long as `Retry-After` says, then submit once more: nothing was begun.",
        ),
        _faulty(
            "unavailable",
            9_999_990_503,
            "503; on=poll; times=2; retry-after=1s",
            "Two polls get 503 and `Retry-After: 1`, then they tell the result.",
            "",
        ),
        _faulty(
            "flaky",
            9_999_990_500,
            "500; on=poll; times=3",
            "Three polls get 500, then they tell the result.",
            "",
        ),
        _faulty(
            "lost-answer",
            9_999_990_100,
            "reset; on=submit; after-commit=true",
            "The task is accepted and paid, and the connection reset before the answer.",
            "Do not submit again blindly: look in the history whether the task is there.",
        ),
        _faulty(
            "gateway-timeout",
            9_999_990_504,
            "504; on=submit; after-commit=true",
            "The task is accepted and paid, and a gateway answers 504.",
            "Do not submit again blindly: look in the history whether the task is there.",
        ),
        _faulty(
            "half-answer",
            9_999_990_101,
            "truncate; on=submit",
            "The task is accepted and paid, and the answer breaks off in its middle.",
            "Do not submit again blindly: look in the history whether the task is there.",
        ),
        _faulty(
            "wrong-code",
            9_999_990_401,
            "code-401; on=submit; times=always",
            "HTTP 200 whose envelope says `code: 401`.",
            "",
        ),
        _faulty("reset", 9_999_990_102, "reset; on=poll", "The first poll's connection is reset.", ""),
        _faulty("hanging", 9_999_990_103, "hang; on=poll", "The first poll gets no answer.", ""),
        _faulty("dripping", 9_999_990_104, "slow; on=poll", "The first poll's answer takes 10 s.", ""),
        _faulty("latency", 9_999_990_105, "latency; times=always", "Every answer takes two seconds.", ""),
        _faulty(
            "cancelled",
            9_999_990_110,
            "status; times=always; value=cancelled",
            "Polls tell the status `cancelled`, which is on no page.",
            "",
        ),
        _faulty(
            "timed-out",
            9_999_990_111,
            "status; times=always; value=timeout",
            "Polls tell the status `timeout`, which is on no page.",
            "",
        ),
        _faulty(
            "no-outputs",
            9_999_990_120,
            "missing; times=always; field=outputs",
            "Polls tell no `outputs`, completed or not.",
            "",
        ),
        _faulty(
            "null-outputs",
            9_999_990_121,
            "null; times=always; field=outputs",
            "Polls tell `outputs: null`, completed or not.",
            "",
        ),
        _faulty(
            "expired",
            9_999_990_410,
            "expired; times=always",
            "Completed, and its outputs are gone: 410. Wants `enable_base64_output: false`.",
            "",
        ),
        _faulty(
            "corrupt",
            9_999_990_130,
            "corrupt; times=always",
            "Completed, and its outputs are damaged. Wants `enable_base64_output: false`.",
            "",
        ),
        _faulty(
            "half-output",
            9_999_990_131,
            "truncate; on=output",
            "The first fetch of an output breaks off. Wants `enable_base64_output: false`.",
            "",
        ),
    )
}
MAGIC_SEEDS = {each.magic: each.name for each in SCENARIOS.values() if each.magic is not None}
