"""Two contracts side by side: every difference, and whether a client may notice it."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_REMARKS = {
    *("title", "description", "summary", "example", "examples", "externalDocs", "xml", "deprecated"),
    *("discriminator", "operationId", "tags", "links", "servers", "callbacks"),
}
_INNER = frozenset({"properties", "items", "required", "additionalProperties"})
Aspects = Mapping[str, Any]
"""What a contract says of one place, by the name of the keyword."""

# Defaults of a new field that are as good as leaving it out. A number may do anything, and what is inside of
# an object has defaults of its own.
_OFF = ("", "false", '""', "[]")
OBJECT = "(the object)"
_BODY = "(the body)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What is said of one place, and which place it is a part of."""

    within: str
    aspects: Aspects


Picture = Mapping[tuple[str, str], Place]
"""A contract flattened, by operation and field. The field of an operation itself is empty, one of an answer
begins with its status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference, in the words of JSON; empty where there is nothing on that side.

    `noticeable` says that a client which was right before may be wrong now, or see what it has never seen.
    """

    operation: str
    field: str
    aspect: str
    before: str
    after: str
    noticeable: bool


def said(value: Any) -> str:
    """A value in the words of JSON; empty for none."""
    return "" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def picture(document: Mapping[str, Any]) -> Picture:
    """The contract of a document without references, flattened."""
    found: dict[tuple[str, str], Place] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            name = f"{method.upper()} {path}"
            rest = {
                key: operation[key] for key in operation.keys() - {"requestBody", "responses", "parameters"}
            }
            found[name, ""] = Place(within="", aspects={"security": document.get("security", []), **rest})
            for place, known in _places(operation):
                found[name, place] = known
    return found


_Places = Iterator[tuple[str, Place]]


def _places(operation: Mapping[str, Any]) -> _Places:
    for each in operation.get("parameters", ()):
        yield from _fields(
            each.get("schema", {}), f"{each['in']} {each['name']}", each.get("required", False)
        )
    body = operation.get("requestBody")
    if body is not None:
        required, description = body.get("required", False), body.get("description")
        yield _BODY, Place(within="", aspects={"required": required, "description": description})
        yield from _contents(body, "", _BODY)
    for status, answer in operation.get("responses", {}).items():
        aspects = {key: answer.get(key) for key in ("description", "links")}
        yield str(status), Place(within="", aspects=aspects)
        yield from _contents(answer, f"{status} ", str(status))
        for name, header in answer.get("headers", {}).items():
            required = header.get("required", False)
            yield from _fields(header.get("schema", {}), f"{status} header {name}", required, str(status))


def _contents(body: Mapping[str, Any], before: str, within: str) -> _Places:
    """What is said of a body: the media types by their names, the fields of JSON by theirs."""
    for kind, content in body.get("content", {}).items():
        media = f"{before}({kind})"
        yield media, Place(within=within, aspects={key: content.get(key) for key in ("example", "examples")})
        start = before if kind == "application/json" else f"{before}({kind}) "
        for name, place in _fields(content.get("schema", {}), "", required=True):
            inner = f"{start}{place.within}" if place.within else media
            yield f"{start}{name}", Place(within=inner, aspects=place.aspects)


def _fields(schema: Any, place: str, required: bool, within: str = "") -> _Places:
    """Every place in a schema, with what is said of it."""
    if not isinstance(schema, Mapping):
        schema = {"schema": schema}
    extra = schema.get("additionalProperties", True)
    aspects = {
        **{key: value for key, value in schema.items() if key not in _INNER},
        "required": required,
        "additionalProperties": extra,
    }
    here = place or OBJECT
    yield here, Place(within=within, aspects=aspects)
    needed = schema.get("required", ())
    for name, each in schema.get("properties", {}).items():
        yield from _fields(each, f"{place}.{name}" if place else name, name in needed, here)
    if "items" in schema:
        yield from _fields(schema["items"], f"{place}[]", required=True, within=here)


def between(before: Picture, after: Picture, *, everything: bool = False) -> list[Change]:
    """All differences between two contracts; with `everything`, those of descriptions and examples too."""
    changes: list[Change] = []
    for operation, place in dict.fromkeys([*before, *after]):
        old, new = before.get((operation, place)), after.get((operation, place))
        if old is not None and new is not None:
            changes += _aspects(operation, place, old.aspects, new.aspects, everything=everything)
        elif new is not None:
            changes += _whole(operation, place, new, before, added=True)
        elif old is not None:
            changes += _whole(operation, place, old, after, added=False)
    return changes


def _whole(operation: str, place: str, known: Place, other: Picture, *, added: bool) -> Iterator[Change]:
    """A place that is on one side only, unless what it is a part of is so too."""
    outer = other.get((operation, known.within))
    if outer is None and place:
        return
    told, required = said(known.aspects.get("type")) or "documented", known.aspects.get("required")
    default = said(known.aspects.get("default"))
    if not place:
        aspect, noticeable = "operation", not added
    elif place.isdigit() or place == "default":
        aspect, noticeable = "status", True
    elif is_answer(place):
        closed = outer is not None and outer.aspects.get("additionalProperties") is False
        aspect, noticeable = "field", closed or not added
    elif added and not required and default not in _OFF:
        aspect, noticeable, told = "field", True, f"{told}, default {default}"
    else:
        aspect, noticeable = "field", not added or bool(required)
    told += ", required" if aspect == "field" and required else ""
    before, after = ("", told) if added else (told, "")
    yield Change(
        operation=operation, field=place, aspect=aspect, before=before, after=after, noticeable=noticeable
    )


def is_answer(place: str) -> bool:
    """Whether a place is in an answer."""
    first = place.partition(" ")[0]
    return first.isdigit() or first == "default"


def _aspects(operation: str, place: str, old: Aspects, new: Aspects, *, everything: bool) -> Iterator[Change]:
    for aspect in dict.fromkeys([*old, *new]):
        was, now = old.get(aspect), new.get(aspect)
        if said(was) == said(now):
            continue
        remark = aspect in _REMARKS or (aspect.startswith("x-") and aspect != "x-dimensions")
        made_from_dimensions = aspect == "pattern" and "x-dimensions" in old and "x-dimensions" in new
        if (remark and not everything) or (
            made_from_dimensions and said(old["x-dimensions"]) != said(new["x-dimensions"])
        ):
            continue
        # What a request may be narrows as what an answer may be widens: both surprise a client.
        first, last = (now, was) if is_answer(place) else (was, now)
        noticeable = not remark and (_always(aspect, place) or _narrower(aspect, first, last))
        yield Change(
            operation=operation,
            field=place,
            aspect=aspect,
            before=said(was),
            after=said(now),
            noticeable=noticeable,
        )


def _always(aspect: str, place: str) -> bool:
    return aspect in {"default", "security"} or (aspect == "enum" and is_answer(place))


def _narrower(aspect: str, old: Any, new: Any) -> bool:
    """Whether the new value of a keyword lets less pass than the old one; True where that cannot be told."""
    if aspect in _MEASURES:
        return _MEASURES[aspect](old, new)
    return new is not None


def _raised(old: Any, new: Any) -> bool:
    return new is not None and (old is None or bool(new > old))


def _lowered(old: Any, new: Any) -> bool:
    return new is not None and (old is None or bool(new < old))


def _set(_: Any, new: Any) -> bool:
    return bool(new)


def _smaller(old: Any, new: Any) -> bool:
    if not old or not new:
        return bool(new)
    return bool(new["minimum"] > old["minimum"] or new["maximum"] < old["maximum"])


def _lost(old: Any, new: Any) -> bool:
    return new is not None and (old is None or any(each not in new for each in old))


_MEASURES: Mapping[str, Callable[[Any, Any], bool]] = {
    **dict.fromkeys(("minimum", "minItems", "minLength", "minProperties"), _raised),
    **dict.fromkeys(("maximum", "maxItems", "maxLength", "maxProperties"), _lowered),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum", "uniqueItems", "required"), _set),
    "nullable": lambda old, new: bool(old) and not new,
    "x-dimensions": _smaller,
    "enum": _lost,
    "type": lambda old, new: new is not None and (old, new) != ("integer", "number"),
    "additionalProperties": lambda _, new: new is not True,
}
