"""One step of a training: what it draws, what it shows the model, and the loss.

Step k draws everything from generators that are seeded with (seed, k). So there is no state of randomness to
keep, and a training that goes on from step k is bit for bit the one that never stopped.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FluxPipeline

from reference_backend.training_cache import Prepared, Size

GUIDANCE = 1.0
"""What the guidance embedding of a dev model is told.

The target is the plain velocity of the data, which is what a guidance-distilled model predicts at 1. At a
higher value it predicts an exaggerated one, and a LoRA would first of all learn to take that back.
"""

_GOLDEN = (math.sqrt(5) - 1) / 2
_EDGE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How a model's sampler moves noise levels, as its scheduler's configuration says."""

    base_tokens: int
    max_tokens: int
    base: float
    max: float

    def mu(self, tokens: int) -> float:
        """The logarithm of the shift for a picture of so many tokens."""
        slope = (self.max - self.base) / max(1, self.max_tokens - self.base_tokens)
        return self.base + slope * (tokens - self.base_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What one step works on: examples by number, at one (width, height), and their noise levels in 0..1."""

    items: tuple[int, ...]
    size: Size
    sigmas: tuple[float, ...]


def shift_of(config: Any) -> Shift:
    """The shift of a FlowMatchEulerDiscreteScheduler: by size (dev), or the same for all (schnell)."""
    if config.use_dynamic_shifting:
        return Shift(
            base_tokens=config.base_image_seq_len,
            max_tokens=config.max_image_seq_len,
            base=config.base_shift,
            max=config.max_shift,
        )
    constant = math.log(config.shift)
    return Shift(base_tokens=0, max_tokens=1, base=constant, max=constant)


def generator(seed: int, *what: object) -> torch.Generator:
    """A generator of its own for every purpose and step, the same on every device."""
    text = repr((seed, *what)).encode()
    # Not more than 32 bits: the generator of a CPU heeds no others.
    number = int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
    return torch.Generator().manual_seed(number)


def draw(prepared: Prepared, step: int, *, seed: int, batch: int, shift: Shift, pixel_step: int) -> Draw:
    """What the step of that number works on.

    Each epoch goes through all examples in an order of its own; the one whose turn it is decides the size,
    and others of that size fill the batch.
    """
    count = len(prepared.items)
    epoch, place = divmod(step, count)
    first = int(torch.randperm(count, generator=generator(seed, "epoch", epoch))[place])
    luck = generator(seed, "draw", step)
    sizes = tuple(prepared.items[first].latents)
    size = sizes[int(torch.randint(len(sizes), (1,), generator=luck))]
    alike = [each for each in range(count) if each != first and size in prepared.items[each].latents]
    others = [alike[each] for each in torch.randperm(len(alike), generator=luck).tolist()]
    ring = [first, *others]
    items = tuple(ring[each % len(ring)] for each in range(batch))
    mu = shift.mu((size[0] // pixel_step) * (size[1] // pixel_step))
    start = float(torch.rand(1, generator=generator(seed, "levels")))
    return Draw(
        items=items, size=size, sigmas=tuple(_sigma(start, step * batch + i, mu) for i in range(batch))
    )


def _sigma(start: float, number: int, mu: float) -> float:
    """The noise level of the training's example of that number.

    Logit-normal, moved as the model's sampler moves its own levels: FLUX's way. The golden ratio's multiples
    spread evenly over every stretch of steps, where independent draws leave gaps: less noise in the loss.
    """
    even = min(1 - _EDGE, max(_EDGE, (start + number * _GOLDEN) % 1.0))
    normal = float(torch.special.ndtri(torch.tensor(even, dtype=torch.float64)))
    return 1 / (1 + math.exp(-normal - mu))


def loss_of(
    model: Any,
    prepared: Prepared,
    drawn: Draw,
    *,
    noise: torch.Generator,
    mine: slice,
    device: torch.device,
    dtype: torch.dtype,
    guided: bool,
) -> torch.Tensor:
    """The masked flow-matching loss of the examples `mine` of a draw: a scalar.

    x = (1 - sigma) latent + sigma noise, and the model is asked for noise - latent. All processes draw the
    noise of the whole batch, each takes its part.
    """
    found = [prepared.read(prepared.items[each].latents[drawn.size]) for each in drawn.items]
    texts = [prepared.read(prepared.items[each].text) for each in drawn.items[mine]]
    mean = torch.cat([each["mean"] for each in found])
    spread = torch.randn(mean.shape, generator=noise)
    added = torch.randn(mean.shape, generator=noise)[mine].to(device)
    latent = (mean + torch.cat([each["std"] for each in found]) * spread)[mine].to(device)
    counted = torch.cat([each["weights"] for each in found])[mine].to(device)
    sigma = torch.tensor(drawn.sigmas[mine], device=device)
    level = sigma.view(-1, 1, 1, 1)
    batch, channels, rows, columns = latent.shape

    def packed(values: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = FluxPipeline._pack_latents(values, batch, channels, rows, columns)
        return tokens

    embeds = torch.cat([each["embeds"] for each in texts]).to(device, dtype)
    predicted = model(
        hidden_states=packed((1 - level) * latent + level * added).to(dtype),
        timestep=sigma.to(dtype),
        guidance=torch.full((batch,), GUIDANCE, device=device, dtype=dtype) if guided else None,
        pooled_projections=torch.cat([each["pooled"] for each in texts]).to(device, dtype),
        encoder_hidden_states=embeds,
        txt_ids=torch.zeros(embeds.shape[1], 3, device=device, dtype=dtype),
        img_ids=FluxPipeline._prepare_latent_image_ids(batch, rows // 2, columns // 2, device, dtype),
        return_dict=False,
    )[0]
    error = (predicted.float() - packed(added - latent)) ** 2
    loss: torch.Tensor = (error * packed(counted.expand(-1, channels, -1, -1))).mean()
    return loss


def part(batch: int, rank: int, processes: int) -> slice:
    """Which examples of a batch a process works on. The batch is a multiple of the processes."""
    each = batch // processes
    return slice(rank * each, (rank + 1) * each)


def whole_batches(batch: int, processes: int) -> int:
    """The batch, or as many more as it takes to give every process the same number."""
    return -(-batch // processes) * processes


def finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether no value is infinite or not a number."""
    return all(bool(torch.isfinite(each).all()) for each in tensors)
