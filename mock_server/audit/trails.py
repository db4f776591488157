"""The journal read by task: which submit began it, and what was asked about it afterwards."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mock_server.journal import Entry, Numbered
from mock_server.prediction import Prediction, Status

_UNFINISHED = frozenset(status.value for status in Status if not status.final)
_FINAL = frozenset(status.value for status in Status if status.final)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """What the journal has about one task, in the order of arrival.

    `prediction` is None where the store no longer has it, `submit` where the journal no longer has it. As the
    journal loses its oldest entries first, nothing about a task is missing while its submit is there.
    """

    id: str
    prediction: Prediction | None
    submit: Numbered | None
    polls: tuple[Numbered, ...] = ()
    outputs: tuple[Numbered, ...] = ()


def trails(entries: Iterable[Numbered], predictions: Iterable[Prediction]) -> Mapping[str, Trail]:
    """The trail of every task that either of them knows, by its id."""
    known = {each.id: each for each in predictions}
    submits: dict[str, Numbered] = {}
    asked: dict[tuple[str, str], list[Numbered]] = defaultdict(list)
    for each in by_arrival(entries):
        if begins_task(each.entry):
            submits.setdefault(each.entry.prediction, each)
        elif each.entry.prediction:
            asked[each.entry.prediction, each.entry.kind].append(each)
    return {
        name: Trail(
            id=name,
            prediction=known.get(name),
            submit=submits.get(name),
            polls=tuple(asked.get((name, "poll"), ())),
            outputs=tuple(asked.get((name, "output"), ())),
        )
        for name in dict.fromkeys((*submits, *known))
    }


def by_arrival(entries: Iterable[Numbered]) -> list[Numbered]:
    """The entries as they came in; they are numbered as they were dealt with, which may be another order."""
    return sorted(entries, key=lambda each: (each.entry.at, each.number))


def by_client(entries: Iterable[Numbered]) -> list[tuple[Numbered, ...]]:
    """The entries of each client by themselves: those with one key and one User-Agent."""
    found: dict[tuple[str, str], list[Numbered]] = defaultdict(list)
    for each in entries:
        found[each.entry.key, each.entry.agent].append(each)
    return [tuple(each) for each in found.values()]


def same_submits(entries: Iterable[Numbered]) -> list[tuple[Numbered, ...]]:
    """The submits with one key, path and body together, as they came in. Bodies nobody read are left out."""
    found: dict[tuple[str, str, str], list[Numbered]] = defaultdict(list)
    for each in by_arrival(entries):
        if each.entry.kind == "submit" and each.entry.digest:
            found[each.entry.key, each.entry.path, each.entry.digest].append(each)
    return [tuple(each) for each in found.values()]


def begins_task(entry: Entry) -> bool:
    """Whether the request is a submit that was accepted, whatever was answered."""
    return entry.kind == "submit" and entry.committed


def answer_lost(entry: Entry) -> bool:
    """Whether a submit was accepted, and its client has no way to know the task's id."""
    return begins_task(entry) and (not entry.told or _lacks(entry, "id"))


def fault_kind(entry: Entry) -> str:
    """The name of the fault that the request met with; empty where there was none."""
    return entry.fault.partition(";")[0].strip()


def _lacks(entry: Entry, field: str) -> bool:
    """Whether a fault took a field out of the answer."""
    return f"field={field}" in [part.strip() for part in entry.fault.split(";")]


def tells_end(entry: Entry) -> bool:
    """Whether the answer told a documented final status.

    The journal has the true one where a fault has put another into the answer, or none.
    """
    hidden = fault_kind(entry) == "status" or _lacks(entry, "status")
    return entry.status == 200 and entry.told in _FINAL and not hidden


def tells_unfinished(entry: Entry) -> bool:
    """Whether the answer told that the task goes on, and nothing was wrong with the answer."""
    return entry.status == 200 and entry.told in _UNFINISHED and not entry.fault


def may_tell_end(entry: Entry) -> bool:
    """Whether a client may have taken the answer for the task's end.

    So it is with any status that is not known to be unfinished, and with any answer that a fault touched.
    """
    return entry.status == 200 and not tells_unfinished(entry)


def status_of(prediction: Prediction | None, now: int) -> str:
    """The task's status at `now`, in milliseconds since the Unix epoch; empty where there is no such task."""
    return "" if prediction is None else prediction.seen_at(now)[-1].status.value


def is_final(status: str) -> bool:
    """Whether a task of that status has ended, as the pages have it."""
    return status in _FINAL


def numbers(entries: Sequence[Numbered], most: int) -> tuple[int, ...]:
    """The numbers of the first of the entries, in their order."""
    return tuple(each.number for each in entries[:most])
