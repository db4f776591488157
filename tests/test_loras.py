"""LoRAs in the model: that they do what peft does with them, and leave no trace."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from reference import TINY, distance, lora_tensors, picture, same, saved, weights

from reference_backend.job import JobFailed
from reference_backend.loras import _place_of_copies, applied
from reference_backend.pipelines import Flux, load

pytest_plugins = ("reference",)
# What peft says of a second adapter, which is how it is meant to be used here.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")

CLIP = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def plain(one_thread: None) -> Any:
    """The same model, for LoRAs to be loaded as diffusers and peft do it."""
    kind: Any = FluxPipeline
    return kind.from_pretrained(TINY / "dev", dtype=torch.float32)


def clip_tensors() -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(5)
    return {
        f"{CLIP}.lora_A.weight": torch.randn(4, 64, generator=chance) / 8,
        f"{CLIP}.lora_B.weight": torch.randn(64, 4, generator=chance) / 8,
    }


def velocity(pipe: Any) -> torch.Tensor:
    """What the transformer says to fixed noise and a fixed prompt."""
    with torch.no_grad():
        words, pooled, places = pipe.encode_prompt("a red circle", None, max_sequence_length=16)
        noise = torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(3))
        answer: torch.Tensor = pipe.transformer(
            hidden_states=noise,
            timestep=torch.tensor([0.7]),
            guidance=torch.tensor([3.5]),
            pooled_projections=pooled,
            encoder_hidden_states=words,
            txt_ids=places,
            img_ids=pipe._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32),
            return_dict=False,
        )[0]
    return answer


def by_peft(plain: Any, loras: list[tuple[Path, float]]) -> torch.Tensor:
    """The same with LoRAs as diffusers and peft apply them."""
    try:
        for index, (path, _) in enumerate(loras):
            plain.load_lora_weights(str(path), adapter_name=f"l{index}")
        plain.set_adapters([f"l{index}" for index in range(len(loras))], [scale for _, scale in loras])
        return velocity(plain)
    finally:
        plain.unload_lora_weights()


def check_as_peft(flux: Flux, plain: Any, *loras: tuple[Path, float]) -> None:
    base, wanted = velocity(plain), by_peft(plain, list(loras))
    with applied(flux, loras):
        found = velocity(flux.pipe)
    assert (wanted - base).abs().max() > 1e-3
    assert (found - wanted).abs().max() < 1e-6 * wanted.abs().max().clamp(min=1)


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_a_lora_does_what_peft_does_with_it(tiny_dev: Flux, plain: Any, tmp_path: Path, scale: float) -> None:
    path = saved(lora_tensors(tiny_dev, size=0.1), tmp_path / "a.safetensors")
    check_as_peft(tiny_dev, plain, (path, scale))


def test_five_loras_do_what_peft_does_with_them(tiny_dev: Flux, plain: Any, tmp_path: Path) -> None:
    loras = [
        (saved(lora_tensors(tiny_dev, rank=n + 1, seed=n, size=0.1), tmp_path / f"{n}.safetensors"), n / 2)
        for n in range(5)
    ]
    check_as_peft(tiny_dev, plain, *loras)


def test_a_lora_of_the_text_encoder_does_what_peft_does_with_it(
    tiny_dev: Flux, plain: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_as_peft(tiny_dev, plain, (saved(clip_tensors(), tmp_path / "a.safetensors"), 2.0))


@pytest.mark.parametrize("more", [{}, {"use_rslora": True}, {"alpha_pattern": {"attn.to_q": 2}}])
def test_alpha_is_read_from_the_metadata(
    tiny_dev: Flux, plain: Any, tmp_path: Path, more: dict[str, object]
) -> None:
    tensors = lora_tensors(tiny_dev, "to_q", "to_v", size=0.1)
    targets = [name.split(".", 1)[1].removesuffix(".lora_A.weight") for name in tensors if "lora_A" in name]
    config = {"r": 4, "lora_alpha": 16, "target_modules": targets, **more}
    metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{k}": v for k, v in config.items()})}
    check_as_peft(tiny_dev, plain, (saved(tensors, tmp_path / "a.safetensors", metadata), 1.0))


def test_a_scale_of_0_changes_no_bit(tiny_dev: Flux, tmp_path: Path) -> None:
    before = weights(tiny_dev)
    with applied(tiny_dev, [(saved(lora_tensors(tiny_dev), tmp_path / "a.safetensors"), 0.0)]):
        assert same(weights(tiny_dev), before)


def test_two_loras_add(tiny_dev: Flux, tmp_path: Path) -> None:
    paths = [saved(lora_tensors(tiny_dev, seed=n), tmp_path / f"{n}.safetensors") for n in range(2)]
    before = weights(tiny_dev)
    moved = []
    for loras in ([(paths[0], 1.0)], [(paths[1], 0.5)], [(paths[0], 1.0), (paths[1], 0.5)]):
        with applied(tiny_dev, loras):
            moved.append({name: tensor - before[name] for name, tensor in weights(tiny_dev).items()})
    one, other, both = moved
    assert all(torch.allclose(one[name] + other[name], both[name], atol=1e-6) for name in both)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_weights_are_restored_to_the_last_bit(tmp_path: Path, dtype: str, tiny_dev: Flux) -> None:
    flux = load(str(TINY / "dev"), device="cpu", dtype=dtype)
    path = saved({**lora_tensors(flux), **clip_tensors()}, tmp_path / "a.safetensors")
    before = weights(flux)
    with applied(flux, [(path, 3.0)]):
        assert not same(weights(flux), before)
    assert same(weights(flux), before)


def test_the_weights_are_restored_after_an_error(tiny_dev: Flux, tmp_path: Path) -> None:
    path = saved(lora_tensors(tiny_dev), tmp_path / "a.safetensors")
    before = weights(tiny_dev)
    with pytest.raises(ZeroDivisionError), applied(tiny_dev, [(path, 1.0)]):
        raise ZeroDivisionError
    assert same(weights(tiny_dev), before)


def test_the_weights_are_restored_when_memory_runs_out_in_the_midst(
    tiny_dev: Flux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(lora_tensors(tiny_dev), tmp_path / "a.safetensors")
    before = weights(tiny_dev)
    left = iter(range(10))
    plain = torch.addmm

    def scarce(*given: torch.Tensor, alpha: float) -> torch.Tensor:
        if next(left, None) is None:
            return torch.empty(2**60)
        return plain(*given, alpha=alpha)

    monkeypatch.setattr(torch, "addmm", scarce)
    with pytest.raises(JobFailed, match="out_of_memory"), applied(tiny_dev, [(path, 1.0)]):
        pass
    assert same(weights(tiny_dev), before)


@pytest.mark.parametrize(("dtype", "size"), [("fp32", 1e30), ("fp16", 1e3)])
def test_weights_that_a_lora_takes_out_of_their_range_are_refused_and_restored(
    tmp_path: Path, dtype: str, size: float
) -> None:
    flux = load(str(TINY / "dev"), device="cpu", dtype=dtype)
    path = saved(lora_tensors(flux, "to_q", size=size), tmp_path / "a.safetensors")
    before = weights(flux)
    with pytest.raises(JobFailed, match="lora_not_finite"), applied(flux, [(path, 1.0)]):
        pass
    assert same(weights(flux), before)


@pytest.mark.parametrize(
    ("free", "reserved", "place"), [(46.0, 34.0, "cuda"), (19.6, 60.4, "cuda"), (19.6, 34.0, "cpu")]
)
def test_copies_stay_on_the_gpu_where_its_memory_and_torchs_own_cache_hold_them(
    monkeypatch: pytest.MonkeyPatch, tiny_dev: Flux, free: float, reserved: float, place: str
) -> None:
    """On a card of 80 GB with 33.7 of weights: the first job, a later one, and one beside another program."""
    with torch.device("meta"):
        layer = torch.nn.Linear(56_750, 100_000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(free * 1e9), int(80e9)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: int(reserved * 1e9))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: int(33.7e9))
    flux = replace(tiny_dev, device=torch.device("cuda"))
    assert _place_of_copies(flux, {layer: ()}).type == place


def test_the_place_of_the_weights_in_memory_stays(tiny_dev: Flux, tmp_path: Path) -> None:
    places = [tensor.data_ptr() for tensor in tiny_dev.pipe.transformer.parameters()]
    with applied(tiny_dev, [(saved(lora_tensors(tiny_dev), tmp_path / "a.safetensors"), 1.0)]):
        assert [tensor.data_ptr() for tensor in tiny_dev.pipe.transformer.parameters()] == places


def test_a_lora_changes_the_picture_the_more_the_higher_its_scale(tiny_dev: Flux, tmp_path: Path) -> None:
    path = saved(lora_tensors(tiny_dev, size=0.2), tmp_path / "a.safetensors")
    pictures = []
    for scale in (0.0, 0.5, 1.0):
        with applied(tiny_dev, [(path, scale)]):
            pictures.append(picture(tiny_dev))
    base = picture(tiny_dev)
    none, half, whole = (distance(base, one) for one in pictures)
    assert none == 0 < half < whole


def test_what_is_compiled_stays_so_with_a_lora(tiny_dev: Flux, tmp_path: Path) -> None:
    compiled = []

    def backend(graph: Any, _inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    path = saved(lora_tensors(tiny_dev), tmp_path / "a.safetensors")
    flux = load(str(TINY / "dev"), device="cpu")
    flux.pipe.transformer.compile_repeated_blocks(fullgraph=True, dynamic=True, backend=backend)
    try:
        velocity(flux.pipe)
        graphs = len(compiled)
        with applied(flux, [(path, 1.0)]):
            found = velocity(flux.pipe)
    finally:
        torch._dynamo.reset()
    with applied(tiny_dev, [(path, 1.0)]):
        assert torch.allclose(found, velocity(tiny_dev.pipe), atol=1e-5)
    assert len(compiled) == graphs > 0
