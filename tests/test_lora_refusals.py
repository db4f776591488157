"""LoRA files that cannot be right, each refused with a code and a reason."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from reference import KOHYA, PEFT, Tensors, layer, lora_tensors, of_layers, saved

from reference_backend.job import JobFailed
from reference_backend.lora_files import MOST_BYTES, read_lora
from reference_backend.loras import applied
from reference_backend.pipelines import Flux

pytest_plugins = ("reference",)

TO_Q = "transformer.transformer_blocks.0.attn.to_q"


def of_sdxl(tensors: Tensors) -> Tensors:
    names = (f"lora_unet_down_blocks_{n}_attentions_0_proj_in" for n in range(3))
    unet = of_layers(dict.fromkeys(names, (128, 128)), **KOHYA)
    return unet | layer("lora_te1_text_model_encoder_layers_0_mlp_fc1", 64, 128, **KOHYA)


def renamed(ending: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(".lora_A.weight", ending): one for name, one in tensors.items()}


def with_alpha(alpha: torch.Tensor) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, f"{TO_Q}.alpha": alpha}


def with_down(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Tensors]:
    name = f"{TO_Q}.lora_A.weight"
    return lambda tensors: {**tensors, name: change(tensors[name])}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (of_sdxl, "lora_of_another_model"),
        (lambda _: layer("transformer.x", 4, 4, **PEFT), "lora_of_another_model"),
        (lambda _: layer("unet.mid_block.to_q", 4, 4, **PEFT), "lora_of_another_model"),
        (with_down(lambda down: down[:, :-1]), "lora_of_another_model"),
        (with_down(lambda down: down[:-1]), "lora_invalid"),
        (with_down(lambda down: down[0]), "lora_invalid"),
        (with_down(lambda down: down[:0]), "lora_invalid"),
        (with_down(lambda down: down.clone().fill_(torch.nan)), "lora_not_finite"),
        (with_down(lambda down: down.clone().fill_(torch.inf)), "lora_not_finite"),
        (with_down(lambda down: down.double().fill_(1e300)), "lora_not_finite"),
        (with_down(lambda down: down.to(torch.int8)), "lora_unsupported"),
        (with_down(lambda down: down.to(torch.float8_e4m3fn)), "lora_unsupported"),
        (lambda tensors: dict(list(tensors.items())[1:]), "lora_incomplete"),
        (with_alpha(torch.tensor(4000.0)), "lora_alpha"),
        (with_alpha(torch.tensor(-1.0)), "lora_alpha"),
        (with_alpha(torch.tensor(0.0)), "lora_alpha"),
        (with_alpha(torch.ones(2)), "lora_invalid"),
        (lambda _: {"a.weight": torch.ones(2, 2)}, "lora_invalid"),
        (lambda _: {}, "lora_invalid"),
        (lambda t: {**t, f"{TO_Q}.lora_down.weight": t[f"{TO_Q}.lora_A.weight"]}, "lora_invalid"),
        (lambda _: {f"{TO_Q}.lokr_w1": torch.ones(2, 2)}, "lora_unsupported"),
        (lambda tensors: {**tensors, f"{TO_Q}.dora_scale": torch.ones(128)}, "lora_unsupported"),
        (lambda _: layer("text_encoder_2.encoder.block.0.x", 4, 4, **PEFT), "lora_unsupported"),
    ],
)
def test_a_lora_that_cannot_be_right_is_refused(
    change: Callable[[Tensors], Tensors], code: str, tiny_dev: Flux, tmp_path: Path
) -> None:
    path = saved(change(lora_tensors(tiny_dev, "blocks.0.attn.to_q")), tmp_path / "a.safetensors")
    with pytest.raises(JobFailed) as caught, applied(tiny_dev, [(path, 0.0)]):
        pass
    assert caught.value.code == code
    assert str(caught.value).startswith(f"{code}: loras[0] ")


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ("{", "lora_invalid"),
        ("[" * 100_000, "lora_invalid"),
        ("[]", "lora_invalid"),
        ('{"transformer.lora_alpha": "4"}', "lora_invalid"),
        ('{"transformer.lora_alpha": 1e300}', "lora_alpha"),
        ('{"transformer.lora_alpha": -4}', "lora_alpha"),
        ('{"transformer.use_dora": true}', "lora_unsupported"),
    ],
)
def test_metadata_that_cannot_be_right_is_refused(
    metadata: str, code: str, tiny_dev: Flux, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    saved(lora_tensors(tiny_dev, "to_q"), path, {"lora_adapter_metadata": metadata})
    with pytest.raises(JobFailed) as caught:
        read_lora(path, what="loras[0]")
    assert caught.value.code == code


def test_a_pattern_in_the_metadata_is_no_regular_expression(tiny_dev: Flux, tmp_path: Path) -> None:
    # Matched as one, this takes longer than anybody waits.
    pattern = {"transformer.lora_alpha": 4, "transformer.alpha_pattern": {"([a-z_.0-9]+)+!": 8}}
    path = tmp_path / "a.safetensors"
    saved(lora_tensors(tiny_dev, "to_q"), path, {"lora_adapter_metadata": json.dumps(pattern)})
    assert {pair.factor for pair in read_lora(path, what="loras[0]").pairs.values()} == {1.0}


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(60), b"<html>" * 20, b"\xff" * 40]
)
def test_what_is_no_safetensors_file_is_not_opened(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(JobFailed) as caught:
        read_lora(path, what="loras[0]")
    assert caught.value.code == "lora_not_safetensors"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(JobFailed, match="lora_too_large"):
        read_lora(path, what="loras[0]")


def test_a_header_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    length = 17 * 1024**2
    path.write_bytes(length.to_bytes(8, "little") + b"{" + b" " * (length - 2) + b"}")
    with pytest.raises(JobFailed, match="header"):
        read_lora(path, what="loras[0]")


def test_a_file_that_is_gone_fails_the_job_without_naming_its_place(tmp_path: Path) -> None:
    with pytest.raises(JobFailed) as caught:
        read_lora(tmp_path / "secret-place.safetensors", what="loras[0]")
    assert str(caught.value) == "lora_unreadable: loras[0] cannot be read from this machine's disk."
