"""Judges a history: what was promised of every task that was accepted, and what is left of it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mock_server.attempts import MOST_ATTEMPTS
from mock_server.prediction import Prediction, Status
from soak.history import History, Reply
from soak.runners import POISON, content

_RANK = {Status.CREATED: 0, Status.PROCESSING: 1, Status.COMPLETED: 2, Status.FAILED: 2}
_STORY = (Status.CREATED, Status.PROCESSING)
_ALLOWED = {200, 503}


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What is there when everything has come to rest.

    `results` are the contents of kept outputs by task, attempt and name; `deliveries` the tasks whose end was
    kept for reporting; `queued` how many jobs are still on the queue.
    """

    records: Mapping[str, Prediction]
    results: Mapping[tuple[str, int, str], str]
    deliveries: frozenset[str]
    queued: int


def violations(history: History, left: Left) -> list[str]:
    """What was promised and not kept, a line for each case."""
    found = [*_lost(history, left), *_replies(history), *_files(history)]
    for task, record in left.records.items():
        found += [f"{task}: {what}" for what in _record(history, record, left)]
    if left.queued:
        found.append(f"{left.queued} jobs are left on the queue")
    ended = {task for task, record in left.records.items() if record.events[-1].status.final}
    found += [f"{task}: its end is not kept for reporting" for task in sorted(ended - left.deliveries)]
    found += [f"{task}: an end is kept that was not" for task in sorted(left.deliveries - ended)]
    found += [f"{task}: its end was never reported" for task in sorted(ended - history.hooks.keys())]
    return found


def _lost(history: History, left: Left) -> Iterator[str]:
    for task in sorted(history.accepted.keys() - left.records.keys()):
        yield f"{task}: accepted, and lost"


def _record(history: History, record: Prediction, left: Left) -> Iterator[str]:
    statuses = tuple(event.status for event in record.events)
    last = record.events[-1]
    finals = sum(status.final for status in statuses)
    if finals != 1:
        yield f"it has ended {finals} times"
    elif statuses[:-1] != _STORY:
        yield f"it went {' -> '.join(statuses)}"
    if any(one.at > other.at for one, other in zip(record.events, record.events[1:], strict=False)):
        yield "its events are not in the order of their dates"
    if last.status is Status.COMPLETED:
        for name in last.outputs:
            if left.results.get((record.id, record.attempt, name)) != content(record.id, name):
                yield f"completed without its output {name}"
    elif last.status is Status.FAILED:
        lives = record.attempt - record.spared
        if not last.error.startswith("worker_died: ") or lives < MOST_ATTEMPTS:
            yield f"failed in attempt {record.attempt}: {last.error}"
    if history.accepted.get(record.id) == POISON and last.status is not Status.FAILED:
        yield "it kills its worker, and did not fail"


def _replies(history: History) -> Iterator[str]:
    by_task: dict[str, list[Reply]] = defaultdict(list)
    for reply in history.replies:
        by_task[reply.task].append(reply)
    for task, replies in sorted(by_task.items()):
        for code in sorted({reply.code for reply in replies} - _ALLOWED):
            yield f"{task}: a poll was answered with {code}"
        seen = [reply for reply in replies if reply.status]
        if went_back(seen):
            yield f"{task}: its status went back"
        if len({reply.told for reply in seen if Status(reply.status).final}) > 1:
            yield f"{task}: its end was told in two ways"


def went_back(replies: Iterable[Reply]) -> bool:
    """Whether a reply says less than one that had come in before it was asked for."""
    asked = sorted(replies, key=lambda reply: reply.began)
    come = sorted(asked, key=lambda reply: reply.ended)
    highest, at = -1, 0
    for reply in asked:
        while come[at].ended < reply.began:
            highest = max(highest, _RANK[Status(come[at].status)])
            at += 1
        if _RANK[Status(reply.status)] < highest:
            return True
    return False


def _files(history: History) -> Iterator[str]:
    for task, name, code, said in history.files:
        if code not in _ALLOWED:
            yield f"{task}: its output {name} was answered with {code}"
        elif code == 200 and said != content(task, name):
            yield f"{task}: its output {name} is not its own"
