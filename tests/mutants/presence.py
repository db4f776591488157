"""Fields and items that are too many, missing, or unknown, and those of the older edition."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .client import Client
from .contracts import contract_mutant, schema_mutant
from .mutant import Mutant, Schema
from .shapes import widened

_DEV2, _DEV3 = "v2/flux-dev-lora", "v3/flux-dev-lora"
_SCHNELL2, _SCHNELL3 = "v2/flux-schnell-lora", "v3/flux-schnell-lora"
_TRAINER2, _TRAINER3 = "v2/flux-dev-lora-trainer", "v3/flux-dev-lora-trainer"
_TURBO2, _TURBO3 = "v2/flux-dev-lora-trainer-turbo", "v3/flux-dev-lora-trainer-turbo"
_GOOD = {"path": "owner/lora", "scale": 1}


def mutants() -> Iterator[Mutant]:
    yield from _counts()
    yield from _required()
    yield from _unknown()
    yield from _older()


def _counts() -> Iterator[Mutant]:
    many = [[_GOOD] * count for count in (0, 1, 4, 5, 6, 7, 20)]
    wrong: list[tuple[str, str, Callable[[Schema], Any]]] = [
        ("are six at most", _SCHNELL3, lambda each: each.update(maxItems=6)),
        ("are four at most", _DEV2, lambda each: each.update(maxItems=4)),
        ("are three at most", _SCHNELL2, lambda each: each.update(maxItems=3)),
        ("are one at least", _DEV3, lambda each: each.update(minItems=1)),
        ("are as many as one likes", _DEV2, lambda each: each.pop("maxItems")),
        ("are ten at most", _SCHNELL3, lambda each: each.update(maxItems=10)),
        ("are one at most", _DEV3, lambda each: each.update(maxItems=1)),
    ]
    for label, model, change in wrong:
        yield contract_mutant(label, model, "loras", change, many, family="items")
    odd: list[Any] = [["x"], [1], [{}], [None], [_GOOD, "x"]]
    yield contract_mutant(
        "have items of any kind", _SCHNELL3, "loras", lambda each: each.pop("items"), odd, family="items"
    )
    yield contract_mutant(
        "have items of any kind", _DEV2, "loras", lambda each: each.pop("items"), odd, family="items"
    )
    yield contract_mutant(
        "are checked in the first place only",
        _SCHNELL2,
        "loras",
        _first_only,
        [[_GOOD, "x"], ["x"]],
        family="items",
    )
    text = {"type": "string"}
    yield contract_mutant(
        "may be texts",
        _DEV3,
        "loras",
        lambda each: widened(text)(each["items"]),
        [["owner/lora"], [1]],
        family="items",
    )


def _first_only(schema: Schema) -> None:
    # An array of schemas is for the first items, and says nothing of those behind it.
    schema["allOf"] = [{"items": [schema.pop("items")]}]


def _required() -> Iterator[Mutant]:
    missing = {
        _SCHNELL3: "prompt",
        _DEV2: "prompt",
        _TRAINER3: "images_data_url",
        _TURBO3: "data",
        _SCHNELL2: "prompt",
    }
    for model, name in missing.items():
        yield schema_mutant(
            "is not required",
            model,
            name,
            lambda schema: schema.pop("required"),
            lambda client, model: client.post({}, model).status_code,
            family="required dropped",
        )
    for model, name in ((_SCHNELL3, "path"), (_DEV2, "scale"), (_DEV3, "path"), (_SCHNELL2, "scale")):
        lacking = {key: value for key, value in _GOOD.items() if key != name}
        yield schema_mutant(
            "is not required",
            model,
            f"loras[].{name}",
            partial(_lora_without, name),
            partial(_status, given={"loras": [lacking]}),
            family="required dropped",
        )
    added = [
        (_SCHNELL3, "seed"),
        (_DEV2, "image"),
        (_DEV3, "loras"),
        (_SCHNELL2, "size"),
        (_TRAINER3, "trigger_word"),
        (_TRAINER2, "data_archive_format"),
        (_TURBO3, "trigger_word"),
    ]
    for model, name in added:
        yield schema_mutant(
            "is required",
            model,
            name,
            partial(_require, name),
            lambda client, model: client.status(model),
            family="required added",
        )


def _unknown() -> Iterator[Mutant]:
    """Fields that a model does not know, and one that it ought to know."""
    for model, name in (
        (_SCHNELL3, "mask_image"),
        (_DEV2, "strength"),
        (_TRAINER3, "is_style"),
        (_TURBO3, "lora_rank"),
    ):
        yield schema_mutant(
            "is refused as unknown",
            model,
            name,
            partial(_forget, name),
            partial(_status, given={name: _sample(name)}),
            family="field unknown",
        )
    for model, name, other in (
        (_SCHNELL3, "num_images", "n"),
        (_TURBO3, "data", "images_data_url"),
        (_DEV2, "seed", "Seed"),
    ):
        yield schema_mutant(
            f"is called {other}",
            model,
            name,
            partial(_rename, name, other),
            partial(_known, name),
            family="field unknown",
        )


def _lora_without(name: str, schema: Schema) -> None:
    schema["properties"]["loras"]["items"]["required"].remove(name)


def _require(name: str, schema: Schema) -> None:
    schema["required"] = [*schema["required"], name]


def _forget(name: str, schema: Schema) -> None:
    del schema["properties"][name]
    schema["additionalProperties"] = False


def _require_prompt(schema: Schema) -> None:
    schema["required"] = ["prompt"]
    del schema["properties"]["prompt"]["default"]


def _status(client: Client, model: str, *, given: dict[str, Any]) -> int:
    return client.status(model, **given)


def _known(name: str, client: Client, model: str) -> list[int]:
    return [client.status(model), client.status(model, **{name: []})]


def _sample(name: str) -> Any:
    return {"mask_image": "", "strength": 0.5, "is_style": True, "lora_rank": 8}[name]


def _rename(name: str, other: str, schema: Schema) -> None:
    schema["properties"][other] = schema["properties"].pop(name)
    schema["required"] = [other if each == name else each for each in schema["required"]]


def _older() -> Iterator[Mutant]:
    """The older edition with what belongs to the newer one."""
    edition = "flux-lora"
    number = {"type": "number"}
    yield contract_mutant(
        "is a number",
        _DEV2,
        "loras[].scale",
        lambda each: each.update(number),
        [0.5],
        family="editions mixed up",
        edition=edition,
    )
    yield contract_mutant(
        "may be 4.5",
        _SCHNELL2,
        "loras[].scale",
        widened({"enum": [4.5]}),
        [4.5],
        family="editions mixed up",
        edition=edition,
    )
    yield contract_mutant(
        "may be null",
        _DEV2,
        "prompt",
        widened({"enum": [None]}),
        [None],
        family="null taken",
        edition=edition,
    )
    yield contract_mutant(
        "are 50 at most",
        _SCHNELL2,
        "num_inference_steps",
        lambda each: each.update(maximum=50),
        [50],
        family="editions mixed up",
        edition=edition,
    )
    yield schema_mutant(
        "is required",
        _DEV2,
        "prompt",
        _require_prompt,
        lambda client, model: client.post({}, model).status_code,
        family="editions mixed up",
        edition=edition,
    )
