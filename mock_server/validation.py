"""Requests checked against their contract, by validators compiled once at start."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import jsonschema_rs

from mock_server.body import parse_json
from mock_server.errors import Refusal
from mock_server.prediction import Asked
from mock_server.schemas import to_json_schema
from mock_server.violations import MOST, escape, explain, pointer_to, refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """What filling defaults and finding unknown fields have to know of an object, or of an array's items."""

    known: frozenset[str]
    defaults: tuple[tuple[str, str, Any], ...]
    children: tuple[tuple[str, str, "_Shape"], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A schema, ready to check values with."""

    schema: Mapping[str, Any]
    validator: jsonschema_rs.Draft4Validator
    shape: _Shape | None


def compile_rules(schema: Mapping[str, Any]) -> Rules:
    """Makes an OpenAPI schema with all references resolved ready for use."""
    return Rules(
        schema=schema,
        validator=jsonschema_rs.Draft4Validator(to_json_schema(schema), validate_formats=True),
        shape=_shape(schema),
    )


def _shape(schema: Mapping[str, Any]) -> _Shape | None:
    if schema.get("type") == "array":
        return _shape(schema.get("items", {}))
    properties: Mapping[str, Any] = schema.get("properties", {})
    if not properties:
        return None
    escaped = {name: f"/{escape(name)}" for name in properties}
    shapes = {name: _shape(child) for name, child in properties.items()}
    return _Shape(
        # Where a schema is put together from several, or says itself what else may come, nothing is unknown.
        known=frozenset()
        if {"allOf", "anyOf", "oneOf", "additionalProperties"} & schema.keys()
        else frozenset(properties),
        defaults=tuple(
            (name, escaped[name], child["default"])
            for name, child in properties.items()
            if "default" in child
        ),
        children=tuple((name, escaped[name], shape) for name, shape in shapes.items() if shape is not None),
    )


def check(rules: Rules, value: Any) -> None:
    """Refuses with 400 a value that breaks the rules, naming every violation."""
    try:
        if rules.validator.is_valid(value):
            return
        # The validator gathers all errors before it gives the first, so what is too long is cut before.
        errors = rules.validator.iter_errors(_cut(value))
        found = (each for error in errors for each in explain(error, schema=rules.schema, whole=value))
        answer = refusal(found)
    except ValueError as error:
        raise Refusal(400, "The body is nested too deeply.") from error
    raise answer


def _cut(value: Any) -> Any:
    """The value with no list in it longer than what an answer lists."""
    if isinstance(value, list):
        return [_cut(item) for item in value[:MOST]]
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in value.items()}
    return value


def ask(rules: Rules, body: bytes) -> tuple[dict[str, Any], Asked]:
    """The effective input of a submit, and the record of what was asked.

    Raises Refusal 400 where the body is not what the contract asks for.
    """
    text, value = parse_json(body)
    check(rules, value)
    defaults: dict[str, Any] = {}
    unknown: list[str] = []
    if rules.shape is not None:
        _fill(rules.shape, value, "", defaults, unknown)
    warnings = tuple(f"unknown field {pointer}" for pointer in unknown)
    return value, Asked(received=text, defaults=defaults, warnings=warnings)


def _fill(shape: _Shape, value: Any, pointer: str, defaults: dict[str, Any], unknown: list[str]) -> None:
    """Puts defaults into the value, and notes them and the unknown fields by their pointers."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            _fill(shape, item, f"{pointer}/{index}", defaults, unknown)
        return
    if not isinstance(value, dict):
        return
    if shape.known and not value.keys() <= shape.known:
        unknown += [pointer + pointer_to([name]) for name in value if name not in shape.known]
    for name, token, child in shape.children:
        if name in value:
            _fill(child, value[name], pointer + token, defaults, unknown)
    for name, token, default in shape.defaults:
        if name not in value:
            defaults[pointer + token] = value[name] = default


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One query parameter of an operation; none is required."""

    name: str
    schema: Mapping[str, Any]


def check_query(parameters: tuple[Parameter, ...], rules: Rules, query: bytes) -> dict[str, Any]:
    """The query parameters as values of their types, defaults in place.

    Raises Refusal 400 with every violation.
    """
    given = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    value = {each.name: _typed(given[each.name], each.schema) for each in parameters if each.name in given}
    check(rules, value)
    return {
        **{each.name: each.schema["default"] for each in parameters if "default" in each.schema},
        **value,
    }


def _typed(text: str, schema: Mapping[str, Any]) -> Any:
    return int(text) if schema.get("type") == "integer" and _INTEGER.fullmatch(text) else text


_INTEGER = re.compile("-?[0-9]{1,40}")


def query_parameters(operation: Mapping[str, Any]) -> Iterator[Parameter]:
    """The query parameters that an operation declares."""
    for each in operation.get("parameters", []):
        if each["in"] == "query":
            yield Parameter(name=each["name"], schema=each["schema"])
