"""Types that are wider or narrower than the documented ones."""

from collections.abc import Callable, Iterator
from typing import Any

from .contracts import Change, contract_mutant
from .mutant import Mutant, Schema

_DEV2, _DEV3 = "v2/flux-dev-lora", "v3/flux-dev-lora"
_SCHNELL2, _SCHNELL3 = "v2/flux-schnell-lora", "v3/flux-schnell-lora"
_TRAINER2, _TRAINER3 = "v2/flux-dev-lora-trainer", "v3/flux-dev-lora-trainer"
_TURBO2, _TURBO3 = "v2/flux-dev-lora-trainer-turbo", "v3/flux-dev-lora-trainer-turbo"
_GOOD = {"path": "owner/lora", "scale": 1}


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
    ("takes whole fractions", _SCHNELL3, "num_images", _WHOLE, [2.0]),
    ("takes whole fractions", _DEV2, "num_images", _WHOLE, [2.0]),
    ("takes whole fractions", _TRAINER3, "steps", {**_WHOLE, "maximum": 10_000}, [5.0]),
    (
        "takes any fraction",
        _SCHNELL2,
        "num_images",
        {"type": "number", "minimum": 1, "maximum": 4},
        [2.5],
    ),
    (
        "takes any fraction",
        _DEV2,
        "num_inference_steps",
        {"type": "number", "minimum": 1, "maximum": 50},
        [2.5],
    ),
    ("takes any fraction", _TURBO3, "lora_rank", {"type": "number", "minimum": 1, "maximum": 64}, [2.5]),
    (
        "takes any fraction",
        _TURBO3,
        "steps",
        {"type": "number", "minimum": 1000, "maximum": 10_000},
        [1000.5],
    ),
    (
        "takes any fraction",
        _DEV3,
        "seed",
        {"type": "number", "minimum": -1, "maximum": 9_999_999_999},
        [0.5],
    ),
    ("takes numbers as texts", _SCHNELL3, "num_images", _DIGITS, ["2"]),
    ("takes numbers as texts", _DEV2, "seed", _DIGITS, ["2"]),
    ("takes numbers as texts", _DEV3, "guidance_scale", _DIGITS, ["2.5"]),
    ("takes numbers as texts", _SCHNELL2, "strength", _DIGITS, ["0.5"]),
    ("takes numbers as texts", _TRAINER3, "steps", _DIGITS, ["500"]),
    ("takes numbers as texts", _TURBO3, "learning_rate", _DIGITS, ["0.5"]),
    ("takes numbers as texts", _SCHNELL3, "loras[].scale", _DIGITS, ["1"]),
    ("takes an empty text", _SCHNELL3, "num_inference_steps", {"enum": [""]}, [""]),
    ("takes truth", _SCHNELL3, "num_images", {"type": "boolean"}, [True]),
    ("takes truth", _DEV2, "strength", {"type": "boolean"}, [True]),
    (
        "takes 0 and 1",
        _SCHNELL3,
        "enable_safety_checker",
        {"type": "integer", "minimum": 0, "maximum": 1},
        [1, 2],
    ),
    (
        "takes 0 and 1",
        _DEV2,
        "enable_base64_output",
        {"type": "integer", "minimum": 0, "maximum": 1},
        [0, 2],
    ),
    (
        "takes true and false as texts",
        _DEV3,
        "enable_safety_checker",
        {"enum": ["true", "false"]},
        ["true"],
    ),
    ("takes true and false as texts", _TRAINER3, "create_masks", {"enum": ["true", "false"]}, ["false"]),
    ("takes any text", _TRAINER3, "is_style", _TEXT, ["yes"]),
    ("takes numbers", _SCHNELL3, "prompt", {"type": "number"}, [1]),
    ("takes numbers", _TURBO3, "trigger_word", {"type": "number"}, [1]),
    ("takes arrays", _DEV2, "prompt", {"type": "array"}, [["a"]]),
    ("takes objects", _SCHNELL2, "image", {"type": "object"}, [{}]),
    ("takes truth", _SCHNELL3, "mask_image", {"type": "boolean"}, [False]),
    ("takes an object", _TRAINER3, "images_data_url", {"type": "object"}, [{"url": "x"}]),
    ("takes a list", _TURBO3, "data", {"type": "array"}, [["x"]]),
    ("takes a single object", _SCHNELL3, "loras", {"type": "object"}, [_GOOD]),
    ("takes a text", _DEV2, "loras", _TEXT, ["owner/lora"]),
    ("takes a number", _SCHNELL2, "loras[].path", {"type": "number"}, [1]),
    ("takes an array of two numbers", _DEV2, "size", {"type": "array"}, [[1024, 1024]]),
    ("takes one number", _SCHNELL3, "size", {"type": "integer"}, [1024]),
    ("takes anything", _TRAINER2, "data_archive_format", {}, [1]),
    ("takes anything", _TURBO2, "trigger_word", {}, [[]]),
]


def _wider() -> Iterator[Mutant]:
    for label, model, name, more, values in _WIDER:
        yield contract_mutant(label, model, name, widened(more), values, family="type too wide")


def _narrower() -> Iterator[Mutant]:
    wrong: list[tuple[str, str, str, Schema, list[Any]]] = [
        ("takes whole numbers only", _SCHNELL3, "guidance_scale", {"type": "integer"}, [1.5]),
        ("takes whole numbers only", _DEV2, "loras[].scale", {"type": "integer"}, [0.5]),
        ("takes whole numbers only", _DEV3, "strength", {"type": "integer"}, [0.5]),
        ("takes fractions only", _SCHNELL2, "guidance_scale", {"not": {"type": "integer"}}, [1]),
        ("takes fractions only", _SCHNELL3, "loras[].scale", {"not": {"type": "integer"}}, [1]),
        ("may not be empty", _SCHNELL3, "image", {"minLength": 1}, [""]),
        ("may not be empty", _TURBO3, "trigger_word", {"minLength": 1}, [""]),
        ("may not be empty", _DEV2, "loras", {"minItems": 1}, [[]]),
        ("is a URL", _DEV2, "image", {"pattern": "^https?://"}, ["x", ""]),
        ("is of at most 1000 characters", _SCHNELL2, "prompt", {"maxLength": 1000}, ["x" * 1001]),
        ("is ASCII", _DEV2, "prompt", {"pattern": "^[ -~]*$"}, ["\N{GRINNING FACE}"]),
        ("is of one line", _SCHNELL3, "prompt", {"pattern": "^[^\\n]*$"}, ["a\nb"]),
        ("is a single word", _TRAINER3, "trigger_word", {"pattern": "^[a-z0-9]*$"}, ["a lighthouse"]),
        ("is zip or tar", _TRAINER3, "data_archive_format", {"enum": ["zip", "tar"]}, ["a text"]),
        ("is true only", _SCHNELL3, "enable_safety_checker", {"enum": [True]}, [False]),
        ("is false only", _TRAINER2, "is_input_format_already_preprocessed", {"enum": [False]}, [True]),
        ("is -1 only", _DEV3, "seed", {"enum": [-1]}, [7]),
        ("may not be 0", _SCHNELL2, "seed", {"not": {"enum": [0]}}, [0]),
        (
            "has two parts with a slash",
            _DEV3,
            "loras[].path",
            {"pattern": "^[^/]+/[^/]+$"},
            ["https://a/b.c", "x"],
        ),
        ("is of different items", _SCHNELL3, "loras", {"uniqueItems": True}, [[_GOOD, _GOOD]]),
    ]
    for label, model, name, more, values in wrong:
        yield contract_mutant(label, model, name, _and(more), values, family="type too narrow")


def _null() -> Iterator[Mutant]:
    wrong = [
        (_SCHNELL3, "seed"),
        (_DEV2, "image"),
        (_DEV3, "size"),
        (_SCHNELL2, "loras"),
        (_SCHNELL3, "prompt"),
        (_DEV2, "strength"),
        (_DEV2, "enable_base64_output"),
        (_TRAINER3, "trigger_word"),
        (_TRAINER3, "images_data_url"),
        (_TURBO3, "learning_rate"),
        (_SCHNELL3, "loras[].scale"),
    ]
    for model, name in wrong:
        change = widened({"enum": [None]})
        yield contract_mutant("may be null", model, name, change, [None], family="null taken")
