"""Two targets side by side: what became of the same cases, and how alike their answers are made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from contract_tests.case import Finding, Report

if TYPE_CHECKING:
    from contract_tests.case import Case
    from contract_tests.exchange import Exchange

Outcome = Literal["alike", "differs", "broken by both", "not proven by one"]
OUTCOMES: tuple[Outcome, ...] = ("differs", "broken by both", "not proven by one", "alike")
"""The worst first."""
SIDES = ("A", "B")
_MOST_POINTERS = 5_000
_TASK = re.compile(r"(/predictions/)[^/?]+")
_KINDS: Mapping[type, str] = {
    str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object",
    type(None): "null",
}  # fmt: skip

Shape = Mapping[str, frozenset[str]]
"""The JSON types that stand at each JSON pointer, with `*` for every index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What became of one case on either target."""

    one: Finding
    other: Finding

    @property
    def case(self) -> Case:
        """The case, as it was put to the first."""
        return self.one.case

    @property
    def outcome(self) -> Outcome:
        """How the two verdicts go together."""
        verdicts = {self.one.verdict, self.other.verdict}
        if len(verdicts) == 2:
            return "differs" if "refuted" in verdicts else "not proven by one"
        return "broken by both" if verdicts == {"refuted"} else "alike"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A difference between answers to the same request that decides nothing, and the cases that show it."""

    request: str
    says: str
    cases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Two reports of the same cases. `again` is the command that repeats both runs."""

    one: Report
    other: Report
    pairs: tuple[Pair, ...]
    remarks: tuple[Remark, ...]
    again: str

    def of(self, outcome: Outcome) -> tuple[Pair, ...]:
        """The pairs that came to this."""
        return tuple(each for each in self.pairs if each.outcome == outcome)

    @property
    def exit_code(self) -> int:
        """0 where both keep all, 1 where something is broken by either, 2 where one could not be told."""
        codes = {self.one.exit_code, self.other.exit_code}
        return 1 if 1 in codes else max(codes)


def compare(one: Report, other: Report, *, again: str) -> Parity:
    """Puts two reports side by side, whose findings are of the same cases in the same order."""
    pairs = tuple(
        Pair(one=first, other=second)
        for first, second in zip(one.findings, other.findings, strict=True)
        if first.case.id == second.case.id
    )
    return Parity(one=one, other=other, pairs=pairs, remarks=tuple(_remarks(pairs)), again=again)


def status_of(finding: Finding) -> int | None:
    """The HTTP status of the last answer; None where there was none."""
    return finding.exchanges[-1].status or None if finding.exchanges else None


def _remarks(pairs: tuple[Pair, ...]) -> Iterator[Remark]:
    """What there is to say, each thing once, the commonest first."""
    found: dict[tuple[str, str], list[str]] = {}
    for pair in pairs:
        one, other = _answer(pair.one), _answer(pair.other)
        if one is not None and other is not None and _name(one) == _name(other):
            for said in _differences(one, other):
                found.setdefault((_name(one), said), []).append(pair.case.id)
    for (request, said), cases in sorted(found.items(), key=lambda item: -len(item[1])):
        yield Remark(request=request, says=said, cases=tuple(cases))


def _answer(finding: Finding) -> Exchange | None:
    """The last exchange, if it is JSON. What a control plane tells is no part of the contract."""
    api = [each for each in finding.exchanges if not each.request.path.startswith("/_mock/")]
    return api[-1] if api and not api[-1].parsed[1] else None


def _name(exchange: Exchange) -> str:
    """A request without what differs from task to task."""
    path = exchange.request.path.partition("?")[0]
    return exchange.request.method + " " + _TASK.sub(r"\1{id}", path)


def _differences(one: Exchange, other: Exchange) -> Iterator[str]:
    if one.status != other.status:
        yield f"HTTP {one.status} by A, HTTP {other.status} by B"
        return
    here, there = shape_of(one.json), shape_of(other.json)
    for pointer in sorted(here.keys() | there.keys()):
        if pointer not in here or pointer not in there:
            owner, shape = ("A", here) if pointer in here else ("B", there)
            if _is_telling(pointer, there if owner == "A" else here):
                yield f"{pointer}: {_kinds(shape[pointer])}, by {owner} alone"
        elif here[pointer] != there[pointer]:
            where = pointer or "the answer"
            yield f"{where}: {_kinds(here[pointer])} by A, {_kinds(there[pointer])} by B"


def _is_telling(pointer: str, elsewhere: Shape) -> bool:
    """Whether it says something that a pointer lacks: not where an array is empty, or all above lacks too."""
    above, _, last = pointer.rpartition("/")
    return last != "*" and "object" in elsewhere.get(above, ())


def _kinds(kinds: frozenset[str]) -> str:
    return " or ".join(sorted(kinds))


def shape_of(value: Any) -> Shape:
    """What stands where in a JSON value; of an endless one, only as much as anybody would compare."""
    found: dict[str, set[str]] = {}
    left = [("", value)]
    while left and len(found) < _MOST_POINTERS:
        pointer, each = left.pop()
        found.setdefault(pointer, set()).add(_KINDS[type(each)])
        if isinstance(each, dict):
            left += [(f"{pointer}/{_escaped(name)}", inner) for name, inner in each.items()]
        elif isinstance(each, list):
            left += [(f"{pointer}/*", inner) for inner in each]
    return {pointer: frozenset(kinds) for pointer, kinds in found.items()}


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
