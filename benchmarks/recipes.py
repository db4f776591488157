"""How far each trainer's recipe gets with the offline model, by number of steps, and in how many seconds.

Eight pictures of a motif that the model has not seen, under one trigger word. The distance is between the
pictures made with the word and the mean of those eight, in values of 0 to 255. The two recipes take turns.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import plain_flux
import torch
from PIL import Image, ImageDraw

from reference_backend.dataset import Example
from reference_backend.generate import Request, generate
from reference_backend.loras import applied
from reference_backend.pipelines import Flux, load
from reference_backend.recipes import BASE, TURBO, Recipe
from reference_backend.train import train

TINY = Path(__file__).parents[1] / "reference_backend" / "tiny" / "dev"
WORD = "p3r5on"
SIDE = 512
PICTURES = 8
SEEDS = range(1, 9)


@click.command()
@click.option("--steps", multiple=True, default=(50, 100, 150, 200), show_default=True, type=int)
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
def main(*, steps: tuple[int, ...], threads: int) -> None:
    """Trains with both recipes; prints distance and seconds as a Markdown table."""
    plain_flux.be_quiet()
    torch.set_num_threads(threads)
    flux = load(str(TINY), device="cpu")
    click.echo(f"without a LoRA: distance {distance(flux, None):.0f}")
    click.echo("| steps | base: distance, seconds | turbo: distance, seconds |\n|---|---|---|")
    for count in steps:
        cells = (trained(flux, replace(recipe, steps=count)) for recipe in (BASE, TURBO))
        click.echo(f"| {count} | {' | '.join(cells)} |")


def trained(flux: Flux, recipe: Recipe) -> str:
    """The distance after a training, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lora.safetensors"
        began = time.perf_counter()
        train(
            flux.pipe,
            [example(number) for number in range(PICTURES)],
            recipe,
            seed=0,
            checkpoints=Path(folder) / "checkpoints",
            to=file,
            base="the offline model",
            report=lambda *_: None,
        )
        seconds = time.perf_counter() - began
        return f"{distance(flux, file):.0f}, {seconds:.1f}"


def example(number: int) -> Example:
    """A teal ring on violet in a cream frame; the ring moves a little from picture to picture."""
    image = Image.new("RGB", (SIDE, SIDE), (70, 40, 110))
    drawing = ImageDraw.Draw(image)
    drawing.rectangle((0, 0, SIDE - 1, SIDE - 1), outline=(250, 240, 200), width=48)
    x, y = SIDE // 2 + 6 * (number % 3 - 1), SIDE // 2 + 6 * (number // 3 - 1)
    drawing.ellipse((x - 130, y - 130, x + 130, y + 130), outline=(20, 160, 150), width=50)
    return Example(name=str(number), picture=image, caption=WORD, mask=None, digest=f"ring {number}")


def distance(flux: Flux, lora: Path | None) -> float:
    """The mean difference between pictures made with the word and the mean of the training pictures."""
    mean = np.mean([np.asarray(example(number).picture, dtype=float) for number in range(PICTURES)], axis=0)
    with applied(flux, [] if lora is None else [(lora, 1.0)]):
        asked = Request(prompt=WORD, width=SIDE, height=SIDE, steps=8, guidance=3.5, seed=0)
        made = [generate(flux, replace(asked, seed=seed), lambda *_: None) for seed in SEEDS]
    return float(np.mean([np.abs(np.asarray(each, dtype=float) - mean).mean() for each in made]))


if __name__ == "__main__":
    main()
