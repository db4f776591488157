"""The checks of the audit that look at requests, and at requests that come again."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from mock_server.audit.signs import (
    Matter,
    Severity,
    Sign,
    ended_for_good,
    may_have_seen_a_list,
    nobody_knows_the_end,
    seconds,
    times,
)
from mock_server.audit.trails import (
    Trail,
    answer_lost,
    begins_task,
    by_arrival,
    is_final,
    may_tell_end,
    same_submits,
    status_of,
)
from mock_server.journal import Entry, Numbered
from mock_server.prediction import Status

_CLIENT_ERRORS = frozenset({400, 401, 403, 404, 405, 413, 415})
_SAME_MATTER = 60_000
# A client whose timer is a tick early is not impatient.
_SLACK = 50
# How far back the beginning of a row of failing tries is looked for.
_MOST_TRIES = 100


def _same_requests(matter: Matter) -> Iterator[tuple[Numbered, ...]]:
    """Requests that are the same but for their time, as they came in.

    What a body held is known by its digest; where it was not read, nothing is said of it.
    """
    found: dict[tuple[str, ...], list[Numbered]] = defaultdict(list)
    for each in by_arrival(matter.entries):
        entry = each.entry
        if entry.digest or entry.method in {"GET", "HEAD", "DELETE"}:
            key = (entry.kind, entry.method, entry.path, entry.query, entry.digest, entry.key, entry.agent)
            found[key].append(each)
    yield from (tuple(each) for each in found.values() if len(each) > 1)


def ignored_retry_after(matter: Matter) -> Iterator[Sign]:
    """The same request again before the time was up that an answer had asked for."""
    for group in _same_requests(matter):
        early = [
            (before, after)
            for before, after in pairwise(group)
            # Where no time has passed at all the clock stands still, and shows nothing.
            if before.entry.retry_after and after.entry.at > before.entry.at
            if before.entry.ended <= after.entry.at < before.entry.ended + before.entry.retry_after - _SLACK
        ]
        if not early:
            continue
        first, again = early[0]
        waited = seconds(again.entry.at - first.entry.ended)
        yield Sign(
            severity="warning",
            message=f"{_said(first.entry)} was sent again {waited} after HTTP {first.entry.status} with "
            f"Retry-After: {seconds(first.entry.retry_after or 0)}{_and_more(early)}",
            seen=tuple(each for pair in early for each in pair),
            prediction=first.entry.prediction,
        )


def retried_client_error(matter: Matter) -> Iterator[Sign]:
    """The same request again, and the same refusal, for a reason that waiting does not mend."""
    for group in _same_requests(matter):
        again = [
            (before, after)
            for before, after in pairwise(group)
            if before.entry.status in _CLIENT_ERRORS and after.entry.status == before.entry.status
            if before.entry.ended <= after.entry.at <= before.entry.ended + _SAME_MATTER
            # What is not there yet may be there later; that is another rule's business.
            if before.entry.kind != "output" or before.entry.prediction not in matter.trails
        ]
        if again:
            first = again[0][0].entry
            yield Sign(
                severity="warning",
                message=f"{_said(first)} was sent again {times(len(again))}, "
                f"and refused each time with HTTP {first.status}",
                seen=(again[0][0], *(after for _, after in again)),
                prediction=first.prediction,
            )


def retried_submit(matter: Matter) -> Iterator[Sign]:
    """The same submit again although the one before was accepted, or may have been."""
    for group in same_submits(matter.entries):
        found: dict[Severity, list[tuple[Numbered, Numbered]]] = defaultdict(list)
        answered = sorted(group, key=_ended)
        for later in group:
            earlier = _doubted(answered, later, matter.window)
            if earlier is not None and not _failed_before(matter, earlier, later):
                found[_gravity(matter, earlier, later)].append((earlier, later))
        worst = next((each for each in _GRAVEST_FIRST if each in found), None)
        if worst is not None:
            yield _repeated(worst, found[worst])


_GRAVEST_FIRST: tuple[Severity, ...] = ("error", "warning", "note")
_REPEATED: dict[Severity, str] = {
    "error": "so one piece of work was charged twice",
    "warning": "which may have been accepted; had it been, the work would have been charged twice",
    "note": "which had been accepted: right if another result was wanted",
}


def _repeated(severity: Severity, pairs: Sequence[tuple[Numbered, Numbered]]) -> Sign:
    earlier, later = pairs[0]
    after = seconds(later.entry.at - earlier.entry.ended)
    return Sign(
        severity=severity,
        message=f"{_said(earlier.entry)} was sent again {after} after {_outcome(earlier.entry)}, "
        f"{_REPEATED[severity]}{_and_more(pairs)}",
        seen=tuple(dict.fromkeys(each for pair in pairs for each in pair)),
        prediction=earlier.entry.prediction,
    )


def _outcome(entry: Entry) -> str:
    if entry.status == 0:
        return "no answer had come"
    return (
        "an answer that cannot be read"
        if answer_lost(entry) and entry.status == 200
        else f"HTTP {entry.status}"
    )


def _ended(each: Numbered) -> int:
    return each.entry.ended


def _doubted(answered: Sequence[Numbered], later: Numbered, window: int) -> Numbered | None:
    """The earlier submit that `later` repeats, if it is one to worry about.

    Of those without a good answer that is the last which was accepted, else the last which may have been;
    where there are none since the last good answer, the submit that got that. `answered` are all like it, in
    the order of their ends.
    """
    known = bisect_right(answered, later.entry.at, key=_ended)
    doubtful: Numbered | None = None
    for each in reversed(answered[max(known - _MOST_TRIES, 0) : known]):
        if each.number >= later.number or each.entry.ended + window < later.entry.at:
            continue
        if begins_task(each.entry):
            return each if answer_lost(each.entry) else doubtful or each
        if doubtful is None and _may_be_accepted(each.entry):
            doubtful = each
    return doubtful


def _may_be_accepted(entry: Entry) -> bool:
    """Whether the client could not tell that it was not. A 503 with Retry-After asks for another try."""
    if begins_task(entry):
        return True
    return entry.status == 0 or (entry.status >= 500 and not (entry.status == 503 and entry.retry_after))


def _failed_before(matter: Matter, earlier: Numbered, later: Numbered) -> bool:
    """Whether the first task had been told to have failed, so that another try is what is left."""
    trail = matter.trails.get(earlier.entry.prediction)
    return trail is not None and any(
        each.entry.told == Status.FAILED and each.entry.at <= later.entry.at for each in trail.polls
    )


def _gravity(matter: Matter, earlier: Numbered, later: Numbered) -> Severity:
    both = begins_task(earlier.entry) and begins_task(later.entry)
    if not begins_task(earlier.entry) or answer_lost(earlier.entry):
        return "error" if both else "warning"
    trail, other = (matter.trails.get(each.entry.prediction) for each in (earlier, later))
    # A client that knows of both tasks wants both; one that looks at the second alone has lost the first.
    forgotten = (
        trail is not None
        and other is not None
        and not trail.polls
        and ended_for_good(matter, trail)
        and nobody_knows_the_end(matter, trail)
        and not may_have_seen_a_list(matter, trail, earlier.entry.ended)
        and (bool(other.polls) or other.id in matter.delivered)
    )
    return "error" if forgotten else "note"


def used_unfinished(matter: Matter) -> Iterator[Sign]:
    """An output asked for before anybody said that the task had ended."""
    for trail in matter.trails.values():
        prediction, submit = trail.prediction, trail.submit
        if prediction is None or submit is None or not trail.outputs:
            continue
        early = [each for each in trail.outputs if not _knew(matter, trail, each.entry.at)]
        unfinished = [each for each in early if not is_final(status_of(prediction, each.entry.at))]
        if not early:
            continue
        seen = unfinished or early
        state = "it was still unfinished" if unfinished else "any answer had told that it had ended"
        yield Sign(
            severity="error" if unfinished else "warning",
            message=f"an output of the task was asked for {times(len(seen))} "
            f"{'while' if unfinished else 'before'} {state}",
            seen=tuple(seen),
            prediction=trail.id,
        )


def _knew(matter: Matter, trail: Trail, at: int) -> bool:
    """Whether any client can have known by then that the task had ended."""
    asked = (*trail.polls, *((trail.submit,) if trail.submit else ()))
    return (
        trail.id in matter.delivered
        or any(may_tell_end(each.entry) and each.entry.at <= at for each in asked)
        or may_have_seen_a_list(matter, trail, trail.submit.entry.ended if trail.submit else at)
    )


def key_in_query(matter: Matter) -> Iterator[Sign]:
    """An API key in an address."""
    seen = tuple(each for each in matter.entries if each.entry.key_in_query)
    if seen:
        yield Sign(
            severity="error",
            message=f"an API key was sent in the query {times(len(seen))}, "
            f"first to {seen[0].entry.path[:200]}",
            seen=seen,
        )


def no_user_agent(matter: Matter) -> Iterator[Sign]:
    """Requests that do not say whose they are."""
    seen = tuple(each for each in matter.entries if not each.entry.agent and each.entry.kind != "other")
    if seen:
        yield Sign(
            severity="note",
            message=f"a request without User-Agent was sent {times(len(seen))}, first {_said(seen[0].entry)}",
            seen=seen,
        )


def _said(entry: Entry) -> str:
    return f"{entry.method} {entry.path[:200]}"


def _and_more(pairs: Sequence[object]) -> str:
    return f"; the like happened {times(len(pairs))}" if len(pairs) > 1 else ""
