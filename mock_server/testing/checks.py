"""What the assertions of a test say: nothing where they hold, else what came in and how near it was."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from mock_server.testing.records import ReceivedRequest

_SHOWN = 12
_NEAR = 4


def meets(request: ReceivedRequest, name: str, wanted: Any) -> bool:
    """Whether the request is what is wanted in one respect. The last part of a model's name is enough."""
    had = getattr(request, name)
    return bool(had == wanted or (name == "model" and had.endswith(f"/{wanted}")))


def matching(requests: Sequence[ReceivedRequest], wanted: Mapping[str, Any]) -> tuple[ReceivedRequest, ...]:
    """The requests that are what is wanted in every respect."""
    return tuple(each for each in requests if all(meets(each, *item) for item in wanted.items()))


def uncalled(requests: Sequence[ReceivedRequest], wanted: Mapping[str, Any], times: int | None) -> str:
    """Why there were not as many requests as wanted (None: at least one); empty where there were."""
    found = matching(requests, wanted)
    if (len(found) == times) if times is not None else found:
        return ""
    like = ", ".join(f"{name}={value!r}" for name, value in wanted.items())
    expected = "at least one request" if times is None else _number(times, "request")
    said = [f"Expected {expected}{f' with {like}' if like else ''}, and {_there_were(len(found))}."]
    if not requests:
        said.append("No request came in at all. Was the client given wavemock.url, or the key wavemock.key?")
    said += _listed(found)
    if len(found) < (times or 1) and requests:
        near = _near([each for each in requests if each not in found], wanted)
        said += (
            ["Nearest:", *(f"  {each}\n    but {_differences(each, wanted)}" for each in near)]
            if near
            else []
        )
        said += [] if near or found else ["What came in:", *_listed(requests)]
    return "\n".join(said)


def _number(number: int, thing: str) -> str:
    return f"1 {thing}" if number == 1 else f"{number or 'no'} {thing}s"


def _there_were(number: int) -> str:
    return "there was 1" if number == 1 else f"there were {number or 'none'}"


def _listed(requests: Sequence[ReceivedRequest]) -> list[str]:
    lines = [f"  {each}" for each in requests[:_SHOWN]]
    return [*lines, f"  and {len(requests) - _SHOWN} more"] if len(requests) > _SHOWN else lines


def _near(requests: Sequence[ReceivedRequest], wanted: Mapping[str, Any]) -> list[ReceivedRequest]:
    """Those that are what is wanted in some respect, the nearest first."""

    def missed(each: ReceivedRequest) -> int:
        return sum(not meets(each, *item) for item in wanted.items())

    return sorted((each for each in requests if missed(each) < len(wanted)), key=missed)[:_NEAR]


def _differences(request: ReceivedRequest, wanted: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} is {getattr(request, name)!r}"
        for name, value in wanted.items()
        if not meets(request, name, value)
    )


def uncharged(ledger: Mapping[str, Any], times: int) -> str:
    """Why not as many tasks were accepted, and so charged, as expected; empty where they were."""
    accepted = ledger["accepted"]
    if accepted == times:
        return ""
    expected = f"Expected {_number(times, 'task')} to be accepted and charged"
    said = [f"{expected}, and {_there_were(accepted)} ($ {ledger['charged']:g})."]
    lost = set(ledger["answers_lost"])
    for task in ledger["tasks"]:
        remarks = [f"the same as {task['duplicate_of'][:8]}, charged again"] if task["duplicate_of"] else []
        remarks += ["its answer was lost"] if task["prediction"] in lost else []
        remarks += [] if task["fetched"] else ["its end was never fetched"]
        said.append(
            f"  {task['prediction'][:8]} {task['at']} {task['model']} $ {task['price']:g} {task['status']}"
            + (f" ({', '.join(remarks)})" if remarks else "")
        )
    return "\n".join(said)


def misbehaved(findings: Sequence[Mapping[str, Any]], allow: Set[str]) -> str:
    """The findings that are more than notes and whose rules are not allowed; empty where there are none."""
    wrong = [each for each in findings if each["severity"] != "note" and each["rule"] not in allow]
    if not wrong:
        return ""
    said = [f"The client broke {'a rule' if len(wrong) == 1 else f'{len(wrong)} rules'}:"]
    for each in wrong:
        numbers = ", ".join(f"#{number}" for number in each["entries"])
        said.append(
            f"  {each['severity']} {each['rule']}: {each['message']}{f' ({numbers})' if numbers else ''}"
        )
        said.append(f"    {each['advice']}")
    rules = ", ".join(sorted({repr(each["rule"]) for each in wrong}))
    said.append(f"To put up with that: assert_good_citizen(allow={{{rules}}})")
    return "\n".join(said)
