"""Trains a LoRA on pictures, as the two trainer models do."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline

from reference_backend.checkpoints import Pace, State
from reference_backend.dataset import Example
from reference_backend.job import JobFailed, Report
from reference_backend.memory import free_bytes, within_memory
from reference_backend.recipes import Recipe, suited
from reference_backend.training_cache import Prepared, prepare
from reference_backend.training_loop import Plan, diverged, must_recompute, run
from reference_backend.training_lora import attached, publish
from reference_backend.training_parallel import NO_ROOM, run_together
from reference_backend.training_steps import finite, shift_of, whole_batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a training came to. `loss` is its smoothed last one, `layers` the number of adapted layers."""

    steps: int
    loss: float
    layers: int
    seconds: float


def train(
    pipe: FluxPipeline,
    examples: Sequence[Example],
    recipe: Recipe,
    *,
    seed: int,
    checkpoints: Path,
    to: Path,
    base: str,
    trigger_word: str = "",
    report: Report,
    processes: int = 1,
    pace: Pace | None = None,
) -> Trained:
    """Trains a LoRA for the pipeline's transformer and writes it to `to`, a .safetensors file.

    `checkpoints` is a folder of this training's own that outlives the process: it goes on from there, with
    the same outcome to the bit, and the caller removes it in the end. `base` is the model's public name, for
    the file's metadata. With several `processes`, each takes a GPU and its part of every batch. An example's
    caption is what it is trained with; its mask, where it has one, says what counts.

    Raises JobFailed (`no_pictures`, `training_in_fp16`, `training_diverged`, `out_of_memory`), and Cancelled
    as `report` does, after a checkpoint. Then nothing is published. The pipeline is left as it was anyway.
    """
    if not examples:
        raise JobFailed("no_pictures", "There is nothing to train on.")
    parts: Any = pipe
    if parts.transformer.dtype is torch.float16:
        raise JobFailed(
            "training_in_fp16", "This worker computes in fp16, whose range is too small to train in."
        )
    began = time.monotonic()
    recipe = suited(recipe, pixel_step=2 * parts.vae_scale_factor)
    recipe = replace(recipe, batch=whole_batches(recipe.batch, processes))

    def run_all() -> State:
        prepared, plan = _prepared(
            parts, examples, recipe, seed=seed, base=base, folder=checkpoints, report=report
        )
        return _run(
            parts,
            prepared,
            plan,
            folder=checkpoints,
            meeting=to.parent,
            pace=pace or Pace(),
            processes=processes,
            report=report,
        )

    final = within_memory(run_all, otherwise=NO_ROOM)
    learned = {
        name.removeprefix("lora/"): each for name, each in final.tensors.items() if name.startswith("lora/")
    }
    if not finite([each.half() for each in learned.values()]):
        raise diverged()
    about = _about(recipe, base=base, trigger_word=trigger_word, seed=seed, examples=len(examples))
    publish(to, learned, recipe, about)
    return Trained(
        steps=recipe.steps, loss=final.loss, layers=len(learned) // 2, seconds=time.monotonic() - began
    )


def _prepared(
    pipe: Any,
    examples: Sequence[Example],
    recipe: Recipe,
    *,
    seed: int,
    base: str,
    folder: Path,
    report: Report,
) -> tuple[Prepared, Plan]:
    pixel_step = 2 * pipe.vae_scale_factor
    prepared = prepare(
        pipe,
        examples,
        recipe,
        pixel_step=pixel_step,
        folder=folder / "prepared",
        told=lambda done, of: report("preparing the pictures", done, of),
    )
    plan = Plan(
        recipe=recipe,
        seed=seed,
        pixel_step=pixel_step,
        shift=shift_of(pipe.scheduler.config),
        digest=_digest(prepared, recipe, seed, base),
    )
    return prepared, plan


def _run(
    pipe: Any,
    prepared: Prepared,
    plan: Plan,
    *,
    folder: Path,
    meeting: Path,
    pace: Pace,
    processes: int,
    report: Report,
) -> State:
    if processes > 1:
        torch.cuda.empty_cache()  # the others cannot use what this process keeps for later
    recompute = _recompute(pipe, prepared, plan, processes)
    if processes > 1:
        return run_together(
            pipe,
            prepared,
            plan,
            folder=folder,
            meeting=meeting,
            pace=pace,
            recompute=recompute,
            processes=processes,
            report=report,
        )
    transformer = pipe.transformer
    with attached(transformer, plan.recipe, plan.seed) as learned:
        if recompute:
            transformer.enable_gradient_checkpointing()
        try:
            return run(transformer, learned, prepared, plan, folder=folder, pace=pace, report=report)
        finally:
            transformer.disable_gradient_checkpointing()


def _recompute(pipe: Any, prepared: Prepared, plan: Plan, processes: int) -> bool:
    device, transformer = pipe.transformer.device, pipe.transformer
    if device.type != "cuda":
        return False  # a CPU runs nothing but the small model, which needs some megabytes
    if not _fused_attention(transformer):
        return True
    if processes > 1:
        free = torch.cuda.mem_get_info(device)[0] - transformer.get_memory_footprint()
    else:
        free = free_bytes(device)
    picture = max(width * height for each in prepared.items for width, height in each.latents)
    text = prepared.read(prepared.items[0].text)["embeds"].shape[1]
    return must_recompute(
        transformer.config,
        tokens=picture // plan.pixel_step**2 + text,
        batch=plan.recipe.batch // processes,
        value_bytes=transformer.dtype.itemsize,
        free=free,
    )


def _fused_attention(transformer: Any) -> bool:
    """Whether torch's attention keeps no scores of all pairs of tokens, which `must_recompute` relies on."""
    config = transformer.config
    shape = (1, config.num_attention_heads, 1024, config.attention_head_dim)
    one = torch.empty(shape, dtype=transformer.dtype, device=transformer.device, requires_grad=True)
    params = torch.backends.cuda.SDPAParams(one, one, one, None, 0.0, False, False)
    kernels = (torch.backends.cuda.can_use_flash_attention, torch.backends.cuda.can_use_efficient_attention)
    return any(usable(params) for usable in kernels)


def _digest(prepared: Prepared, recipe: Recipe, seed: int, base: str) -> str:
    """A digest of all that must be the same for a checkpoint to be gone on from."""
    shown = [[each.text, *each.latents.values()] for each in prepared.items]
    text = json.dumps([asdict(recipe), seed, base, shown], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _about(recipe: Recipe, *, base: str, trigger_word: str, seed: int, examples: int) -> dict[str, str]:
    return {
        "base_model": base,
        "trigger_word": trigger_word,
        "rank": str(recipe.rank),
        "alpha": str(recipe.rank),
        "steps": str(recipe.steps),
        "learning_rate": str(recipe.learning_rate),
        "recipe": recipe.name,
        "resolutions": ",".join(map(str, recipe.resolutions)),
        "batch": str(recipe.batch),
        "examples": str(examples),
        "seed": str(seed),
    }
