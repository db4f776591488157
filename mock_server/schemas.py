"""What is done with an OpenAPI 3.0 schema: it is checked at start, closed, turned into JSON Schema."""

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema_rs
from jsonschema import Draft4Validator
from jsonschema.exceptions import best_match

from mock_server.documents import LocatedDict, plain
from mock_server.errors import BadConfiguration

_COMBINATORS = ("allOf", "anyOf", "oneOf", "not")


def check_structure(document: LocatedDict) -> None:
    """Refuses a file that is not OpenAPI 3.0, by the schema that OpenAPI publishes and Connexion ships.

    Raises BadConfiguration with file, line and the most telling of the reasons.
    """
    version = str(document.get("openapi", ""))
    if not re.fullmatch(r"3\.0\.[0-9]+", version):
        said = f"says openapi: {version}" if version else "does not say `openapi: 3.0.3`"
        raise BadConfiguration(f"{document.place('openapi')}: {said}; OpenAPI 3.0 is what is served")
    schema = _openapi_schema()
    value = plain(document)
    if jsonschema_rs.Draft4Validator(schema).is_valid(value):
        return
    error = best_match(Draft4Validator(schema).iter_errors(value))
    if error is None:  # the two differ about regular expressions, which are looked at later
        return
    place, spot = locate(document, [str(part) for part in error.absolute_path])
    raise BadConfiguration(f"{place}: {spot or 'the document'}: {_shorten(error.message)}")


@cache
def _openapi_schema() -> Any:
    # Found without importing Connexion, which takes longer than all the rest of reading the contracts.
    found = find_spec("connexion")
    assert found is not None  # noqa: S101 - a dependency of this package
    assert found.origin is not None  # noqa: S101 - it is an ordinary package on disk
    return json.loads((Path(found.origin).parent / "resources/schemas/v3.0/schema.json").read_bytes())


def locate(document: LocatedDict, path: list[str]) -> tuple[str, str]:
    """The place of the innermost mapping key on `path`, and the path as a person would write it."""
    node: Any = document
    place: str = document.place()
    for part in path:
        if isinstance(node, LocatedDict):
            place = node.place(part)
            node = node.get(part)
        elif isinstance(node, list) and part.isdigit():
            node = node[int(part)]
    return place, ".".join(path)


def _shorten(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def walk(schema: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Every schema inside a resolved schema, itself first, with a path for people."""
    if not isinstance(schema, dict):
        return
    yield pointer, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{pointer}.{name}" if pointer else name)
    yield from walk(schema.get("items"), f"{pointer}[]")
    for key in _COMBINATORS:
        children = schema.get(key, [])
        for child in children if isinstance(children, list) else [children]:
            yield from walk(child, pointer)


def check_input(schema: LocatedDict) -> None:
    """Refuses a request schema that promises what no server can keep.

    A default or example that breaks its own schema, a default for a required field, bounds that no value
    meets, a pattern that is no regular expression or that contradicts `x-dimensions`.
    Raises BadConfiguration with file and line.
    """
    if schema.get("type") != "object":
        raise BadConfiguration(f"{schema.place('type')}: the input of a model has to be `type: object`")
    for spot, each in walk(schema):
        name = spot or "the input"
        for low, high in (("minimum", "maximum"), ("minItems", "maxItems"), ("minLength", "maxLength")):
            if low in each and high in each and each[low] > each[high]:
                raise BadConfiguration(
                    f"{each.place(low)}: {name}: {low} {each[low]} is above {high} {each[high]}"
                )
        _check_dimensions(each, name)
        _check_pattern(each, name)
        for required in each.get("required", []):
            field = each.get("properties", {}).get(required, {})
            if "default" in field:
                raise BadConfiguration(
                    f"{field.place('default')}: {required}: is required, yet has a default; "
                    "make it optional, or turn the default into an example"
                )
        for key in ("default", "example"):
            if key in each:
                _check_sample(each, each[key], f"{each.place(key)}: {name}: the {key}")


def check_examples(media: LocatedDict, schema: LocatedDict) -> None:
    """Refuses a request example that the schema beside it would refuse."""
    if "example" in media:
        _check_sample(schema, media["example"], f"{media.place('example')}: the example")
    for example in media.get("examples", {}).values():
        if "value" in example:
            _check_sample(schema, example["value"], f"{example.place('value')}: the example")


def _check_sample(schema: LocatedDict, value: Any, what: str) -> None:
    told = plain(schema)
    complete(told)
    for error in jsonschema_rs.Draft4Validator(to_json_schema(told)).iter_errors(plain(value)):
        raise BadConfiguration(f"{what} breaks the schema: {_shorten(error.message)}")


def _check_dimensions(schema: LocatedDict, name: str) -> None:
    bounds = schema.get("x-dimensions")
    if bounds is None:
        return
    numbers = list(bounds.values()) if isinstance(bounds, dict) else []
    if (
        schema.get("type") != "string"
        or not isinstance(bounds, dict)
        or bounds.keys() != {"minimum", "maximum"}
        or not all(type(number) is int for number in numbers)
        or not 0 < bounds["minimum"] <= bounds["maximum"]
    ):
        raise BadConfiguration(
            f"{schema.place('x-dimensions')}: {name}: x-dimensions has to be like "
            "{minimum: 512, maximum: 1536}, on a `type: string`"
        )


def _check_pattern(schema: LocatedDict, name: str) -> None:
    pattern = schema.get("pattern")
    if pattern is not None:
        try:
            jsonschema_rs.Draft4Validator({"pattern": pattern})
        except (ValueError, jsonschema_rs.ValidationError) as error:
            raise BadConfiguration(
                f"{schema.place('pattern')}: {name}: the pattern is not a regular expression"
            ) from error
    bounds = schema.get("x-dimensions")
    if pattern is not None and bounds is not None and pattern != (wanted := size_pattern(**bounds)):
        raise BadConfiguration(
            f"{schema.place('pattern')}: {name}: the pattern is not that of its x-dimensions, "
            f"which is {wanted}; leave it out and it is made from them"
        )


def size_pattern(minimum: int, maximum: int) -> str:
    """A regular expression for `W*H` with both numbers in minimum..maximum, without leading zeros.

    It means the same to Python, ECMAScript and Rust: no `$`, which Python lets stand before a newline.
    """
    number = f"(?:{'|'.join(_ranges(str(minimum), str(maximum)))})"
    return rf"^{number}\*{number}(?![\s\S])"


def _ranges(low: str, high: str) -> Iterator[str]:
    """Alternatives of digits that together match exactly the numbers low..high."""
    if len(low) < len(high):
        yield from _ranges(low, "9" * len(low))
        yield from _ranges("1" + "0" * len(low), high)
        return
    if low == high:
        yield low
        return
    first_low, rest_low, first_high, rest_high = low[0], low[1:], high[0], high[1:]
    if first_low == first_high:
        yield from (first_low + tail for tail in _ranges(rest_low, rest_high))
        return
    start, stop = int(first_low), int(first_high)
    if rest_low.strip("0"):
        yield from (first_low + tail for tail in _ranges(rest_low, "9" * len(rest_low)))
        start += 1
    if rest_high.strip("9"):
        stop -= 1
    if start <= stop:
        digit = str(start) if start == stop else f"[{start}-{stop}]"
        count = len(rest_low)
        yield digit + ("" if not count else "[0-9]" if count == 1 else f"[0-9]{{{count}}}")
    if rest_high.strip("9"):
        yield from (first_high + tail for tail in _ranges("0" * len(rest_high), rest_high))


def complete(schema: Any) -> None:
    """Writes the pattern of every `x-dimensions` into the schema, in place."""
    for _, each in walk(schema):
        if "x-dimensions" in each:
            each["pattern"] = size_pattern(**each["x-dimensions"])


def close(schema: Any) -> None:
    """Forbids unknown fields wherever a schema lists the known ones and does not say otherwise, in place."""
    for _, each in walk(schema):
        if "properties" in each and not any(key in each for key in _COMBINATORS):
            each.setdefault("additionalProperties", False)


def to_json_schema(schema: Any) -> Any:
    """The schema as JSON Schema Draft 4, which OpenAPI 3.0 builds on but for `nullable`."""
    if isinstance(schema, list):
        return [to_json_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {
        key: {name: to_json_schema(child) for name, child in value.items()}
        if key == "properties"
        else to_json_schema(value)
        if key in {"items", "additionalProperties", *_COMBINATORS}
        else plain(value)
        for key, value in schema.items()
        if key not in {"default", "example", "description"} and not key.startswith("x-")
    }
    if result.pop("nullable", False):
        if isinstance(result.get("type"), str):
            result["type"] = [result["type"], "null"]
        if "enum" in result:
            result["enum"] = [*result["enum"], None]
    return result
