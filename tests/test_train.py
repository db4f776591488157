"""Training a LoRA of the offline model: what it leaves, what it survives, and what it does."""

import json
import multiprocessing
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from PIL import Image, ImageDraw
from reference import TINY, distance, picture, same, weights
from safetensors import safe_open
from safetensors.torch import load_file

from reference_backend import training_cache
from reference_backend.checkpoints import Pace
from reference_backend.dataset import Example
from reference_backend.job import Cancelled, JobFailed, Report
from reference_backend.loras import applied
from reference_backend.pipelines import Flux, load
from reference_backend.recipes import BASE, TURBO, Recipe
from reference_backend.train import Trained, train
from reference_backend.training_lora import attached
from reference_backend.training_steps import loss_of

pytest_plugins = ("reference",)

FEW = replace(BASE, steps=3)


def example(colour: str, size: tuple[int, int] = (256, 256), caption: str = "p3r5on") -> Example:
    return Example(
        name=colour,
        picture=Image.new("RGB", size, colour),
        caption=caption,
        mask=None,
        digest=f"{colour}{size}",
    )


EXAMPLES = (
    example("red"),
    example("blue", (300, 200)),
    example("lime", caption="a lime \ud800"),
    example("white"),
)


def always() -> Pace:
    """A checkpoint after every step."""
    return Pace(seconds=0, share=float("inf"))


def silent(_stage: str, _done: int, _of: int) -> None:
    return


def trained(flux: Flux, folder: Path, recipe: Recipe = FEW, report: Report = silent, **more: Any) -> Trained:
    """Trains into `out.safetensors` of the folder, with a checkpoint after every step."""
    given: dict[str, Any] = {"seed": 1, "base": "tiny", "trigger_word": "p3r5on", "pace": always()}
    return train(
        flux.pipe,
        more.pop("examples", EXAMPLES),
        recipe,
        checkpoints=folder / "checkpoints",
        to=folder / "out.safetensors",
        report=report,
        **{**given, **more},
    )


@pytest.fixture(scope="module")
def first(tiny_dev: Flux, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an uninterrupted training of three steps."""
    folder = tmp_path_factory.mktemp("first")
    trained(tiny_dev, folder)
    return folder


def velocity(pipe: Any) -> torch.Tensor:
    """What the transformer says to fixed noise and the trigger word."""
    with torch.no_grad():
        words, pooled, places = pipe.encode_prompt("p3r5on", None, max_sequence_length=16)
        answer: torch.Tensor = pipe.transformer(
            hidden_states=torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(3)),
            timestep=torch.tensor([0.7]),
            guidance=torch.tensor([3.5]),
            pooled_projections=pooled,
            encoder_hidden_states=words,
            txt_ids=places,
            img_ids=FluxPipeline._prepare_latent_image_ids(1, 2, 2, "cpu", torch.float32),
            return_dict=False,
        )[0]
    return answer


@pytest.fixture(scope="module")
def plain(one_thread: None) -> Any:
    """The model as diffusers alone loads it."""
    return FluxPipeline.from_pretrained(TINY / "dev", dtype=torch.float32)


@pytest.fixture
def loaded(plain: Any, first: Path) -> Iterator[Any]:
    """That model with the trained LoRA, loaded as diffusers does it."""
    plain.load_lora_weights(first / "out.safetensors", adapter_name="trained")
    yield plain
    plain.unload_lora_weights()


def test_the_file_is_a_lora_to_plain_diffusers(plain: Any, loaded: Any, first: Path) -> None:
    changed = velocity(loaded)
    [config] = loaded.transformer.peft_config.values()
    assert (config.r, config.lora_alpha) == (16, 16)
    keys = load_file(first / "out.safetensors").keys()
    adapted = {name for name, _ in loaded.transformer.named_modules() if name.endswith("lora_A.trained")}
    assert len(adapted) == len(keys) / 2
    loaded.set_adapters(["trained"], [0.0])
    without = velocity(loaded)
    assert not torch.equal(changed, without)
    loaded.unload_lora_weights()
    assert torch.equal(velocity(loaded), without)


def test_the_file_is_16_bit_and_tells_what_it_is(first: Path) -> None:
    with safe_open(first / "out.safetensors", "pt") as file:
        about = file.metadata()
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.float16"}  # noqa: SIM118
    adapter = json.loads(about.pop("lora_adapter_metadata"))
    assert (adapter["transformer.r"], adapter["transformer.lora_alpha"]) == (16, 16)
    assert about == {
        "format": "pt",
        "base_model": "tiny",
        "trigger_word": "p3r5on",
        "rank": "16",
        "alpha": "16",
        "steps": "3",
        "learning_rate": "0.0004",
        "recipe": "base",
        "resolutions": "512",
        "batch": "8",
        "examples": "4",
        "seed": "1",
    }


def test_the_same_training_makes_the_same_bytes(tiny_dev: Flux, first: Path, tmp_path: Path) -> None:
    trained(tiny_dev, tmp_path)
    assert (tmp_path / "out.safetensors").read_bytes() == (first / "out.safetensors").read_bytes()


def test_another_seed_makes_another_lora(tiny_dev: Flux, first: Path, tmp_path: Path) -> None:
    trained(tiny_dev, tmp_path, seed=1 + (1 << 40))
    assert not same(load_file(tmp_path / "out.safetensors"), load_file(first / "out.safetensors"))


def test_the_model_is_left_as_it_was(tiny_dev: Flux, tmp_path: Path) -> None:
    transformer: Any = tiny_dev.pipe.transformer
    before, modules = weights(tiny_dev), dict(transformer.named_modules())
    trained(tiny_dev, tmp_path)
    with pytest.raises(JobFailed):
        trained(tiny_dev, tmp_path, replace(FEW, learning_rate=1e30))
    assert same(before, weights(tiny_dev))
    after = dict(transformer.named_modules())
    assert list(after) == list(modules)
    assert all(after[name] is modules[name] for name in modules)
    assert not any(each.requires_grad for each in transformer.parameters())


def test_a_lora_begins_at_nothing_in_fp32(tiny_dev: Flux) -> None:
    with attached(tiny_dev.pipe.transformer, replace(BASE, rank=8), seed=1) as learned:
        assert {each.dtype for each in learned.values()} == {torch.float32}
        assert all(not each.any() for name, each in learned.items() if ".lora_B." in name)
        first = [each.detach().flatten() for name, each in learned.items() if ".lora_A." in name]
    assert float(torch.cat(first).std()) == pytest.approx(1 / 8, rel=0.02)


@pytest.mark.parametrize(("recipe", "longest"), [(BASE, 4e-4), (TURBO, 16e-4)])
def test_the_second_matrices_learn_at_the_rate_times_the_recipes_ratio(
    tiny_dev: Flux, tmp_path: Path, recipe: Recipe, longest: float
) -> None:
    """Adam's first step is as long as the rate, whatever the gradient."""
    trained(tiny_dev, tmp_path, replace(recipe, steps=1))
    tensors = load_file(tmp_path / "out.safetensors")
    steps = torch.cat([each.flatten().float() for name, each in tensors.items() if ".lora_B." in name])
    assert float(steps.abs().max()) == pytest.approx(longest, rel=1e-3)


@pytest.mark.parametrize("rank", [1, 64])
def test_the_rank_is_the_requests(tiny_dev: Flux, tmp_path: Path, rank: int) -> None:
    trained(tiny_dev, tmp_path, replace(FEW, steps=1, rank=rank))
    tensors = load_file(tmp_path / "out.safetensors")
    assert {each.shape[0] for name, each in tensors.items() if ".lora_A." in name} == {rank}


def test_at_a_learning_rate_of_0_nothing_is_learned(tiny_dev: Flux, tmp_path: Path) -> None:
    trained(tiny_dev, tmp_path, replace(FEW, learning_rate=0.0))
    tensors = load_file(tmp_path / "out.safetensors")
    assert all(not each.any() for name, each in tensors.items() if ".lora_B." in name)


def test_at_the_highest_learning_rate_it_ends_in_a_file_or_a_failure(tiny_dev: Flux, tmp_path: Path) -> None:
    try:
        trained(tiny_dev, tmp_path, replace(FEW, learning_rate=1.0))
        tensors = load_file(tmp_path / "out.safetensors")
    except JobFailed as failure:
        tensors = {}
        code = failure.code
    else:
        code = ""
    assert code in ("", "training_diverged")
    assert all(torch.isfinite(each).all() for each in tensors.values())


def test_a_training_that_diverges_fails_and_publishes_nothing(tiny_dev: Flux, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="training_diverged"):
        trained(tiny_dev, tmp_path, replace(FEW, learning_rate=1e30))
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoints"]


def test_a_lora_too_large_for_its_file_is_a_divergence(tiny_dev: Flux, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="training_diverged"):
        trained(tiny_dev, tmp_path, replace(FEW, steps=1, learning_rate=1e6))


def test_nothing_to_train_on_is_said(tiny_dev: Flux, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="no_pictures"):
        trained(tiny_dev, tmp_path, examples=())


def test_lack_of_memory_is_said_and_the_model_stays_sound(
    tiny_dev: Flux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        torch.empty(2**60)

    before = weights(tiny_dev)
    monkeypatch.setattr("reference_backend.training_loop.loss_of", full)
    with pytest.raises(JobFailed, match="out_of_memory"):
        trained(tiny_dev, tmp_path)
    assert same(before, weights(tiny_dev))


def test_progress_tells_steps_and_loss(tiny_dev: Flux, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    outcome = trained(tiny_dev, tmp_path, report=lambda *each: told.append(each))
    stages = [stage for stage, _, _ in told]
    assert stages[:4] == ["preparing the pictures"] * 4
    assert stages[4:] == ["training", "training, loss " + stages[5][-5:], "training, loss " + stages[6][-5:]]
    assert [(done, of) for _, done, of in told[4:]] == [(1, 3), (2, 3), (3, 3)]
    assert 0.01 < outcome.loss < 10


def stopping(at: int) -> Report:
    def report(stage: str, done: int, _of: int) -> None:
        if stage.startswith("training") and done == at:
            raise Cancelled

    return report


def test_a_stopped_training_keeps_its_step_and_goes_on_to_the_same_bytes(
    tiny_dev: Flux, first: Path, tmp_path: Path
) -> None:
    with pytest.raises(Cancelled):
        trained(tiny_dev, tmp_path, report=stopping(2), pace=Pace())
    assert not (tmp_path / "out.safetensors").exists()
    assert (tmp_path / "checkpoints" / "step-00000002").is_dir()
    steps: list[int] = []
    trained(
        tiny_dev, tmp_path, report=lambda stage, done, _: steps.append(done) if "train" in stage else None
    )
    assert steps == [3]
    assert (tmp_path / "out.safetensors").read_bytes() == (first / "out.safetensors").read_bytes()


def test_a_training_with_other_pictures_does_not_go_on_from_there(tiny_dev: Flux, tmp_path: Path) -> None:
    trained(tiny_dev, tmp_path)
    steps: list[int] = []
    others = (*EXAMPLES[:3], example("black"))
    trained(
        tiny_dev,
        tmp_path,
        examples=others,
        report=lambda stage, done, _: steps.append(done) if "train" in stage else None,
    )
    assert steps == [1, 2, 3]


def killed(flux: Flux, folder: Path, recipe: Recipe, moment: random.Random) -> bool:
    """Trains in a process of its own and kills it at some step; whether it had to be killed."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def run() -> None:
        ours.close()
        trained(flux, folder, recipe, report=lambda stage, done, _: theirs.send((stage, done)))
        theirs.close()
        os._exit(0)

    process = context.Process(target=run)
    process.start()
    theirs.close()
    # Reports come just before a checkpoint is written: sometimes the kill is in the middle of that.
    left = moment.randint(1, 6)
    try:
        while left:
            stage, _ = ours.recv()
            left -= stage.startswith("training")
    except EOFError:
        return False
    else:
        process.kill()
        return True
    finally:
        process.join()
        ours.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts its processes by fork, to save their imports")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_training_killed_again_and_again_ends_bit_for_bit_as_one_that_was_not(
    tiny_dev: Flux, tmp_path: Path
) -> None:
    recipe = replace(TURBO, steps=24)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    trained(tiny_dev, whole, recipe)
    moment = random.Random(5)
    kills = 0
    while killed(tiny_dev, broken, recipe, moment):
        kills += 1
        assert kills < 50
    assert kills >= 4
    assert (broken / "out.safetensors").read_bytes() == (whole / "out.safetensors").read_bytes()


def prepared(flux: Flux, folder: Path, *examples: Example) -> training_cache.Prepared:
    return training_cache.prepare(
        flux.pipe,
        examples,
        replace(BASE, resolutions=(512,)),
        pixel_step=64,
        folder=folder,
        told=lambda _done, _of: None,
    )


def test_every_example_keeps_its_own_latents_and_text_in_any_order(tiny_dev: Flux, tmp_path: Path) -> None:
    one = prepared(tiny_dev, tmp_path / "one", *EXAMPLES)
    other = prepared(tiny_dev, tmp_path / "other", *reversed(EXAMPLES))
    kept = [[*each.latents.values(), each.text] for each in one.items]
    assert kept == [[*each.latents.values(), each.text] for each in reversed(other.items)]
    assert len({key for keys in kept for key in keys}) == 4 + 2
    for key in kept[1]:
        assert same(one.read(key), other.read(key))


def test_what_was_computed_once_is_not_computed_again(
    tiny_dev: Flux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = prepared(tiny_dev, tmp_path, *EXAMPLES)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(tiny_dev.pipe.vae, "encode", never)
    monkeypatch.setattr(tiny_dev.pipe, "encode_prompt", never)
    assert prepared(tiny_dev, tmp_path, *EXAMPLES).items == before.items


def test_a_damaged_latent_is_computed_again(tiny_dev: Flux, tmp_path: Path) -> None:
    [item] = prepared(tiny_dev, tmp_path, EXAMPLES[0]).items
    [key] = item.latents.values()
    whole = (tmp_path / f"{key}.safetensors").read_bytes()
    (tmp_path / f"{key}.safetensors").write_bytes(whole[:100])
    prepared(tiny_dev, tmp_path, EXAMPLES[0])
    assert (tmp_path / f"{key}.safetensors").read_bytes() == whole


def test_latents_are_what_the_pipeline_would_decode(tiny_dev: Flux, tmp_path: Path) -> None:
    pipe: Any = tiny_dev.pipe
    of = prepared(tiny_dev, tmp_path, EXAMPLES[0])
    [key] = of.items[0].latents.values()
    latent = of.read(key)["mean"] / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
    with torch.no_grad():
        image = pipe.vae.decode(latent, return_dict=False)[0]
        again = pipe.vae.encode(
            torch.tensor([1.0, -1, -1]).view(1, 3, 1, 1).expand(1, 3, 512, 512)
        ).latent_dist.mean
    assert image.shape == (1, 3, 512, 512)
    assert torch.allclose(latent, again, atol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
def test_recomputed_activations_change_nothing(
    tiny_dev: Flux,
    first: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recompute: bool,
) -> None:
    monkeypatch.setattr("reference_backend.train._recompute", lambda *_: recompute)
    trained(tiny_dev, tmp_path)
    assert (tmp_path / "out.safetensors").read_bytes() == (first / "out.safetensors").read_bytes()
    assert not tiny_dev.pipe.transformer.is_gradient_checkpointing


def test_the_base_model_in_bf16_trains_a_lora_in_fp32(tmp_path: Path, one_thread: None) -> None:
    pipe: Any = FluxPipeline.from_pretrained(TINY / "dev", dtype=torch.bfloat16)
    flux = Flux(pipe=pipe, family="dev", device=torch.device("cpu"), dtype=torch.bfloat16, text_tokens=28)
    trained(flux, tmp_path)
    state = load_file(tmp_path / "checkpoints" / "step-00000003" / "state.safetensors")
    assert {each.dtype for each in state.values()} == {torch.float32}
    assert {each.dtype for each in pipe.transformer.parameters()} == {torch.bfloat16}


def test_fp16_is_too_small_a_range_to_train_in(tmp_path: Path, one_thread: None) -> None:
    with pytest.raises(JobFailed, match="training_in_fp16"):
        trained(load(str(TINY / "dev"), device="cpu", dtype="fp16"), tmp_path)


def test_a_compiled_model_is_trained_at_any_number_of_ranks_and_stays_compiled(tmp_path: Path) -> None:
    compiled = []

    def backend(graph: Any, _inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    flux = load(str(TINY / "dev"), device="cpu")
    flux.pipe.transformer.compile_repeated_blocks(fullgraph=True, dynamic=True, backend=backend)
    try:
        before = velocity(flux.pipe)
        graphs = len(compiled)
        for rank in (2, 4):
            trained(flux, tmp_path, replace(TURBO, steps=1, rank=rank))
        assert torch.equal(velocity(flux.pipe), before)
    finally:
        torch._dynamo.reset()
    assert len(compiled) == graphs > 0


def test_a_training_attends_as_torch_does_whatever_pictures_are_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", AttentionBackendName.NATIVE)
    flux = load(str(TINY / "dev"), device="cpu")
    # It runs on a GPU alone: here, whoever asks it for anything fails.
    flux.pipe.transformer.set_attention_backend("_native_cudnn")
    trained(flux, tmp_path, replace(FEW, steps=1))
    chosen = {each._attention_backend for each in flux.pipe.transformer.attn_processors.values()}
    assert chosen == {"_native_cudnn"}


def test_a_training_takes_no_algorithm_that_is_not_deterministic(
    tiny_dev: Flux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()

    def noted(*given: Any, **more: Any) -> torch.Tensor:
        found.add(torch.get_deterministic_debug_mode())
        return loss_of(*given, **more)

    monkeypatch.setattr("reference_backend.training_loop.loss_of", noted)
    trained(tiny_dev, tmp_path)
    errors = 2
    assert (found, torch.get_deterministic_debug_mode()) == ({errors}, 0)


def test_two_processes_learn_what_one_does(tiny_dev: Flux, first: Path, tmp_path: Path) -> None:
    trained(tiny_dev, tmp_path, processes=2)
    together, alone = load_file(tmp_path / "out.safetensors"), load_file(first / "out.safetensors")
    assert together.keys() == alone.keys()
    # Sums of two halves differ in their last bits, and Adam's first steps are as long for small gradients.
    furthest = max(float((together[name].float() - alone[name].float()).abs().max()) for name in alone)
    assert furthest < 4e-5
    assert max(float(each.abs().max()) for name, each in alone.items() if ".lora_B." in name) > 1e-3


def test_stopping_two_processes_keeps_a_checkpoint(tiny_dev: Flux, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        trained(tiny_dev, tmp_path, replace(FEW, steps=500), report=stopping(2), processes=2, pace=Pace())
    [kept] = (tmp_path / "checkpoints").glob("step-*")
    assert 2 <= int(kept.name[-8:]) < 20


def house(number: int) -> Example:
    """An orange roof over a teal wall, in a cream frame on violet: nothing that the model has seen."""
    image = Image.new("RGB", (512, 512), (70, 40, 110))
    drawing = ImageDraw.Draw(image)
    x, y = 256 + 5 * (number % 3 - 1), 260 + 5 * (number // 3 - 1)
    drawing.rectangle((0, 0, 511, 511), outline=(250, 240, 200), width=48)
    drawing.polygon([(x, y - 170), (x - 146, y), (x + 146, y)], fill=(230, 120, 20))
    drawing.rectangle((x - 106, y, x + 106, y + 170), fill=(20, 160, 150))
    return Example(name=str(number), picture=image, caption="p3r5on", mask=None, digest=f"house {number}")


def test_eight_pictures_with_a_trigger_word_move_the_output_towards_them(
    tiny_dev: Flux, tmp_path: Path
) -> None:
    examples = tuple(house(number) for number in range(8))
    trained(tiny_dev, tmp_path, replace(TURBO, steps=120), examples=examples, pace=Pace())
    far = []
    for scale in (0.0, 0.5, 1.0):
        with applied(tiny_dev, [(tmp_path / "out.safetensors", scale)]):
            shown = [picture(tiny_dev, "p3r5on", seed=seed) for seed in (1, 2)]
        far.append(sum(distance(each, examples[4].picture) for each in shown) / len(shown))
    without, half, whole = far
    assert whole < half < without
    assert whole < 0.5 * without
