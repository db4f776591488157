"""Training of the autoencoder: the encoder is computed, the decoder learns to undo it."""

import torch
from diffusers import AutoencoderKL
from torch import Generator, Tensor
from torch.func import functional_call
from torch.nn import functional

from reference_backend.tiny.autoencoder import BLOCK, block_means, cells, encode_means, principal_basis
from reference_backend.tiny.pictures import random_pictures
from reference_backend.tiny.scenes import draw, random_scene
from reference_backend.tiny.stages import Stage

_SIDE = 160
_LATENT_NOISE = 0.04
"""The denoiser's latents are never exact: the decoder learns on slightly wrong ones."""
_FLOOR = 0.12
_SAMPLES = 384


def find_basis(generator: Generator) -> Tensor:
    """The encoder's map, from pictures of all kinds and scenes in equal shares."""
    side = 512 // BLOCK
    others = _rows(block_means(random_pictures(_SAMPLES, _SIDE, generator)))
    scenes = [random_scene(generator) for _ in range(1 + len(others) // 256)]
    flats = _rows(draw(scenes, generator, width=side, height=side))[: len(others)]
    return principal_basis(torch.cat([others, flats]), floor=_FLOOR)


def _rows(means: Tensor) -> Tensor:
    return cells(means).permute(0, 2, 3, 1).flatten(0, 2)


def decoder_stage(vae: AutoencoderKL, basis: Tensor, *, batch: int) -> Stage:
    """Train the decoder in place on random pictures; 16-bit products, weights in single precision."""
    device = vae.device
    decoder = vae.decoder.to(memory_format=torch.channels_last)

    def loss(generator: Generator) -> Tensor:
        pictures = random_pictures(batch, _SIDE, generator)
        latents = encode_means(block_means(pictures), basis)
        latents = latents + _LATENT_NOISE * torch.randn(latents.shape, generator=generator)
        halves = {name: weight.bfloat16() for name, weight in decoder.named_parameters()}
        given = latents.to(device, torch.bfloat16, memory_format=torch.channels_last)
        made, wanted = functional_call(decoder, halves, (given,)).float(), pictures.to(device)
        # The absolute error keeps outlines sharp.
        return functional.mse_loss(made, wanted) + 0.5 * functional.l1_loss(made, wanted)

    return Stage(name="decoder", module=decoder, loss=loss, learning_rate=1.5e-3)
