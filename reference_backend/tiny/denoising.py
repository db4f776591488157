"""The denoiser's data and its first stage, the base.

Latents come straight from drawings at an eighth of the size: the encoder sees no more (see `autoencoder`).
"""

from dataclasses import dataclass

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Generator, Tensor

from reference_backend.tiny.autoencoder import BLOCK, CELL, encode_means
from reference_backend.tiny.lean import lean_forward
from reference_backend.tiny.model import time_shift
from reference_backend.tiny.prompts import random_prompt
from reference_backend.tiny.scenes import draw, random_scene
from reference_backend.tiny.stages import Stage
from reference_backend.tiny.text_training import Embedded, embed

TOKEN = 2 * CELL
"""Pixels of the side of a token: two by two latent cells."""
STRONGEST_GUIDANCE = 10.0
_UNGUIDED_SHARE = 0.25
_UNTOLD_SHARE = 0.1
"""How often the prompt is left out, so that guidance has something to lead away from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """A picture's size in tokens, and how often training draws it."""

    columns: int
    rows: int
    share: float

    @property
    def tokens(self) -> int:
        """The length of the sequence."""
        return self.columns * self.rows


SMALLER_CANVASES = (
    Canvas(columns=8, rows=8, share=0.86),
    Canvas(columns=12, rows=8, share=0.04),
    Canvas(columns=8, rows=12, share=0.03),
    Canvas(columns=12, rows=12, share=0.04),
    Canvas(columns=16, rows=16, share=0.03),
)
"""What the base learns on. A step on 1024 x 1024 shows a quarter of the pictures of one on 512 x 512."""
LARGER_CANVASES = (
    Canvas(columns=8, rows=8, share=0.20),
    Canvas(columns=12, rows=8, share=0.03),
    Canvas(columns=8, rows=12, share=0.03),
    Canvas(columns=12, rows=12, share=0.10),
    Canvas(columns=16, rows=12, share=0.04),
    Canvas(columns=12, rows=16, share=0.04),
    Canvas(columns=16, rows=16, share=0.44),
    Canvas(columns=24, rows=24, share=0.12),
)
"""What it goes on with: shapes on large canvases are learned anew, colours and places are not."""
ALL_CANVASES = (
    Canvas(columns=8, rows=8, share=0.34),
    Canvas(columns=12, rows=8, share=0.03),
    Canvas(columns=8, rows=12, share=0.03),
    Canvas(columns=12, rows=12, share=0.10),
    Canvas(columns=16, rows=12, share=0.03),
    Canvas(columns=12, rows=16, share=0.03),
    Canvas(columns=16, rows=16, share=0.34),
    Canvas(columns=24, rows=24, share=0.10),
)
"""What guidance and few steps are learned on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One step's data: packed latents (B, N, 64), noise levels (B,), the texts' embeddings, position ids."""

    clean: Tensor
    noise: Tensor
    levels: Tensor
    text: Embedded
    ids: Tensor

    @property
    def noisy(self) -> Tensor:
        """The mixture that the denoiser gets."""
        return torch.lerp(self.clean, self.noise, self.levels[:, None, None])


class Studio:
    """Makes batches: draws scenes, words prompts, encodes both, mixes with noise."""

    def __init__(
        self, pipeline: FluxPipeline, basis: Tensor, *, batch: int, canvases: tuple[Canvas, ...]
    ) -> None:
        self._pipeline = pipeline
        self._canvases = canvases
        self._basis = basis
        self._batch = batch

    def batch(self, generator: Generator) -> Batch:
        """Scenes of the training set on one random canvas; larger canvases come fewer at a time."""
        shares = torch.tensor([canvas.share for canvas in self._canvases])
        canvas = self._canvases[int(torch.multinomial(shares, 1, generator=generator))]
        count = max(2, self._batch * self._canvases[0].tokens // canvas.tokens)
        scenes = [random_scene(generator) for _ in range(count)]
        told = (torch.rand(count, generator=generator) >= _UNTOLD_SHARE).tolist()
        texts = [
            random_prompt(scene, generator).text if say else ""
            for scene, say in zip(scenes, told, strict=True)
        ]
        side = TOKEN // BLOCK
        means = draw(scenes, generator, width=canvas.columns * side, height=canvas.rows * side)
        clean = pack(encode_means(means, self._basis))
        noise = torch.randn(clean.shape, generator=generator)
        levels = noise_levels(count, canvas.tokens, generator)
        device = self._pipeline.transformer.device
        return Batch(
            clean=clean.to(device),
            noise=noise.to(device),
            levels=levels.to(device),
            text=self.text(texts),
            ids=position_ids(canvas).to(device),
        )

    @torch.no_grad()
    def text(self, texts: list[str]) -> Embedded:
        """What the trained text encoders say."""
        return embed(self._pipeline, texts)


def pack(latents: Tensor) -> Tensor:
    """Latents (B, 16, 2r, 2c) as tokens (B, rc, 64), in FluxPipeline's order."""
    count, channels, height, width = latents.shape
    split = latents.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return split.reshape(count, height * width // 4, channels * 4)


def position_ids(canvas: Canvas) -> Tensor:
    """The ids (N, 3) that FluxPipeline gives the tokens of a picture."""
    ids = torch.zeros(canvas.rows, canvas.columns, 3)
    ids[..., 1] += torch.arange(canvas.rows)[:, None]
    ids[..., 2] += torch.arange(canvas.columns)[None, :]
    return ids.reshape(-1, 3)


def noise_levels(count: int, tokens: int, generator: Generator) -> Tensor:
    """Levels spread as the scheduler's steps are: uniform, then shifted towards one."""
    uniform = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return shifted(uniform, time_shift(tokens))


def shifted(levels: Tensor, shift: float) -> Tensor:
    """Levels (0 to 1) moved towards one, as the scheduler moves its own."""
    return shift * levels / (1 + (shift - 1) * levels)


class Denoiser:
    """A transformer as a function of a batch, called as FluxPipeline calls it but with 16-bit products."""

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        self._guided = bool(transformer.config.guidance_embeds)
        self._call = lean_forward(transformer)

    def velocity(
        self, batch: Batch, noisy: Tensor, levels: Tensor, *, text: Embedded, guidance: Tensor
    ) -> Tensor:
        """Its answer, noise less picture, for latents at their levels; schnell takes no guidance."""
        return self._call(
            hidden_states=noisy,
            timestep=levels,
            pooled_projections=text.pooled,
            encoder_hidden_states=text.tokens,
            txt_ids=torch.zeros(text.tokens.shape[1], 3, device=noisy.device),
            img_ids=batch.ids,
            **({"guidance": guidance} if self._guided else {}),
        )[0]


def random_guidance(count: int, generator: Generator) -> Tensor:
    """Guidance over its whole range, and none at all a quarter of the time: that is hardest to learn."""
    guidance = torch.rand(count, generator=generator) * STRONGEST_GUIDANCE
    return torch.where(torch.rand(count, generator=generator) < _UNGUIDED_SHARE, 0.0, guidance)


def base_stage(
    name: str,
    transformer: FluxTransformer2DModel,
    averaged: FluxTransformer2DModel,
    studio: Studio,
    *,
    learning_rate: float,
) -> Stage:
    """Plain flow matching; the guidance that the denoiser is told means nothing yet."""
    denoiser = Denoiser(transformer)

    def loss(generator: Generator) -> Tensor:
        batch = studio.batch(generator)
        guidance = random_guidance(len(batch.levels), generator).to(batch.levels.device)
        answer = denoiser.velocity(batch, batch.noisy, batch.levels, text=batch.text, guidance=guidance)
        return (answer - (batch.noise - batch.clean)).square().mean()

    return Stage(
        name=name,
        module=transformer,
        averaged=averaged,
        loss=loss,
        learning_rate=learning_rate,
        muon=True,
    )
