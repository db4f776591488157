"""Reads what is said of a scenario beside its name, and finds what is said in an input."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from mock_server.errors import Refusal
from mock_server.faults import fault_of, text_of
from mock_server.grammar import choice, count, parts_of, span, yes
from mock_server.prediction import Status
from mock_server.scenarios import FAILURE, MAGIC_SEEDS, PROGRESSIONS, SCENARIOS, Scenario, Stay

_KEYS = ("progression", "created", "processing", "outcome", "error", "nsfw", "fault")
_NEVER = "never"


@lru_cache(maxsize=1024)
def read_scenario(text: str, *, what: str, base: Scenario | None = None) -> Scenario:
    """The scenario that a text such as `slow; processing=3s` describes.

    Parameters of a fault follow `fault=KIND`. Without a name, `base` or the normal one is changed.
    Raises Refusal 400 that names `what` (where the text came from) and says what would be right.
    """
    name, parameters = parts_of(text, what=what)
    found = SCENARIOS[choice(name, SCENARIOS, what=what)] if name else None
    found = found or base or SCENARIOS["normal"]
    if not parameters:
        return found
    own = {key: parameters.pop(key) for key in _KEYS if key in parameters}
    kind = own.pop("fault", "")
    if kind:
        found = replace(found, fault=fault_of(kind, parameters, what=what))
    elif parameters and found.fault is not None:
        known, before = parts_of(text_of(found.fault), what=what)
        found = replace(found, fault=fault_of(known, before | parameters, what=what))
    else:
        for key in parameters:
            choice(key, _KEYS, what=f"{what}: parameter")
    return replace(_changed(found, own, what=what), name=text.strip())


def _changed(scenario: Scenario, own: Mapping[str, str], *, what: str) -> Scenario:
    told: dict[str, Any] = {}
    if "progression" in own:
        told["progression"] = choice(own["progression"], PROGRESSIONS, what=f"{what}: progression")
    moved_by = told.get("progression", scenario.progression)
    if moved_by == "polls" != scenario.progression:
        told |= {"created": Stay(low=1, high=1), "processing": Stay(low=1, high=1)}
    for key in ("created", "processing"):
        if key in own:
            where = f"{what}: {key}"
            if moved_by in {"manual", "immediate"}:
                raise Refusal(400, f"{where}: progression={moved_by} knows no stays.")
            if moved_by == "polls":
                stay: float = count(own[key], what=f"{where} (in polls, which move it on)")
            else:
                stay = span(own[key], what=where) / 1000
            told[key] = Stay(low=stay, high=stay)
    if "nsfw" in own:
        told["nsfw"] = yes(own["nsfw"], what=f"{what}: nsfw")
    if "outcome" in own:
        known = (*(status for status in Status if status.final), _NEVER)
        if own["outcome"] not in known:
            raise Refusal(
                400,
                f"{what}: outcome: the contract has no final status {own['outcome'][:40]!r}; there are: "
                f"{', '.join(known)}. For one that no page has, say fault=status; value=cancelled.",
            )
        told["outcome"] = None if own["outcome"] == _NEVER else Status(own["outcome"])
    fails = told.get("outcome", scenario.outcome) is Status.FAILED
    if "error" in own and not fails:
        raise Refusal(400, f"{what}: error: only what fails has one; say outcome=failed beside it.")
    told["error"] = (own.get("error") or scenario.error or FAILURE) if fails else ""
    if fails and told.get("nsfw", scenario.nsfw):
        raise Refusal(400, f"{what}: nsfw: what fails has no outputs to flag.")
    return replace(scenario, **told)


_TOKEN = re.compile(r"\[\[mock:(?P<text>[^\[\]]{1,500})\]\]")


def magic_in(texts: Iterable[Any], seed: Any) -> tuple[str, str] | None:
    """The scenario that a magic input asks for, and which input that was.

    That is `[[mock:SCENARIO]]` in a text, or a reserved seed.
    """
    for text in texts:
        if isinstance(text, str) and (match := _TOKEN.search(text)):
            return match["text"], match[0]
    if isinstance(seed, int) and seed in MAGIC_SEEDS:
        return MAGIC_SEEDS[seed], f"seed {seed}"
    return None
