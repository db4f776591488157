"""Types that are wider or narrower than the documented ones."""

from collections.abc import Callable, Iterator
from typing import Any

from .contracts import Change, contract_mutant
from .mutant import Mutant, Schema
from .names import DEV2, DEV3, LORA, SCHNELL2, SCHNELL3, TRAINER2, TRAINER3, TURBO2, TURBO3


def mutants() -> Iterator[Mutant]:
    yield from _wider()
    yield from _narrower()
    yield from _null()


def widened(*others: Schema) -> Callable[[Schema], None]:
    """Makes a schema take what it took, and what others take."""

    def change(schema: Schema) -> None:
        kept = {key: schema.pop(key) for key in list(schema) if key not in {"default", "description"}}
        schema["anyOf"] = [kept, *others]

    return change


def _and(more: Schema) -> Change:
    return lambda schema: schema.update(more)


_DIGITS: Schema = {"type": "string", "pattern": "^-?[0-9]+([.][0-9]+)?$"}
_WHOLE: Schema = {"type": "number", "multipleOf": 1, "minimum": 1, "maximum": 4}
_TEXT: Schema = {"type": "string"}
_WIDER: list[tuple[str, str, str, Schema, list[Any]]] = [
    ("takes whole fractions", SCHNELL3, "num_images", _WHOLE, [2.0]),
    ("takes whole fractions", DEV2, "num_images", _WHOLE, [2.0]),
    ("takes whole fractions", TRAINER3, "steps", {**_WHOLE, "maximum": 10_000}, [5.0]),
    (
        "takes any fraction",
        SCHNELL2,
        "num_images",
        {"type": "number", "minimum": 1, "maximum": 4},
        [2.5],
    ),
    (
        "takes any fraction",
        DEV2,
        "num_inference_steps",
        {"type": "number", "minimum": 1, "maximum": 50},
        [2.5],
    ),
    ("takes any fraction", TURBO3, "lora_rank", {"type": "number", "minimum": 1, "maximum": 64}, [2.5]),
    (
        "takes any fraction",
        TURBO3,
        "steps",
        {"type": "number", "minimum": 1000, "maximum": 10_000},
        [1000.5],
    ),
    (
        "takes any fraction",
        DEV3,
        "seed",
        {"type": "number", "minimum": -1, "maximum": 9_999_999_999},
        [0.5],
    ),
    ("takes numbers as texts", SCHNELL3, "num_images", _DIGITS, ["2"]),
    ("takes numbers as texts", DEV2, "seed", _DIGITS, ["2"]),
    ("takes numbers as texts", DEV3, "guidance_scale", _DIGITS, ["2.5"]),
    ("takes numbers as texts", SCHNELL2, "strength", _DIGITS, ["0.5"]),
    ("takes numbers as texts", TRAINER3, "steps", _DIGITS, ["500"]),
    ("takes numbers as texts", TURBO3, "learning_rate", _DIGITS, ["0.5"]),
    ("takes numbers as texts", SCHNELL3, "loras[].scale", _DIGITS, ["1"]),
    ("takes an empty text", SCHNELL3, "num_inference_steps", {"enum": [""]}, [""]),
    ("takes truth", SCHNELL3, "num_images", {"type": "boolean"}, [True]),
    ("takes truth", DEV2, "strength", {"type": "boolean"}, [True]),
    (
        "takes 0 and 1",
        SCHNELL3,
        "enable_safety_checker",
        {"type": "integer", "minimum": 0, "maximum": 1},
        [1, 2],
    ),
    (
        "takes 0 and 1",
        DEV2,
        "enable_base64_output",
        {"type": "integer", "minimum": 0, "maximum": 1},
        [0, 2],
    ),
    (
        "takes true and false as texts",
        DEV3,
        "enable_safety_checker",
        {"enum": ["true", "false"]},
        ["true"],
    ),
    ("takes true and false as texts", TRAINER3, "create_masks", {"enum": ["true", "false"]}, ["false"]),
    ("takes any text", TRAINER3, "is_style", _TEXT, ["yes"]),
    ("takes numbers", SCHNELL3, "prompt", {"type": "number"}, [1]),
    ("takes numbers", TURBO3, "trigger_word", {"type": "number"}, [1]),
    ("takes arrays", DEV2, "prompt", {"type": "array"}, [["a"]]),
    ("takes objects", SCHNELL2, "image", {"type": "object"}, [{}]),
    ("takes truth", SCHNELL3, "mask_image", {"type": "boolean"}, [False]),
    ("takes an object", TRAINER3, "images_data_url", {"type": "object"}, [{"url": "x"}]),
    ("takes a list", TURBO3, "data", {"type": "array"}, [["x"]]),
    ("takes a single object", SCHNELL3, "loras", {"type": "object"}, [LORA]),
    ("takes a text", DEV2, "loras", _TEXT, ["owner/lora"]),
    ("takes a number", SCHNELL2, "loras[].path", {"type": "number"}, [1]),
    ("takes an array of two numbers", DEV2, "size", {"type": "array"}, [[1024, 1024]]),
    ("takes one number", SCHNELL3, "size", {"type": "integer"}, [1024]),
    ("takes anything", TRAINER2, "data_archive_format", {}, [1]),
    ("takes anything", TURBO2, "trigger_word", {}, [[]]),
]


def _wider() -> Iterator[Mutant]:
    for label, model, name, more, values in _WIDER:
        yield contract_mutant(label, model, name, widened(more), values, family="type too wide")


def _narrower() -> Iterator[Mutant]:
    wrong: list[tuple[str, str, str, Schema, list[Any]]] = [
        ("takes whole numbers only", SCHNELL3, "guidance_scale", {"type": "integer"}, [1.5]),
        ("takes whole numbers only", DEV2, "loras[].scale", {"type": "integer"}, [0.5]),
        ("takes whole numbers only", DEV3, "strength", {"type": "integer"}, [0.5]),
        ("takes fractions only", SCHNELL2, "guidance_scale", {"not": {"type": "integer"}}, [1]),
        ("takes fractions only", SCHNELL3, "loras[].scale", {"not": {"type": "integer"}}, [1]),
        ("may not be empty", SCHNELL3, "image", {"minLength": 1}, [""]),
        ("may not be empty", TURBO3, "trigger_word", {"minLength": 1}, [""]),
        ("may not be empty", DEV2, "loras", {"minItems": 1}, [[]]),
        ("is a URL", DEV2, "image", {"pattern": "^https?://"}, ["x", ""]),
        ("is of at most 1000 characters", SCHNELL2, "prompt", {"maxLength": 1000}, ["x" * 1001]),
        ("is ASCII", DEV2, "prompt", {"pattern": "^[ -~]*$"}, ["\N{GRINNING FACE}"]),
        ("is of one line", SCHNELL3, "prompt", {"pattern": "^[^\\n]*$"}, ["a\nb"]),
        ("is a single word", TRAINER3, "trigger_word", {"pattern": "^[a-z0-9]*$"}, ["a lighthouse"]),
        ("is zip or tar", TRAINER3, "data_archive_format", {"enum": ["zip", "tar"]}, ["a text"]),
        ("is true only", SCHNELL3, "enable_safety_checker", {"enum": [True]}, [False]),
        ("is false only", TRAINER2, "is_input_format_already_preprocessed", {"enum": [False]}, [True]),
        ("is -1 only", DEV3, "seed", {"enum": [-1]}, [7]),
        ("may not be 0", SCHNELL2, "seed", {"not": {"enum": [0]}}, [0]),
        (
            "has two parts with a slash",
            DEV3,
            "loras[].path",
            {"pattern": "^[^/]+/[^/]+$"},
            ["https://a/b.c", "x"],
        ),
        ("is of different items", SCHNELL3, "loras", {"uniqueItems": True}, [[LORA, LORA]]),
    ]
    for label, model, name, more, values in wrong:
        yield contract_mutant(label, model, name, _and(more), values, family="type too narrow")


def _null() -> Iterator[Mutant]:
    wrong = [
        (SCHNELL3, "seed"),
        (DEV2, "image"),
        (DEV3, "size"),
        (SCHNELL2, "loras"),
        (SCHNELL3, "prompt"),
        (DEV2, "strength"),
        (DEV2, "enable_base64_output"),
        (TRAINER3, "trigger_word"),
        (TRAINER3, "images_data_url"),
        (TURBO3, "learning_rate"),
        (SCHNELL3, "loras[].scale"),
    ]
    for model, name in wrong:
        change = widened({"enum": [None]})
        yield contract_mutant("may be null", model, name, change, [None], family="null taken")
