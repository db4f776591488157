"""What a client would have been billed for: tasks accepted, accepted twice, and never fetched."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mock_server.audit.trails import (
    Trail,
    answer_lost,
    begins_task,
    same_submits,
    status_of,
    tells_end,
    trails,
)
from mock_server.desk import timestamp
from mock_server.journal import Entry, Numbered
from mock_server.prediction import Prediction, Status

WINDOW = 60_000
"""Within how many milliseconds the same submit again counts as a duplicate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One accepted task.

    `at` is when its submit arrived, in milliseconds since the Unix epoch on the server's clock. `key` tells
    keys apart without telling them, and is empty where the journal no longer has the submit. `status` is
    empty where the store no longer has the task. `duplicate_of` is the id of the first accepted submit with
    the same key, path and body within the window before it, or empty. `fetched` says that a client was told
    its end, `outputs_fetched` that one took an output, and `answer_lost` that the submit was accepted and its
    client cannot know it.
    """

    prediction: str
    model: str
    at: int
    key: str
    price: float
    status: str
    duplicate_of: str
    fetched: bool
    outputs_fetched: bool
    answer_lost: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Every accepted task, oldest first, with what they cost together, and the ids of those to look at.

    `duplicates_charged` is what the duplicates cost. `never_fetched` have completed, and no client was told.
    """

    rows: tuple[Row, ...]
    charged: float
    duplicates_charged: float
    duplicates: tuple[str, ...]
    never_fetched: tuple[str, ...]
    answers_lost: tuple[str, ...]


def ledger(
    entries: Iterable[Numbered],
    predictions: Iterable[Prediction],
    *,
    now: int,
    price: Callable[[str], float],
    window: int = WINDOW,
    delivered: Collection[str] = (),
) -> Ledger:
    """The ledger at `now`. `price` is what an output of a model costs, whichever way its task ends.

    `window` is in milliseconds. `delivered` are the ids of tasks whose end a webhook has delivered. A task
    counts while either the journal or the store has it; once the store has lost it, as one with one output.
    """
    entries = list(entries)
    first = _first_of_the_same(entries, window)
    rows = sorted(
        (
            _row(trail, now=now, price=price, duplicate_of=first.get(trail.id, ""), delivered=delivered)
            for trail in trails(entries, predictions).values()
        ),
        key=lambda row: row.at,
    )
    return Ledger(
        rows=tuple(rows),
        charged=_sum(rows),
        duplicates_charged=_sum(row for row in rows if row.duplicate_of),
        duplicates=tuple(row.prediction for row in rows if row.duplicate_of),
        never_fetched=tuple(
            row.prediction for row in rows if row.status == Status.COMPLETED and not row.fetched
        ),
        answers_lost=tuple(row.prediction for row in rows if row.answer_lost),
    )


def _row(
    trail: Trail, *, now: int, price: Callable[[str], float], duplicate_of: str, delivered: Collection[str]
) -> Row:
    submit = trail.submit.entry if trail.submit else None
    model = trail.prediction.model if trail.prediction else _model_of(submit)
    asked = [each.entry for each in trail.polls] + ([submit] if submit else [])
    created_at = trail.prediction.created_at if trail.prediction else 0
    outputs = len(trail.prediction.makes) if trail.prediction else 0
    took = any(each.entry.status in {200, 206} and each.entry.method == "GET" for each in trail.outputs)
    return Row(
        prediction=trail.id,
        model=model,
        at=submit.at if submit else created_at,
        key=submit.key if submit else "",
        price=submit.charged if submit and submit.charged else round(price(model) * (outputs or 1), 6),
        status=status_of(trail.prediction, now),
        duplicate_of=duplicate_of,
        fetched=took or trail.id in delivered or any(tells_end(each) for each in asked),
        outputs_fetched=took,
        answer_lost=submit is not None and answer_lost(submit),
    )


def _model_of(submit: Entry | None) -> str:
    """The model whose path a submit went to: what stands behind the version."""
    return submit.path.partition("/api/")[2].partition("/")[2] if submit else ""


def _first_of_the_same(entries: Iterable[Numbered], window: int) -> Mapping[str, str]:
    """For each accepted submit that had one like it within the window before: the first of those."""
    found = {}
    for group in same_submits(entries):
        accepted = [each.entry for each in group if begins_task(each.entry)]
        first = 0
        for place, entry in enumerate(accepted):
            while entry.at - accepted[first].at > window:
                first += 1
            if first < place:
                found[entry.prediction] = accepted[first].prediction
    return found


def _sum(rows: Iterable[Row]) -> float:
    return round(math.fsum(row.price for row in rows), 6)


def ledger_json(found: Ledger) -> dict[str, Any]:
    """The ledger as the control plane answers it: times as texts, and how many tasks were accepted."""
    return {
        "accepted": len(found.rows),
        "charged": found.charged,
        "duplicates_charged": found.duplicates_charged,
        "duplicates": list(found.duplicates),
        "never_fetched": list(found.never_fetched),
        "answers_lost": list(found.answers_lost),
        "tasks": [{**asdict(row), "at": timestamp(row.at)} for row in found.rows],
    }
