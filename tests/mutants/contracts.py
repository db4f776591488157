"""Mutants made by changing what the server takes for its contracts."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from .client import Client
from .mutant import Mutant, Schema, field, properties
from .names import LORA
from .server import changed, contracts_of, real

Change = Callable[[Schema], None]
"""Changes the schema of one field in place."""

CHANGED: dict[str, tuple[tuple[str, ...], Callable[[Schema], None], str]] = {}
"""What each mutant of this kind changes: on which models, how, and in which edition."""


def contract_mutant(
    label: str,
    model: str | tuple[str, ...],
    name: str,
    change: Change,
    values: Iterable[Any],
    *,
    family: str,
    edition: str = "current",
) -> Mutant:
    """A server that has one field of a model wrong; `values` are those that it treats otherwise."""

    def inside(schema: Schema) -> None:
        change(properties(schema)[name])

    shows = partial(statuses, name=name, values=list(values))
    return schema_mutant(label, model, name, inside, shows, family=family, edition=edition)


def schema_mutant(
    label: str,
    model: str | tuple[str, ...],
    name: str,
    change: Callable[[Schema], None],
    shows: Callable[[Client, str], Any],
    *,
    family: str,
    edition: str = "current",
) -> Mutant:
    """A server that has the schema of a model wrong in what concerns one field."""
    models = (model,) if isinstance(model, str) else model
    said = f"{name} {label} ({', '.join(models)}{'' if edition == 'current' else f' of {edition}'})"
    CHANGED[said] = (models, change, edition)

    def make(data: Path) -> ASGIApp:
        return real(data, edition, changed(models, change, edition))

    return Mutant(
        name=said,
        family=family,
        about=field(name, models=models),
        make=make,
        shows=lambda client: shows(client, models[0]),
        edition=edition,
        models=models,
    )


def given(name: str, value: Any) -> dict[str, Any]:
    """A body's part in which a field, of an item perhaps, has a value."""
    array, _, inner = name.partition("[].")
    return {array: [{**LORA, inner: value}]} if inner else {array: value}


def statuses(client: Client, model: str, *, name: str, values: Iterable[Any]) -> list[int]:
    """How a model answers to values of a field."""
    return [client.status(model, **given(name, value)) for value in values]


def fields(edition: str = "current") -> Iterator[tuple[str, str, Schema]]:
    """Model, name and schema of every documented field, each model once, on versions that take turns."""
    for index, (model, contract) in enumerate(contracts_of(edition).items()):
        if contract.documented:
            others = {"v2": "v3", "v3": "v2"}
            version, _, short = model.partition("/")
            for turn, (name, schema) in enumerate(properties(contract.schema).items()):
                if name != "enable_sync_mode":
                    chosen = version if (turn + index) % 2 else others[version]
                    yield f"{chosen}/{short}", name, schema
