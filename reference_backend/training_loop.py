"""The training itself: steps over prepared examples, watched, and kept in checkpoints."""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reference_backend import checkpoints
from reference_backend.checkpoints import Pace, State
from reference_backend.job import Cancelled, JobFailed, Report
from reference_backend.recipes import Recipe
from reference_backend.training_cache import Prepared
from reference_backend.training_lora import groups
from reference_backend.training_steps import Shift, draw, finite, generator, loss_of, part

_SMOOTH = 0.95
_KEPT_PER_VALUE = 36
"""Values that the backward pass needs per token, block and channel, when every linear layer is adapted."""

_SPARE = 8 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that decides a training's outcome beside the model; the recipe's batch is that of all processes.

    `digest` tells it, and what it is trained on, from every other.
    """

    recipe: Recipe
    seed: int
    pixel_step: int
    shift: Shift
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """This process among those that train together. The first one watches, reports and keeps checkpoints.

    `wrap` makes the model average its gradients over all of them.
    """

    rank: int = 0
    size: int = 1
    wrap: Callable[[Any], Any] = lambda model: model


ALONE = Crew()


def must_recompute(config: Any, *, tokens: int, batch: int, value_bytes: int, free: int) -> bool:
    """Whether activations are computed twice instead of kept, for want of `free` bytes.

    Keeping them saves a third of the work. They need about 36 values per token, block and channel (measured
    for FLUX.1), and 8 GiB are left for everything else. `tokens` are those of text and picture.
    """
    blocks = config.num_layers + config.num_single_layers
    width = config.num_attention_heads * config.attention_head_dim
    needed: int = batch * tokens * blocks * width * _KEPT_PER_VALUE * value_bytes
    return needed + _SPARE > free


def run(
    transformer: Any,
    learned: Mapping[str, torch.nn.Parameter],
    prepared: Prepared,
    plan: Plan,
    *,
    folder: Path,
    pace: Pace,
    report: Report,
    crew: Crew = ALONE,
) -> State:
    """Trains `learned` in place, on from the newest checkpoint, and returns the final state, kept as well.

    Raises JobFailed (`training_diverged`) when anything stops being a number, and Cancelled as `report` does,
    after a checkpoint.
    """
    recipe, steps = plan.recipe, plan.recipe.steps
    device, dtype = transformer.device, transformer.dtype
    optimizer = torch.optim.AdamW(groups(learned, recipe), weight_decay=recipe.weight_decay, fused=True)
    begun = checkpoints.load(folder, plan.digest)
    if begun is not None:
        _put_back(begun, learned, optimizer)
    watch = _Watch(begun.loss if begun else math.nan)
    model = crew.wrap(transformer)
    mine = part(recipe.batch, crew.rank, crew.size)
    done = begun.step if begun else 0

    def state() -> State:
        watch.settle()
        tensors = _tensors(learned, optimizer)
        if not finite(list(tensors.values())):
            raise diverged()
        return State(step=done, plan=plan.digest, loss=watch.loss, tensors=tensors)

    def keep() -> None:
        pace.saving(lambda: checkpoints.save(folder, state()))

    while done < steps:
        drawn = draw(
            prepared, done, seed=plan.seed, batch=recipe.batch, shift=plan.shift, pixel_step=plan.pixel_step
        )
        with torch.autocast(device.type, dtype) if dtype is not torch.float32 else nullcontext():
            loss = loss_of(
                model,
                prepared,
                drawn,
                noise=generator(plan.seed, "noise", done),
                mine=mine,
                device=device,
                dtype=dtype,
                guided=bool(transformer.config.guidance_embeds),
            )
        _advance(optimizer, loss, rate=recipe.learning_rate, clip=recipe.clip)
        done += 1
        if crew.rank > 0:
            continue
        watch.note(loss)
        try:
            report(watch.text, done, steps)
        except Cancelled:
            keep()
            raise
        if done < steps and pace.due():
            keep()
    final = state()
    if crew.rank == 0 and (begun is None or begun.step < steps):
        checkpoints.save(folder, final)
    return final


def diverged() -> JobFailed:
    """What a training fails with whose numbers have got out of hand."""
    return JobFailed(
        "training_diverged",
        "The training left the range of numbers; a lower learning_rate or other pictures may help.",
    )


class _Watch:
    """Follows the loss without holding up the device: looks at a step's when the next one is under way."""

    def __init__(self, loss: float) -> None:
        self.loss = loss
        self._awaited: Callable[[], float] | None = None

    @property
    def text(self) -> str:
        """The stage as people read it."""
        return "training" if math.isnan(self.loss) else f"training, loss {self.loss:.3f}"

    def note(self, loss: torch.Tensor) -> None:
        """Takes a step's loss, and looks at the one before."""
        fetched = _fetched(loss.detach())
        self.settle()
        self._awaited = fetched

    def settle(self) -> None:
        """Looks at the last loss. Raises JobFailed where it is not a number."""
        if self._awaited is None:
            return
        value, self._awaited = self._awaited(), None
        if not math.isfinite(value):
            raise diverged()
        self.loss = value if math.isnan(self.loss) else _SMOOTH * self.loss + (1 - _SMOOTH) * value


def _fetched(value: torch.Tensor) -> Callable[[], float]:
    """Starts to bring a scalar here; the result waits for it."""
    if value.device.type != "cuda":
        known = value.item()
        return lambda: known
    here = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    here.copy_(value, non_blocking=True)
    there = torch.cuda.Event()
    there.record()

    def wait() -> float:
        there.synchronize()
        return here.item()

    return wait


def _advance(optimizer: torch.optim.Optimizer, loss: torch.Tensor, *, rate: float, clip: float) -> None:
    learned = [each for group in optimizer.param_groups for each in group["params"]]
    loss.backward()
    torch.nn.utils.clip_grad_norm_(learned, clip)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["ratio"]
    optimizer.step()
    optimizer.zero_grad()


def _tensors(
    learned: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """The LoRA and the optimizer's memory of it, on the CPU: `lora/NAME`, `exp_avg/NAME`, ..."""
    found = {f"lora/{name}": each.detach().cpu().clone() for name, each in learned.items()}
    for name, each in learned.items():
        for kind, value in optimizer.state[each].items():
            found[f"{kind}/{name}"] = value.detach().cpu().clone()
    return found


def _put_back(
    state: State, learned: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    for name, each in learned.items():
        each.data.copy_(state.tensors[f"lora/{name}"])
        optimizer.state[each] = {
            kind: state.tensors[f"{kind}/{name}"].to(each.device, copy=True)
            for kind in ("step", "exp_avg", "exp_avg_sq")
        }
