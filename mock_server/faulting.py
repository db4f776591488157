"""When faults strike, and what they make of an answer."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from mock_server.desk import Answer, Call, Desk, Manner, Visit, visit_of, wait_until
from mock_server.errors import Refusal
from mock_server.faults import Fault, text_of

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
    if len(desk.store.notes(ARMED)) >= _MOST_ARMED:
        raise Refusal(409, f"{_MOST_ARMED} faults are armed already; disarm some.")
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


def struck(desk: Desk, place: str, own: Fault | None, subject: str) -> Fault | None:
    """The fault that strikes at `place`, if any does.

    `own` is that of the request's or the task's scenario, which has its own count for every `subject`; then
    come those that are armed, the oldest first.
    """
    if own is not None and own.meets(place):
        note = desk.store.change_note(_DRAWS, subject, lambda found: b"%d" % (int(found or b"0") + 1))
        if own.strikes(int(note or b"1") - 1):
            return own
    now = desk.clock.now()
    for key, waiting in desk.store.notes(ARMED):
        if not _decode(waiting).fault.meets(place):
            continue
        hits: list[Fault] = []

        def draw(note: bytes | None, hits: list[Fault] = hits) -> bytes | None:
            if note is None or (found := _decode(note)).spent(now):
                return None
            hit = found.fault.strikes(found.draws)
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
    visit.fault = text_of(fault)
    if fault.kind == "latency":
        await wait_until(desk, desk.clock.now() + fault.span, call.receive)
        return await work()
    if fault.kind in _INSTEAD:
        if fault.after_commit:
            await work()
            visit.told = ""
        return _instead(fault)
    return _spoiled(fault, await work(), visit)


_INSTEAD = {"429", "500", "502", "503", "504", "code-401", "reset", "hang"}


def _instead(fault: Fault) -> Answer:
    if fault.kind.isdigit():
        status = int(fault.kind)
        wait = _RETRY_AFTER.get(status) if fault.retry_after is None else fault.retry_after
        headers = {} if wait is None else {"Retry-After": str(math.ceil(wait / 1000))}
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
