"""What a training needs of its examples: latents and text embeddings, computed once and kept by content."""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from reference_backend.dataset import Example
from reference_backend.recipes import Recipe
from reference_backend.training_pictures import fitted, pixels, sizes_of, weights

Size = tuple[int, int]

_TEXT_UNIT = 64
"""Captions that need not fill the encoder's length are padded to a multiple of this: few shapes in all."""

_READ_AHEAD = 256

_SAMPLED = 64
"""Numbers of each tensor that tell a model from every other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """The cache's keys of one example: of its latents, by (width, height) in pixels, and of its text."""

    latents: dict[Size, str]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """All examples, with what was computed of them under `folder`, one file per key.

    Latents are mean and std (1, channels, rows, columns) with the loss weights (1, 1, rows, columns); texts
    the embeddings (1, tokens, width) and the pooled ones (1, width).
    """

    items: tuple[Item, ...]
    read: Callable[[str], dict[str, torch.Tensor]]


def prepare(
    pipe: Any,
    examples: Sequence[Example],
    recipe: Recipe,
    *,
    pixel_step: int,
    folder: Path,
    told: Callable[[int, int], None],
) -> Prepared:
    """Encodes the examples, or finds them encoded from an earlier attempt. `told` hears of each example.

    A file is named after all that decides its content: the model, the picture's pixels, the mask, the size,
    the text. So a latent is never taken for another picture's, in whatever order they come.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = _digest(pipe)
    tokens = _text_tokens(pipe, [each.caption for each in examples], padded=recipe.padded_text)
    items = []
    for number, example in enumerate(examples):
        told(number, len(examples))
        mask = b"" if example.mask is None else str(example.mask.size).encode() + example.mask.tobytes()
        latents = {}
        for size in sizes_of(example.picture, recipe.resolutions, pixel_step):
            key = _key(
                b"latent", model, example.digest.encode(), mask, f"{size} {recipe.mask_floor}".encode()
            )
            _once(folder, key, partial(_latent, pipe, example, size, recipe.mask_floor))
            latents[size] = key
        caption = example.caption.encode("utf-8", "replace").decode()
        key = _key(b"text", model, caption.encode(), str(tokens).encode())
        _once(folder, key, partial(_text, pipe, caption, tokens))
        items.append(Item(latents=latents, text=key))
    return Prepared(items=tuple(items), read=reader(folder))


def reader(folder: Path) -> Callable[[str], dict[str, torch.Tensor]]:
    """Reads what was kept under a key, the latest ones from memory."""

    @lru_cache(maxsize=_READ_AHEAD)
    def read(key: str) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = load_file(folder / f"{key}.safetensors")
        return tensors

    return read


def _once(folder: Path, key: str, make: Callable[[], dict[str, torch.Tensor]]) -> None:
    path = folder / f"{key}.safetensors"
    try:
        load_file(path)
    except (OSError, SafetensorError):
        draft = folder / f"draft-{secrets.token_hex(8)}"
        save_file({name: each.contiguous().cpu() for name, each in make().items()}, draft)
        draft.replace(path)


@torch.no_grad()
def _latent(pipe: Any, example: Example, size: Size, floor: float) -> dict[str, torch.Tensor]:
    vae: Any = pipe.vae
    picture = pixels(fitted(example.picture, size)).to(vae.device, vae.dtype)
    encoded = vae.encode(picture)
    # The distribution is kept, not a draw from it: each step draws its own. The taming VAE has none.
    if hasattr(encoded, "latent_dist"):
        mean, std = encoded.latent_dist.mean, encoded.latent_dist.std
    else:
        mean, std = encoded.latents, torch.zeros_like(encoded.latents)
    shift = vae.config.shift_factor or 0.0
    rows, columns = mean.shape[-2:]
    counted = weights(example.mask, size, latent=(rows, columns), floor=floor)
    return {
        "mean": (mean.float() - shift) * vae.config.scaling_factor,
        "std": std.float() * vae.config.scaling_factor,
        "weights": counted[None],
    }


@torch.no_grad()
def _text(pipe: Any, caption: str, tokens: int) -> dict[str, torch.Tensor]:
    embeds, pooled, _ = pipe.encode_prompt(prompt=caption, prompt_2=None, max_sequence_length=tokens)
    return {"embeds": embeds, "pooled": pooled}


def _text_tokens(pipe: Any, captions: Sequence[str], *, padded: bool) -> int:
    longest = min(512, pipe.tokenizer_2.model_max_length)
    if padded:
        return int(longest)
    said = [each.encode("utf-8", "replace").decode() for each in captions]
    ids = pipe.tokenizer_2(said, truncation=True, max_length=longest).input_ids
    needed = max(len(each) for each in ids)
    return int(min(longest, -(-needed // _TEXT_UNIT) * _TEXT_UNIT))


@torch.no_grad()
def _digest(pipe: Any) -> bytes:
    """A digest of the model as it is in memory: names, types and shapes of its tensors, a sample of each.

    The transformer counts too: by these keys a checkpoint is known, and other weights must not go on from it.
    """
    digest = hashlib.sha256()
    for part in (pipe.vae, pipe.text_encoder, pipe.text_encoder_2, pipe.transformer):
        samples = []
        for name, each in part.named_parameters():
            digest.update(f"{name} {each.dtype} {tuple(each.shape)} ".encode())
            samples.append(each.flatten()[:: max(1, each.numel() // _SAMPLED)])
        digest.update(torch.cat(samples).cpu().view(torch.uint8).numpy().tobytes())
    return digest.digest()


def _key(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
