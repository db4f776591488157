"""Defaults and what was given: in the control plane where the target has one, in the outputs everywhere."""

import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from contract_tests.case import Broken, Case, Unproven
from contract_tests.layers.boundary import describe, item
from contract_tests.layers.outputs import fetch, is_url, outputs_of, rank_of, size_of
from contract_tests.session import Session
from contract_tests.table import Field, Model

_MISSING = object()


def cases(session: Session) -> Iterator[Case]:
    """What is filled in, what is kept, and what comes out."""
    for model in session.models:
        for field in model.request:
            if "[]" in field.name:
                continue
            if not field.required:
                yield _case(model, field, "unless given", partial(_filled, model, field))
            for label, value in _telling(model, field):
                yield _case(model, field, f"given as {label}", partial(_kept, model, field, value))
        yield from _visible(model)


def _case(model: Model, field: Field, label: str, check: Callable[[Session], None]) -> Case:
    return Case(
        layer="defaults",
        model=str(model),
        field=field.name,
        rule="default",
        label=label,
        source="page" if model.documented else "reading",
        says=describe(field),
        check=check,
    )


def _telling(model: Model, field: Field) -> Iterator[tuple[str, Any]]:
    """Good values that differ from the default, those first that a careless server takes for nothing."""
    found: list[Any] = []
    if field.is_size:
        found = [f"{field.minimum}*{field.maximum}"]
    elif field.minimum is not None and field.maximum is not None:
        ends = (field.minimum, field.maximum, *([Decimal(0)] if field.minimum < 0 else []))
        found = [int(end) if field.kind == "integer" or end == int(end) else float(end) for end in ends]
    elif field.kind == "boolean":
        found = [False, True]
    elif field.kind == "string":
        found = ["", "something else"]
    elif field.kind == "array":
        found = [[], [item(model, field.name)]]
    for value in found:
        if value != field.default or isinstance(value, bool) != isinstance(field.default, bool):
            yield json.dumps(value), value


def _understood(session: Session, model: Model, body: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The input as the target took it, and which fields it filled in."""
    if not session.has_control:
        raise Unproven("the target has no control plane, and nothing else shows what it filled in")
    name = session.submit(model, **body).get("id")
    inside = session.control(f"/predictions/{name}")
    given, defaulted = inside.get("input"), inside.get("defaulted")
    if not isinstance(given, dict) or not isinstance(defaulted, list):
        raise Broken("the control plane does not show the input")
    return given, defaulted


def _filled(model: Model, field: Field, session: Session) -> None:
    given, defaulted = _understood(session, model, {})
    found = given.get(field.name, _MISSING)
    if field.default is None:
        if found is not _MISSING:
            raise Broken(f"{found!r} is filled in, although no default is documented")
        return
    if found is _MISSING:
        raise Broken(f"nothing is filled in instead of {field.default!r}")
    if not _same(found, field.default):
        raise Broken(f"{found!r} is filled in instead of {field.default!r}")
    if field.name not in defaulted:
        raise Broken("the default is not said to be one")


def _kept(model: Model, field: Field, value: Any, session: Session) -> None:
    given, _ = _understood(session, model, {field.name: value})
    found = given.get(field.name, _MISSING)
    if not _same(found, value):
        raise Broken(f"{value!r} was given, and {'nothing' if found is _MISSING else repr(found)} understood")


def _same(one: Any, other: Any) -> bool:
    """Equal, and of the same kind: true is not 1, though 1 is 1.0."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


Look = Callable[[Session, list[str]], None]


def _visible(model: Model) -> Iterator[Case]:
    """Fields whose value can be told from the outputs, each unless given and as another value."""
    for field in model.request:
        label, look = _LOOKS.get("size" if field.is_size else field.name, ("", None))
        if look is None:
            continue
        others = [True, False] if field.kind == "boolean" else [_other(field)]
        for value in (None, *others):
            how = "unless given" if value is None else f"given as {json.dumps(value)}"
            given = {} if value is None else {field.name: value}
            check = partial(look, field.default if value is None else value)
            yield _case(model, field, f"{label}, {how}", partial(_seen, model, field, given, check))


def _other(field: Field) -> Any:
    low, high = int(field.minimum or 0), int(field.maximum or 0)
    return f"{low}*{low + 64}" if field.is_size else min(high, 8)


def _seen(model: Model, field: Field, given: dict[str, Any], look: Look, session: Session) -> None:
    name = str(session.submit_to_finish(model, field, **given).get("id"))
    look(session, outputs_of(session, name, model.version))


def _counted(count: int, session: Session, outputs: list[str]) -> None:
    del session
    if len(outputs) != count:
        raise Broken(f"{len(outputs)} outputs instead of {count}")


def _handed_out(as_base64: bool, session: Session, outputs: list[str]) -> None:
    for output in outputs:
        if is_url(output) == as_base64:
            raise Broken(f"an output is {'a URL' if as_base64 else 'no URL'}: {output[:60]!r}")
        size_of(fetch(session, output))


def _sized(size: str, session: Session, outputs: list[str]) -> None:
    for output in outputs:
        if (found := size_of(fetch(session, output))) != size:
            raise Broken(f"an output is {found} instead of {size}")


def _ranked(rank: int, session: Session, outputs: list[str]) -> None:
    for output in outputs:
        if (found := rank_of(fetch(session, output))) != rank:
            raise Broken(f"an output has rank {found} instead of {rank}")


_LOOKS: Mapping[str, tuple[str, Callable[[Any, Session, list[str]], None]]] = {
    "num_images": ("outputs", _counted),
    "enable_base64_output": ("form of outputs", _handed_out),
    "size": ("size of outputs", _sized),
    "lora_rank": ("rank of outputs", _ranked),
}
