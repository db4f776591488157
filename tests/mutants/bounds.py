"""Ranges of numbers that are wrong by as little as a careless hand makes them, or altogether."""

from collections.abc import Callable, Iterator
from typing import Any

from .contracts import contract_mutant, fields
from .mutant import Mutant, Schema

_FAMILY = "bounds"
_STEPS = {"strength": 0.01, "loras[].scale": 0.1, "guidance_scale": 0.1, "learning_rate": 0.00001}
_HAIR = 1e-6


def mutants() -> Iterator[Mutant]:
    for turn, (model, name, schema) in enumerate(each for each in fields() if "minimum" in each[2]):
        yield from _of_field(turn, model, name, schema)
    yield from _sisters()
    yield from _on_one_version()


def _of_field(turn: int, model: str, name: str, schema: Schema) -> Iterator[Mutant]:
    """A step too much or too little at both ends, and two of the rarer faults, which take turns."""
    low, high, step = schema["minimum"], schema["maximum"], _STEPS.get(name, 1)
    at_high, at_low = (
        [high, high + step, high + step / 2, high + _HAIR],
        [low, low - step, low - step / 2, low - _HAIR],
    )
    steps: dict[str, tuple[str, float]] = {
        "max + a step": ("maximum", high + step),
        "max - a step": ("maximum", high - step),
        "min - a step": ("minimum", low - step),
        "min + a step": ("minimum", low + step),
    }
    finer: dict[str, tuple[str, float]] = {
        "max + half a step": ("maximum", high + step / 2),
        "min - a hair": ("minimum", low - _HAIR),
        "min - half a step": ("minimum", low - step / 2),
        "max + a hair": ("maximum", high + _HAIR),
        "without its max itself": ("exclusiveMaximum", True),
        "without its min itself": ("exclusiveMinimum", True),
    }
    if schema["type"] == "number":
        steps |= {label: fault for index, (label, fault) in enumerate(finer.items()) if index % 2 == turn % 2}
    for label, (key, value) in steps.items():
        beside = at_low if key.lower().endswith("minimum") else at_high
        yield contract_mutant(label, model, name, _put(key, value), beside, family=_FAMILY)
    if turn % 2:
        yield contract_mutant(
            "without max", model, name, _drop("maximum"), [high * 100 + 100], family=_FAMILY
        )
    else:
        yield contract_mutant("without min", model, name, _drop("minimum"), [low - 1000], family=_FAMILY)


def _sisters() -> Iterator[Mutant]:
    """Ranges as another page has them, and as other services have them."""
    wrong: list[tuple[str, str, str, Any, list[Any]]] = [
        ("max as on the dev page", "v3/flux-schnell-lora", "num_inference_steps", {"maximum": 50}, [50, 51]),
        ("max as on the schnell page", "v2/flux-dev-lora", "num_inference_steps", {"maximum": 8}, [9]),
        ("min as on the trainer's page", "v3/flux-dev-lora-trainer-turbo", "steps", {"minimum": 1}, [1, 0]),
        ("min as on the turbo page", "v3/flux-dev-lora-trainer", "steps", {"minimum": 1000}, [999]),
        ("of 32 bits", "v3/flux-schnell-lora", "seed", {"maximum": 2**31 - 1}, [2**31]),
        ("of 32 bits without a sign", "v2/flux-dev-lora", "seed", {"maximum": 2**32 - 1}, [2**31, 2**32]),
        ("of 53 bits", "v2/flux-schnell-lora", "seed", {"maximum": 2**53}, [10**10, 2**53]),
        ("down to -2", "v3/flux-dev-lora", "guidance_scale", {"minimum": -2}, [-2]),
        ("up to 20", "v2/flux-schnell-lora", "guidance_scale", {"maximum": 20}, [20]),
        ("up to 2", "v3/flux-schnell-lora", "loras[].scale", {"maximum": 2}, [2.1]),
        ("from -4", "v2/flux-dev-lora", "loras[].scale", {"minimum": -4}, [-4]),
        (
            "in powers of two",
            "v3/flux-dev-lora-trainer-turbo",
            "lora_rank",
            {"enum": [1, 2, 4, 8, 16, 32, 64]},
            [3],
        ),
        ("in hundreds", "v3/flux-dev-lora-trainer-turbo", "steps", {"multipleOf": 100}, [1001]),
        ("in tenths", "v3/flux-schnell-lora", "strength", {"multipleOf": 0.1}, [0.85]),
        ("in halves", "v3/flux-schnell-lora", "guidance_scale", {"multipleOf": 0.5}, [3.6]),
    ]
    for label, model, name, more, values in wrong:
        yield contract_mutant(label, model, name, _update(more), values, family="bounds of others")


def _on_one_version() -> Iterator[Mutant]:
    """A version that was forgotten when the other was changed."""
    family = "versions that differ"
    yield contract_mutant(
        "max 8 on v2 alone", "v2/flux-schnell-lora", "num_images", _put("maximum", 8), [8], family=family
    )
    yield contract_mutant(
        "max 2 on v3 alone", "v3/flux-dev-lora", "num_images", _put("maximum", 2), [3], family=family
    )
    yield contract_mutant(
        "a text on v2 alone", "v2/flux-dev-lora-trainer", "steps", _put("type", "string"), [1], family=family
    )


def _put(key: str, value: Any) -> Callable[[Schema], None]:
    return _update({key: value})


def _update(more: Schema) -> Callable[[Schema], None]:
    return lambda schema: schema.update(more)


def _drop(key: str) -> Callable[[Schema], None]:
    return lambda schema: schema.pop(key)
