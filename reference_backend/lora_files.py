"""LoRA files as they come from outside: safetensors only, and checked before anything is done with them.

The loaders of diffusers take much without a word: weights that are not finite, half of a pair, an alpha a
thousand times too large. Here each of these is an error that says which file and what.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open

from reference_backend.job import JobFailed

MOST_BYTES = 2 * 1024**3
"""About what rank 128 on every layer of FLUX.1 takes in 16 bit, with room to spare."""

_MOST_HEADER_BYTES = 16 * 1024**2
_MOST_TENSORS = 16_384
_LARGEST_FACTOR = 100.0
"""Of alpha / rank. Trainers write 0.5 to 2; a thousand times that is a broken file, and a burnt picture."""

_ENDINGS = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    # xlabs names the layer "...processor.qkv_lora1" and has no more to say about the pair.
    ".down.weight": "down",
    ".up.weight": "up",
    ".alpha": "alpha",
}
_OTHER_METHODS = (".lokr_", ".hada_", ".oft_", ".ia3_", ".dora_scale", ".lora_magnitude_vector")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What a LoRA adds to one layer: `factor * up @ down`; (out, rank) and (rank, in) in the file's dtype."""

    down: torch.Tensor
    up: torch.Tensor
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFile:
    """The pairs of a file by the layer's name as written there, and the names of tensors of other kinds."""

    pairs: Mapping[str, Pair]
    others: tuple[str, ...]


def read_lora(path: Path, *, what: str) -> LoraFile:
    """The LoRA of a safetensors file, on the CPU. `what` names it to its user, such as `loras[0]`.

    Complete pairs of finite numbers, and sane factors; whether they fit a model is for the caller to see.
    Raises JobFailed.
    """
    try:
        _check_header(path, what)
        with safe_open(str(path), "pt") as file:
            names = list(file.keys())
            if len(names) > _MOST_TENSORS:
                raise JobFailed("lora_invalid", f"{what} holds {len(names)} tensors, which is no LoRA.")
            metadata = file.metadata() or {}
            grouped, others = _grouped(names, what)
            tensors = {
                layer: {part: _tensor(file, name, what) for part, name in parts.items()}
                for layer, parts in grouped.items()
            }
    except SafetensorError as error:
        reason = str(error).partition("\n")[0][:200]
        raise JobFailed("lora_invalid", f"{what} is not a sound safetensors file: {reason}") from None
    except OSError:
        # Its text would name a path of this machine.
        raise JobFailed("lora_unreadable", f"{what} cannot be read from this machine's disk.") from None
    configured = _configured(metadata, what)
    pairs = {layer: _pair(layer, parts, configured, what) for layer, parts in tensors.items()}
    if not pairs:
        raise JobFailed(
            "lora_invalid", f"{what} holds no LoRA: none of its {len(names)} tensors is part of one."
        )
    return LoraFile(pairs=pairs, others=others)


def _check_header(path: Path, what: str) -> None:
    """Raises JobFailed for what is no safetensors file by its first bytes and size."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise JobFailed("lora_too_large", f"{what} has {size} bytes; at most {MOST_BYTES} are read.")
    with path.open("rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or length > size - 8:
        raise JobFailed(
            "lora_not_safetensors",
            f"{what} is not a safetensors file; other kinds (.bin, .pt, .ckpt) are not opened.",
        )
    if length > _MOST_HEADER_BYTES:
        raise JobFailed(
            "lora_invalid", f"{what} has a header of {length} bytes; at most {_MOST_HEADER_BYTES} are read."
        )


def _grouped(names: list[str], what: str) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """The tensors' names by layer and part, and those that are part of no pair."""
    grouped: dict[str, dict[str, str]] = {}
    others = []
    for name in sorted(names):
        if any(mark in name for mark in _OTHER_METHODS):
            raise JobFailed(
                "lora_unsupported", f"{what} is a LoKr, LoHa, DoRA or the like; only LoRA is read."
            )
        ending = next((ending for ending in _ENDINGS if name.endswith(ending)), None)
        if ending is None:
            others.append(name)
            continue
        parts = grouped.setdefault(name.removesuffix(ending), {})
        if parts.setdefault(_ENDINGS[ending], name) != name:
            raise JobFailed("lora_invalid", f"{what} says twice what it adds to one layer.")
    return grouped, tuple(others)


def _tensor(file: Any, name: str, what: str) -> torch.Tensor:
    described = file.get_slice(name)
    if described.get_dtype() not in ("F16", "BF16", "F32", "F64"):
        raise JobFailed(
            "lora_unsupported",
            f"{what} holds numbers of the type {described.get_dtype()}; floats of 16 bit and more are read.",
        )
    if 0 in described.get_shape():
        raise JobFailed("lora_invalid", f"{what} holds an empty tensor.")
    tensor: torch.Tensor = file.get_tensor(name)
    # In the numbers that it is merged in: 64 bits hold some that are infinite there.
    if not torch.isfinite(tensor.float()).all():
        raise JobFailed("lora_not_finite", f"{what} holds numbers that are not finite.")
    return tensor


def _pair(layer: str, parts: dict[str, torch.Tensor], configured: Mapping[str, Any], what: str) -> Pair:
    down, up = parts.get("down"), parts.get("up")
    if down is None or up is None:
        raise JobFailed("lora_incomplete", f"{what} holds only one half of what it adds to a layer.")
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
        raise JobFailed("lora_invalid", f"{what} holds a pair whose shapes do not go together.")
    rank = down.shape[0]
    alpha = parts.get("alpha")
    if alpha is None:
        factor = _configured_factor(layer, rank, configured, what)
    elif alpha.numel() != 1:
        raise JobFailed("lora_invalid", f"{what} has an alpha that is not one number.")
    else:
        factor = float(alpha) / rank
    if not (math.isfinite(factor) and 0 < factor <= _LARGEST_FACTOR):
        raise JobFailed(
            "lora_alpha",
            f"{what} has an alpha of {factor:.4g} times its rank; it must be over 0 and at most "
            f"{_LARGEST_FACTOR:.0f} times.",
        )
    return Pair(down=down, up=up, factor=factor)


def _configured(metadata: Mapping[str, str], what: str) -> Mapping[str, Any]:
    """The adapter's configuration that diffusers writes into a file's metadata; empty where there is none."""
    text = metadata.get("lora_adapter_metadata")
    if not text:
        return {}
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        found = None
    if not isinstance(found, dict):
        raise JobFailed("lora_invalid", f"{what} has metadata that cannot be read.")
    return found


def _configured_factor(layer: str, rank: int, configured: Mapping[str, Any], what: str) -> float:
    """Alpha / rank as the metadata has it for the layer, or 1."""
    part, _, module = layer.partition(".")
    if configured.get(f"{part}.use_dora"):
        raise JobFailed("lora_unsupported", f"{what} is a DoRA; only LoRA is read.")
    alpha = configured.get(f"{part}.lora_alpha")
    special = configured.get(f"{part}.alpha_pattern")
    for pattern, value in (special if isinstance(special, dict) else {}).items():
        # To peft these are regular expressions; names are all that its own files hold, and all that is safe.
        name = str(pattern).removeprefix("^")
        if module == name or (module.endswith("." + name) and not pattern.startswith("^")):
            alpha = value
            break
    if alpha is None:
        return 1.0
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise JobFailed("lora_invalid", f"{what} has metadata with an alpha that is not a number.")
    return alpha / (math.sqrt(rank) if configured.get(f"{part}.use_rslora") else rank)
