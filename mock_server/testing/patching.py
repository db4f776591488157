"""Puts other functions in the place of those of `time` and `asyncio` in this process, and takes them away."""

import sys
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from types import FrameType
from typing import Any

_RUNNERS = frozenset({"_pytest", "pytest", "pluggy", "xdist", "execnet", "hypothesis", "coverage"})
_OURS = "mock_server"
# These call what they are given: `pool.submit(time.sleep, 5)` is a sleep of the client's.
_CARRIERS = frozenset({"asyncio", "concurrent", "contextvars", "threading"})


def is_clients(module: str, *, carried: bool = False) -> bool:
    """Whether the code of a module belongs to the client or its test, by the module's name.

    Not so the standard library, pytest with its plugins, and this package: their timings and time limits are
    real. `carried` counts as the client's what the standard library only calls for somebody.
    """
    root = module.partition(".")[0]
    if root in _RUNNERS or root == _OURS or root.startswith("pytest_"):
        return False
    return root not in sys.stdlib_module_names or (carried and root in _CARRIERS)


def from_client(frame: FrameType, *, carried: bool = False) -> bool:
    """Whether a frame runs code of the client's."""
    return is_clients(str(frame.f_globals.get("__name__", "")), carried=carried)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """What was put in place of what: by the id of the original, the original and its replacement."""

    pairs: Mapping[int, tuple[Callable[..., Any], Callable[..., Any]]]


def put_in(replacements: Mapping[tuple[str, str], Callable[..., Any]], *, homes: Set[str]) -> Patches:
    """Replaces functions of loaded modules, named by module and attribute, wherever a client holds them.

    That is in the modules that are their `homes`, and in every module of a client that has imported them, by
    whatever name. What is kept elsewhere, as a default argument or in an object, is not seen.
    """
    pairs = {}
    for (home, name), replacement in replacements.items():
        original = getattr(sys.modules[home], name)
        pairs[id(original)] = (original, replacement)
    _exchange(pairs, homes=homes)
    return Patches(pairs=pairs)


def take_out(patches: Patches, *, homes: Set[str]) -> None:
    """Puts every original back, also where a module was imported meanwhile and took the replacement."""
    back = {id(replacement): (replacement, original) for original, replacement in patches.pairs.values()}
    _exchange(back, homes=homes)


def _exchange(pairs: Mapping[int, tuple[Callable[..., Any], Callable[..., Any]]], *, homes: Set[str]) -> None:
    for names in _namespaces(homes):
        for name, value in list(names.items()):
            # A value may have any idea of equality; only what it is counts.
            if (pair := pairs.get(id(value))) is not None and pair[0] is value:
                names[name] = pair[1]


def _namespaces(homes: Set[str]) -> Iterator[dict[str, Any]]:
    for name, module in list(sys.modules.items()):
        if name in homes or is_clients(name):
            names = getattr(module, "__dict__", None)
            if isinstance(names, dict):
                yield names
