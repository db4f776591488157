"""When faults strike, and what they make of an answer."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from mock_server.desk import Answer, Call, Desk, Manner, Visit, visit_of, wait
from mock_server.errors import Refusal
from mock_server.faults import SUBMIT, Fault, text_of
from mock_server.prediction import Prediction

ARMED = "fault"
"""The kind of the notes that armed faults are."""
_DRAWS = "draws"
_MOST_ARMED = 1000
_MESSAGES = {
    429: "Too many requests; wait before you send another (simulated).",
    500: "Internal server error (simulated).",
    502: "Bad gateway (simulated).",
    503: "The service is unavailable (simulated).",
    504: "The gateway gave up waiting (simulated).",
}
_RETRY_AFTER = {429: 1000, 503: 1000}
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Armed:
    """A fault that waits for requests: since when, and how many chances and strikes it has had."""

    fault: Fault
    at: int
    draws: int = 0
    strikes: int = 0

    def spent(self, now: int) -> bool:
        """Whether it will never strike again."""
        fault = self.fault
        late = fault.lasts is not None and now >= self.at + fault.lasts
        return late or (fault.times is not None and self.strikes >= fault.times)


_decode = msgspec.json.Decoder(Armed).decode


def arm(desk: Desk, fault: Fault) -> str:
    """Arms a fault for the session; its id. Raises Refusal 409 where too many are armed."""
    waiting = {key for key, _ in armed(desk)}
    if len(waiting) >= _MOST_ARMED:
        raise Refusal(409, f"{_MOST_ARMED} faults are armed already; disarm some.")
    for key, _ in desk.store.notes(ARMED):
        if key not in waiting:
            desk.store.change_note(ARMED, key, lambda _: None)
    return desk.store.append(ARMED, _encode(Armed(fault=fault, at=desk.clock.now())), keep=_MOST_ARMED)


def armed(desk: Desk, *, at: int | None = None) -> list[tuple[str, Armed]]:
    """The faults that can still strike, or could at a time that is past, by id."""
    now = desk.clock.now() if at is None else at
    found = [(key, _decode(value)) for key, value in desk.store.notes(ARMED)]
    return [(key, each) for key, each in found if not each.spent(now)]


def disarm(desk: Desk, fault_id: str | None = None) -> int:
    """Disarms one fault, or all; how many there were."""
    wanted = [key for key, _ in armed(desk) if fault_id in {None, key}]
    for key, _ in desk.store.notes(ARMED):
        if fault_id in {None, key}:
            desk.store.change_note(ARMED, key, lambda _: None)
    return len(wanted)


def struck_submit(desk: Desk, own: Fault | None, subject: str) -> tuple[Fault | None, int]:
    """The fault that strikes a submit, if any does, and how many chances its scenario's own has had.

    Those are counted for every `subject`, which is the same for the same request, so that a retry has the
    next chance; what comes of it goes on counting from there.
    """
    draws = 0
    if own is not None and own.meets(SUBMIT):
        note = desk.store.change_note(_DRAWS, subject, lambda found: b"%d" % (int(found or b"0") + 1))
        draws = int(note or b"1")
        if own.strikes(draws - 1):
            return own, draws
    return struck(desk, SUBMIT), draws


def struck_task(desk: Desk, place: str, prediction: Prediction) -> Fault | None:
    """The fault that strikes a request about a prediction, or its webhook: its own, or one that is armed."""
    own = prediction.fault
    if own is not None and own.meets(place):
        after = desk.store.update(prediction.id, lambda found: replace(found, draws=found.draws + 1))
        if after is not None and own.strikes(after.draws - 1):
            return own
    return struck(desk, place)


def struck(desk: Desk, place: str) -> Fault | None:
    """The armed fault that strikes at `place`, the oldest first, if any does."""
    for key, waiting in desk.store.notes(ARMED):
        if not _decode(waiting).fault.meets(place):
            continue
        now = desk.clock.now()
        hits: list[Fault] = []

        def draw(note: bytes | None, hits: list[Fault] = hits, now: int = now) -> bytes | None:
            hits.clear()
            if note is None or (found := _decode(note)).spent(now):
                return None
            hit = found.fault.strikes(found.draws, before=found.strikes)
            if hit:
                hits.append(found.fault)
            return _encode(replace(found, draws=found.draws + 1, strikes=found.strikes + hit))

        desk.store.change_note(ARMED, key, draw)
        if hits:
            return hits[0]
    return None


async def under(fault: Fault | None, desk: Desk, call: Call, work: Callable[[], Awaitable[Answer]]) -> Answer:
    """What `work` answers, or what a fault makes of that; it is not done where the fault comes first."""
    if fault is None:
        return await work()
    visit = visit_of(call.scope)
    if fault.after_commit:
        await work()  # and if that is refused, there is no answer to lose
        visit.fault = text_of(fault)
        return _instead(fault)
    visit.fault = text_of(fault)
    if fault.kind == "latency":
        await wait(desk, fault.span, call.receive)
        return await work()
    if fault.kind in _INSTEAD:
        return _instead(fault)
    return _spoiled(fault, await work(), visit)


_INSTEAD = {"429", "500", "502", "503", "504", "code-401", "reset", "hang"}


def _instead(fault: Fault) -> Answer:
    if fault.kind.isdigit():
        status = int(fault.kind)
        pause = _RETRY_AFTER.get(status) if fault.retry_after is None else fault.retry_after
        headers = {} if pause is None else {"Retry-After": str(math.ceil(pause / 1000))}
        raise Refusal(status, _MESSAGES[status], headers=headers)
    if fault.kind == "code-401":
        return Answer(body=_encode({"code": 401, "message": "The key is not valid (simulated)."}))
    return Answer(body=b"", manner=Manner(kind=fault.kind, span=fault.span))


def _spoiled(fault: Fault, answer: Answer, visit: Visit) -> Answer:
    if fault.kind in {"truncate", "slow"}:
        return replace(answer, manner=Manner(kind=fault.kind, span=fault.span))
    if fault.kind == "corrupt":
        return replace(answer, body=bytes(byte ^ 0x55 for byte in answer.body))
    body: dict[str, Any] = msgspec.json.decode(answer.body)
    data = body.get("data")
    if isinstance(data, dict):
        if fault.kind == "status":
            data["status"] = fault.value
        elif fault.kind == "null":
            data[fault.field] = None
        elif fault.kind == "missing":
            data.pop(fault.field, None)
        visit.told = str(data.get("status") or "")
    return replace(answer, body=_encode(body))
