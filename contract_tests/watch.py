"""What the judges and the laws have said so far, and what comes of it in the end."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from contract_tests import laws
from contract_tests.case import Case, Finding, Source, Unproven
from contract_tests.exchange import Exchange
from contract_tests.judges import CORE, RS, Judges, Remark, is_reading

if TYPE_CHECKING:
    from contract_tests.session import Session

LAWS = "laws"
_LAYER = "judges"
_LONG = 500
_MOST_KINDS = 1000
_MOST_SEEN = 10_000
ELSEWHERE = "elsewhere"
"""The name of what is no operation of the document."""

Kind = tuple[str, str, str, str]
"""Who says it, and about which operation, field and rule."""


@dataclass(kw_only=True)
class Watch:
    """Looks at exchanges, and keeps what there is to say with the exchange that shows it first.

    `brief` keeps one exchange per kind of remark instead of one per wording, so that a watch that never ends
    does not grow for ever. `again` counts answers about tasks seen before, by operation and whether those had
    ended.
    """

    judges: Judges
    brief: bool = False
    remarks: dict[Remark, Exchange] = field(default_factory=dict)
    faults: dict[tuple[str, laws.Fault], Exchange] = field(default_factory=dict)
    judged: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    kinds: Counter[Kind] = field(default_factory=Counter)
    again: Counter[tuple[str, bool]] = field(default_factory=Counter)
    seen: dict[str, tuple[laws.Seen, float]] = field(default_factory=dict)

    def look_at(self, exchange: Exchange, *, ended: float | None = None) -> tuple[Remark, ...]:
        """All that there is to say about an exchange, what the laws say included.

        `ended` is when its answer was complete, in the seconds of any clock that never goes back. It is
        needed where exchanges overlap: which of two answers was made first is then not known, and not judged.
        """
        operation = self.judges.operation(exchange.request)
        name = operation.name if operation else ELSEWHERE
        self.judged[name] += 1
        said = list(self.judges.judge(exchange))
        for remark in said:
            if self._counts((remark.judge, name, remark.field, remark.rule)):
                self.remarks.setdefault(remark, exchange)
        found = list(laws.of_envelope(exchange)) if exchange.request.path.startswith("/api/") else []
        if operation is not None and exchange.accepted:
            self.accepted[name] += 1
            found += laws.of_prediction(exchange.data)
            found += self._remember(name, exchange, ended)
        for fault in found:
            if self._counts((LAWS, name, fault.field, fault.rule)):
                self.faults.setdefault((name, fault), exchange)
        return (*said, *(_remark(name, fault) for fault in found))

    def _counts(self, kind: Kind) -> bool:
        """Counts a remark, and tells whether its exchange is to be kept."""
        if self.brief and kind not in self.kinds and len(self.kinds) >= _MOST_KINDS:
            return False
        self.kinds[kind] += 1
        return not self.brief or self.kinds[kind] == 1

    def _remember(self, operation: str, exchange: Exchange, ended: float | None) -> list[laws.Fault]:
        name = str(exchange.data.get("id"))
        before, last = self.seen.get(name, (None, float("-inf")))
        if ended is not None and ended - exchange.seconds < last:
            return []
        if before is not None:
            self.again[operation, before.status in laws.FINAL] += 1
        now, found = laws.see(
            before, {key: _digest(laws.plain(value)) for key, value in exchange.data.items()}
        )
        self.seen[name] = (now, ended if ended is not None else last)
        while self.brief and len(self.seen) > _MOST_SEEN:
            del self.seen[next(iter(self.seen))]
        return found

    def verdicts(self) -> Iterator[Finding]:
        """What became of each operation: what was said against it, and who had nothing to say."""
        told = {
            **{(each.operation, each.field, each.rule): None for each in self.remarks},
            **{(name, fault.field, fault.rule): None for name, fault in self.faults},
        }
        for name, place, rule in sorted(told):
            yield self._refuted(name, place, rule)
        for name in sorted({operation.name for _, _, operation in self.judges.operations}):
            yield from self._kept(name)

    def _refuted(self, name: str, place: str, rule: str) -> Finding:
        shown: dict[Remark, Exchange] = {
            **{each: exchange for each, exchange in self.remarks.items() if each.operation == name},
            **{_remark(at, fault): exchange for (at, fault), exchange in self.faults.items() if at == name},
        }
        mine = {
            each: exchange for each, exchange in shown.items() if (each.field, each.rule) == (place, rule)
        }
        times = max(self.kinds[each.judge, name, place, rule] for each in mine)
        words = dict.fromkeys(f"{each.judge}: {each.message}" for each in mine)
        message = "; ".join(list(words)[:4]) + (f" ({times} times)" if times > 1 else "")
        source: Source = "reading" if is_reading(rule) else "page"
        says = f"{place or 'the exchange'} keeps the rule {rule}"
        return Finding(
            case=seen_case(name, place, rule, label=rule, says=says, source=source),
            verdict="refuted",
            message=message,
            exchanges=(next(iter(mine.values())),),
        )

    def _kept(self, name: str) -> Iterator[Finding]:
        count = self.judged[name]
        if not count:
            case = seen_case(name, "", "used", label="used", says="the operation was used")
            yield Finding(case=case, verdict="not proven", message="it was never used")
            return
        against = {judge for judge, at, _, _ in self.kinds if at == name}
        for judge in (CORE, RS, LAWS):
            if judge not in against:
                says = f"{judge} finds nothing against any exchange"
                yield Finding(
                    case=seen_case(name, "", judge, label=judge, says=says),
                    verdict="proven",
                    message=f"nothing to be said against {count} exchange{'s' * (count != 1)}",
                )


def seen_case(name: str, place: str, rule: str, *, label: str, says: str, source: Source = "page") -> Case:
    """A case that was seen to happen and cannot be run again."""
    return Case(
        layer=_LAYER,
        model=name,
        field=place,
        rule=rule,
        label=label,
        source=source,
        says=says,
        check=_not_again,
    )


def _not_again(_: Session) -> None:
    raise Unproven("seen by the proxy; it cannot be run again")


def _remark(name: str, fault: laws.Fault) -> Remark:
    return Remark(judge=LAWS, operation=name, field=fault.field, rule=fault.rule, message=fault.message)


def _digest(value: Any) -> Any:
    """The value, with long texts replaced by what tells them apart: an output may take megabytes."""
    if isinstance(value, str) and len(value) > _LONG:
        return f"sha256 {hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()}"
    if isinstance(value, Mapping):
        return {key: _digest(each) for key, each in value.items()}
    return [_digest(each) for each in value] if isinstance(value, list) else value
