"""The checks of the audit that look at how a client polls."""

from collections.abc import Iterator
from itertools import dropwhile, pairwise
from statistics import median

from mock_server.audit.signs import (
    PATIENCE,
    Matter,
    Sign,
    ended_for_good,
    may_have_seen_a_list,
    nobody_knows_the_end,
    seconds,
    times,
)
from mock_server.audit.trails import Trail, answer_lost, by_client, fault_kind, tells_end, tells_unfinished
from mock_server.journal import Entry, Numbered

FAR_TOO_FAST = 250
"""Milliseconds between polls below which no client that is known polls, by half."""
TOO_FAST = 450
"""Clients in use poll every 500 ms or more slowly; a tenth of that is left to the jitter of timers."""
_OFTEN = 3
_GROWTH = 1.25
ADVISED = 2_000
"""Milliseconds between polls that the API's pages advise for images, at least."""
_LONG = 60_000
# The official SDK polls every second, from the first poll to the last; that is worth a remark, and no more.
_OFFICIAL = 900
_SLOWED = 1.5
_GOES_ON = 2
_SAME_LOOP = 60_000


def _clients(matter: Matter) -> Iterator[tuple[Trail, tuple[Numbered, ...]]]:
    for trail in matter.trails.values():
        for polls in by_client(trail.polls):
            yield trail, polls


def _pauses(polls: tuple[Numbered, ...]) -> list[tuple[Numbered, int]]:
    """Each poll of a task that the client had no reason to hold for ended, and the time since the one before.

    Nothing is said where no time passed at all: then the server's clock stands still, and shows nothing.
    """
    return [
        (after, pause)
        for before, after in pairwise(polls)
        if tells_unfinished(before.entry) or _failed(before.entry)
        if (pause := after.entry.at - before.entry.at) > 0
    ]


def _failed(entry: Entry) -> bool:
    return entry.status == 429 or entry.status >= 500


def polled_too_fast(matter: Matter) -> Iterator[Sign]:
    """Several polls in quick succession. A pause clearly longer than the last is a step of a back-off."""
    for trail, polls in _clients(matter):
        pauses = _pauses(polls)
        quick: list[tuple[Numbered, int]] = []
        last = 0
        for poll, pause in pauses:
            if pause < TOO_FAST and (last == 0 or pause < _GROWTH * last):
                quick.append((poll, pause))
            last = pause
        far = [each for each in quick if each[1] < FAR_TOO_FAST]
        if len(quick) < _OFTEN:
            continue
        shown = far if len(far) >= _OFTEN else quick
        yield Sign(
            severity="error" if shown is far else "warning",
            message=f"polled {times(len(shown))} after a pause of less than "
            f"{seconds(FAR_TOO_FAST if shown is far else TOO_FAST)}; "
            f"the shortest was {seconds(min(pause for _, pause in shown))}",
            seen=tuple(poll for poll, _ in shown),
            prediction=trail.id,
        )


def no_backoff(matter: Matter) -> Iterator[Sign]:
    """Short pauses for more than a minute that never grow."""
    for trail, polls in _clients(matter):
        pauses = _pauses(polls)
        short = [each for each in pauses if each[1] < ADVISED]
        whole = sum(pause for _, pause in short)
        if whole <= _LONG or _slows_down([pause for _, pause in pauses]):
            continue
        usual = median(pause for _, pause in short)
        yield Sign(
            severity="note" if usual >= _OFFICIAL else "warning",
            message=f"polled {times(len(short))} in {seconds(whole)}, every {seconds(usual)}, "
            "and never more slowly",
            seen=tuple(poll for poll, _ in short),
            prediction=trail.id,
        )


def _slows_down(pauses: list[int]) -> bool:
    half = len(pauses) // 2
    slower = _SLOWED * median(pauses[:half])
    return median(pauses[half:]) >= slower or pauses[-1] >= slower


def polled_after_end(matter: Matter) -> Iterator[Sign]:
    """Polls that go on although the end was told. One more is a second look, and one much later a new one."""
    for trail, polls in _clients(matter):
        since = list(dropwhile(lambda each: not tells_end(each.entry) or bool(each.entry.fault), polls))
        if not since:
            continue
        told = since[0]
        again = [
            after
            for before, after in pairwise(since)
            if told.entry.ended <= after.entry.at <= before.entry.ended + _SAME_LOOP
        ]
        if len(again) >= _GOES_ON:
            yield Sign(
                severity="warning",
                message=f"polled {times(len(again))} more after it had been told that the task is "
                f"{told.entry.told}",
                seen=(told, *again),
                prediction=trail.id,
            )


def never_polled(matter: Matter) -> Iterator[Sign]:
    """A task that was accepted, told, ended, and forgotten."""
    for trail in matter.trails.values():
        prediction, submit = trail.prediction, trail.submit
        if prediction is None or submit is None or trail.polls or not ended_for_good(matter, trail):
            continue
        if submit.entry.fault or answer_lost(submit.entry) or not nobody_knows_the_end(matter, trail):
            continue
        if may_have_seen_a_list(matter, trail, prediction.ends_at or 0):
            continue
        hook = " and the webhook has not arrived" if prediction.webhook else ""
        yield Sign(
            severity="warning",
            message=f"the task was accepted, and nobody asked what became of it{hook}",
            seen=(submit,),
            prediction=trail.id,
        )


def gave_up_on_error(matter: Matter) -> Iterator[Sign]:
    """One error in answer to a poll, and no poll ever after, though the task ended."""
    for trail, polls in _clients(matter):
        last = polls[-1]
        if not _failed(last.entry) and fault_kind(last.entry) != "reset":
            continue
        if len(polls) > 1 and not tells_unfinished(polls[-2].entry):
            continue
        # Another client, or the same under another name, may have gone on.
        if trail.submit is None or trail.polls[-1] is not last or not nobody_knows_the_end(matter, trail):
            continue
        asked_to_wait = last.entry.ended + (last.entry.retry_after or 0)
        if not ended_for_good(matter, trail) or asked_to_wait + PATIENCE > matter.now:
            continue
        if may_have_seen_a_list(matter, trail, last.entry.ended):
            continue
        what = f"HTTP {last.entry.status}" if last.entry.status else "a connection that was reset"
        yield Sign(
            severity="warning",
            message=f"never polled again after {what}; the task has ended since",
            seen=(last,),
            prediction=trail.id,
        )


def hard_coded_result_url(matter: Matter) -> Iterator[Sign]:
    """Polls of another address than the one in `urls.get`."""
    for trail in matter.trails.values():
        prediction, submit = trail.prediction, trail.submit
        if prediction is None or submit is None or submit.entry.fault or answer_lost(submit.entry):
            continue
        edition = "" if prediction.edition == matter.root_edition else f"/editions/{prediction.edition}"
        told = f"{edition}/api/{prediction.version}/predictions/{trail.id}/result"
        other = tuple(each for each in trail.polls if each.entry.path != told)
        if other:
            yield Sign(
                severity="note",
                message=f"polled {other[0].entry.path[:200]} {times(len(other))}, "
                f"though the answer had given {told}",
                seen=other,
                prediction=trail.id,
            )
