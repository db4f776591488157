"""Fields and items that are too many, missing, or unknown, and those of the older edition."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .client import Client
from .contracts import contract_mutant, schema_mutant
from .mutant import Mutant, Schema
from .names import DEV2, DEV3, LORA, SCHNELL2, SCHNELL3, TRAINER2, TRAINER3, TURBO3
from .shapes import widened


def mutants() -> Iterator[Mutant]:
    yield from _counts()
    yield from _required()
    yield from _unknown()
    yield from _older()


def _counts() -> Iterator[Mutant]:
    many = [[LORA] * count for count in (0, 1, 4, 5, 6, 7, 20)]
    wrong: list[tuple[str, str, Callable[[Schema], Any]]] = [
        ("are six at most", SCHNELL3, lambda each: each.update(maxItems=6)),
        ("are four at most", DEV2, lambda each: each.update(maxItems=4)),
        ("are three at most", SCHNELL2, lambda each: each.update(maxItems=3)),
        ("are one at least", DEV3, lambda each: each.update(minItems=1)),
        ("are as many as one likes", DEV2, lambda each: each.pop("maxItems")),
        ("are ten at most", SCHNELL3, lambda each: each.update(maxItems=10)),
        ("are one at most", DEV3, lambda each: each.update(maxItems=1)),
    ]
    for label, model, change in wrong:
        yield contract_mutant(label, model, "loras", change, many, family="items")
    odd: list[Any] = [["x"], [1], [{}], [None], [LORA, "x"]]
    yield contract_mutant(
        "have items of any kind", SCHNELL3, "loras", lambda each: each.pop("items"), odd, family="items"
    )
    yield contract_mutant(
        "have items of any kind", DEV2, "loras", lambda each: each.pop("items"), odd, family="items"
    )
    yield contract_mutant(
        "are checked in the first place only",
        SCHNELL2,
        "loras",
        _first_only,
        [[LORA, "x"], ["x"]],
        family="items",
    )
    text = {"type": "string"}
    yield contract_mutant(
        "may be texts",
        DEV3,
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
        SCHNELL3: "prompt",
        DEV2: "prompt",
        TRAINER3: "images_data_url",
        TURBO3: "data",
        SCHNELL2: "prompt",
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
    for model, name in ((SCHNELL3, "path"), (DEV2, "scale"), (DEV3, "path"), (SCHNELL2, "scale")):
        lacking = {key: value for key, value in LORA.items() if key != name}
        yield schema_mutant(
            "is not required",
            model,
            f"loras[].{name}",
            partial(_lora_without, name),
            partial(_status, given={"loras": [lacking]}),
            family="required dropped",
        )
    added = [
        (SCHNELL3, "seed"),
        (DEV2, "image"),
        (DEV3, "loras"),
        (SCHNELL2, "size"),
        (TRAINER3, "trigger_word"),
        (TRAINER2, "data_archive_format"),
        (TURBO3, "trigger_word"),
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
        (SCHNELL3, "mask_image"),
        (DEV2, "strength"),
        (TRAINER3, "is_style"),
        (TURBO3, "lora_rank"),
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
        (SCHNELL3, "num_images", "n"),
        (TURBO3, "data", "images_data_url"),
        (DEV2, "seed", "Seed"),
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
        DEV2,
        "loras[].scale",
        lambda each: each.update(number),
        [0.5],
        family="editions mixed up",
        edition=edition,
    )
    yield contract_mutant(
        "may be 4.5",
        SCHNELL2,
        "loras[].scale",
        widened({"enum": [4.5]}),
        [4.5],
        family="editions mixed up",
        edition=edition,
    )
    yield contract_mutant(
        "may be null",
        DEV2,
        "prompt",
        widened({"enum": [None]}),
        [None],
        family="null taken",
        edition=edition,
    )
    yield contract_mutant(
        "are 50 at most",
        SCHNELL2,
        "num_inference_steps",
        lambda each: each.update(maximum=50),
        [50],
        family="editions mixed up",
        edition=edition,
    )
    yield schema_mutant(
        "is required",
        DEV2,
        "prompt",
        _require_prompt,
        lambda client, model: client.post({}, model).status_code,
        family="editions mixed up",
        edition=edition,
    )
