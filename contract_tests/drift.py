"""`wavemock drift`: how two editions differ, or how what was seen differs from what is documented."""

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from contract_tests import changes, recording
from contract_tests.changes import OBJECT, Change, Picture
from contract_tests.document import METHODS, BadDocument, bundled, load, read_document, resolved
from contract_tests.exchange import strict_json
from contract_tests.judges import RS, Judges, appoint

_RECORDINGS = {".jsonl", ".ndjson"}
_FILES = {".yaml", ".yml", ".json"}
_LONGEST = 60
_WIDTH = 500
_DEEPEST = 50


class BadSource(Exception):
    """What is to be compared cannot be had; says why in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What a comparison came to.

    `exchanges` were looked at in a recording, `unknown` of them for no operation that is documented; `unseen`
    counts documented operations and fields that the recording says nothing about, which is no change.
    """

    changes: tuple[Change, ...]
    exchanges: int = 0
    unknown: int = 0
    unseen: int = 0

    @property
    def exit_code(self) -> int:
        """1 where a client may notice anything, else 0."""
        return 1 if any(each.noticeable for each in self.changes) else 0


def compare(before: str, after: str, *, everything: bool = False) -> Drift:
    """The differences between two sources: names of editions, OpenAPI files, folders of them, one recording.

    With `everything`, those of descriptions and examples are listed too. Raises BadSource.
    """
    recorded = [_is_recording(before), _is_recording(after)]
    if all(recorded):
        raise BadSource("two recordings cannot be compared; one has to be an edition or OpenAPI files")
    try:
        if not any(recorded):
            old, new = (changes.picture(_document(each)) for each in (before, after))
            return Drift(changes=tuple(changes.between(old, new, everything=everything)))
        source, seen = (after, before) if recorded[0] else (before, after)
        drift = _against(_document(source), Path(seen))
    except (BadDocument, recording.BadRecording) as error:
        raise BadSource(" ".join(str(error).split())) from error
    except BadSource:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise BadSource(f"{before} and {after} cannot be compared: {said}") from error
    if recorded[0]:
        flipped = tuple(replace(each, before=each.after, after=each.before) for each in drift.changes)
        return replace(drift, changes=flipped)
    return drift


def _is_recording(source: str) -> bool:
    return Path(source).suffix in _RECORDINGS


def _document(source: str) -> dict[str, Any]:
    known = ["current", *sorted(each.name for each in (bundled() / "editions").iterdir() if each.is_dir())]
    if source in known:
        return read_document(source)
    path = Path(source)
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix in _FILES and each.stem != "common")
    elif path.is_file():
        files = [path]
    else:
        raise BadSource(f"{source}: is no edition ({', '.join(known)}), no file and no folder")
    paths: dict[str, Any] = {}
    security: Any = []
    schemes: dict[str, Any] = {}
    for file in files:
        loaded = load(file)
        security = loaded.get("security", security)
        schemes |= resolved((loaded.get("components") or {}).get("securitySchemes", {}), file)
        for name, item in (loaded.get("paths") or {}).items():
            paths.setdefault(name, {}).update(_operations(resolved(item, file)))
    if not paths:
        raise BadSource(f"{source}: describes no operation")
    return {
        "openapi": "3.0.3",
        "info": {"title": source, "version": "1"},
        "security": security,
        "paths": paths,
        "components": {"securitySchemes": schemes},
    }


def _operations(item: Mapping[str, Any]) -> dict[str, Any]:
    """The operations of a path, with what is said for all of them said for each, and statuses as texts."""
    shared = item.get("parameters", [])
    found = {}
    for method in METHODS:
        if method in item:
            operation = dict(item[method])
            operation["parameters"] = [*shared, *operation.get("parameters", [])]
            answers = operation.get("responses", {})
            operation["responses"] = {str(status): answer for status, answer in answers.items()}
            found[method] = operation
    return found


def _against(document: Mapping[str, Any], path: Path) -> Drift:
    """What a recording shows that its contract does not say."""
    judges, known = appoint(document), changes.picture(document)
    found: dict[tuple[str, str, str], Change] = {}
    times: Counter[tuple[str, str, str]] = Counter()
    seen: set[tuple[str, str]] = set()
    total = unknown = 0
    for entry in recording.entries(path):
        total += 1
        operation = judges.operation(entry.exchange.request)
        if operation is None:
            unknown += 1
            continue
        name = f"{entry.exchange.request.method} {operation.path}"
        seen.add((name, ""))
        for each in _of_entry(judges, known, name, entry, seen):
            key = (each.operation, each.field, each.aspect)
            times[key] += 1
            found.setdefault(key, each)
    counted = (
        replace(each, after=f"{each.after} ({times[key]} times)" if times[key] > 1 else each.after)
        for key, each in found.items()
    )
    operations = {name for name, place in known if not place}
    used = {name for name, _ in seen}
    unseen = len(operations - used) + sum(
        name in used and "type" in each.aspects and (name, place) not in seen
        for (name, place), each in known.items()
    )
    return Drift(changes=tuple(counted), exchanges=total, unknown=unknown, unseen=unseen)


def _of_entry(
    judges: Judges, known: Picture, name: str, entry: recording.Entry, seen: set[tuple[str, str]]
) -> Iterator[Change]:
    exchange = entry.exchange
    asked = bool(exchange.request.body) or not entry.request_size
    answered = len(exchange.body) == entry.answer_size
    for remark in judges.judge(exchange):
        about, _, rule = remark.rule.partition(" ")
        if remark.judge != RS or remark.rule == f"{about} additionalProperties":
            continue  # fields that are not known are told one by one below
        if about == "request":
            if asked:
                yield _remarked(known, name, remark.field, rule, remark.message)
        elif rule == "status":
            yield _remarked(known, name, str(exchange.status), "status", "answered")
        elif answered:
            place = f"{exchange.status} {remark.field or OBJECT}"
            yield _remarked(known, name, place, rule, remark.message)
    if exchange.accepted and asked:
        yield from _unknown_fields(known, name, "", exchange.request.body, seen)
    if answered:
        yield from _unknown_fields(known, name, f"{exchange.status} ", exchange.body, seen)


def _remarked(known: Picture, name: str, place: str, aspect: str, message: str) -> Change:
    there = known.get((name, place))
    documented = changes.said(there.aspects.get(aspect)) if there else ""
    return Change(
        operation=name, field=place, aspect=aspect, before=documented, after=message, noticeable=True
    )


def _unknown_fields(
    known: Picture, name: str, start: str, body: bytes | None, seen: set[tuple[str, str]]
) -> Iterator[Change]:
    """Fields that the contract does not know. A client notices those that it was told not to expect."""
    try:
        value = strict_json(body or b"")
    except ValueError:
        return
    for place, within, kind in _walk(value):
        here, around = (name, start + place), (name, start + within)
        seen.add(here)
        # Where nothing is said of what is inside, nothing that is inside is unknown.
        if here not in known and any((at, each.within) == around for (at, _), each in known.items()):
            closed = known[around].aspects.get("additionalProperties") is False
            yield Change(
                operation=name,
                field=here[1],
                aspect="field",
                before="",
                after=changes.said(kind),
                noticeable=closed and bool(start),
            )


_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def _walk(value: Any, place: str = "", within: str = "") -> Iterator[tuple[str, str, str]]:
    """Every place in a value, the one that it is a part of, and its type."""
    here = place or OBJECT
    if place.count(".") + place.count("[") > _DEEPEST:
        return
    yield here, within, _KINDS.get(type(value), "null")
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _walk(each, f"{place}.{name}" if place else name, here)
    elif isinstance(value, list):
        for each in value:
            yield from _walk(each, f"{place}[]", here)


def render_table(drift: Drift) -> str:
    """The changes for a person, the noticeable ones first, and what is the same on v2 and v3 once."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for each in sorted(drift.changes, key=lambda change: not change.noticeable):
        mark = "yes" if each.noticeable else "no"
        key = (_any_version(each.operation), each.field, each.aspect, each.before, each.after, mark)
        lines.setdefault(key, []).append(each.operation)
    table = Table(box=None, pad_edge=False, header_style="")
    for title in ("operation", "field", "aspect", "before", "after", "noticeable"):
        table.add_column(title, overflow="fold", no_wrap=True)
    for (shared, *rest), operations in lines.items():
        name = operations[0] if len(operations) == 1 else shared
        table.add_row(*(Text(_short(each)) for each in (name, *rest)))
    file = io.StringIO()
    Console(file=file, width=_WIDTH, color_system=None).print(table)
    told = [line.rstrip() for line in file.getvalue().splitlines()] if lines else []
    return "\n".join([*told, *([""] if told else []), _summary(drift, len(lines))]) + "\n"


def _summary(drift: Drift, lines: int) -> str:
    noticeable = sum(each.noticeable for each in drift.changes)
    parts = [
        f"{len(drift.changes)} changes in {lines} lines, {noticeable} of them noticeable"
        if lines
        else "no change"
    ]
    if drift.exchanges or drift.unseen:
        parts.append(f"{drift.exchanges} exchanges, {drift.unknown} of them not documented")
        parts.append(f"{drift.unseen} documented operations and fields not seen")
    return "; ".join(parts) + "."


def _any_version(operation: str) -> str:
    return re.sub(r"/api/v[0-9]+/", "/api/v*/", operation)


def _short(text: str) -> str:
    """A text in one line that no terminal takes for a command."""
    text = "".join(each if each.isprintable() else " " for each in text[: _LONGEST + 1])
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
