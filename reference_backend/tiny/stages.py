"""One loop for every stage of the training: seeded, by steps or by minutes, resumable."""

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from reference_backend.tiny.reporting import Reporter

_SAVE_EVERY_S = 60.0
_WARM_UP_STEPS = 40
_DECAY_SHARE = 0.4
_LONGEST_MEMORY = 0.998


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long a stage may take: a number of steps, or seconds where `seconds` is given."""

    steps: int
    seconds: float | None = None

    def progress(self, step: int, spent_s: float) -> float:
        """The share of the stage that is over, 0 to 1."""
        return min(1.0, step / self.steps if self.seconds is None else spent_s / self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is trained: `loss` of a step's own generator, over `module`; `averaged` follows it, if given."""

    name: str
    module: nn.Module
    loss: Callable[[Generator], Tensor]
    learning_rate: float
    averaged: nn.Module | None = None
    muon: bool = False


@dataclass(slots=True, kw_only=True)
class _Progress:
    step: int = 0
    spent_s: float = 0.0
    saved_at: float = field(default_factory=time.monotonic)


def step_generator(seed: int, stage: str, step: int) -> Generator:
    """The generator of one step: a resumed training draws what an uninterrupted one would have drawn."""
    digest = hashlib.sha256(f"{seed}/{stage}/{step}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:4]))


def run_stage(stage: Stage, budget: Budget, *, seed: int, folder: Path) -> None:
    """Train the stage to its end, from its checkpoint in `folder` if there is one."""
    optimizers = _optimizers(stage)
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    path = folder / f"{stage.name}.pt"
    progress = _load(stage, optimizers, path)
    reporter = Reporter(stage=stage.name)
    while (share := budget.progress(progress.step, progress.spent_s)) < 1:
        began = time.monotonic()
        factor = min(1.0, (progress.step + 1) / _WARM_UP_STEPS, (1 - share) / _DECAY_SHARE)
        groups = (group for optimizer in optimizers for group in optimizer.param_groups)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * factor
        loss = stage.loss(step_generator(seed, stage.name, progress.step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.module.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if stage.averaged is not None:
            _average(stage.averaged, stage.module, progress.step)
        progress.step += 1
        progress.spent_s += time.monotonic() - began
        reporter.step(progress.step, budget.progress(progress.step, progress.spent_s), loss=loss.item())
        if time.monotonic() - progress.saved_at > _SAVE_EVERY_S:
            _save(stage, optimizers, progress, path)
    reporter.close()
    _save(stage, optimizers, progress, path)


def split_weights(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The blocks' matrices, for Muon, and all the rest, for AdamW."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, weight in module.named_parameters():
        hidden = weight.ndim == 2 and "transformer_blocks" in name and ".norm" not in name
        (matrices if hidden else rest).append(weight)
    return matrices, rest


def _optimizers(stage: Stage) -> list[torch.optim.Optimizer]:
    rate = stage.learning_rate
    if not stage.muon:
        return [torch.optim.AdamW(stage.module.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]
    matrices, rest = split_weights(stage.module)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


@torch.no_grad()
def _average(averaged: nn.Module, module: nn.Module, step: int) -> None:
    share = 1 - min(_LONGEST_MEMORY, (1 + step) / (10 + step))
    targets: Iterable[Tensor] = averaged.parameters()
    torch._foreach_lerp_(list(targets), list(module.parameters()), share)


def _save(stage: Stage, optimizers: list[torch.optim.Optimizer], progress: _Progress, path: Path) -> None:
    state = {
        "module": stage.module.state_dict(),
        "averaged": None if stage.averaged is None else stage.averaged.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "step": progress.step,
        "spent_s": progress.spent_s,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    torch.save(state, fresh)
    fresh.replace(path)
    progress.saved_at = time.monotonic()


def _load(stage: Stage, optimizers: list[torch.optim.Optimizer], path: Path) -> _Progress:
    if not path.exists():
        return _Progress()
    state = torch.load(path, map_location="cpu", weights_only=True)
    stage.module.load_state_dict(state["module"])
    if stage.averaged is not None:
        stage.averaged.load_state_dict(state["averaged"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return _Progress(step=state["step"], spent_s=state["spent_s"])
