"""The whole training of the offline model, from nothing to two folders that FluxPipeline loads."""

import copy
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Generator, Tensor

from reference_backend.tiny.autoencoder import install_basis
from reference_backend.tiny.denoising import (
    ALL_CANVASES,
    LARGER_CANVASES,
    SMALLER_CANVASES,
    Studio,
    base_stage,
)
from reference_backend.tiny.distilling import few_step_stage, guidance_stage, without_guidance
from reference_backend.tiny.measuring import Row, measure
from reference_backend.tiny.model import VARIANTS, build_pipeline, build_scheduler, save_pipeline
from reference_backend.tiny.stages import Budget, Stage, run_stage
from reference_backend.tiny.text_training import text_stage
from reference_backend.tiny.vae_training import decoder_stage, find_basis

SHARES = {"text": 0.02, "decoder": 0.15, "base": 0.28, "larger": 0.40, "guidance": 0.10, "few-steps": 0.05}
"""How the steps, or the minutes, are divided over the stages."""
_TEXT_BATCH_FACTOR = 6
_DECODER_BATCH_SHARE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to train with: steps or minutes of all stages together, and a batch of 512 x 512."""

    out: Path
    seed: int = 0
    batch: int = 32
    steps: int = 24_000
    minutes: float | None = None
    device: str = "cpu"

    def budget(self, stage: str) -> Budget:
        """The stage's share."""
        share = SHARES[stage]
        seconds = None if self.minutes is None else self.minutes * 60 * share
        return Budget(steps=max(1, round(self.steps * share)), seconds=seconds)


def train(plan: Plan) -> None:
    """Train every stage, or go on where an earlier call was stopped, and write both variants."""
    pipeline = build_pipeline("dev", seed=plan.seed)
    pipeline.to(plan.device)
    basis = find_basis(Generator().manual_seed(plan.seed))
    install_basis(pipeline.vae, basis)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        _run(plan, text_stage(pipeline, batch=_TEXT_BATCH_FACTOR * plan.batch))
    _freeze(pipeline.text_encoder, pipeline.text_encoder_2)
    _run(plan, decoder_stage(pipeline.vae, basis, batch=1 + plan.batch // _DECODER_BATCH_SHARE))
    _freeze(pipeline.vae)
    base = _denoise(plan, pipeline, basis)
    studio = Studio(pipeline, basis, batch=plan.batch, canvases=ALL_CANVASES)
    student, guided = _trainable(base), _averaged(base)
    _run(plan, guidance_stage(base, student, guided, studio))
    few = _trainable(without_guidance(guided))
    quick = _averaged(few)
    _run(plan, few_step_stage(guided, few, quick, studio))
    export(pipeline, {"dev": guided, "schnell": quick}, plan.out)


def _denoise(plan: Plan, pipeline: FluxPipeline, basis: Tensor) -> FluxTransformer2DModel:
    """The denoiser before guidance: first mostly small pictures, then all sizes."""
    transformer = pipeline.transformer
    for name, canvases, rate in (("base", SMALLER_CANVASES, 2e-3), ("larger", LARGER_CANVASES, 2e-3)):
        studio = Studio(pipeline, basis, batch=plan.batch, canvases=canvases)
        averaged = _averaged(transformer)
        _run(plan, base_stage(name, transformer, averaged, studio, learning_rate=rate))
        transformer.load_state_dict(averaged.state_dict())
    return _averaged(transformer)


def _run(plan: Plan, stage: Stage) -> None:
    run_stage(stage, plan.budget(stage.name), seed=plan.seed, folder=plan.out / "checkpoint")


def _freeze(*modules: torch.nn.Module) -> None:
    for module in modules:
        module.eval().requires_grad_(False)


def _averaged(transformer: FluxTransformer2DModel) -> FluxTransformer2DModel:
    return copy.deepcopy(transformer).requires_grad_(False)


def _trainable(transformer: FluxTransformer2DModel) -> FluxTransformer2DModel:
    return copy.deepcopy(transformer).requires_grad_(True)


def export(pipeline: FluxPipeline, transformers: dict[str, FluxTransformer2DModel], out: Path) -> None:
    """Write both variants as complete diffusers folders."""
    pipeline.to("cpu")
    for variant in VARIANTS:
        folder = out / variant
        shutil.rmtree(folder, ignore_errors=True)
        components = pipeline.components | {
            "transformer": transformers[variant].to("cpu"),
            "scheduler": build_scheduler(variant),
        }
        save_pipeline(FluxPipeline(**components), folder)


def measure_exported(out: Path, counts: Iterable[tuple[int, int]], *, seed: int) -> list[Row]:
    """Rows for both variants, for each (side in pixels, number of pictures)."""
    rows = []
    for variant in VARIANTS:
        pipeline = FluxPipeline.from_pretrained(out / variant)
        pipeline.set_progress_bar_config(disable=True)
        rows += [measure(pipeline, variant, side=side, count=count, seed=seed) for side, count in counts]
    return rows
