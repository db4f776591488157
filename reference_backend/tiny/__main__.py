"""`python -m reference_backend.tiny`: train the offline model."""

from pathlib import Path

import click
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from reference_backend.tiny.measuring import table
from reference_backend.tiny.training import Plan, measure_exported, train


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder to write; may hold a checkpoint."
)
@click.option("--steps", default=24_000, show_default=True, help="Steps of all stages together.")
@click.option("--minutes", type=float, help="Minutes of all stages together, in place of steps.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--seed", default=0, show_default=True)
@click.option("--batch", default=32, show_default=True, help="Pictures of 512 x 512 in a step.")
@click.option(
    "--threads", default=1, show_default=True, help="CPU threads; more than cores that are free is slow."
)
@click.option(
    "--measure", default=60, show_default=True, help="Pictures of 512 x 512 to measure with; 0: none."
)
def main(  # noqa: PLR0917 - click passes them by name
    out: Path,
    steps: int,
    minutes: float | None,
    device: str,
    seed: int,
    batch: int,
    threads: int,
    measure: int,
) -> None:
    """Train the offline model's two variants from nothing and print how well they follow prompts."""
    torch.set_num_threads(threads)
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    train(Plan(out=out, seed=seed, batch=batch, steps=steps, minutes=minutes, device=device))
    if measure:
        counts = [(512, measure), (1024, max(1, measure // 3)), (1536, max(1, measure // 6))]
        click.echo(table(measure_exported(out, counts, seed=seed)))


if __name__ == "__main__":
    main()
