"""The offline model: its files, what it draws, and the program that trains it."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torch import Generator, Tensor, nn

from reference_backend.tiny import __file__ as package_file
from reference_backend.tiny.autoencoder import block_means
from reference_backend.tiny.denoising import Canvas, pack, position_ids
from reference_backend.tiny.distilling import DEFAULT_GUIDANCE, without_guidance
from reference_backend.tiny.lean import lean_forward
from reference_backend.tiny.measuring import measure
from reference_backend.tiny.model import VARIANTS
from reference_backend.tiny.pictures import random_pictures
from reference_backend.tiny.prompts import random_prompt
from reference_backend.tiny.reader import read_picture
from reference_backend.tiny.scenes import Scene, draw, is_held_out, random_scene
from reference_backend.tiny.stages import Budget, Stage, run_stage

FOLDER = Path(package_file).parent


@pytest.fixture(scope="module", autouse=True)
def one_quiet_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)


def load(variant: str) -> FluxPipeline:
    pipeline = FluxPipeline.from_pretrained(FOLDER / variant)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def dev() -> FluxPipeline:
    return load("dev")


@pytest.fixture(scope="module")
def schnell() -> FluxPipeline:
    return load("schnell")


def picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray(((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def small(pipeline: FluxPipeline, prompt: str, guidance: float = 3.5) -> Tensor:
    made = pipeline(
        prompt,
        width=256,
        height=256,
        num_inference_steps=2,
        guidance_scale=guidance,
        max_sequence_length=pipeline.tokenizer_2.model_max_length,
        generator=Generator().manual_seed(3),
        output_type="pt",
    ).images[0]
    assert isinstance(made, Tensor)
    return made


def test_both_variants_together_are_small_and_hold_no_pickle() -> None:
    files = [path for variant in VARIANTS for path in (FOLDER / variant).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10.5e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt"}


@pytest.mark.parametrize(("width", "height"), [(512, 512), (768, 512), (512, 1024)])
def test_the_reader_reads_drawings_without_an_error(width: int, height: int) -> None:
    generator = Generator().manual_seed(1)
    scenes = [random_scene(generator) for _ in range(12)]
    drawn = draw(scenes, generator, width=width, height=height)
    readings = [
        read_picture(picture(pixels)).agrees(scene) for pixels, scene in zip(drawn, scenes, strict=True)
    ]
    assert all(all(reading.values()) for reading in readings)


def test_the_reader_reads_drawings_that_went_through_the_autoencoder(dev: FluxPipeline) -> None:
    generator = Generator().manual_seed(2)
    scenes = [random_scene(generator) for _ in range(6)]
    drawn = draw(scenes, generator, width=512, height=512)
    with torch.no_grad():
        decoded = dev.vae.decode(dev.vae.encode(drawn).latent_dist.mode()).sample.clamp(-1, 1)
    for pixels, scene in zip(decoded, scenes, strict=True):
        assert all(read_picture(picture(pixels)).agrees(scene).values())


def test_a_picture_without_a_shape_is_read_as_its_ground() -> None:
    reading = read_picture(Image.new("RGB", (640, 512), (250, 214, 40)))
    assert (reading.background, reading.colour, reading.shape) == ("yellow", None, None)


def test_training_and_held_out_scenes_never_meet() -> None:
    generator = Generator().manual_seed(4)
    assert not any(is_held_out(random_scene(generator)) for _ in range(200))
    assert all(is_held_out(random_scene(generator, held_out=True)) for _ in range(200))


def test_a_prompt_says_what_its_labels_say() -> None:
    generator = Generator().manual_seed(5)
    scene = Scene(background="blue", colour="pink", shape="star", place="top", size="large")
    for _ in range(100):
        prompt = random_prompt(scene, generator)
        assert ("star" in prompt.text.lower()) == (prompt.labels[2] == 3)


def test_the_encoder_sees_block_means_only(dev: FluxPipeline) -> None:
    pictures = random_pictures(4, 128, Generator().manual_seed(6))
    blocks = nn.functional.interpolate(block_means(pictures), scale_factor=8.0)
    with torch.no_grad():
        fine, coarse = (dev.vae.encode(part).latent_dist.mode() for part in (pictures, blocks))
    assert torch.allclose(fine, coarse, atol=0.02)
    assert fine.std() > 0.2


@pytest.mark.parametrize("variant", VARIANTS)
def test_pictures_of_scenes_never_trained_show_what_the_prompt_says(
    variant: str, request: pytest.FixtureRequest
) -> None:
    pipeline = request.getfixturevalue(variant)
    row = measure(pipeline, "dev" if variant == "dev" else "schnell", side=512, count=12, seed=7, steps=4)
    assert min(row.share(name) for name in ("background", "colour", "place")) >= 0.9
    assert min(row.share(name) for name in ("shape", "size")) >= 0.6


def test_guidance_zero_ignores_the_prompt_and_the_default_follows_it(dev: FluxPipeline) -> None:
    blind, told = (
        measure(dev, "dev", side=512, count=8, seed=10, steps=4, guidance=guidance) for guidance in (0.0, 3.5)
    )
    assert max(blind.right["background"], blind.right["place"]) <= 4
    assert min(told.right["background"], told.right["place"]) == 8


def test_schnell_ignores_guidance(schnell: FluxPipeline) -> None:
    assert torch.equal(small(schnell, "a red star", 0.0), small(schnell, "a red star", 10.0))


@pytest.mark.parametrize(
    "prompt", ["", "naïve ☃ \n\t", "p3r5on " * 1500, "The quick brown fox jumps over the dog."]
)
def test_any_prompt_makes_a_picture(schnell: FluxPipeline, prompt: str) -> None:
    assert small(schnell, prompt).isfinite().all()


def test_an_invented_word_is_not_lost(dev: FluxPipeline) -> None:
    for tokenizer in (dev.tokenizer, dev.tokenizer_2):
        assert tokenizer("p3r5on")["input_ids"] != tokenizer("p4r5on")["input_ids"]
        assert tokenizer.unk_token_id not in tokenizer("p3r5on")["input_ids"][1:-1]


def denoiser_arguments() -> dict[str, Tensor]:
    generator = Generator().manual_seed(8)
    ids = torch.zeros(16, 3)
    ids[:, 1:] = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    return {
        "hidden_states": torch.randn(2, 16, 64, generator=generator),
        "encoder_hidden_states": torch.randn(2, 28, 64, generator=generator),
        "pooled_projections": torch.randn(2, 64, generator=generator),
        "timestep": torch.tensor([0.95, 0.3]),
        "img_ids": ids,
        "txt_ids": torch.zeros(28, 3),
    }


def test_the_lean_forward_pass_is_the_models_own(dev: FluxPipeline) -> None:
    transformer = copy.deepcopy(dev.transformer)
    arguments = denoiser_arguments() | {"guidance": torch.tensor([0.0, 7.0])}
    own = transformer(**arguments).sample
    own_gradient = torch.autograd.grad(own.square().sum(), transformer.x_embedder.weight)[0]
    lean = lean_forward(transformer)(**arguments)[0]
    lean_gradient = torch.autograd.grad(lean.square().sum(), transformer.x_embedder.weight)[0]
    assert (own - lean).norm() < 0.02 * own.norm()
    assert (own_gradient - lean_gradient).norm() < 0.04 * own_gradient.norm()


def test_training_packs_latents_as_the_pipeline_does() -> None:
    latents = torch.randn(2, 16, 4, 6, generator=Generator().manual_seed(11))
    assert torch.equal(pack(latents), FluxPipeline._pack_latents(latents, 2, 16, 4, 6))
    ids = FluxPipeline._prepare_latent_image_ids(2, 2, 3, torch.device("cpu"), torch.float32)
    assert torch.equal(position_ids(Canvas(columns=3, rows=2, share=1.0)), ids)


def test_a_model_without_guidance_starts_as_the_guided_one(dev: FluxPipeline) -> None:
    arguments = denoiser_arguments()
    with torch.no_grad():
        guided = dev.transformer(**arguments, guidance=torch.full((2,), DEFAULT_GUIDANCE)).sample
        plain = without_guidance(dev.transformer)(**arguments).sample
    assert torch.allclose(guided, plain, atol=1e-4)


def line_stage(module: nn.Linear) -> Stage:
    def loss(generator: Generator) -> Tensor:
        x = torch.rand(8, 1, generator=generator)
        made = module(x)
        assert isinstance(made, Tensor)
        return (made - 3 * x).square().mean()

    return Stage(name="line", module=module, loss=loss, learning_rate=0.1)


def test_a_stage_stopped_half_way_ends_as_if_never_stopped(tmp_path: Path) -> None:
    torch.manual_seed(9)
    start = nn.Linear(1, 1).state_dict()
    ends = []
    for name, lengths in (("whole", [6]), ("halves", [3, 6])):
        for steps in lengths:
            module = nn.Linear(1, 1)
            module.load_state_dict(start)
            # Constant rates: the decay depends on the length, which a resumed stage does not change.
            run_stage(line_stage(module), LongBudget(steps=steps), seed=1, folder=tmp_path / name)
        ends.append(module.weight.detach())
    assert torch.equal(*ends)


class LongBudget(Budget):
    """Of so many steps, but early in a long stage."""

    def progress(self, step: int, spent_s: float) -> float:
        """Over at the last step, and nearly nothing before it."""
        del spent_s
        return 1.0 if step >= self.steps else 0.0


def test_the_training_program_runs_from_nothing_to_two_folders(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "reference_backend.tiny", "--out", str(tmp_path), "--device", "cpu"]
    done = subprocess.run(
        [*command, "--steps", "2", "--batch", "2", "--measure", "0"],
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "base: step 1, 100%" in done.stdout
    assert small(FluxPipeline.from_pretrained(tmp_path / "schnell"), "a red star").isfinite().all()
