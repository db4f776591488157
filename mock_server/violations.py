"""What is wrong with a request, said so that a person can mend it."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jsonschema_rs

from mock_server.errors import Refusal

MOST = 1000
"""How many violations one answer lists; a contract's own bounds rarely allow for a tenth of it."""

_SHOWN = 80
_WHOLE = {"type", "pattern", "enum", "anyOf", "oneOf"}
_BOUNDS = {
    "minimum": "at least {0}",
    "maximum": "at most {0}",
    "exclusiveMinimum": "more than {0}",
    "exclusiveMaximum": "less than {0}",
    "minItems": "at least {0} items",
    "maxItems": "at most {0} items",
    "minLength": "at least {0} characters",
    "maxLength": "at most {0} characters",
    "minProperties": "at least {0} fields",
    "maxProperties": "at most {0} fields",
    "multipleOf": "a multiple of {0}",
}


def refusal(violations: Iterable[Mapping[str, Any]]) -> Refusal:
    """A 400 that lists the violations, in its message too."""
    listed: list[Mapping[str, Any]] = []
    more = False
    for violation in violations:
        if len(listed) == MOST:
            more = True
            break
        listed.append(violation)
    told = [f"{each['pointer'] or 'the body'} {each['message']}" for each in listed[:10]]
    left = f"; and {'more than ' if more else ''}{len(listed) - 10} more" if len(listed) > 10 else ""
    count = "1 violation" if len(listed) == 1 else f"{len(listed)}{'+' if more else ''} violations"
    return Refusal(400, f"{count}: {'; '.join(told)}{left}.", data={"violations": listed})


def pointer_to(path: Iterable[str | int]) -> str:
    """A JSON pointer; names longer than a line are shortened."""
    return "".join(f"/{escape(shorten(str(part)))}" for part in path)


def escape(name: str) -> str:
    """A name as it stands in a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def explain(error: jsonschema_rs.ValidationError, *, schema: Any, whole: Any) -> Iterator[dict[str, Any]]:
    """What a failed check under `schema` means: pointer, rule, received, allowed, nearest, message.

    `whole` is the value that was checked, where the validator saw one with long lists cut.
    """
    pointer = pointer_to(error.instance_path)
    rule = str(error.schema_path[-1]) if error.schema_path else "false"
    place = _at(schema, error.schema_path[:-1])
    value = whole
    for part in error.instance_path:
        value = value[part]
    if rule == "required":
        missing = str(error.kind.as_dict()["property"])
        yield {
            "pointer": pointer + pointer_to([missing]),
            "rule": rule,
            "allowed": _allowed(place.get("properties", {}).get(missing, {})),
            "message": "is required and missing",
        }
    elif rule == "additionalProperties":
        known = list(place.get("properties", {}))
        for name in error.kind.as_dict().get("unexpected", value):
            close = difflib.get_close_matches(name, known, n=1) if len(name) <= _SHOWN else []
            yield {
                "pointer": pointer + pointer_to([name]),
                "rule": rule,
                "received": shorten(name),
                "allowed": known,
                **({"nearest": close[0]} if close else {}),
                "message": "is not a field of this model" + (f"; did you mean {close[0]}?" if close else ""),
            }
    else:
        nearest = _nearest(rule, value, place)
        allowed = _allowed(place) if rule in _WHOLE else _bound(rule, place)
        received = shorten(value)
        found = {} if nearest is None else {"nearest": nearest}
        hint = "" if nearest is None else f"; nearest is {json.dumps(nearest)}"
        yield {
            "pointer": pointer,
            "rule": rule,
            "received": received,
            "allowed": allowed,
            **found,
            "message": f"must be {allowed}, not {json.dumps(received, ensure_ascii=False)}{hint}",
        }


def _at(schema: Any, path: list[str | int]) -> dict[str, Any]:
    for part in path:
        schema = schema[int(part)] if isinstance(schema, list) else schema.get(part, {})
    return schema if isinstance(schema, dict) else {}


def _bound(rule: str, schema: Mapping[str, Any]) -> str:
    limit = schema.get(rule)
    if rule == "format":
        return f"a {limit}"
    if rule in {"exclusiveMinimum", "exclusiveMaximum"}:
        limit = schema.get("minimum" if rule == "exclusiveMinimum" else "maximum")
    return _BOUNDS[rule].format(limit) if rule in _BOUNDS else f"as {rule} says"


def _allowed(schema: Mapping[str, Any]) -> str:
    """What a schema asks for, in a few words."""
    if "x-dimensions" in schema:
        low, high = schema["x-dimensions"]["minimum"], schema["x-dimensions"]["maximum"]
        return f"W*H, each {low} to {high}"
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(_allowed(each) for each in schema[choice])
    if "enum" in schema:
        return f"one of {', '.join(json.dumps(option) for option in schema['enum'])}"
    name = str(schema.get("type", "a value"))
    text = f"{'an' if name[0] in 'aeio' else 'a'} {name}" if "type" in schema else name
    limits = [words.format(schema[rule]) for rule, words in _BOUNDS.items() if _is_number(schema.get(rule))]
    if "pattern" in schema:
        limits.append(f"of the form {schema['pattern']}")
    return ", ".join([text, *limits])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _nearest(rule: str, value: Any, schema: Mapping[str, Any]) -> Any:
    """The nearest value that would pass, or None where there is no telling."""
    if rule in {"minimum", "maximum"}:
        return schema[rule]
    if rule == "type":
        return _converted(value, schema)
    if rule == "enum" and isinstance(value, str):
        options = [option for option in schema["enum"] if isinstance(option, str)]
        return next(iter(difflib.get_close_matches(value[:_SHOWN], options, n=1, cutoff=0.4)), None)
    if rule == "pattern" and "x-dimensions" in schema:
        numbers = re.fullmatch(r"\s*([0-9]{1,9})\s*[^0-9\s]?\s*([0-9]{1,9})\s*", value[:_SHOWN])
        if numbers:
            low, high = schema["x-dimensions"]["minimum"], schema["x-dimensions"]["maximum"]
            return "*".join(str(min(max(int(number), low), high)) for number in numbers.groups())
    return None


def _converted(value: Any, schema: Mapping[str, Any]) -> Any:
    """A number or truth value that was sent as another type, brought into the schema's type and range."""
    wanted = schema.get("type")
    if wanted == "boolean" and str(value).lower() in {"true", "false"}:
        return str(value).lower() == "true"
    if wanted not in {"integer", "number"} or isinstance(value, bool | list | dict) or value is None:
        return None
    try:
        number = float(str(value)[:_SHOWN])
        number = float(min(max(number, schema.get("minimum", number)), schema.get("maximum", number)))
        return round(number) if wanted == "integer" or number.is_integer() else number
    except (ValueError, OverflowError):
        return None


def shorten(value: Any) -> Any:
    """The value, or a short text about it where it is long; never more than a line."""
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}… ({len(value)} characters)"
    if isinstance(value, list | dict):
        text = json.dumps(value) if len(value) <= _SHOWN else ""
        if 0 < len(text) <= _SHOWN:
            return value
        return f"{'an array' if isinstance(value, list) else 'an object'} of {len(value)}"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number beyond 64 bits"
    return value
