"""What the server tells a test: frozen records, with moments in UTC on the session's clock."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """One request of the client under test, as the journal has it.

    `kind` is submit, poll, output, upload, platform or other; `model` what it was about, empty where nothing.
    `status` is the HTTP status, 0 where no answer was sent; `told` the task's status as the answer had it.
    `fault` is what went wrong on purpose, `committed` whether a task was begun, `refusal` why it was refused.
    `retry_after` is in seconds, None where the answer had none.
    """

    number: int
    at: datetime
    ended: datetime
    kind: str
    method: str
    path: str
    model: str = ""
    query: str = ""
    key: str = ""
    agent: str = ""
    status: int
    prediction: str = ""
    told: str = ""
    size: int = 0
    scenario: str = ""
    fault: str = ""
    committed: bool = False
    refusal: str = ""
    received: str = ""
    retry_after: float | None = None

    def __str__(self) -> str:
        path = self.path
        if self.prediction:
            path = path.replace(self.prediction, f"{self.prediction[:8]}…")
        remarks = [self.told] if self.told else []
        remarks += [f"fault {self.fault}"] if self.fault else []
        remarks += [self.refusal] if self.refusal else []
        answer = str(self.status) if self.status else "no answer"
        when = f"{self.at:%H:%M:%S.%f}"[:-3]
        return f"#{self.number} {when} {self.kind}: {self.method} {path} -> {'; '.join([answer, *remarks])}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedTask:
    """A prediction from the inside.

    `received` is the body as it came, `input` the same with defaults, whose names are in `defaulted`.
    `events` are what happened and will happen. `data` is everything that the server told. In a list of
    several, texts of more than 200 characters are shortened.
    """

    id: str
    model: str
    status: str
    scenario: str
    created_at: datetime
    received: Mapping[str, Any]
    input: Mapping[str, Any]
    defaulted: tuple[str, ...]
    warnings: tuple[str, ...]
    events: tuple[Mapping[str, Any], ...]
    data: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockEvent:
    """Something that the moving clock made happen: to `subject`, the id of a task, a fault or a webhook."""

    at: datetime
    what: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedWebhook:
    """One webhook as it came in.

    `headers` have small names, `body` is as it was sent, and `json` what it says, None where that is no JSON.
    `verified` says whether the signature is that of the session's secret at `at`; if not, `reason` says why.
    `answered` is the status that the inbox gave.
    """

    at: datetime
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    answered: int
    verified: bool
    reason: str

    @property
    def json(self) -> Any:
        """The body, read."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def status(self) -> str:
        """The task's status, empty where the body has none."""
        return self._text("status")

    @property
    def prediction(self) -> str:
        """The task's id, empty where the body has none."""
        return self._text("id")

    def _text(self, name: str) -> str:
        read = self.json
        return str(read.get(name) or "") if isinstance(read, dict) else ""


class ArmedFault:
    """A fault that is armed, until it has struck as often as it should, is disarmed, or its block ends."""

    def __init__(self, *, fault_id: str, text: str, disarm: Callable[[str], None]) -> None:
        self.id = fault_id
        self.text = text
        self._disarm = disarm

    def disarm(self) -> None:
        """Takes it back; nothing happens where it is used up."""
        self._disarm(self.id)

    def __enter__(self) -> "ArmedFault":
        return self

    def __exit__(self, *_: object) -> None:
        self.disarm()

    def __repr__(self) -> str:
        return f"ArmedFault({self.text!r})"


def moment(text: str) -> datetime:
    """A moment as the server writes it."""
    return datetime.fromisoformat(text)


def request_of(told: Mapping[str, Any], models: Mapping[str, str]) -> ReceivedRequest:
    """The record of one row of the journal; `models` has the model of each task."""
    known = _known(ReceivedRequest, told)
    model = models.get(known.get("prediction", ""), "")
    # What was refused for its body or its key never got as far as to be a submit.
    if not model and known["method"] == "POST" and known["kind"] in {"submit", "other"}:
        model = known["path"].partition("/api/")[2].partition("/")[2]
    return ReceivedRequest(
        **{**known, "at": moment(known["at"]), "ended": moment(known["ended"]), "model": model}
    )


def task_of(told: Mapping[str, Any]) -> SimulatedTask:
    """The record of a prediction."""
    known = _known(SimulatedTask, told)
    for name in ("defaulted", "warnings", "events"):
        known[name] = tuple(known[name])
    return SimulatedTask(**{**known, "created_at": moment(known["created_at"]), "data": told})


def event_of(told: Mapping[str, Any]) -> ClockEvent:
    """The record of what the clock made happen."""
    known = _known(ClockEvent, told)
    return ClockEvent(**{**known, "at": moment(known["at"])})


def _known(record: type, told: Mapping[str, Any]) -> dict[str, Any]:
    """What the record has a field for: a newer server may tell more."""
    return {each.name: told[each.name] for each in fields(record) if each.name in told}
