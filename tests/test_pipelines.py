"""Loading a FLUX: what is taken, and what each kind of wrong directory or option says."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub.constants
import pytest
import torch
import transformers
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from reference import TINY
from safetensors.torch import load_file

from mock_server.errors import BadConfiguration
from reference_backend.pipelines import Flux, NoRoom, load

pytest_plugins = ("reference",)


@pytest.fixture(autouse=True)
def own_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one model is told to compute attention with, diffusers has all others use too."""
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", AttentionBackendName.NATIVE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the offline model, to be spoilt."""
    return Path(shutil.copytree(TINY / "dev", tmp_path / "dev"))


def test_the_guidance_embedding_tells_dev_from_schnell(tiny_dev: Flux, tiny_schnell: Flux) -> None:
    assert (tiny_dev.family, tiny_schnell.family) == ("dev", "schnell")


def test_without_a_gpu_numbers_have_32_bits(tiny_dev: Flux) -> None:
    found = {parameter.dtype for parameter in tiny_dev.pipe.transformer.parameters()}
    assert (found, tiny_dev.dtype, tiny_dev.device.type) == ({torch.float32}, torch.float32, "cpu")


def test_the_text_that_is_read_is_no_longer_than_the_tokenizer_says(tiny_dev: Flux) -> None:
    assert tiny_dev.text_tokens == tiny_dev.pipe.tokenizer_2.model_max_length < 512


def test_every_part_has_the_asked_kind_of_numbers(folder: Path) -> None:
    pipe = load(str(folder), device="cpu", dtype="bf16").pipe
    parts = (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2)
    assert {parameter.dtype for part in parts for parameter in part.parameters()} == {torch.bfloat16}


def test_a_killed_process_leaves_no_lock_of_progress_bars_behind(folder: Path) -> None:
    program = (
        "from multiprocessing.synchronize import SemLock\n"
        "def refuse(*_, **__): raise AssertionError('a lock among processes')\n"
        "SemLock.__init__ = refuse\n"
        "from reference_backend.pipelines import load\n"
        f"pipe = load({str(folder)!r}, device='cpu').pipe\n"
        "pipe('a star', width=64, height=64, num_inference_steps=1, max_sequence_length=28)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, capture_output=True)


def test_loading_asks_nobody_and_says_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", connect)
    libraries: tuple[Any, ...] = (diffusers.utils.logging, transformers.utils.logging)
    for library in libraries:
        library.set_verbosity_info()
        library.enable_progress_bar()
    load(str(folder), device="cpu")
    assert capfd.readouterr() == ("", "")


def test_an_attention_backend_can_be_chosen(folder: Path) -> None:
    transformer = load(str(folder), device="cpu", attention="_native_math").pipe.transformer
    chosen = transformer.transformer_blocks[0].attn.processor._attention_backend
    assert chosen == "_native_math"


def test_repeated_blocks_are_compiled_where_that_is_asked_for(folder: Path) -> None:
    transformer = load(str(folder), device="cpu", compile=True).pipe.transformer
    blocks = (*transformer.transformer_blocks, *transformer.single_transformer_blocks)
    assert all(block._compiled_call_impl is not None for block in blocks)


def test_torchs_current_device_is_the_one_that_was_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    kind: Any = diffusers.FluxPipeline
    monkeypatch.setattr(kind, "to", lambda *_: None)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for device in ("cuda:1", "cuda"):
        load(str(folder), device=device)
    assert chosen == [torch.device("cuda:1")]


def test_a_directory_of_the_other_family_is_refused_before_its_weights_are_read(folder: Path) -> None:
    cut_short(folder)
    with pytest.raises(BadConfiguration, match=r"--checkpoint: .* holds FLUX.1 dev; schnell is wanted"):
        load(str(folder), family="schnell", device="cpu")


def test_a_model_for_which_there_is_no_memory_is_told_from_one_that_is_no_use(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = diffusers.FluxPipeline
    monkeypatch.setattr(kind, "to", lambda *_: torch.empty(2**60))
    with pytest.raises(NoRoom, match="there is not enough memory"):
        load(str(folder), device="cpu")


def without_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def broken_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("{")


def other_pipeline(folder: Path) -> None:
    change(folder, _class_name="StableDiffusionPipeline")


def other_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("[]")


def other_part(folder: Path) -> None:
    change(folder, transformer=["diffusers", "UNet2DConditionModel"])


def foreign_code(folder: Path) -> None:
    change(folder, transformer=["os", "FluxTransformer2DModel"])


def missing_part(folder: Path) -> None:
    change(folder, vae=[None, None])


def pickled(folder: Path) -> None:
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()


def pickled_text_encoder(folder: Path) -> None:
    weights = folder / "text_encoder" / "model.safetensors"
    torch.save(load_file(weights), folder / "text_encoder" / "pytorch_model.bin")
    weights.unlink()


def cut_short(folder: Path) -> None:
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def change(folder: Path, **entries: object) -> None:
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | entries))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_index, "has no model_index.json"),
        (broken_index, "is not JSON"),
        (other_index, "holds no pipeline, not a FluxPipeline"),
        (other_pipeline, "holds StableDiffusionPipeline, not a FluxPipeline"),
        (other_part, "the transformer .* is UNet2DConditionModel, not FluxTransformer2DModel"),
        (foreign_code, "the transformer"),
        (missing_part, "the vae .* is missing"),
        (pickled, "cannot be loaded"),
        (pickled_text_encoder, "cannot be loaded"),
        (cut_short, "cannot be loaded"),
    ],
)
def test_a_directory_that_is_no_flux_is_refused_in_a_line(
    spoil: Callable[[Path], None], reason: str, folder: Path
) -> None:
    spoil(folder)
    with pytest.raises(BadConfiguration, match=f"^--checkpoint: .*{reason}") as caught:
        load(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "tpu"}, "--device: tpu is none of"),
        ({"device": "cuda:x"}, "--device: cuda:x is none of"),
        ({"device": "cuda:77"}, "--device: cuda:77 asked for, and torch finds"),
        ({"device": "cpu", "dtype": "int4"}, "--dtype: int4 is none of"),
        ({"device": "cpu", "attention": "magic"}, "--attention: magic cannot be used"),
        # It can be chosen here, and runs on a GPU alone.
        ({"device": "cpu", "attention": "_native_cudnn"}, "--attention: _native_cudnn cannot be used"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_a_line(options: dict[str, str], reason: str) -> None:
    with pytest.raises(BadConfiguration, match=f"^{reason}") as caught:
        load(str(TINY / "dev"), **options)  # type: ignore[arg-type]  # none of these is a switch
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "/nowhere/at/all", "../dev", "https://example.com/x"])
def test_a_checkpoint_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(BadConfiguration, match="is not a directory"):
        load(name, device="cpu", hub=True)


def test_the_hub_is_asked_only_where_that_is_allowed() -> None:
    with pytest.raises(BadConfiguration, match="--hub"):
        load("black-forest-labs/FLUX.1-dev", device="cpu")


def test_the_hub_is_not_asked_in_offline_mode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadConfiguration, match="cannot be fetched") as caught:
        load("nobody/nothing-at-all", device="cpu", hub=True)
    assert "\n" not in str(caught.value)
