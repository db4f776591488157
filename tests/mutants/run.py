"""Runs the contract suite against every mutant, and tells which survive: `python -m tests.mutants.run`."""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from contract_tests.case import LAYERS

from .mutant import Mutant
from .population import population
from .trial import Order, Trial, try_one

_EDITIONS = ("current", "flux-lora")
TYPICAL = {
    "current": ("flux-schnell-lora", "v3/flux-dev-lora-trainer-turbo"),
    "flux-lora": ("flux-schnell-lora",),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs all that is asked for; 1 where a mutant survives or a right server is accused, else 0."""
    asked = _parser().parse_args(arguments)
    layers = tuple(asked.layer)
    orders = [
        Order(
            name=each.name,
            layers=layers,
            models=(each.models or TYPICAL[each.edition]) if asked.narrow else (),
        )
        for each in _chosen(asked.only)
    ]
    if not asked.only:
        orders += [
            Order(edition=edition, seed=seed, layers=layers)
            for seed in range(asked.seeds)
            for edition in _EDITIONS
        ]
    if not orders:
        print("no mutant is called like that")
        return 1
    began = time.perf_counter()
    trials = _all_tried(orders, asked)
    if asked.narrow and (again := [each.name for each in survivors(trials)]):
        print(f"{len(again)} survived with few models; once more with all")
        second = _all_tried([Order(name=name, layers=layers) for name in again], asked)
        trials = [each for each in trials if each.name not in again] + second
    print("\n".join(report(trials)))
    print(f"{len(trials)} servers in {time.perf_counter() - began:.0f} s")
    return 1 if survivors(trials) or accused(trials) else 0


def _all_tried(orders: list[Order], asked: argparse.Namespace) -> list[Trial]:
    trials = []
    for trial in _tried(orders, asked.jobs):
        trials.append(trial)
        if not asked.quiet:
            print(_line(len(trials), len(orders), trial), flush=True)
    return trials


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.mutants.run", description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--only", action="append", default=[], help="pattern of names or families; may be repeated"
    )
    parser.add_argument("--layer", action="append", default=[], choices=LAYERS, help="may be repeated")
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds to try the right server with")
    parser.add_argument(
        "--narrow",
        action="store_true",
        help="ask only about the models that a mutant is wrong about, or about two",
    )
    parser.add_argument("--quiet", action="store_true", help="no line for each server")
    return parser


def _chosen(patterns: Iterable[str]) -> list[Mutant]:
    patterns = list(patterns)
    return [
        mutant
        for mutant in population().values()
        if not patterns
        or any(
            pattern in {mutant.name, mutant.family}
            or fnmatchcase(mutant.name, pattern)
            or fnmatchcase(mutant.family, pattern)
            for pattern in patterns
        )
    ]


def _tried(orders: list[Order], jobs: int) -> Iterator[Trial]:
    if jobs == 1 or len(orders) == 1:
        yield from map(try_one, orders)
        return
    # A process that begins anew has no event loops or threads of this one.
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(orders))) as pool:
        yield from pool.imap_unordered(try_one, orders)


def survivors(trials: Iterable[Trial]) -> list[Trial]:
    """Mutants about whose own fault nothing was found."""
    return [each for each in trials if each.family != "no fault" and not each.found]


def accused(trials: Iterable[Trial]) -> list[Trial]:
    """Runs against the right server that did not come to a good end."""
    return [
        each for each in trials if each.family == "no fault" and (each.accused or each.fell or each.stopped)
    ]


def _line(number: int, of: int, trial: Trial) -> str:
    if trial.family == "no fault":
        what = "ACCUSED" if accused([trial]) else "kept"
    elif trial.found:
        what = f"killed by {', '.join(trial.found)}"
    else:
        what = f"SURVIVED{', accused of something else' if trial.accused else ''}"
    fell = ", THE SUITE FELL" if trial.fell else ""
    return f"{number}/{of} {trial.seconds:5.1f} s  {trial.name}: {what}{fell}"


def report(trials: list[Trial]) -> Iterator[str]:
    """The table, the survivors, and false alarms."""
    yield from _table([each for each in trials if each.family != "no fault"])
    lost = sorted(survivors(trials), key=lambda each: (each.family, each.name))
    yield f"\nSurvivors: {len(lost)}"
    for each in lost:
        what = "accused of something else" if each.accused else "not accused"
        yield f"  {each.name} [{each.family}]: {what}{f'; stopped: {each.stopped}' if each.stopped else ''}"
        yield from (f"      {said}" for said in each.said)
    fallen = [each for each in trials if each.fell]
    yield f"The suite fell: {len(fallen)}"
    for each in fallen:
        yield f"  {each.name}"
        yield "      " + each.fell.strip().replace("\n", "\n      ")
    wrong = accused(trials)
    yield f"False alarms: {len(wrong)} of {sum(each.family == 'no fault' for each in trials)} runs"
    for each in wrong:
        yield f"  {each.name} {each.stopped}"
        yield from (f"      {said}" for said in each.said)


def _table(trials: list[Trial]) -> Iterator[str]:
    """A line for each family: of how many each layer finds the fault, and of how many anything at all."""
    families = list(dict.fromkeys(each.family for each in trials))
    width = max((len(family) for family in families), default=0)
    yield "\nBy layer: killed by a finding about the fault / by any finding"
    yield f"{'family':{width}} {'all':>4} {'killed':>7} " + " ".join(f"{layer:>10}" for layer in LAYERS)
    for family in [*families, ""]:
        those = [each for each in trials if not family or each.family == family]
        killed = sum(bool(each.found) for each in those)
        cells = [
            f"{sum(layer in each.found for each in those)}/{sum(layer in each.accused for each in those)}"
            for layer in LAYERS
        ]
        yield f"{family or 'all':{width}} {len(those):4} {killed:7} " + " ".join(
            f"{cell:>10}" for cell in cells
        )


if __name__ == "__main__":
    sys.exit(main())
