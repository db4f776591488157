"""All mutants, by name."""

from collections.abc import Mapping
from functools import cache

from . import (
    access,
    answers,
    bounds,
    defaults,
    errors,
    fitting,
    flaky,
    identity,
    lifecycle,
    media,
    outputs,
    parsing,
    presence,
    routing,
    shapes,
    sizes,
    strictness,
)
from .mutant import Mutant

_MODULES = (
    bounds,
    sizes,
    shapes,
    presence,
    defaults,
    answers,
    outputs,
    lifecycle,
    identity,
    errors,
    access,
    routing,
    parsing,
    media,
    strictness,
    fitting,
    flaky,
)


@cache
def population() -> Mapping[str, Mutant]:
    """Every mutant. Raises ValueError where two have one name."""
    found: dict[str, Mutant] = {}
    for module in _MODULES:
        for mutant in module.mutants():
            if mutant.name in found:
                raise ValueError(f"two mutants are called {mutant.name!r}")
            found[mutant.name] = mutant
    return found
