"""The LoRA that the simulated trainer hands over: small, loadable, and without any learning in it."""

import json
import random

# The width of FLUX.1's transformer.
_WIDTH = 3072
# One layer in each of the two kinds of block is enough for a loader to find something to do.
_LAYERS = ("transformer.transformer_blocks.0.attn.to_q", "transformer.single_transformer_blocks.0.attn.to_q")
_LONGEST_TRIGGER = 256


def lora_file(*, rank: int, seed: int, trigger_word: str | None, steps: int, model: str) -> bytes:
    """A `.safetensors` file: a LoRA of `rank` for FLUX.1, with the names that diffusers and PEFT give.

    Two layers, each with `lora_A` of shape [rank, 3072] and `lora_B` of shape [3072, rank], in float16. The
    numbers depend on rank and seed alone. The rest goes into the metadata, all of it text: `trigger_word`
    (left out when empty, cut after 256 characters), `rank`, `steps`, `trainer`, and `wavemock`, which
    says that this file is simulated.
    """
    metadata = {
        "format": "pt",
        "rank": str(rank),
        "steps": str(steps),
        "trainer": model,
        "wavemock": "simulated",
    }
    if trigger_word:
        metadata["trigger_word"] = trigger_word[:_LONGEST_TRIGGER]
    shapes = {
        f"{layer}.{half}.weight": shape
        for layer in _LAYERS
        for half, shape in (("lora_A", [rank, _WIDTH]), ("lora_B", [_WIDTH, rank]))
    }
    dice = random.Random(seed)  # noqa: S311 - sample numbers, not secrets
    size = 2 * rank * _WIDTH
    header = {
        name: {"dtype": "F16", "shape": shape, "data_offsets": [at * size, (at + 1) * size]}
        for at, (name, shape) in enumerate(shapes.items())
    }
    # Written by hand: `safetensors.serialize` takes bytes before 0.8 and raw addresses since, and the format
    # is no more than this. Spaces align the numbers that follow.
    text = json.dumps({"__metadata__": metadata, **header}, ensure_ascii=False).encode(errors="replace")
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(_small_halves(dice, size) for _ in shapes)])


def _small_halves(dice: random.Random, size: int) -> bytes:
    """So many bytes of float16, of either sign, between 1/512 and 1/128 in magnitude."""
    # Of the five bits of the exponent, the last is left to chance; the others are 0011.
    chance = int.from_bytes(b"\xff\x87" * (size // 2), "little")
    exponent = int.from_bytes(b"\x00\x18" * (size // 2), "little")
    return (int.from_bytes(dice.randbytes(size), "little") & chance | exponent).to_bytes(size, "little")
