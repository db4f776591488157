"""The hand-typed table of the pages, read into records."""

import csv
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

DOCUMENTED = Path(__file__).with_name("documented.csv")
_COLUMNS = [
    "page",
    "edition",
    "path",
    "part",
    "field",
    "type",
    "required",
    "default",
    "min",
    "max",
    "max_items",
    "note",
]
_MODEL = re.compile(r"/api/(?P<version>v[0-9]+)/(?P<vendor>[^{}]+)/(?P<name>[^/{}]+)")
_NONE = "-"
_SAMPLE = "(sample)"

Kind = Literal["string", "integer", "number", "boolean", "array", "object"]


class BadTable(Exception):
    """A table that does not make sense; says which line, and what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One row: a field as a page documents it.

    `minimum` and `maximum` are as printed, since their last digit is the step of a number's range. On a
    string they are the range of both sides of a size `W*H`. `default` is None where there is none, which
    no page documents as a value.
    """

    name: str
    kind: Kind
    items: Kind | None
    required: bool
    default: Any
    minimum: Decimal | None
    maximum: Decimal | None
    max_items: int | None
    note: str

    @property
    def is_size(self) -> bool:
        """Whether it is a text `W*H`, each of them in the range."""
        return self.kind == "string" and self.minimum is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model on one version of the API. `documented` tells whether a page shows this version."""

    page: str
    edition: str
    version: str
    vendor: str
    name: str
    documented: bool
    request: tuple[Field, ...]
    response: tuple[Field, ...]

    @property
    def path(self) -> str:
        """Where to submit."""
        return f"/api/{self.version}/{self.vendor}/{self.name}"

    @property
    def result(self) -> str:
        """Where to poll, with `{id}` in the place of the id."""
        return f"/api/{self.version}/predictions/{{id}}/result"

    def __str__(self) -> str:
        return f"{self.version}/{self.name}"

    def field(self, name: str) -> Field | None:
        """The request's field of that name."""
        return next((each for each in self.request if each.name == name), None)


def read_models(edition: str, table: Path = DOCUMENTED) -> tuple[Model, ...]:
    """The models of an edition on the versions that their pages show, then the same on the other version.

    Raises BadTable where the file is no such table or knows no such edition.
    """
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadTable(f"{table}: cannot be read: {error}") from error
    names = [name.replace(" ", "_") for name in rows[0]] if rows else []
    if names != _COLUMNS:
        raise BadTable(f"{table}:1: the columns have to be {', '.join(_COLUMNS)}")
    found: dict[str, list[tuple[int, Mapping[str, str]]]] = {}
    editions = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(_COLUMNS):
            raise BadTable(f"{table}:{number}: has {len(row)} columns instead of {len(_COLUMNS)}")
        each = dict(zip(_COLUMNS, row, strict=True))
        editions.append(each["edition"])
        if each["edition"] == edition and _MODEL.fullmatch(each["path"]):
            found.setdefault(each["path"], []).append((number, each))
    if not found:
        known = ", ".join(dict.fromkeys(editions))
        raise BadTable(f"{table}: has no edition {edition!r}; there are: {known or 'none'}")
    shown = tuple(_model(table, path, each) for path, each in found.items())
    others = {"v2": "v3", "v3": "v2"}
    return shown + tuple(
        replace(each, version=others[each.version], documented=False)
        for each in shown
        if each.version in others
    )


def _model(table: Path, path: str, rows: Iterable[tuple[int, Mapping[str, str]]]) -> Model:
    parts: dict[str, list[Field]] = {"request": [], "response": []}
    rows = list(rows)
    for number, row in rows:
        if row["part"] not in parts:
            raise BadTable(f"{table}:{number}: part is {row['part']!r}, not request or response")
        try:
            parts[row["part"]].append(_field(row))
        except (ValueError, ArithmeticError) as error:
            raise BadTable(f"{table}:{number}: {row['field']}: {error}") from error
    match = _MODEL.fullmatch(path)
    assert match is not None  # the caller chose the rows by it  # noqa: S101
    first = rows[0][1]
    return Model(
        page=first["page"],
        edition=first["edition"],
        documented=True,
        request=tuple(parts["request"]),
        response=tuple(parts["response"]),
        **match.groupdict(),
    )


_KINDS: Mapping[str, Kind] = {
    "string": "string",
    "integer": "integer",
    "number": "number",
    "float": "number",
    "boolean": "boolean",
    "array": "array",
    "object": "object",
}


def _field(row: Mapping[str, str]) -> Field:
    outer, _, inner = row["type"].partition(" of ")
    if outer not in _KINDS or (inner and inner not in _KINDS):
        raise ValueError(f"{row['type']!r} is no type; there are {', '.join(_KINDS)}")
    kind = _KINDS[outer]
    return Field(
        name=row["field"],
        kind=kind,
        items=_KINDS[inner] if inner else None,
        required=row["required"] == "yes",
        default=_default(row["default"], kind),
        minimum=None if row["min"] == _NONE else Decimal(row["min"]),
        maximum=None if row["max"] == _NONE else Decimal(row["max"]),
        max_items=None if row["max_items"] == _NONE else int(row["max_items"]),
        note=row["note"],
    )


def _default(printed: str, kind: Kind) -> Any:
    if printed in {_NONE, _SAMPLE} or kind == "object":
        return None
    if kind == "string":
        return "" if printed == '""' else printed
    return json.loads(printed)
