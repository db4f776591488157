"""Two targets side by side, for a CI server."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from contract_tests.parity import Pair, Parity
from contract_tests.report.cells import layers
from contract_tests.report.parity.words import found, sides, stops, telling
from contract_tests.report.words import again, claim, said


def render(parity: Parity) -> str:
    """The XML: a suite for each layer. A case fails where either refutes it, and is skipped where either
    cannot prove it; a run that stopped is an error.
    """
    root = Element("testsuites", name="wavemock verify --parity")
    for layer in layers(parity.one):
        _suite(root, parity, layer, [each for each in parity.pairs if each.case.layer == layer])
    stopped = list(stops(parity))
    if stopped:
        suite = SubElement(root, "testsuite", _attributes("run", (), errors=1))
        case = SubElement(suite, "testcase", classname="run", name="comes to its end", time="0.000")
        SubElement(case, "error", message="; ".join(stopped), type="Stopped")
    for name, value in _attributes("", parity.pairs, errors=bool(stopped)).items():
        if name != "name":
            root.set(name, value)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _attributes(name: str, pairs: Sequence[Pair], errors: int = 0) -> dict[str, str]:
    return {
        "name": said(name),
        "tests": str(len(pairs) + errors),
        "failures": str(sum(map(_fails, pairs))),
        "errors": str(int(errors)),
        "skipped": str(sum(_is_skipped(each) for each in pairs)),
        "time": f"{sum(_seconds(each) for each in pairs):.3f}",
    }


def _fails(pair: Pair) -> bool:
    return "refuted" in {pair.one.verdict, pair.other.verdict}


def _is_skipped(pair: Pair) -> bool:
    return not _fails(pair) and "not proven" in {pair.one.verdict, pair.other.verdict}


def _seconds(pair: Pair) -> float:
    return pair.one.seconds + pair.other.seconds


def _suite(root: Element, parity: Parity, layer: str, pairs: Sequence[Pair]) -> None:
    suite = SubElement(root, "testsuite", _attributes(layer, pairs))
    properties = SubElement(suite, "properties")
    for side, report in sides(parity):
        SubElement(properties, "property", name=side, value=said(report.url))
    for pair in pairs:
        _case(suite, parity, pair)


def _case(suite: Element, parity: Parity, pair: Pair) -> None:
    case = SubElement(
        suite,
        "testcase",
        classname=said(pair.case.model) or "the target",
        name=said(pair.case.id),
        time=f"{_seconds(pair):.3f}",
    )
    told = [f"{side}: {telling(finding)}" for side, finding in found(pair)]
    if _fails(pair):
        kind = "Differs" if pair.outcome == "differs" else "Broken"
        failure = SubElement(case, "failure", message="; ".join(told), type=kind)
        commands = [f"again {side}: {again(report, pair.case)}" for side, report in sides(parity)]
        failure.text = "\n".join([": ".join(claim(pair.case)), *told, *commands])
    elif _is_skipped(pair):
        SubElement(case, "skipped", message="; ".join(told))
