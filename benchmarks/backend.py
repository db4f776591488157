"""How fast the reference backend is, beside plain diffusers in the same run and beside the computed limit.

Random weights of FLUX.1's size on a GPU, the small model's on a CPU or with --small. The limit is the number
of floating-point operations, counted, over what a large matrix product reaches in the same run. The two take
turns, and what counts is the median of the rounds.
"""

import gc
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import plain_flux
import torch
from PIL import Image
from random_flux import large_pipeline, random_loras, small_pipeline
from torch.utils.flop_counter import FlopCounterMode

from reference_backend.dataset import Example
from reference_backend.generate import Request, generate
from reference_backend.loras import applied
from reference_backend.pipelines import Family, Flux, prepared
from reference_backend.recipes import BASE, Recipe, suited
from reference_backend.train import train

PROMPT = "a large red star on the left with a green background"
STEPS: dict[Family, int] = {"dev": 28, "schnell": 4}
MOST_LORAS = 5
TRAINING_STEPS = 6
UNSETTLED = 2
COLUMNS = ("", "ours", "plain diffusers", "times faster", "limit", "of the limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that was measured, in seconds; None where there is no such figure."""

    what: str
    ours: float
    plain: float
    limit: float | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """The row's text, column by column."""
        compared = (f"{self.ours:.4f} s", f"{self.plain:.4f} s", f"{self.plain / self.ours:.2f}")
        if self.limit is None:
            return (self.what, *compared, "", "")
        return (self.what, *compared, f"{self.limit:.4f} s", f"{self.limit / self.ours:.0%}")


class Times(list[float]):
    """Seconds of several rounds. The first does not count: in it, things are compiled and cached."""

    @property
    def settled(self) -> float:
        """The median of the others."""
        return statistics.median(self[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is measured: ours as it was asked for, on a device whose matrix products reach `peak` FLOP/s."""

    flux: Flux
    attention: str | None
    rounds: int
    peak: float

    def eager(self) -> AbstractContextManager[None]:
        """The transformer as plain diffusers has it."""
        return plain_flux.eager(self.flux.pipe.transformer, self.attention)

    def seconds(self, do: Callable[[], object]) -> float:
        """How long it takes until the device has done it."""
        self.wait()
        began = time.perf_counter()
        do()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        """Returns when the device has nothing left to do."""
        if self.flux.device.type == "cuda":
            torch.cuda.synchronize(self.flux.device)


@click.command()
@click.option("--small", is_flag=True, help="The small model's architecture; the default without a GPU.")
@click.option("--rounds", default=2, show_default=True, help="How often everything is measured.")
@click.option("--side", default=1024, show_default=True, help="Width and height of the pictures, in pixels.")
@click.option("--compile/--no-compile", "compiled", default=None, help="Ours compiled; the default on CUDA.")
@click.option("--attention", help="One of diffusers' attention backends, for ours.")
@click.option("--json", "to", type=click.Path(path_type=Path), help="Write the figures there too.")
def main(
    *, small: bool, rounds: int, side: int, compiled: bool | None, attention: str | None, to: Path | None
) -> None:
    """Measures the backend; prints a table, and the figures as JSON."""
    plain_flux.be_quiet()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    small = small or device.type == "cpu"
    compiled = device.type == "cuda" if compiled is None else compiled
    peak = matmul_rate(device, torch.float32 if small else torch.bfloat16)
    rows: list[Row] = []
    for family in STEPS:
        pipe = small_pipeline(family) if small else large_pipeline(family, device)
        flux = prepared(pipe, device=device, compile=compiled, attention=attention)
        bench = Bench(flux=flux, attention=attention, rounds=rounds, peak=peak)
        rows += pictures(bench, side)
        if family == "dev":
            rows += [training(bench, resolution) for resolution in (512, 1024)]
        del pipe, flux, bench
        gc.collect()
        torch.cuda.empty_cache()
    told = {
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "model": "small" if small else "FLUX.1-sized",
        "compiled": compiled,
        "attention": attention,
        "rounds": rounds,
        "matrix_product_tflops": peak / 1e12,
    }
    print_table(rows)
    figures = json.dumps({**told, "rows": [asdict(row) for row in rows]}, indent=2)
    click.echo(figures)
    if to is not None:
        to.write_text(figures + "\n", encoding="utf-8")


def pictures(bench: Bench, side: int) -> list[Row]:
    """Seconds per picture without LoRAs, with one and with five, and to put them in and out."""
    family = bench.flux.family
    request = Request(prompt=PROMPT, width=side, height=side, steps=STEPS[family], guidance=3.5, seed=0)
    limit = operations(bench, request) / bench.peak
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = random_loras(bench.flux.pipe.transformer, MOST_LORAS, Path(folder))
        for count in (0, 1, MOST_LORAS):
            rows += with_loras(bench, request, files[:count], limit)
    return rows


def with_loras(bench: Bench, request: Request, loras: Sequence[Path], limit: float) -> list[Row]:
    """The rows of one number of LoRAs."""
    flux = bench.flux
    ours, plain, our_swaps, plain_swaps = Times(), Times(), Times(), Times()
    for _ in range(bench.rounds + 1):
        with bench.eager(), swapped(bench, plain_flux.adapters(flux, loras), plain_swaps):
            plain.append(
                bench.seconds(
                    lambda: plain_flux.picture(flux, PROMPT, steps=request.steps, side=request.width)
                )
            )
        with swapped(bench, applied(flux, [(path, 1.0) for path in loras]), our_swaps):
            ours.append(bench.seconds(lambda: generate(flux, request, lambda *_: None)))
    name = f"{flux.family}, {len(loras)} LoRAs"
    size = f"{request.steps} steps, {request.width}x{request.height}"
    rows = [Row(what=f"{name}, {size}", ours=ours.settled, plain=plain.settled, limit=limit)]
    if loras:
        rows.append(Row(what=f"{name}, put in and out", ours=our_swaps.settled, plain=plain_swaps.settled))
    return rows


@contextmanager
def swapped(bench: Bench, around: AbstractContextManager[object], into: Times) -> Iterator[None]:
    """Notes how long it takes to enter and to leave."""
    entering = bench.seconds(around.__enter__)
    try:
        yield
    finally:
        into.append(entering + bench.seconds(lambda: around.__exit__(None, None, None)))


def training(bench: Bench, resolution: int) -> Row:
    """Seconds per step at one resolution, with the batch that the base recipe has for the model."""
    flux = bench.flux
    recipe = replace(BASE, resolutions=(resolution,), steps=TRAINING_STEPS)
    batch = suited(recipe, pixel_step=flux.pipe.vae_scale_factor * 2).batch
    picture = Image.linear_gradient("L").resize((resolution, resolution)).convert("RGB")
    ours, plain = Times(), Times()
    for _ in range(bench.rounds + 1):
        ours.append(train_ours(bench, picture, recipe))
        with bench.eager():
            times = plain_flux.training_steps(flux, picture, PROMPT, batch=batch, steps=TRAINING_STEPS)
        plain.append(statistics.mean(times[UNSETTLED:]))
    with bench.eager():
        one = counted(lambda: train_ours(bench, picture, replace(recipe, steps=UNSETTLED + 1)))
        more = counted(lambda: train_ours(bench, picture, replace(recipe, steps=UNSETTLED + 2)))
    return Row(
        what=f"training step, {resolution}x{resolution}, batch {batch}",
        ours=ours.settled,
        plain=plain.settled,
        limit=(more - one) / bench.peak,
    )


def train_ours(bench: Bench, picture: Image.Image, recipe: Recipe) -> float:
    """Seconds per step of the backend's own training, without the first few."""
    at: list[float] = []

    def report(stage: str, _done: int, _of: int) -> None:
        if stage.startswith("training"):
            bench.wait()
            at.append(time.perf_counter())

    example = Example(name="x.png", picture=picture, caption=PROMPT, mask=None, digest=str(picture.size))
    with tempfile.TemporaryDirectory() as folder:
        train(
            bench.flux.pipe,
            [example],
            recipe,
            seed=0,
            checkpoints=Path(folder) / "checkpoints",
            to=Path(folder) / "lora.safetensors",
            base="random",
            report=report,
        )
    return (at[-1] - at[UNSETTLED - 1]) / (len(at) - UNSETTLED)


def operations(bench: Bench, request: Request) -> float:
    """The floating-point operations of a picture: all of its steps are alike."""
    flux = bench.flux
    with bench.eager():
        one = counted(lambda: generate(flux, replace(request, steps=1), lambda *_: None))
        two = counted(lambda: generate(flux, replace(request, steps=2), lambda *_: None))
    return one + (request.steps - 1) * (two - one)


def counted(do: Callable[[], object]) -> float:
    """The floating-point operations of matrix products, convolutions and attention in what is done."""
    with FlopCounterMode(display=False) as counter:
        do()
    return float(counter.get_total_flops())


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The best of several products of large square matrices, in floating-point operations per second."""
    side = 8192 if device.type == "cuda" else 1024
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = math.inf
    for _ in range(60):
        began = time.perf_counter()
        _ = one @ other
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def print_table(rows: Sequence[Row]) -> None:
    """The rows under the columns' names, as Markdown."""
    lines = [COLUMNS, tuple("-" * 3 for _ in COLUMNS), *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    for line in lines:
        click.echo(
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        )


if __name__ == "__main__":
    main()
