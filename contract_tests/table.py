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

    @property
    def is_archive(self) -> bool:
        """Whether it names an archive of pictures."""
        return "archive" in self.note


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
    paths: dict[str, list[_Row]] = {}
    rows = _read(table)
    for row in rows:
        if row.cells["edition"] == edition and _MODEL.fullmatch(row.cells["path"]):
            paths.setdefault(row.cells["path"], []).append(row)
    if not paths:
        known = ", ".join(dict.fromkeys(row.cells["edition"] for row in rows))
        raise BadTable(f"{table}: has no edition {edition!r}; there are: {known or 'none'}")
    shown = tuple(_model(table, path, each) for path, each in paths.items())
    others = {"v2": "v3", "v3": "v2"}
    return shown + tuple(
        replace(each, version=others[each.version], documented=False)
        for each in shown
        if each.version in others
    )


def read_results(edition: str, table: Path = DOCUMENTED) -> tuple[Field, ...]:
    """The fields of a result, as the pages of an edition document them. Raises BadTable."""
    fields = {
        row.cells["field"]: _field(table, row)
        for row in _read(table)
        if (row.cells["edition"], row.cells["part"]) == (edition, "response")
        and not _MODEL.fullmatch(row.cells["path"])
    }
    return tuple(fields.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    line: int
    cells: Mapping[str, str]


def _read(table: Path) -> list[_Row]:
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadTable(f"{table}: cannot be read: {error}") from error
    if not rows or [name.replace(" ", "_") for name in rows[0]] != _COLUMNS:
        raise BadTable(f"{table}:1: the columns have to be {', '.join(_COLUMNS)}")
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(_COLUMNS):
            raise BadTable(f"{table}:{line}: has {len(row)} columns instead of {len(_COLUMNS)}")
    return [
        _Row(line=line, cells=dict(zip(_COLUMNS, row, strict=True)))
        for line, row in enumerate(rows[1:], start=2)
    ]


def _model(table: Path, path: str, rows: Iterable[_Row]) -> Model:
    parts: dict[str, list[Field]] = {"request": [], "response": []}
    for row in rows:
        if row.cells["part"] not in parts:
            raise BadTable(f"{table}:{row.line}: part is {row.cells['part']!r}, not request or response")
        parts[row.cells["part"]].append(_field(table, row))
    match = _MODEL.fullmatch(path)
    assert match is not None  # the caller chose the rows by it  # noqa: S101
    return Model(
        page=row.cells["page"],
        edition=row.cells["edition"],
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


def _field(table: Path, row: _Row) -> Field:
    cells = row.cells
    outer, _, inner = cells["type"].partition(" of ")
    if outer not in _KINDS or (inner and inner not in _KINDS):
        raise BadTable(f"{table}:{row.line}: {cells['type']!r} is no type; there are {', '.join(_KINDS)}")
    kind = _KINDS[outer]
    try:
        return Field(
            name=cells["field"],
            kind=kind,
            items=_KINDS[inner] if inner else None,
            required=cells["required"] == "yes",
            default=_default(cells["default"], kind),
            minimum=None if cells["min"] == _NONE else Decimal(cells["min"]),
            maximum=None if cells["max"] == _NONE else Decimal(cells["max"]),
            max_items=None if cells["max_items"] == _NONE else int(cells["max_items"]),
            note=cells["note"],
        )
    except (ValueError, ArithmeticError) as error:
        raise BadTable(f"{table}:{row.line}: {cells['field']}: is no row of numbers: {error}") from error


def _default(printed: str, kind: Kind) -> Any:
    if printed in {_NONE, _SAMPLE} or kind == "object":
        return None
    if kind == "string":
        return "" if printed == '""' else printed
    return json.loads(printed)
