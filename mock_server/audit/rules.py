"""What the audit looks for, in one table."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mock_server.audit import polling, requests
from mock_server.audit.signs import Matter, Severity, Sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One way to be a bad client: what of it can be seen, and what to do instead.

    `severity` is how bad it can be; a finding may be milder. `check` says where it happened.
    """

    id: str
    severity: Severity
    what: str
    advice: str
    check: Callable[[Matter], Iterator[Sign]]


RULES: Mapping[str, Rule] = {
    rule.id: rule
    for rule in (
        Rule(
            id="polled-too-fast",
            severity="error",
            what="Three pauses between polls of an unfinished task were shorter than 0.25 s (below 0.45 s: a "
            "warning), and were not growing.",
            advice="Wait 2 s or more between polls of an image task, 5 s or more for a training.",
            check=polling.polled_too_fast,
        ),
        Rule(
            id="no-backoff",
            severity="warning",
            what="An unfinished task was polled for more than a minute at pauses below 2 s that never grew "
            "(from 0.9 s on: a note, since the official SDK polls every second).",
            advice="Wait longer from poll to poll, up to 5 or 10 s.",
            check=polling.no_backoff,
        ),
        Rule(
            id="ignored-retry-after",
            severity="warning",
            what="The same request was sent again before the time in `Retry-After` was up.",
            advice="Wait for as long as `Retry-After` says; back off where it is missing.",
            check=requests.ignored_retry_after,
        ),
        Rule(
            id="polled-after-end",
            severity="warning",
            what="A task was polled twice or more after an answer had told that it is completed or failed.",
            advice="Stop at the first final status, and keep the answer.",
            check=polling.polled_after_end,
        ),
        Rule(
            id="never-polled",
            severity="warning",
            what="A task was accepted and ended, and nobody polled it or got a webhook.",
            advice="Poll every task to its end, also where a webhook is expected: it may be lost.",
            check=polling.never_polled,
        ),
        Rule(
            id="gave-up-on-error",
            severity="warning",
            what="A poll was answered with 429, 5xx or a reset, and was the last, though the task ended.",
            advice="Poll again after a pause, several times: the task goes on, and is paid for.",
            check=polling.gave_up_on_error,
        ),
        Rule(
            id="retried-client-error",
            severity="warning",
            what="The same request was sent again within a minute of a 400, 401, 403, 404, 405, 413 or 415, "
            "and refused again.",
            advice="Show such an error to whoever can mend the request; repeat it only when it has changed.",
            check=requests.retried_client_error,
        ),
        Rule(
            id="retried-submit",
            severity="error",
            what="The same submit was sent again although the first was accepted (an error: two tasks are "
            "charged), may have been (a warning), or a second result may be wanted (a note).",
            advice="Do not repeat a submit unasked: look into the list of tasks first, or ask the user.",
            check=requests.retried_submit,
        ),
        Rule(
            id="used-unfinished",
            severity="error",
            what="An output was asked for while the task was unfinished, or before any answer had told its "
            "end (a warning).",
            advice="Take outputs from an answer whose status is `completed`, and from no other.",
            check=requests.used_unfinished,
        ),
        Rule(
            id="hard-coded-result-url",
            severity="note",
            what="A task was polled at another address than the `urls.get` of its answer.",
            advice="Poll the address in `urls.get`, as it is.",
            check=polling.hard_coded_result_url,
        ),
        Rule(
            id="key-in-query",
            severity="error",
            what="An API key stood in an address, where logs and proxies keep it.",
            advice="Send the key in `Authorization: Bearer KEY`, and nowhere else.",
            check=requests.key_in_query,
        ),
        Rule(
            id="no-user-agent",
            severity="note",
            what="A request had no User-Agent.",
            advice="Name the program and its version in `User-Agent`.",
            check=requests.no_user_agent,
        ),
    )
}


def rules_table() -> str:
    """The rules as a table in Markdown."""
    rows = [f"| `{rule.id}` | {rule.severity} | {rule.what} | {rule.advice} |" for rule in RULES.values()]
    return "\n".join(("| rule | severity | what it sees | what to do |", "|---|---|---|---|", *rows))
