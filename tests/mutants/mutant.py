"""What a mutant is, and what a finding has to be about to count as the discovery of its fault."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract_tests.case import Finding

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from .client import Client

About = Callable[[Finding], bool]
"""Whether a refuted finding is about the fault, and not about something that the fault brings with it."""

Shows = Callable[["Client"], Any]
"""Speaks to a server, and gives what a right one and the wrong one answer differently."""

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One wrong server.

    `make` gets a directory for its files. `models` are those that it is wrong about; none stand for any.
    `over_http` marks a fault that only a real port shows.
    """

    name: str
    family: str
    about: About
    make: Callable[[Path], ASGIApp]
    shows: Shows
    edition: str = "current"
    models: tuple[str, ...] = ()
    over_http: bool = False


def field(*names: str, models: tuple[str, ...] = ()) -> About:
    """A finding about one of these fields, or one inside or around it; on one of `models`, if given.

    Cases that look at whole requests and answers name the field in what they say.
    """

    def about(finding: Finding) -> bool:
        case = finding.case
        if models and case.model and case.model not in models:
            return False
        if any(_related(case.field, name) for name in names):
            return True
        return not case.field and any(_named(finding, name) for name in names)

    return about


def _related(one: str, other: str) -> bool:
    """Whether two names stand for the same field, or one of them for a part of the other."""
    shorter, longer = sorted((one, other), key=len)
    return one == other or (shorter not in {"", "data"} and longer.startswith((f"{shorter}.", f"{shorter}[")))


def _named(finding: Finding, name: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(name)}(?![\w\[]|\.\w)", finding.message) is not None


def rule(*patterns: str, layers: tuple[str, ...] = ()) -> About:
    """A finding of a case whose rule or label is like one of the patterns."""

    def about(finding: Finding) -> bool:
        case = finding.case
        if layers and case.layer not in layers:
            return False
        return any(fnmatchcase(text, pattern) for text in (case.rule, case.label) for pattern in patterns)

    return about


def message(*patterns: str) -> About:
    """A finding that says something like one of the patterns."""
    return lambda finding: any(fnmatchcase(finding.message, pattern) for pattern in patterns)


def either(*abouts: About) -> About:
    """A finding that one of them takes."""
    return lambda finding: any(about(finding) for about in abouts)


def properties(schema: Mapping[str, Any]) -> dict[str, Schema]:
    """The fields of a schema as the table of the pages names them, those of items included."""
    found: dict[str, Schema] = {}
    for name, child in schema["properties"].items():
        found[name] = child
        inside = child.get("items", {}).get("properties", {})
        found |= {f"{name}[].{inner}": each for inner, each in inside.items()}
    return found
