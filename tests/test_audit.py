"""The audit says what a client did wrong, and is silent about everybody else."""

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

import pytest
from test_ledger import ONE, PATH, START, THREE, TWO, lost, numbered, output, poll, refused, submit, task

from mock_server.audit.findings import Finding, audit, findings_json
from mock_server.audit.rules import RULES, rules_table
from mock_server.journal import Entry
from mock_server.prediction import Prediction, Status

World = tuple[list[Entry], list[Prediction]]


def history(**more: Any) -> Entry:
    """A look into the list of one's tasks."""
    given = {"kind": "platform", "method": "POST", "path": "/api/v3/predictions", "prediction": "", **more}
    return poll(12, "", **given)


UNKNOWN: dict[str, Any] = {"status": 404, "told": "", "prediction": ""}


def audited(
    entries: Iterable[Entry], *tasks: Prediction, second: float = 1000, **more: Any
) -> tuple[Finding, ...]:
    given: dict[str, Any] = {"root_edition": "current", **more}
    return audit(numbered(entries), tasks, now=START + round(second * 1000), **given)


def said(*arguments: Any, **more: Any) -> list[tuple[str, str]]:
    """Rule and severity of everything that is found."""
    return [(each.rule, each.severity) for each in audited(*arguments, **more)]


def every(pause: float, until: float, *, begin: float = 0.1, **more: Any) -> list[Entry]:
    """A submit and polls with that pause in between, up to one that finds the task completed."""
    return paced([pause] * (int((until - begin) / pause) + 1), until, begin=begin, **more)


def paced(pauses: Iterable[float], until: float, *, begin: float = 0.1, **more: Any) -> list[Entry]:
    """The same with pauses of one's own."""
    moments = list(accumulate([begin, *pauses]))
    polls = [poll(at, "processing" if at < until else "completed", **more) for at in moments]
    last = next((place for place, at in enumerate(moments) if at >= until), len(moments) - 1)
    return [submit(0), *polls[: last + 1]]


EXAMPLES: dict[str, Callable[[], World]] = {
    "polled-too-fast": lambda: (every(0.1, 10), [task()]),
    "no-backoff": lambda: (every(0.5, 90), [task(ends=90)]),
    "ignored-retry-after": lambda: (
        [submit(0), poll(1, "", status=429, retry_after=5000), poll(2), poll(11, "completed")],
        [task()],
    ),
    "polled-after-end": lambda: ([submit(0), *(poll(10 + n, "completed") for n in range(3))], [task()]),
    "never-polled": lambda: ([submit(0)], [task()]),
    "gave-up-on-error": lambda: ([submit(0), poll(1), poll(2, "", status=429)], [task()]),
    "retried-client-error": lambda: (
        [poll(1, task="gone", **UNKNOWN), poll(2, task="gone", **UNKNOWN)],
        [],
    ),
    "retried-submit": lambda: ([lost(0), submit(2, TWO), poll(15, "completed", TWO)], [task(), task(TWO)]),
    "used-unfinished": lambda: (
        [submit(0), poll(1), output(2, status=404), poll(11, "completed")],
        [task()],
    ),
    "hard-coded-result-url": lambda: (
        [submit(0), poll(11, "completed", path=f"/api/v2/predictions/{ONE}/result")],
        [task()],
    ),
    "key-in-query": lambda: (
        [submit(0, query="api_key=…", key_in_query=True), poll(11, "completed")],
        [task()],
    ),
    "no-user-agent": lambda: ([submit(0, agent=""), poll(11, "completed", agent="")], [task()]),
}


def test_every_rule_has_an_example() -> None:
    assert list(EXAMPLES) == list(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_finds_its_example_and_no_other_rule_does(rule: str) -> None:
    entries, tasks = EXAMPLES[rule]()
    (found,) = audited(entries, *tasks)
    assert (found.rule, found.severity, found.advice) == (rule, RULES[rule].severity, RULES[rule].advice)


# As clients in use are known to poll, and what they do on an error.
GOOD: dict[str, Callable[[], World]] = {
    "an SDK that polls every second": lambda: (every(1.004, 50), [task(ends=50)]),
    "an SDK that polls twice a second": lambda: (every(0.502, 50), [task(ends=50)]),
    "a node that polls every two seconds": lambda: (every(2.01, 500), [task(ends=500)]),
    "a node that polls every five seconds": lambda: (every(5, 900), [task(ends=900)]),
    "a client that backs off from a tenth of a second": lambda: (
        paced([0.1 * 2**n for n in range(9)], 30),
        [task(ends=30)],
    ),
    "a client that backs off slowly": lambda: (
        paced([0.5 * 1.05**n for n in range(80)], 300),
        [task(ends=300)],
    ),
    "a client that is done at the first poll": lambda: ([submit(0), poll(0.1, "completed")], [task(ends=0)]),
    "a client that takes the outputs": lambda: (
        [submit(0), poll(11, "completed"), output(11.1), output(11.2)],
        [task()],
    ),
    "a client that looks twice": lambda: (
        [submit(0), poll(11, "completed"), poll(11.5, "completed")],
        [task()],
    ),
    "a client that tries a poll again five times": lambda: (
        [
            submit(0),
            *(poll(at, "", status=503, retry_after=1000) for at in (1, 2, 4, 7, 11)),
            poll(16, "completed"),
        ],
        [task()],
    ),
    "a client that gives up after six errors": lambda: (
        [submit(0), *(poll(at, "", status=500) for at in (1, 2, 4, 7, 11, 16))],
        [task()],
    ),
    "a client whose task failed and that tries once more": lambda: (
        [submit(0), poll(11, "failed"), submit(13, TWO), poll(24, "completed", TWO)],
        [task(status=Status.FAILED), task(TWO, ends=24)],
    ),
    "a client that shows a refusal": lambda: ([refused(0, 400)], []),
    "a client that waits as long as it is told": lambda: (
        [
            refused(0, 429, retry_after=1000),
            refused(1.002, 429, retry_after=1000),
            submit(2.004),
            poll(12, "completed"),
        ],
        [task()],
    ),
    "a client with a webhook": lambda: ([submit(0)], [task(TWO, ends=None)]),
    "a synchronous client": lambda: ([submit(0, told="completed"), output(1)], [task(ends=0)]),
    "a synchronous client that polls all the same": lambda: (
        [submit(0, told="completed"), poll(1, "completed")],
        [task(ends=0)],
    ),
    "a client that gives up waiting": lambda: (every(1, 30)[:-1], [task(ends=100)]),
}


@pytest.mark.parametrize("who", GOOD)
def test_a_good_client_is_told_nothing(who: str) -> None:
    entries, tasks = GOOD[who]()
    assert said(entries, *tasks) == []


# Polling too fast


def test_four_polls_a_tenth_apart_are_an_error() -> None:
    assert said(paced([0.1] * 3, 9), task(ends=None)) == [("polled-too-fast", "error")]


def test_three_polls_a_tenth_apart_are_nothing() -> None:
    assert said(paced([0.1] * 2, 9), task(ends=None)) == []


def test_a_quarter_of_a_second_is_the_line_between_error_and_warning() -> None:
    assert said(every(0.249, 5), task(ends=5)) == [("polled-too-fast", "error")]
    assert said(every(0.25, 5), task(ends=5)) == [("polled-too-fast", "warning")]


def test_what_lies_a_tenth_below_half_a_second_is_jitter() -> None:
    assert said(every(0.449, 5), task(ends=5)) == [("polled-too-fast", "warning")]
    assert said(every(0.45, 5), task(ends=5)) == []


def test_a_clock_that_stands_still_shows_no_haste() -> None:
    assert said([submit(0), *(poll(1) for _ in range(50))], task()) == []


def test_several_clients_of_one_task_are_not_taken_for_a_fast_one() -> None:
    polls = [poll(1 + n * 0.2, agent=f"client/{n % 5}") for n in range(40)]
    assert said([submit(0), *polls], task(ends=None)) == []


def test_polls_of_several_tasks_are_not_taken_for_fast_ones_of_one() -> None:
    names = [f"{n:032x}" for n in range(10)]
    polls = [poll(1 + n * 0.1, task=names[n % 10]) for n in range(100)]
    begun = [submit(0, name, digest=name) for name in names]
    assert said([*begun, *polls], *(task(name, ends=None) for name in names)) == []


def test_a_try_at_once_after_a_lost_connection_is_no_haste() -> None:
    polls = [poll(1 + n * 0.01, "", status=0, fault="reset; on=poll") for n in range(5)]
    assert said([submit(0), *polls, poll(11, "completed")], task()) == []


def test_a_finding_counts_and_names_the_shortest_pause() -> None:
    (found,) = audited(paced([0.1, 0.1, 0.05, 0.06], 9), task(ends=None))
    assert found.message == "polled 4 times after a pause of less than 0.25 s; the shortest was 0.05 s"
    assert (found.prediction, found.count, found.entries) == (ONE, 4, (3, 4, 5, 6))
    assert (found.first_at, found.last_at) == (START + 200, START + 410)


def test_a_finding_names_five_requests_at_most() -> None:
    (found,) = audited(paced([0.1] * 20, 9), task(ends=None))
    assert (found.count, found.entries) == (20, (3, 4, 5, 6, 7))


def test_two_clients_of_one_task_make_one_finding() -> None:
    slow = [poll(1 + n * 0.3, agent="slow") for n in range(4)]
    fast = [poll(1.05 + n * 0.1, agent="fast") for n in range(4)]
    (found,) = audited([submit(0), *slow, *fast], task(ends=None))
    assert (found.severity, found.count, len(found.entries)) == ("error", 6, 5)


def test_haste_after_an_answer_that_a_fault_held_up_may_be_catching_up() -> None:
    polls = [poll(1 + n * 0.1, fault="latency; on=poll; times=always; seconds=50ms") for n in range(9)]
    assert said([submit(0), *polls], task(ends=None)) == []


def test_haste_after_errors_is_haste() -> None:
    for status in (429, 500, 503):
        polls = [poll(1 + n * 0.1, "", status=status) for n in range(5)]
        assert said([submit(0), *polls, poll(11, "completed")], task()) == [("polled-too-fast", "error")]


# Backing off


def test_the_official_sdk_gets_a_note_after_a_minute() -> None:
    assert said(every(1.004, 90), task(ends=90)) == [("no-backoff", "note")]


def test_a_minute_without_backing_off_is_no_finding_yet() -> None:
    assert said(every(0.5, 60), task(ends=60)) == []
    assert said(every(0.5, 61), task(ends=61)) == [("no-backoff", "warning")]


def test_a_client_that_slows_down_in_the_end_backs_off() -> None:
    assert said(paced([1] * 70 + [3] * 10, 100), task(ends=100)) == []


def test_a_client_that_slows_down_on_the_whole_backs_off() -> None:
    assert said(paced([0.8] * 60 + [1.2] * 60 + [0.5], 120), task(ends=120)) == []


def test_a_clock_that_is_moved_does_not_make_a_minute() -> None:
    assert said(paced([1] * 10 + [600] + [1] * 10, 700), task(ends=700)) == []


# Retry-After


def test_a_submit_that_comes_too_soon_ignores_retry_after() -> None:
    entries = [refused(0, 429, retry_after=3000), submit(1), poll(11, "completed")]
    assert said(entries, task()) == [("ignored-retry-after", "warning")]


def test_another_submit_meanwhile_ignores_nothing() -> None:
    entries = [refused(0, 429, retry_after=3000), submit(1, digest="other"), poll(11, "completed")]
    assert said(entries, task()) == []


def test_a_request_that_was_on_its_way_already_ignores_nothing() -> None:
    early = refused(0, 429, retry_after=3000, ended=START + 2000)
    assert said([early, submit(1), poll(11, "completed")], task()) == []


def test_a_timer_that_is_a_tick_early_ignores_nothing() -> None:
    entries = [refused(0, 429, retry_after=3000), submit(2.98), poll(11, "completed")]
    assert said(entries, task()) == []


def test_a_clock_that_stands_still_shows_no_impatience() -> None:
    entries = [refused(0, 429, retry_after=3000, ended=START), submit(0), poll(11, "completed")]
    assert said(entries, task()) == []


# After the end, and not to the end


def test_reading_a_result_again_on_later_days_is_nothing() -> None:
    entries = [submit(0), *(poll(11 + n * 3600, "completed") for n in range(5))]
    assert said(entries, task(), second=20_000) == []


def test_polls_before_the_end_are_not_after_it_while_the_clock_stands_still() -> None:
    polls = [
        poll(1, told, ended=START + 1000) for told in ("created", "processing", "processing", "completed")
    ]
    assert said([submit(0), *polls], task(ends=1)) == []


def test_polls_after_the_end_are_found_while_the_clock_stands_still() -> None:
    polls = [poll(1, "completed", ended=START + 1000) for _ in range(3)]
    assert said([submit(0), *polls], task(ends=1)) == [("polled-after-end", "warning")]


def test_an_end_that_was_garbled_may_be_asked_for_again() -> None:
    garbled = [poll(11 + n, "completed", fault="missing; on=poll; times=9; field=outputs") for n in range(5)]
    assert said([submit(0), *garbled, poll(20, "completed")], task()) == []


def test_a_task_is_not_forgotten_before_it_has_ended_for_a_while() -> None:
    assert said([submit(0)], task(), second=19.9) == []
    assert said([submit(0)], task(), second=20) == [("never-polled", "warning")]


def test_a_task_that_never_ends_is_not_forgotten() -> None:
    assert said([submit(0)], task(ends=None)) == []


def test_a_task_whose_webhook_has_arrived_is_not_forgotten() -> None:
    assert said([submit(0)], task(), delivered={ONE}) == []


def test_nobody_can_poll_a_task_of_which_the_answer_was_lost() -> None:
    assert said([lost(0)], task()) == []
    assert said([submit(0, status=0, told="")], task()) == []


def test_a_client_that_may_have_left_before_its_answer_came_has_forgotten_nothing() -> None:
    assert said([submit(0, fault="latency; on=submit; times=1; seconds=30000ms")], task()) == []


def test_a_client_that_reads_the_list_of_its_tasks_has_not_forgotten_them() -> None:
    assert said([submit(0), history()], task()) == []
    assert said([submit(0), history(), output(13)], task()) == []
    assert said([submit(0), poll(2, "", status=429), history()], task()) == []


@pytest.mark.parametrize(
    "other",
    [
        {"key": "other"},
        {"path": "/api/v3/balance"},
        {"status": 500},
        {"kind": "other"},
        {"ended": START + 9999},
    ],
)
def test_what_is_no_list_of_the_clients_tasks_tells_it_nothing(other: dict[str, Any]) -> None:
    assert said([submit(0), history(**other)], task()) == [("never-polled", "warning")]


def test_what_the_journal_has_lost_is_held_against_nobody() -> None:
    assert said([output(12)], task()) == []
    assert said([], task()) == []
    assert said([poll(2, "", status=429)], task()) == []


def test_one_reset_may_end_the_polling_of_none() -> None:
    reset = poll(2, "", status=0, fault="reset; on=poll; times=1")
    assert said([submit(0), poll(1), reset], task()) == [("gave-up-on-error", "warning")]


def test_a_task_that_never_ends_may_be_given_up() -> None:
    assert said([submit(0), poll(1), poll(2, "", status=500)], task(ends=None)) == []


def test_a_client_that_left_has_not_given_up_on_an_error() -> None:
    assert said([submit(0), poll(1), poll(2, "", status=0)], task()) == []


def test_a_client_that_is_asked_to_wait_has_not_given_up() -> None:
    entries = [submit(0), poll(1), poll(2, "", status=429, retry_after=60_000)]
    assert said(entries, task(), second=60) == []
    assert said(entries, task(), second=80) == [("gave-up-on-error", "warning")]


def test_a_client_that_a_webhook_tells_the_end_has_not_given_up() -> None:
    assert said([submit(0), poll(2, "", status=429)], task(), delivered={ONE}) == []


def test_a_client_that_another_took_over_from_has_not_given_up() -> None:
    entries = [submit(0), poll(2, "", status=500), poll(11, "completed", agent="other")]
    assert said(entries, task()) == []


# The same again


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 415])
def test_a_refused_request_that_comes_again_is_found(status: int) -> None:
    entries = [refused(0, status, kind="other"), refused(1, status, kind="other")]
    assert said(entries) == [("retried-client-error", "warning")]


def test_a_poll_of_a_task_with_a_key_that_was_refused_is_not_to_be_repeated() -> None:
    polls = [poll(1 + n, "", status=401, key="bad") for n in range(2)]
    assert said([submit(0), *polls, poll(11, "completed")], task()) == [("retried-client-error", "warning")]


def test_a_refused_request_that_was_mended_is_another() -> None:
    for other in ({"digest": "other"}, {"key": "other"}, {"path": PATH + "-ultra"}, {"query": "a=b"}):
        assert said([refused(0, 400), refused(1, 400, **other)]) == [], other


def test_a_refused_request_that_is_taken_the_next_time_was_worth_it() -> None:
    assert said([refused(0, 401), submit(1), poll(11, "completed")], task()) == []


def test_requests_that_are_refused_side_by_side_are_no_repetition() -> None:
    assert said([refused(0, 401, ended=START + 3000), refused(1, 401, ended=START + 4000)]) == []


def test_a_refused_request_that_comes_again_much_later_is_nothing() -> None:
    assert said([refused(0, 400), refused(61, 400)]) == []


def test_bodies_that_nobody_read_are_not_compared() -> None:
    assert said([refused(0, 413, digest=""), refused(1, 413, digest="")]) == []


def test_a_submit_that_may_have_been_accepted_is_repeated_at_a_risk() -> None:
    for first in (refused(0, 500), refused(0, 502), refused(0, 504), refused(0, 0)):
        entries = [first, submit(2), poll(12, "completed")]
        assert said(entries, task()) == [("retried-submit", "warning")], first.status


def test_what_is_no_submit_costs_nothing_to_repeat() -> None:
    again = [refused(n, 500, kind="platform", path="/api/v3/media/uploads") for n in range(3)]
    assert said(again) == []


def test_a_503_with_retry_after_asks_for_another_try() -> None:
    assert said([refused(0, 503, retry_after=1000), submit(2), poll(12, "completed")], task()) == []
    for other in (refused(0, 503), refused(0, 502, retry_after=1000)):
        found = said([other, submit(2), poll(12, "completed")], task())
        assert found == [("retried-submit", "warning")], other.status


def test_a_retry_that_was_refused_is_not_charged() -> None:
    assert said([lost(0), refused(2, 400)], task()) == [("retried-submit", "warning")]


def test_a_retry_is_charged_at_once_whether_the_first_task_has_ended_or_not() -> None:
    entries = [lost(0), submit(2, TWO), poll(11, "completed", TWO)]
    assert said(entries, task(), task(TWO), second=12) == [("retried-submit", "error")]


def test_of_several_that_had_no_answer_the_one_that_was_accepted_counts() -> None:
    entries = [refused(0, 502), lost(1), refused(2, 502), submit(3, TWO), poll(14, "completed", TWO)]
    (found,) = audited(entries, task(), task(TWO))
    assert (found.severity, found.prediction) == ("error", ONE)


def test_a_lost_answer_after_a_good_one_is_not_made_good_by_it() -> None:
    entries = [submit(0), lost(5, TWO), submit(7, THREE)]
    entries += [poll(11, "completed"), poll(18, "completed", THREE)]
    found = audited(entries, task(), task(TWO), task(THREE))
    assert [(each.severity, each.prediction) for each in found] == [("error", TWO)]


def test_a_second_task_whose_webhook_came_shows_that_the_first_was_dropped() -> None:
    entries = [submit(0), submit(2, TWO)]
    assert ("retried-submit", "error") in said(entries, task(), task(TWO), delivered={TWO})


def test_a_client_that_has_looked_at_the_first_task_may_want_a_second() -> None:
    entries = [submit(0), poll(1), submit(2, TWO), poll(12, "completed", TWO)]
    assert said(entries, task(), task(TWO)) == [("retried-submit", "note")]


def test_a_failure_that_was_told_too_late_explains_no_second_try() -> None:
    entries = [submit(0), submit(2, TWO), poll(11, "failed"), poll(12, "completed", TWO)]
    assert said(entries, task(status=Status.FAILED), task(TWO)) == [("retried-submit", "note")]


def test_a_success_that_was_told_is_no_reason_for_a_second_try() -> None:
    entries = [submit(0), poll(11, "completed"), submit(12, TWO), poll(13, "completed", TWO)]
    assert said(entries, task(), task(TWO)) == [("retried-submit", "note")]


def test_a_repeated_submit_is_told_with_what_came_before() -> None:
    told = {
        "no answer had come": lost(0),
        "HTTP 502": lost(0, status=502),
        "an answer that cannot be read": lost(0, status=200),
    }
    for words, first in told.items():
        entries = [first, submit(2, TWO), submit(5, THREE), poll(12, "completed", TWO)]
        found = next(each for each in audited(entries, second=13) if each.rule == "retried-submit")
        assert found.message == (
            f"POST {PATH} was sent again 2.00 s after {words}, so one piece of work was charged twice"
        )


def test_what_happened_several_times_is_counted() -> None:
    entries = [poll(n, "", status=429, retry_after=5000) for n in range(4)]
    (found,) = audited([submit(0), *entries, poll(11, "completed")], task())
    assert found.message == (
        f"GET /api/v3/predictions/{ONE}/result was sent again 1.00 s after HTTP 429 with "
        "Retry-After: 5.00 s; the like happened 3 times"
    )


def test_a_lost_answer_two_tries_before_is_charged_twice_as_well() -> None:
    entries = [lost(0), refused(1, 502), submit(2, TWO), poll(12, "completed", TWO)]
    found = audited(entries, task(), task(TWO))
    assert [(each.rule, each.severity, each.prediction) for each in found] == [
        ("retried-submit", "error", ONE)
    ]


def test_a_502_behind_which_a_task_began_is_charged_twice() -> None:
    first = lost(0, status=502, fault="502; on=submit; times=1; after-commit=true")
    entries = [first, submit(2, TWO), poll(12, "completed", TWO)]
    assert said(entries, task(), task(TWO)) == [("retried-submit", "error")]


def test_a_submit_that_was_answered_well_and_dropped_is_charged_twice() -> None:
    entries = [submit(0), submit(2, TWO), poll(12, "completed", TWO)]
    assert ("retried-submit", "error") in said(entries, task(), task(TWO))


def test_two_results_of_one_body_may_be_wanted() -> None:
    entries = [submit(0), submit(1, TWO), poll(11, "completed"), poll(12, "completed", TWO)]
    (found,) = audited(entries, task(), task(TWO))
    assert found.severity == "note"
    assert found.message.endswith(
        "after HTTP 200, which had been accepted: right if another result was wanted"
    )


def test_many_results_of_one_body_are_one_note() -> None:
    names = [f"{n:032x}" for n in range(50)]
    entries = [submit(n, name) for n, name in enumerate(names)]
    entries += [poll(70 + n, "completed", name) for n, name in enumerate(names)]
    assert said(entries, *(task(name) for name in names)) == [("retried-submit", "note")]


def test_a_submit_after_the_lost_one_was_made_good_is_no_retry_of_it() -> None:
    entries = [lost(0), submit(2, TWO), submit(20, THREE)]
    entries += [poll(31, "completed", TWO), poll(32, "completed", THREE)]
    (found,) = audited(entries, task(), task(TWO), task(THREE))
    assert (found.severity, found.entries) == ("error", (1, 2))


def test_a_submit_is_not_repeated_by_an_earlier_one_while_the_clock_stands_still() -> None:
    entries = [submit(0, ended=START), lost(0, TWO, ended=START), poll(11, "completed")]
    assert said(entries, task(), task(TWO)) == [("retried-submit", "note")]


def test_submits_side_by_side_repeat_nothing() -> None:
    entries = [lost(0, ended=START + 9000), submit(1, TWO), poll(12, "completed", TWO)]
    assert said(entries, task(), task(TWO)) == []


def test_a_submit_beyond_the_window_repeats_nothing() -> None:
    entries = [lost(0), submit(61, TWO), poll(72, "completed", TWO)]
    assert said(entries, task(), task(TWO)) == []
    assert said(entries, task(), task(TWO), window=70_000) == [("retried-submit", "error")]


# Outputs and addresses


def test_an_output_of_a_task_whose_end_nobody_told_is_a_guess() -> None:
    entries = [submit(0), poll(1), output(12), poll(13, "completed")]
    assert said(entries, task()) == [("used-unfinished", "warning")]


def test_outputs_that_are_there_are_not_counted_with_those_that_are_not() -> None:
    (found,) = audited([submit(0), output(2, status=404), output(12), poll(13, "completed")], task())
    assert (found.severity, found.count, found.entries) == ("error", 1, (2,))


def test_an_output_that_is_not_there_yet_may_be_asked_for_again() -> None:
    entries = [submit(0), poll(1), output(2, status=404), output(3, status=404), poll(11, "completed")]
    assert said(entries, task()) == [("used-unfinished", "error")]


def test_an_output_that_will_never_be_there_may_not() -> None:
    entries = [output(2, status=404), output(3, status=404)]
    assert said(entries) == [("retried-client-error", "warning")]


def test_an_output_after_a_webhook_is_no_guess() -> None:
    assert said([submit(0), output(12)], task(), delivered={ONE}) == []


def test_an_output_after_an_end_that_was_garbled_is_no_guess() -> None:
    garbled = poll(11, "completed", fault="missing; on=poll; times=1; field=status")
    assert said([submit(0), garbled, output(12)], task()) == []


def test_the_address_that_was_told_is_that_of_the_edition() -> None:
    told = f"/editions/current/api/v3/predictions/{ONE}/result"
    entries = [submit(0), poll(11, "completed", path=told)]
    assert said(entries, task(), root_edition="flux-lora") == []
    assert said(entries, task()) == [("hard-coded-result-url", "note")]


def test_who_was_told_no_address_cannot_have_made_one_up() -> None:
    entries = [lost(0), poll(11, "completed", path=f"/api/v3/predictions/{ONE}")]
    assert said(entries, task()) == []


def test_what_is_at_no_address_of_the_api_needs_no_user_agent() -> None:
    assert said([refused(0, 404, kind="other", agent="")]) == []


# The report


def test_the_gravest_comes_first() -> None:
    entries = [submit(0, agent=""), *(poll(1 + n * 0.1) for n in range(5)), poll(11, "completed")]
    assert said(entries, task()) == [("polled-too-fast", "error"), ("no-user-agent", "note")]


def test_only_notes_do_not_fail() -> None:
    found = audited([submit(0, agent="", key_in_query=True), poll(11, "completed")], task())
    assert [(each.severity, each.fails) for each in found] == [("error", True), ("note", False)]


def test_the_json_has_times_as_texts() -> None:
    entries = [submit(0), *(poll(10 + n, "completed") for n in range(3))]
    assert findings_json(audited(entries, task())) == [
        {
            "rule": "polled-after-end",
            "severity": "warning",
            "message": "polled twice more after it had been told that the task is completed",
            "advice": RULES["polled-after-end"].advice,
            "prediction": ONE,
            "count": 3,
            "entries": [2, 3, 4],
            "first_at": "2023-11-14T22:13:30.000Z",
            "last_at": "2023-11-14T22:13:32.000Z",
        }
    ]


def test_the_table_has_a_row_for_every_rule() -> None:
    rows = rules_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(RULES)
    assert all(row.count(" | ") == 3 for row in rows)
