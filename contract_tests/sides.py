"""The work of `wavemock verify`: the cases put to one target, or to two, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from contract_tests.case import Case, Finding, Report
from contract_tests.parity import Parity, compare
from contract_tests.run import INTERRUPTED, Options, chosen, command, examine, layers_of, open_session
from contract_tests.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the targets, and what is about to be put to it."""

    options: Options
    session: Session
    cases: Sequence[Case]


def open_side(options: Options, *others: Options) -> Side:
    """A side to which nothing has been sent yet, with the layers that are run against all of them.

    Raises as `open_session` and `chosen` do.
    """
    layers = layers_of(options)
    shared = tuple(layer for layer in layers if all(layer in layers_of(each) for each in others))
    if shared != layers:
        options = replace(options, layers=shared)
    session = open_session(options)
    try:
        return Side(options=options, session=session, cases=chosen(session, options))
    except Exception:
        session.target.close()
        raise


def examine_sides(sides: Sequence[Side], told: Callable[[Finding], None] = lambda _: None) -> Report | Parity:
    """Runs all cases against one target, and where there are two against the other, and compares them.

    Where the first run is interrupted, its report is all there is.
    """
    one, *others = sides
    first = examine(one.session, one.cases, one.options, told)
    if not others or first.stopped == INTERRUPTED:
        return first
    (other,) = others
    second = examine(other.session, other.cases, other.options, told)
    return compare(first, second, again=command(one.options, other.options.url))
