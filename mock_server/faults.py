"""What can go wrong between a client and a server, in one table; and when it does."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mock_server.errors import Refusal
from mock_server.grammar import choice, count, parts_of, span, yes

SUBMIT, POLL, OUTPUT, UPLOAD, WEBHOOK, PLATFORM, ANY = PLACES = (
    "submit",
    "poll",
    "output",
    "upload",
    "webhook",
    "platform",
    "any",
)
"""Where a fault can happen. `any` is every request, which a webhook is not."""
_REQUESTS = (SUBMIT, POLL, OUTPUT, UPLOAD, PLATFORM, ANY)
FINAL_STATUSES = ("cancelled", "timeout", "deleted", "pending", "unknown")
"""Statuses that no page has and that clients have met with, and one that nobody has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way to go wrong: where it can (usually at the first), and what a client has to do about it.

    `keys` are the parameters that mean something to it, beyond those that all have. `late` says that it can
    also happen after the request was carried out, with `after-commit=true`.
    """

    name: str
    places: tuple[str, ...]
    what: str
    advice: str
    keys: tuple[str, ...] = ()
    late: bool = False


def _status(code: int, what: str, advice: str) -> Kind:
    return Kind(name=str(code), places=_REQUESTS, what=what, advice=advice, keys=("retry-after",), late=True)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="latency",
            places=(ANY, *_REQUESTS[:-1]),
            what="The answer takes `seconds` longer (default 2s).",
            advice="Set a time limit per request, and one for the whole task.",
            keys=("seconds",),
        ),
        _status(429, "Too many requests.", "Wait for as long as `Retry-After` says, then send it again."),
        _status(500, "The server failed.", "Poll again after a pause; do not submit again unasked."),
        _status(502, "A gateway failed.", "Poll again after a pause; do not submit again unasked."),
        _status(503, "The service is away.", "Wait for as long as `Retry-After` says, then poll again."),
        _status(504, "A gateway gave up waiting.", "The task may have begun; look before submitting again."),
        Kind(
            name="code-401",
            places=_REQUESTS,
            what="HTTP 200 whose envelope says `code: 401`.",
            advice="Look at `code` in the envelope, not only at the HTTP status.",
        ),
        Kind(
            name="reset",
            places=_REQUESTS,
            what="The connection is reset.",
            advice="Try a poll again; a submit may have been accepted, so look before repeating it.",
            late=True,
        ),
        Kind(
            name="hang",
            places=_REQUESTS,
            what="No answer comes, for `seconds` (default 10m), then the connection is reset.",
            advice="Set a read time limit on every request, polls included.",
            keys=("seconds",),
            late=True,
        ),
        Kind(
            name="truncate",
            places=_REQUESTS,
            what="The answer breaks off in the middle of its body.",
            advice="Treat half an answer as none; do not take a half image for an image.",
        ),
        Kind(
            name="slow",
            places=_REQUESTS,
            what="The body drips in over `seconds` (default 10s).",
            advice="Bound the time for a whole answer, not only the pauses in it.",
            keys=("seconds",),
        ),
        Kind(
            name="status",
            places=(POLL, SUBMIT),
            what=f"A status that no page has: `value` is one of {', '.join(FINAL_STATUSES)}.",
            advice="End on every status that you do not know to be unfinished.",
            keys=("value",),
        ),
        Kind(
            name="missing",
            places=(POLL, SUBMIT),
            what="The field `field` of the task (default `outputs`) is not there.",
            advice="Read fields as if they could be missing, and say which one was.",
            keys=("field",),
        ),
        Kind(
            name="null",
            places=(POLL, SUBMIT),
            what="The field `field` of the task (default `outputs`) is null.",
            advice="Read fields as if they could be null, and say which one was.",
            keys=("field",),
        ),
        Kind(
            name="expired",
            places=(OUTPUT,),
            what="The output, where it is a URL, is no longer kept: 410.",
            advice="Fetch outputs soon and keep them yourself.",
        ),
        Kind(
            name="corrupt",
            places=(OUTPUT,),
            what="The bytes of an output, where it is a URL, are damaged; its length is right.",
            advice="Decode an output before calling it a success.",
        ),
        Kind(
            name="duplicate",
            places=(WEBHOOK,),
            what="The webhook comes twice, with the same id.",
            advice="Handle each webhook id once.",
        ),
        Kind(
            name="late",
            places=(WEBHOOK,),
            what="The webhook comes `seconds` late (default 60s).",
            advice="Poll as well, and let whichever comes first win.",
            keys=("seconds",),
        ),
        Kind(
            name="stale",
            places=(WEBHOOK,),
            what="The webhook's timestamp is ten minutes old, and signed.",
            advice="Refuse a timestamp that is more than five minutes off.",
        ),
        Kind(
            name="bad-signature",
            places=(WEBHOOK,),
            what="The webhook is signed with another secret.",
            advice="Verify the signature over the raw body, and answer 401.",
        ),
        Kind(
            name="out-of-order",
            places=(WEBHOOK,),
            what="The webhook waits until that of a later task has been sent, or a minute has passed.",
            advice="Find the task by its id, never by the order of arrival.",
        ),
        Kind(
            name="lost",
            places=(WEBHOOK,),
            what="The webhook is never sent.",
            advice="Poll after a time of silence.",
        ),
    )
}

_COMMON = ("on", "times", "probability", "seed", "for")
_DEFAULT_SECONDS = {"latency": 2_000, "hang": 600_000, "slow": 10_000, "late": 60_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong: what, where, and how often.

    `times` bounds how often (None: always), `probability` is that of each chance, drawn from `seed`. Spans
    are in milliseconds: `span` is how long it lasts, `retry_after` what the answer promises, `lasts` how long
    it stays armed. `after_commit`: the request is carried out first, and its answer lost.
    """

    kind: str
    on: str
    times: int | None = 1
    probability: float = 1
    seed: int = 0
    span: int = 0
    retry_after: int | None = None
    after_commit: bool = False
    field: str = "outputs"
    value: str = "cancelled"
    lasts: int | None = None

    def meets(self, place: str) -> bool:
        """Whether it can happen at `place`."""
        return self.on == place or (self.on == ANY and place != WEBHOOK)

    def strikes(self, draw: int, *, before: int | None = None) -> bool:
        """Whether it happens at the chance of that number, counted from 0. The same seed strikes the same.

        `before` is how often it has struck; it is found out where it is not known, which takes its time.
        """
        if self.probability >= 1:
            return self.times is None or draw < self.times
        if _luck(self.seed, draw) >= self.probability:
            return False
        if before is None and self.times is not None:
            before = sum(_luck(self.seed, each) < self.probability for each in range(draw))
        return self.times is None or (before or 0) < self.times


def _luck(seed: int, draw: int) -> float:
    digest = hashlib.blake2b(f"{seed}/{draw}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def read_fault(text: str, *, what: str) -> Fault:
    """The fault that a text such as `429; times=2; retry-after=3s; on=poll` describes.

    Raises Refusal 400 that names `what` and says what would be right.
    """
    name, parameters = parts_of(text, what=what)
    return fault_of(name, parameters, what=what)


def fault_of(name: str, parameters: Mapping[str, str], *, what: str) -> Fault:
    """The fault of that kind with the parameters. Raises Refusal 400."""
    kind = KINDS[choice(name, KINDS, what=what)]
    late = ("after-commit",) if kind.late else ()
    for key in parameters:
        choice(key, (*kind.keys, *late, *_COMMON), what=f"{what}: {name}")
    told: dict[str, Any] = {"on": kind.places[0], "span": _DEFAULT_SECONDS.get(name, 0)}
    if "probability" in parameters:
        told |= {"times": None, "probability": _probability(parameters["probability"], what=what)}
    for key, text in parameters.items():
        where = f"{what}: {key}"
        if key == "on":
            told["on"] = choice(text, kind.places, what=where)
        elif key == "times":
            told["times"] = None if text == "always" else count(text, what=where, least=1)
        elif key == "seed":
            told["seed"] = count(text, what=where, most=999_999_999)
        elif key in _SPANS:
            told[_SPANS[key]] = span(text, what=where)
        elif key == "after-commit":
            told["after_commit"] = yes(text, what=where)
        elif key == "value":
            told["value"] = choice(text, FINAL_STATUSES, what=where)
        elif key == "field":
            told["field"] = choice(text, FIELDS, what=where)
    return Fault(kind=name, **told)


_SPANS = {"seconds": "span", "retry-after": "retry_after", "for": "lasts"}
FIELDS = (
    "id",
    "model",
    "outputs",
    "urls",
    "has_nsfw_contents",
    "status",
    "created_at",
    "error",
    "executionTime",
    "timings",
)
"""The fields of a task that can be missing or null."""


def _probability(text: str, *, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise Refusal(400, f"{what}: probability is a number from 0 to 1, not {text[:40]!r}.")
    return value


def text_of(fault: Fault) -> str:
    """The fault in the grammar that `read_fault` reads."""
    told = {
        "on": fault.on,
        "times": "always" if fault.times is None else str(fault.times),
        "probability": f"{fault.probability:g}" if fault.probability < 1 else "",
        "seed": str(fault.seed) if fault.seed else "",
        "after-commit": "true" if fault.after_commit else "",
        "retry-after": "" if fault.retry_after is None else f"{fault.retry_after}ms",
        "for": "" if fault.lasts is None else f"{fault.lasts}ms",
        "seconds": f"{fault.span}ms" if "seconds" in KINDS[fault.kind].keys else "",
        "field": fault.field if "field" in KINDS[fault.kind].keys else "",
        "value": fault.value if "value" in KINDS[fault.kind].keys else "",
    }
    return "; ".join([fault.kind, *(f"{key}={value}" for key, value in told.items() if value)])
