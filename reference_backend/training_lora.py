"""A LoRA on a transformer while it is trained, and as the file it becomes."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from peft import LoraConfig
from safetensors.torch import save

from reference_backend.checkpoints import sync
from reference_backend.recipes import Recipe
from reference_backend.training_steps import generator

_ADAPTER = "default"
_MARK = ".lora_B."


@contextmanager
def attached(transformer: Any, recipe: Recipe, seed: int) -> Iterator[dict[str, torch.nn.Parameter]]:
    """Puts a fresh LoRA on the transformer for as long as it lasts: its tensors by name, in fp32.

    The first matrix of each pair is drawn with a deviation of 1 / rank, the second is zero, so that the model
    begins as it is. Everything else is frozen, and afterwards as it was before, its modules the very same.
    For that long torch computes the same to the bit each time, and without what makes pictures faster.
    """
    with _plainly(transformer), _adapted(transformer, recipe) as learned:
        for name, each in learned.items():
            # In bf16 most of its entries would not move at all in a step of the usual size.
            each.data = each.data.float()
            if _MARK in name:
                each.data.zero_()
            else:
                drawn = torch.randn(each.shape, generator=generator(seed, "start", name))
                each.data.copy_(drawn / recipe.rank)
        yield learned


@contextmanager
def _plainly(transformer: Any) -> Iterator[None]:
    """Has torch compute by its own deterministic algorithms, and the transformer not use what is compiled."""
    before = torch.get_deterministic_debug_mode()
    attentions = {each: dict(vars(each)) for each in transformer.attn_processors.values()}
    # The others have no backward pass, or none for the mixed numbers of a training.
    for each in attentions:
        each._attention_backend = AttentionBackendName.NATIVE
    # With less than "error", the backward pass of torch's attention on a GPU stays as it is.
    torch.set_deterministic_debug_mode("error")
    try:
        # Each rank would have every block compiled anew, which torch does a few times and then refuses.
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.set_deterministic_debug_mode(before)
        for each, attributes in attentions.items():
            # Just those that were there: what is compiled looks at their names, too.
            each.__dict__ = attributes


@contextmanager
def _adapted(transformer: Any, recipe: Recipe) -> Iterator[dict[str, torch.nn.Parameter]]:
    """Puts a LoRA on the transformer that alone is to be trained: its tensors by name."""
    asked = {name: each.requires_grad for name, each in transformer.named_parameters()}
    transformer.requires_grad_(False)
    # Alpha is the rank: a file whose metadata got lost is then still read with the right scale.
    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.rank, target_modules=recipe.targets)
    transformer.add_adapter(config, adapter_name=_ADAPTER)
    try:
        yield {
            name.replace(f".{_ADAPTER}.", "."): each
            for name, each in sorted(transformer.named_parameters())
            if each.requires_grad
        }
    finally:
        transformer.unload_lora()
        for name, each in transformer.named_parameters():
            each.requires_grad_(asked[name])


def groups(learned: Mapping[str, torch.nn.Parameter], recipe: Recipe) -> list[dict[str, Any]]:
    """The optimizer's parameter groups: the first matrices, and the second ones with their `ratio`."""
    second = [each for name, each in learned.items() if _MARK in name]
    first = [each for name, each in learned.items() if _MARK not in name]
    return [{"params": first, "ratio": 1.0}, {"params": second, "ratio": recipe.b_ratio}]


def publish(to: Path, learned: Mapping[str, torch.Tensor], recipe: Recipe, about: Mapping[str, str]) -> None:
    """Writes the LoRA as a file that diffusers' `load_lora_weights` reads: whole, or not at all.

    16-bit safetensors with the transformer's names, the `lora_adapter_metadata` that tells diffusers rank and
    alpha, and `about`. The same LoRA is the same bytes.
    """
    tensors = {f"transformer.{name}": each.half().cpu().contiguous() for name, each in learned.items()}
    adapter = {
        "transformer.r": recipe.rank,
        "transformer.lora_alpha": recipe.rank,
        "transformer.target_modules": recipe.targets,
    }
    notes = {"format": "pt", "lora_adapter_metadata": json.dumps(adapter, sort_keys=True), **about}
    draft = to.with_name(f"{to.name}.draft-{os.getpid()}")
    draft.write_bytes(_ordered(save(tensors, notes)))
    sync(draft)
    draft.replace(to)
    sync(to.parent)


def _ordered(content: bytes) -> bytes:
    """The same safetensors file with its header sorted: the library writes metadata in any order."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    # The tensors begin at a multiple of eight bytes, which is what blanks at the header's end are for.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
