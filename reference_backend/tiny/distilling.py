"""The denoiser's later stages: dev learns guidance, schnell learns to take few steps."""

import torch
from diffusers import FluxTransformer2DModel
from torch import Generator, Tensor

from reference_backend.tiny.denoising import Batch, Denoiser, Studio, random_guidance, shifted
from reference_backend.tiny.model import SMALLEST_SHIFT, build_transformer
from reference_backend.tiny.stages import Stage

GUIDANCE_FACTOR = 0.45
"""What a guidance of one is worth: 3.5 leads 1.6 times as far from the promptless answer as the prompt's own
answer lies, 10 leads 4.5 times as far, 0 is the promptless answer itself."""
DEFAULT_GUIDANCE = 3.5

_STEP_COUNTS = (4, 4, 4, 4, 2, 3, 6, 8)
_TEACHER_STEPS = 3


def guidance_stage(
    teacher: FluxTransformer2DModel,
    student: FluxTransformer2DModel,
    averaged: FluxTransformer2DModel,
    studio: Studio,
) -> Stage:
    """The student learns in one call, told the guidance, what two calls of the teacher would give."""
    wise, learning = Denoiser(teacher.requires_grad_(False)), Denoiser(student)

    def loss(generator: Generator) -> Tensor:
        batch = studio.batch(generator)
        noisy, levels, count = batch.noisy, batch.levels, len(batch.levels)
        guidance = random_guidance(count, generator).to(levels.device)
        with torch.no_grad():
            told = wise.velocity(batch, noisy, levels, text=batch.text, guidance=guidance)
            untold = wise.velocity(batch, noisy, levels, text=studio.text([""] * count), guidance=guidance)
            target = torch.lerp(untold, told, GUIDANCE_FACTOR * guidance[:, None, None])
        answer = learning.velocity(batch, noisy, levels, text=batch.text, guidance=guidance)
        return (answer - target).square().mean()

    return Stage(name="guidance", module=student, averaged=averaged, loss=loss, learning_rate=1e-3, muon=True)


@torch.no_grad()
def without_guidance(dev: FluxTransformer2DModel) -> FluxTransformer2DModel:
    """A schnell transformer that answers as the dev one does at the default guidance."""
    schnell = build_transformer("schnell").to(dev.device)
    kept = {name: weight for name, weight in dev.state_dict().items() if ".guidance_embedder." not in name}
    schnell.load_state_dict(kept)
    embedding = dev.time_text_embed
    told = embedding.time_proj(torch.tensor([1000 * DEFAULT_GUIDANCE], device=dev.device))
    # Both embeddings are summed: a constant guidance is a constant in the other's last bias.
    schnell.time_text_embed.timestep_embedder.linear_2.bias += embedding.guidance_embedder(told)[0]
    return schnell


def few_step_stage(
    teacher: FluxTransformer2DModel,
    student: FluxTransformer2DModel,
    averaged: FluxTransformer2DModel,
    studio: Studio,
) -> Stage:
    """The student learns to go in one step, of about four, where the teacher goes in three small ones."""
    wise, learning = Denoiser(teacher.requires_grad_(False)), Denoiser(student)

    def loss(generator: Generator) -> Tensor:
        batch = studio.batch(generator)
        start, end = (level.to(batch.levels.device) for level in _strides(len(batch.levels), generator))
        noisy = torch.lerp(batch.clean, batch.noise, start[:, None, None])
        with torch.no_grad():
            target = (noisy - _walk(wise, batch, noisy, start, end)) / (start - end)[:, None, None]
        guidance = torch.full_like(start, DEFAULT_GUIDANCE)
        answer = learning.velocity(batch, noisy, start, text=batch.text, guidance=guidance)
        # A stride's end is what counts: errors matter as far as the stride goes.
        return ((answer - target).square().mean((1, 2)) * (start - end).sqrt()).mean()

    return Stage(
        name="few-steps", module=student, averaged=averaged, loss=loss, learning_rate=5e-4, muon=True
    )


def _strides(count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Levels at which a step of the schnell scheduler starts and ends, for several numbers of steps."""
    totals = torch.tensor(_STEP_COUNTS)[torch.randint(len(_STEP_COUNTS), (count,), generator=generator)]
    taken = (torch.rand(count, generator=generator) * totals).floor()
    start, end = 1 - taken / totals, 1 - (taken + 1) / totals
    # The scheduler spreads n steps from one to 1/n, and then goes to zero.
    return shifted(start, SMALLEST_SHIFT), shifted(end, SMALLEST_SHIFT)


def _walk(teacher: Denoiser, batch: Batch, noisy: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """The teacher's latents at the stride's end, after equal small steps."""
    guidance = torch.full_like(start, DEFAULT_GUIDANCE)
    for small in range(_TEACHER_STEPS):
        here = torch.lerp(start, end, small / _TEACHER_STEPS)
        there = torch.lerp(start, end, (small + 1) / _TEACHER_STEPS)
        answer = teacher.velocity(batch, noisy, here, text=batch.text, guidance=guidance)
        noisy = noisy + answer * (there - here)[:, None, None]
    return noisy
