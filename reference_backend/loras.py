"""LoRAs merged into a model for as long as a job needs them, and taken out again to the last bit."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from reference_backend.job import JobFailed
from reference_backend.lora_files import LoraFile, Pair, read_lora
from reference_backend.lora_names import Target, targets
from reference_backend.memory import free_bytes, within_memory
from reference_backend.pipelines import Flux

_KEPT_FREE = 8 * 1024**3
"""Bytes of a GPU's memory for making a picture; where fewer would be left, the copies go to the CPU's."""

_OF_T5 = ("text_encoder_2.", "text_encoders.t5xxl.", "lora_te2_", "lora_te3_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """What one LoRA adds to one layer of the model: `factor * up @ down`."""

    layer: nn.Linear
    down: torch.Tensor
    up: torch.Tensor
    factor: float


@contextmanager
def applied(flux: Flux, loras: Sequence[tuple[Path, float]]) -> Iterator[tuple[str, ...]]:
    """Merges LoRAs, each with its scale, into the weights; on leaving, they are as before, bit for bit.

    Gives remarks for the request's author on what of the files was left out. The sum is made in fp32 and
    rounded once; a scale of 0 changes nothing. Raises JobFailed where a file is not usable.
    """
    parts, remarks = _parts(flux, loras)
    by_layer: dict[nn.Linear, list[Addition]] = {}
    for part in parts:
        by_layer.setdefault(part.layer, []).append(part)
    pristine: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        within_memory(
            lambda: _merge_all(flux, by_layer, pristine),
            otherwise="There is not enough memory to apply these LoRAs.",
        )
        yield remarks
    finally:
        with torch.no_grad():
            for weight, before in pristine:
                weight.copy_(before)


@torch.no_grad()
def _merge_all(
    flux: Flux,
    by_layer: Mapping[nn.Linear, Sequence[Addition]],
    pristine: list[tuple[torch.Tensor, torch.Tensor]],
) -> None:
    """Merges into every layer, and puts what its weight was into `pristine` before."""
    place = _place_of_copies(flux, by_layer)
    for layer, parts in by_layer.items():
        pristine.append((layer.weight, layer.weight.detach().to(place, copy=True)))
        _merge(layer.weight, parts)
    # One number for all of them: to ask each would hold up a GPU each time.
    if not torch.nn.utils.get_total_norm([layer.weight for layer in by_layer], math.inf).isfinite():
        raise JobFailed(
            "lora_not_finite",
            "These LoRAs take the model out of the range of its numbers; lower scales may help.",
        )


def _merge(weight: torch.Tensor, parts: Sequence[Addition]) -> None:
    """Adds the parts to the weight in place, so that what was compiled or captured stays valid."""
    total = weight.float()
    for part in parts:
        down, up = (half.to(weight.device, torch.float32) for half in (part.down, part.up))
        total = torch.addmm(total, up, down, alpha=part.factor)
    weight.copy_(total)


def _place_of_copies(flux: Flux, layers: Mapping[nn.Linear, Sequence[Addition]]) -> torch.device:
    if flux.device.type != "cuda":
        return flux.device
    left = free_bytes(flux.device) - sum(layer.weight.nbytes for layer in layers)
    return flux.device if left >= _KEPT_FREE else torch.device("cpu")


def _parts(flux: Flux, loras: Sequence[tuple[Path, float]]) -> tuple[list[Addition], tuple[str, ...]]:
    """All that the LoRAs add, and what is to be remarked on."""
    known = targets(flux.pipe.transformer, flux.pipe.text_encoder) if loras else {}
    parts: list[Addition] = []
    remarks: list[str] = []
    for index, (path, scale) in enumerate(loras):
        what = f"loras[{index}]"
        # A file is checked at every scale: that it is broken should not come out later.
        read = _preferred(read_lora(path, what=what))
        found = additions(read, known, scale, what)
        remarks += _left_out(read, known, what)
        if scale != 0:
            parts += found
    return parts, tuple(remarks)


def _preferred(file: LoraFile) -> LoraFile:
    """The file without the second copy of itself that some hold in another trainer's names."""
    if not any(name.startswith("transformer.") for name in file.pairs):
        return file
    copies = ("lora_unet_", "lora_transformer_", "diffusion_model.")
    kept = {name: pair for name, pair in file.pairs.items() if not name.startswith(copies)}
    return LoraFile(pairs=kept, others=file.others)


def additions(file: LoraFile, known: Mapping[str, Target], scale: float, what: str) -> list[Addition]:
    """What a LoRA adds to the layers of a model. Raises JobFailed where it was made for another one."""
    fitting = {name: pair for name, pair in file.pairs.items() if name in known}
    strange = sum(not name.startswith(_OF_T5) for name in file.pairs.keys() - fitting.keys())
    # Other models share the text encoder with FLUX: that a few names fit says little.
    if strange >= max(len(fitting), 1):
        raise JobFailed(
            "lora_of_another_model",
            f"{what} was made for another model: {strange} of its {len(file.pairs)} layers are not FLUX's.",
        )
    if not fitting:
        raise JobFailed("lora_unsupported", f"{what} changes nothing but T5, which is not supported.")
    parts = [part for name, pair in fitting.items() for part in _split(pair, known[name], scale, what)]
    if len({part.layer for part in parts}) < len(parts):
        raise JobFailed("lora_invalid", f"{what} says twice what it adds to one layer.")
    return parts


def _split(pair: Pair, target: Target, scale: float, what: str) -> list[Addition]:
    """The pair for each of the layers that its name means."""
    heights = [layer.out_features for layer in target.layers]
    width = target.layers[0].in_features
    if (pair.up.shape[0], pair.down.shape[1]) != (sum(heights), width):
        raise JobFailed(
            "lora_of_another_model",
            f"{what} was made for another model: a layer of it has {pair.down.shape[1]} inputs and "
            f"{pair.up.shape[0]} outputs, where this one has {width} and {sum(heights)}.",
        )
    up = pair.up.roll(pair.up.shape[0] // 2, dims=0) if target.swapped else pair.up
    return [
        Addition(layer=layer, down=pair.down, up=rows, factor=pair.factor * scale)
        for layer, rows in zip(target.layers, torch.split(up, heights), strict=True)
    ]


def _left_out(file: LoraFile, known: Mapping[str, Target], what: str) -> list[str]:
    """What a user should know of the file that was not applied."""
    remarks = []
    unknown = [name for name in file.pairs if name not in known]
    of_t5 = sum(name.startswith(_OF_T5) for name in unknown)
    if of_t5:
        remarks.append(f"{what}: left out {of_t5} of its layers, which are T5's")
    if len(unknown) > of_t5:
        remarks.append(
            f"{what}: left out {len(unknown) - of_t5} of its layers, which this model does not have"
        )
    if file.others:
        remarks.append(f"{what}: left out {len(file.others)} of its tensors, which are no part of a LoRA")
    return remarks
