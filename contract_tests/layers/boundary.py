"""The boundary matrix: every documented field at its bounds, beyond, of other types, missing, too often."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from contract_tests.case import Broken, Case, Source
from contract_tests.layers.values import Value, values
from contract_tests.session import Session, smallest
from contract_tests.table import Field, Model

REFUSALS = (400, 422)
_INSIDE = "[]."


def cases(session: Session) -> Iterator[Case]:
    """Every case of every model, in the order of the table."""
    for model in session.models:
        yield _case(model, None, "the smallest request", "required", smallest(model), accepted=True)
        for name, body in _together(model).items():
            yield _case(model, None, name, "range", body, accepted=True)
        for field in model.request:
            yield from _of_field(model, field)


def describe(field: Field) -> str:
    """What the page says of a field, in one sentence."""
    said = f"{field.name} is {'a required' if field.required else 'an optional'} {field.kind}"
    if field.is_size:
        said += f" W*H, each from {field.minimum} to {field.maximum}"
    elif field.minimum is not None:
        said += f" from {field.minimum} to {field.maximum}"
    if field.max_items is not None:
        said += f" of at most {field.max_items} items"
    return said + (f"; {field.default!r} unless given" if field.default is not None else "")


def _usual(model: Model) -> dict[str, Any]:
    """A body with every field that has a default, at that."""
    defaults = {
        each.name: each.default
        for each in model.request
        if each.default is not None and _INSIDE not in each.name
    }
    return {**smallest(model), **defaults}


def _together(model: Model) -> dict[str, dict[str, Any]]:
    """Bodies with all fields that have a range, at the same end of it."""
    ends: dict[str, dict[str, Any]] = {"all at min": smallest(model), "all at max": smallest(model)}
    for field in model.request:
        if field.minimum is None or field.maximum is None or _INSIDE in field.name:
            continue
        for body, end in zip(ends.values(), (field.minimum, field.maximum), strict=True):
            body[field.name] = (
                f"{end}*{end}" if field.is_size else int(end) if end == int(end) else float(end)
            )
    return ends


def item(model: Model, array: str) -> dict[str, Any]:
    """One good item of an array of objects."""
    fill: Mapping[str, Any] = {"string": "owner/lora", "integer": 1, "number": 1, "boolean": True}
    return {
        field.name.removeprefix(array + _INSIDE): fill[field.kind]
        for field in model.request
        if field.name.startswith(array + _INSIDE)
    }


def _of_field(model: Model, field: Field) -> Iterator[Case]:
    array, _, inner = field.name.partition(_INSIDE)
    for value in values(field):
        given = [{**item(model, array), inner: value.value}] if inner else value.value
        yield _case_of(model, field, value, {array: given})
    if inner:
        good, lacking = item(model, array), {k: v for k, v in item(model, array).items() if k != inner}
        for label, given in {"missing": [lacking], "missing in the second item": [good, lacking]}.items():
            value = Value(label=label, rule="required", value=None, accepted=not field.required)
            yield _case_of(model, field, value, {array: given})
    elif field.required:
        body = {name: value for name, value in smallest(model).items() if name != field.name}
        yield _case(model, field, "missing", "required", body, accepted=False)
    else:
        body = {name: value for name, value in _usual(model).items() if name != field.name}
        yield _case(model, field, "left out alone", "required", body, accepted=True)
    if field.kind == "array":
        yield from _of_array(model, field)


def _of_array(model: Model, field: Field) -> Iterator[Case]:
    good = item(model, field.name)
    most = field.max_items
    counts = {0: True, 1: True, 2: True}
    if most is not None:
        counts |= {
            most - 1: True,
            most: True,
            most + 1: False,
            most + 2: False,
            most * 2: False,
            most * 10: False,
        }
    for count, accepted in sorted(counts.items()):
        value = Value(label=f"{count} items", rule="items", value=[good] * count, accepted=accepted)
        yield _case_of(model, field, value, {field.name: value.value})
    bad = {"a text": "x", "a number": 1, "null": None, "an array": [], "an empty object": {}, "true": True}
    for label, wrong in bad.items():
        for where, given in {"": [wrong], " as the second item": [good, wrong]}.items():
            value = Value(label=f"with {label} in it{where}", rule="items", value=given, accepted=False)
            yield _case_of(model, field, value, {field.name: given})


def _case_of(model: Model, field: Field, value: Value, given: dict[str, Any]) -> Case:
    return _case(
        model,
        field,
        value.label,
        value.rule,
        {**smallest(model), **given},
        accepted=value.accepted,
        source=value.source,
    )


def _case(
    model: Model,
    field: Field | None,
    label: str,
    rule: str,
    body: Any,
    *,
    accepted: bool,
    source: Source = "page",
) -> Case:
    return Case(
        layer="boundary",
        model=str(model),
        field=field.name if field else "",
        rule=rule,
        label=label,
        source=source if model.documented else "reading",
        says=describe(field) if field else "only required fields have to be sent; all may be at their bounds",
        check=partial(_check, model, body, accepted),
    )


def _check(model: Model, body: Any, accepted: bool, session: Session) -> None:
    session.require(model)
    exchange = session.post(model, body, accepted=accepted)
    if accepted and not exchange.accepted:
        raise Broken(f"refused with HTTP {exchange.status}, although the contract allows it")
    if not accepted and exchange.accepted:
        raise Broken("accepted, although the contract does not allow it")
    if not accepted and exchange.status not in REFUSALS:
        raise Broken(f"answered with HTTP {exchange.status}, neither accepted nor refused with 400 or 422")
