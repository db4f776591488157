"""Defaults that are wrong, missing, invented, or put where they do not belong."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from .client import Client, smallest
from .contracts import fields, given, schema_mutant
from .mutant import Mutant, Schema, field, properties
from .names import LORA
from .server import Answer, Ask, Request, between, contracts_of, real

_OTHER_TEXTS = {"size": "1024*1536", "trigger_word": "p3rson"}


def mutants() -> Iterator[Mutant]:
    for turn, (model, name, schema) in enumerate(fields()):
        if "default" not in schema:
            continue
        yield _other(model, name, _near(name, schema["default"]))
        if turn % 2:
            yield _default("default is missing", model, name, None, family="default missing")
    yield from _of_another_type()
    yield from _of_other_pages()
    yield from _invented()
    yield from _of_the_older_edition()
    yield from _falsy()


def _near(name: str, default: Any) -> Any:
    if isinstance(default, bool):
        return not default
    if isinstance(default, str):
        return _OTHER_TEXTS[name]
    if isinstance(default, list):
        return [LORA]
    return default + 1 if isinstance(default, int) else default * 1.25


def _other(model: str, name: str, value: Any, edition: str = "current") -> Mutant:
    return _default(f"default is {value!r}", model, name, [value], family="default changed", edition=edition)


def _default(
    label: str, model: str, name: str, value: list[Any] | None, *, family: str, edition: str = "current"
) -> Mutant:
    """With another default, the one item of `value`, or none at all."""

    def change(schema: Schema) -> None:
        each = properties(schema)[name]
        each.pop("default", None)
        if value is not None:
            each["default"] = value[0]

    return schema_mutant(
        label, model, name, change, partial(_effective, name=name), family=family, edition=edition
    )


def _effective(client: Client, model: str, *, name: str) -> Any:
    body = {key: value for key, value in smallest(model).items() if key != name}
    # Written out, since 1 is True to a comparison.
    return repr(client.understood(body, model).get(name, "nothing"))


def _of_another_type() -> Iterator[Mutant]:
    wrong: list[tuple[str, str, Any]] = [
        ("v3/flux-schnell-lora", "num_inference_steps", "4"),
        ("v2/flux-dev-lora", "guidance_scale", "3.5"),
        ("v3/flux-dev-lora", "enable_base64_output", "true"),
        ("v3/flux-schnell-lora", "enable_safety_checker", 1),
        ("v2/flux-schnell-lora", "enable_base64_output", 0),
        ("v3/flux-schnell-lora", "seed", None),
        ("v3/flux-schnell-lora", "loras", None),
        ("v2/flux-dev-lora", "loras", {}),
        ("v2/flux-dev-lora", "size", [1024, 1024]),
        ("v3/flux-schnell-lora", "size", "1024x1024"),
        ("v3/flux-dev-lora-trainer", "create_masks", "true"),
        ("v3/flux-dev-lora-trainer-turbo", "trigger_word", None),
        ("v3/flux-dev-lora-trainer-turbo", "learning_rate", "0.0004"),
    ]
    for model, name, value in wrong:
        yield _default(f"default is {value!r}", model, name, [value], family="default of another type")


def _of_other_pages() -> Iterator[Mutant]:
    wrong: list[tuple[str, str, Any]] = [
        ("v3/flux-schnell-lora", "num_inference_steps", 28),
        ("v3/flux-schnell-lora", "strength", 0.6),
        ("v2/flux-dev-lora", "guidance_scale", 5.0),
        ("v2/flux-dev-lora", "num_inference_steps", 50),
        ("v3/flux-dev-lora-trainer", "is_style", None),
        ("v3/flux-dev-lora-trainer-turbo", "trigger_word", ""),
        ("v3/flux-dev-lora-trainer-turbo", "lora_rank", 64),
        ("v3/flux-dev-lora-trainer-turbo", "learning_rate", 0.0001),
        ("v3/flux-schnell-lora", "size", "512*512"),
    ]
    for model, name, value in wrong:
        yield _default(f"default is {value!r}", model, name, [value], family="default of another page")


def _invented() -> Iterator[Mutant]:
    """Defaults for fields that have none: optional ones, required ones, and those of items."""
    optional = [
        ("v3/flux-schnell-lora", "image", ""),
        ("v2/flux-dev-lora", "image", ""),
        ("v2/flux-schnell-lora", "mask_image", ""),
        ("v3/flux-dev-lora-trainer", "trigger_word", "p3r5on"),
        ("v2/flux-dev-lora-trainer", "trigger_word", ""),
        ("v3/flux-dev-lora-trainer", "data_archive_format", "zip"),
        ("v2/flux-dev-lora-trainer", "data_archive_format", None),
    ]
    for model, name, value in optional:
        yield _default(f"has a default, {value!r}", model, name, [value], family="default invented")
    for model, contract in contracts_of().items():
        if contract.documented:
            (name,) = contract.schema["required"]
            yield _filled(model, name, "a text")
    for model in ("v3/flux-schnell-lora", "v2/flux-dev-lora"):
        yield _filled(model, "loras[].scale", 1)
        yield _filled(model, "loras[].path", "owner/lora")


def _filled(model: str, name: str, value: Any) -> Mutant:
    array, _, inner = name.rpartition("[].")

    def change(schema: Schema) -> None:
        properties(schema)[name]["default"] = value
        holder = schema["properties"][array]["items"] if array else schema
        holder["required"].remove(inner)
        if not holder["required"]:
            del holder["required"]

    def shows(client: Client, model: str) -> int:
        if not array:
            return client.post({}, model).status_code
        return client.status(model, **{array: [{k: v for k, v in LORA.items() if k != inner}]})

    return schema_mutant(
        f"is filled in with {value!r}", model, name, change, shows, family="default for a required field"
    )


def _of_the_older_edition() -> Iterator[Mutant]:
    wrong = [
        ("v2/flux-dev-lora", "strength", 0.8),
        ("v2/flux-dev-lora", "guidance_scale", 3.5),
        ("v2/flux-schnell-lora", "num_inference_steps", 28),
        ("v2/flux-schnell-lora", "prompt", "a lighthouse"),
        ("v2/flux-dev-lora", "image", "x"),
    ]
    for model, name, value in wrong:
        yield _other(model, name, value, "flux-lora")
    for model, name in (("v2/flux-dev-lora", "prompt"), ("v2/flux-schnell-lora", "image")):
        yield _default("default is missing", model, name, None, family="default missing", edition="flux-lora")


def _falsy() -> Iterator[Mutant]:
    """What was given is overwritten, because it looks like nothing."""
    wrong: list[tuple[str, str, Any]] = [
        ("v3/flux-schnell-lora", "strength", 0),
        ("v2/flux-dev-lora", "guidance_scale", 0),
        ("v3/flux-schnell-lora", "seed", 0),
        ("v2/flux-dev-lora", "enable_base64_output", False),
        ("v3/flux-schnell-lora", "enable_safety_checker", False),
        ("v3/flux-dev-lora-trainer", "create_masks", False),
        ("v3/flux-dev-lora-trainer-turbo", "trigger_word", ""),
        ("v3/flux-dev-lora-trainer-turbo", "learning_rate", 0),
    ]
    for model, name, value in wrong:
        yield _overwritten(model, name, value, lambda found: not found)
    yield _overwritten("v3/flux-schnell-lora", "num_images", 4, lambda _: True)
    yield _overwritten("v2/flux-dev-lora", "size", "1536*512", lambda _: True)
    yield _overwritten("v3/flux-dev-lora-trainer-turbo", "steps", 10_000, lambda _: True)
    yield _overwritten("v2/flux-schnell-lora", "seed", 9_999_999_999, lambda found: found > 2**32)


def _overwritten(model: str, name: str, value: Any, lost: Callable[[Any], bool]) -> Mutant:
    """A server that takes a given value for one that was left out."""

    async def handler(request: Request, ask: Ask) -> Answer:
        body = request.json
        # What is wrong with the value is for the validation to say.
        if (
            request.model == model
            and isinstance(body, dict)
            and type(body.get(name)) is type(value)
            and lost(body[name])
        ):
            first = await ask(request)
            if first.status != 200:
                return first
            return await ask(request.with_body({key: each for key, each in body.items() if key != name}))
        return await ask(request)

    def make(data: Path) -> ASGIApp:
        return between(real(data), handler)

    return Mutant(
        name=f"{name} {value!r} is overwritten with the default ({model})",
        family="given value lost",
        about=field(name, models=(model,)),
        make=make,
        shows=lambda client: client.input(model, **given(name, value)).get(name),
        models=(model,),
    )
