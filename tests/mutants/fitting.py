"""A server that means well with every field of every model, and makes fit what does not."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .client import Client
from .mutant import About, Mutant, either, message, rule
from .server import Answer, Ask, Between, Request
from .wrapped import submits, wrapped


def mutants() -> Iterator[Mutant]:
    """A server that means well with every field of every model."""
    wrong: dict[str, tuple[Callable[[Any], Any], dict[str, Any], About]] = {
        "whole fractions are integers": (_whole, {"num_images": 2.0}, rule("integer")),
        "texts that are numbers are numbers": (_numbers, {"num_images": "2"}, rule("type")),
        "texts that are true or false are that": (_truths, {"enable_safety_checker": "false"}, rule("type")),
        "null is as good as left out": (
            lambda each: {k: v for k, v in each.items() if v is not None},
            {"seed": None},
            rule("null"),
        ),
        "an empty text is as good as left out": (
            lambda each: {k: v for k, v in each.items() if v != ""},
            {"num_images": ""},
            rule("type", "form", "default"),
        ),
        "an empty list is as good as left out": (
            lambda each: {k: v for k, v in each.items() if v != []},
            {"num_images": []},
            rule("type"),
        ),
        "texts are stripped": (
            lambda each: {k: v.strip() if isinstance(v, str) else v for k, v in each.items()},
            {"size": " 1024*1024\n"},
            rule("form"),
        ),
        "numbers beyond their range are moved into it": (_clamped, {"num_images": 99}, rule("range")),
        "fractions are rounded": (_rounded, {"num_images": 2.4}, rule("integer", "range")),
        "a number is a text where one is due": (_worded, {"prompt": 1}, rule("type")),
        "too many LoRAs are cut off": (
            lambda each: {k: v[:5] if isinstance(v, list) else v for k, v in each.items()},
            {"loras": [{"path": "a", "scale": 1}] * 6},
            rule("items"),
        ),
    }
    for name, (change, given, about) in wrong.items():
        handler = _changing(change)
        yield wrapped(
            name,
            "made to fit",
            either(about, message("*accepted, although*")),
            handler,
            partial(Client.status, **given),
        )


def _changing(change: Callable[[Any], Any]) -> Callable[[], Between]:
    """Changes what was refused, and asks again."""

    async def handler(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if submits(request) and answer.status == 400 and isinstance(request.json, dict):
            again = await ask(request.with_body(change(request.json)))
            return again if again.status == 200 else answer
        return answer

    return lambda: handler


def _whole(given: dict[str, Any]) -> dict[str, Any]:
    return {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in given.items()}


def _numbers(given: dict[str, Any]) -> dict[str, Any]:
    found = dict(given)
    for key, value in given.items():
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,12})?", value):
            found[key] = float(value) if "." in value else int(value)
    return found


def _truths(given: dict[str, Any]) -> dict[str, Any]:
    return {
        k: {"true": True, "false": False}.get(v, v) if isinstance(v, str) else v for k, v in given.items()
    }


_RANGES = {
    "num_images": (1, 4),
    "strength": (0, 1),
    "guidance_scale": (0, 10),
    "lora_rank": (1, 64),
    "steps": (1000, 10_000),
}


def _clamped(given: dict[str, Any]) -> dict[str, Any]:
    found = dict(given)
    for key, (low, high) in _RANGES.items():
        if type(given.get(key)) in {int, float}:
            found[key] = min(max(given[key], low), high)
    return found


def _rounded(given: dict[str, Any]) -> dict[str, Any]:
    return {
        k: round(v)
        if isinstance(v, float) and abs(v) < 1e15 and k not in {"strength", "guidance_scale"}
        else v
        for k, v in given.items()
    }


def _worded(given: dict[str, Any]) -> dict[str, Any]:
    texts = ("prompt", "image", "mask_image", "data", "images_data_url", "trigger_word")
    return {k: json.dumps(v) if k in texts and not isinstance(v, str) else v for k, v in given.items()}
