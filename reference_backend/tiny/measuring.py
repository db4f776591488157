"""How often a model's pictures show what the prompt says, counted by the reader on held-out scenes."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from diffusers import FluxPipeline

from reference_backend.tiny.distilling import DEFAULT_GUIDANCE
from reference_backend.tiny.model import Variant
from reference_backend.tiny.prompts import standard_prompt
from reference_backend.tiny.reader import ATTRIBUTES, read_picture
from reference_backend.tiny.scenes import random_scene

STEPS: dict[Variant, int] = {"dev": 28, "schnell": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: of `count` pictures, how many show each attribute as told."""

    variant: Variant
    side: int
    steps: int
    count: int
    right: dict[str, int]

    def share(self, attribute: str) -> float:
        """The share of pictures that show the attribute as told."""
        return self.right[attribute] / self.count


def measure(
    pipeline: FluxPipeline,
    variant: Variant,
    *,
    side: int,
    count: int,
    seed: int,
    steps: int | None = None,
    guidance: float = DEFAULT_GUIDANCE,
) -> Row:
    """Generate `count` held-out scenes, one by one as the backend does, and read them."""
    generator = torch.Generator().manual_seed(seed)
    right: Counter[str] = Counter()
    taken = steps or STEPS[variant]
    for number in range(count):
        scene = random_scene(generator, held_out=True)
        picture = pipeline(
            standard_prompt(scene),
            width=side,
            height=side,
            num_inference_steps=taken,
            guidance_scale=guidance,
            max_sequence_length=pipeline.tokenizer_2.model_max_length,
            generator=torch.Generator().manual_seed(seed + number),
        ).images[0]
        right.update(name for name, agrees in read_picture(picture).agrees(scene).items() if agrees)
    return Row(
        variant=variant,
        side=side,
        steps=taken,
        count=count,
        right={name: right[name] for name in ATTRIBUTES},
    )


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table of percentages."""
    lines = [
        f"| model | size | steps | pictures | {' | '.join(ATTRIBUTES)} |",
        f"|---|---|---|---|{'---|' * len(ATTRIBUTES)}",
    ]
    for row in rows:
        shares = " | ".join(f"{100 * row.share(name):.0f} %" for name in ATTRIBUTES)
        lines.append(f"| {row.variant} | {row.side} x {row.side} | {row.steps} | {row.count} | {shares} |")
    return "\n".join(lines)
