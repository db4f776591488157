"""The report for a CI server: JUnit's XML as Jenkins and its kin read it."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from contract_tests.case import Finding, Report
from contract_tests.report.cells import layers, tally
from contract_tests.report.words import said, story


def render(report: Report) -> str:
    """The XML: a suite for each layer, and one with an error where the run did not come to its end."""
    root = Element("testsuites", name="wavemock verify")
    for layer in layers(report):
        _suite(root, report, layer, [each for each in report.findings if each.case.layer == layer])
    if report.stopped:
        suite = SubElement(root, "testsuite", _attributes("run", (), errors=1))
        case = SubElement(suite, "testcase", classname="run", name="comes to its end", time="0.000")
        SubElement(case, "error", message=said(report.stopped), type="Stopped").text = said(report.stopped)
    for name, value in _attributes("", report.findings, errors=bool(report.stopped)).items():
        if name != "name":
            root.set(name, value)
    root.set("time", f"{report.seconds:.3f}")
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _attributes(name: str, findings: Sequence[Finding], errors: int = 0) -> dict[str, str]:
    number = tally(findings)
    return {
        "name": said(name),
        "tests": str(len(findings) + errors),
        "failures": str(number["refuted"]),
        "errors": str(int(errors)),
        "skipped": str(number["not proven"]),
        "time": f"{sum(each.seconds for each in findings):.3f}",
    }


def _suite(root: Element, report: Report, layer: str, findings: Sequence[Finding]) -> None:
    suite = SubElement(root, "testsuite", _attributes(layer, findings))
    properties = SubElement(suite, "properties")
    for name, value in (("url", report.url), ("edition", report.edition), ("seed", str(report.seed))):
        SubElement(properties, "property", name=name, value=said(value))
    for finding in findings:
        _case(suite, report, finding)


def _case(suite: Element, report: Report, finding: Finding) -> None:
    case = SubElement(
        suite,
        "testcase",
        classname=said(finding.case.model) or "the target",
        name=said(finding.case.id),
        time=f"{finding.seconds:.3f}",
    )
    if finding.verdict == "refuted":
        failure = SubElement(case, "failure", message=said(finding.message), type="Broken")
        failure.text = "\n".join(f"{label}: {text}" for label, text in story(report, finding))
    elif finding.verdict == "not proven":
        SubElement(case, "skipped", message=said(finding.message))
