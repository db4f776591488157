"""The audit's findings and the ledger as text and as JUnit's XML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click


class Untold(click.ClickException):
    """One line about why it cannot be told, and exit code 2."""

    exit_code = 2


def clean(text: str) -> str:
    """The text on one line, without what a terminal or XML would take for an order."""
    return "".join(each if each.isprintable() else " " for each in text)


def told(message: str, advice: str) -> str:
    """What happened, and below it what to do."""
    return f"  {message}\n  -> {advice}"


def story(finding: Mapping[str, Any]) -> str:
    """One finding, with its evidence."""
    about = f"  task {clean(finding['prediction'])}" if finding["prediction"] else ""
    return (
        f"{finding['severity']}: {clean(finding['rule'])}{about}\n"
        f"{told(clean(finding['message']), clean(finding['advice']))}\n  {_evidence(finding)}"
    )


def _evidence(finding: Mapping[str, Any]) -> str:
    """Where to look: the requests by their numbers, and when they came."""
    told = ", ".join(clean(str(number)) for number in finding["entries"])
    more = finding["count"] - len(finding["entries"])
    rest = f" and {more} more" if more > 0 else ""
    first, last = clean(finding["first_at"]), clean(finding["last_at"])
    return f"requests {told}{rest}, {first}" + (f" to {last}" if last != first else "")


def summary(shown: Sequence[Mapping[str, Any]], hidden: int, data: Mapping[str, Any]) -> str:
    """How many findings there are, in one line; `hidden` were allowed."""
    counted = [
        f"{number} {severity}{'s' if number > 1 else ''}"
        for severity in ("error", "warning", "note")
        if (number := sum(each["severity"] == severity for each in shown))
    ]
    allowed = f" ({hidden} allowed)" if hidden else ""
    requests = clean(str(data.get("requests", "?")))
    return f"{', '.join(counted) or 'nothing'} found in {requests} requests{allowed}"


def books(url: str, found: Mapping[str, Any]) -> str:
    """The ledger in four lines. Raises Untold where it is none."""
    try:
        return (
            f"tasks accepted: {int(found['accepted'])}, charged {float(found['charged']):.4g}\n"
            f"  duplicates: {_ids(found['duplicates'])}, charged {float(found['duplicates_charged']):.4g}\n"
            f"  completed and never fetched: {_ids(found['never_fetched'])}\n"
            f"  accepted, and the answer lost: {_ids(found['answers_lost'])}"
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Untold(
            f"{url} is no wavemock that this command understands: its ledger reads otherwise."
        ) from error


def _ids(found: Sequence[str]) -> str:
    return f"{len(found)}" + (
        f" ({', '.join(clean(each) for each in found[:5])}{', ...' * (len(found) > 5)})" if found else ""
    )


def junit_xml(shown: Sequence[Mapping[str, Any]], rules: Sequence[str], allow: Sequence[str]) -> str:
    """The findings as JUnit's XML: a test case for each rule, failed by errors and warnings."""
    from xml.etree.ElementTree import Element, SubElement, indent, tostring  # noqa: PLC0415 - as above

    names = list(dict.fromkeys((*rules, *(each["rule"] for each in shown))))
    suite = Element("testsuite", name="wavemock audit")
    failures = 0
    for name in names:
        case = SubElement(suite, "testcase", classname="audit", name=clean(name), time="0.000")
        found = [each for each in shown if each["rule"] == name]
        failing = [each for each in found if each["severity"] != "note"]
        if name in allow:
            SubElement(case, "skipped", message="allowed")
        elif failing:
            failures += 1
            failure = SubElement(
                case, "failure", message=clean(failing[0]["message"]), type=failing[0]["severity"]
            )
            failure.text = "\n\n".join(story(each) for each in failing)
        elif found:
            SubElement(case, "system-out").text = "\n\n".join(story(each) for each in found)
    counts = {"tests": len(names), "failures": failures, "errors": 0, "skipped": len({*allow} & {*names})}
    for key, number in counts.items():
        suite.set(key, str(number))
    root = Element("testsuites")
    root.append(suite)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'
