"""LoRA files of every trainer, read as diffusers' own converters read them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from reference import KOHYA, PEFT, Tensors, layer, lora_tensors, of_layers, saved
from torch import nn

from reference_backend.lora_files import read_lora
from reference_backend.lora_names import targets
from reference_backend.loras import additions, applied
from reference_backend.pipelines import Flux

pytest_plugins = ("reference",)

PIPELINE: Any = FluxPipeline
TRANSFORMER: Any = FluxTransformer2DModel
WIDTH = 3072
DOUBLE = {
    "img_attn_qkv": (WIDTH, 3 * WIDTH),
    "img_attn_proj": (WIDTH, WIDTH),
    "img_mlp_0": (WIDTH, 4 * WIDTH),
    "img_mlp_2": (4 * WIDTH, WIDTH),
    "img_mod_lin": (WIDTH, 6 * WIDTH),
    "txt_attn_qkv": (WIDTH, 3 * WIDTH),
    "txt_attn_proj": (WIDTH, WIDTH),
    "txt_mlp_0": (WIDTH, 4 * WIDTH),
    "txt_mlp_2": (4 * WIDTH, WIDTH),
    "txt_mod_lin": (WIDTH, 6 * WIDTH),
}
SINGLE = {
    "linear1": (WIDTH, 3 * WIDTH + 4 * WIDTH),
    "linear2": (5 * WIDTH, WIDTH),
    "modulation_lin": (WIDTH, 3 * WIDTH),
}


@pytest.fixture(scope="module")
def flux1() -> nn.Module:
    """Two blocks as wide as FLUX.1's, which the converters take for granted; without any numbers in them."""
    with torch.device("meta"):
        made: nn.Module = TRANSFORMER(num_layers=1, num_single_layers=1, guidance_embeds=True)
    return made


@pytest.fixture(scope="module")
def clip(tiny_dev: Flux) -> nn.Module:
    module: nn.Module = tiny_dev.pipe.text_encoder
    return module


def kohya() -> Tensors:
    layers = {f"lora_unet_double_blocks_0_{name}": sizes for name, sizes in DOUBLE.items()}
    layers |= {f"lora_unet_single_blocks_0_{name}": sizes for name, sizes in SINGLE.items()}
    layers["lora_te1_text_model_encoder_layers_1_mlp_fc1"] = (64, 128)
    layers["lora_te1_text_model_encoder_layers_0_self_attn_out_proj"] = (64, 64)
    return of_layers(layers, down=".lora_down.weight", up=".lora_up.weight", alpha=".alpha")


def kohya_sparse() -> Tensors:
    """One factor for q, k and v each, in one: everything off the diagonal is nothing."""
    made = layer(
        "lora_unet_double_blocks_0_img_attn_qkv",
        WIDTH,
        3 * WIDTH,
        down=".lora_down.weight",
        up=".lora_up.weight",
    )
    up = made["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"]
    for index in range(3):
        for other in {0, 1, 2} - {index}:
            up[index * WIDTH : (index + 1) * WIDTH, other] = 0
    return made


def comfy() -> Tensors:
    layers = {
        "diffusion_model.double_blocks.0.img_attn.qkv": (WIDTH, 3 * WIDTH),
        "diffusion_model.single_blocks.0.linear1": (WIDTH, 3 * WIDTH + 4 * WIDTH),
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc2": (128, 64),
    }
    return of_layers(layers, down=".lora_down.weight", up=".lora_up.weight")


def xlabs() -> Tensors:
    layers = {
        "double_blocks.0.processor.qkv_lora1": (WIDTH, 3 * WIDTH),
        "double_blocks.0.processor.proj_lora1": (WIDTH, WIDTH),
        "double_blocks.0.processor.qkv_lora2": (WIDTH, 3 * WIDTH),
        "double_blocks.0.processor.proj_lora2": (WIDTH, WIDTH),
        "single_blocks.0.processor.qkv_lora": (WIDTH, 3 * WIDTH),
        "single_blocks.0.processor.proj_lora": (5 * WIDTH, WIDTH),
    }
    return of_layers(layers, down=".down.weight", up=".up.weight")


def mixture() -> Tensors:
    layers = {
        "lora_transformer_transformer_blocks_0_attn_to_out_0": (WIDTH, WIDTH),
        "lora_transformer_transformer_blocks_0_attn_add_q_proj": (WIDTH, WIDTH),
        "lora_transformer_single_transformer_blocks_0_attn_to_k": (WIDTH, WIDTH),
        "lora_transformer_x_embedder": (64, WIDTH),
        "lora_transformer_time_text_embed_guidance_embedder_linear_1": (256, WIDTH),
        "lora_te1_text_model_encoder_layers_0_self_attn_v_proj": (64, 64),
    }
    return of_layers(layers, down=".lora_down.weight", up=".lora_up.weight", alpha=".alpha")


def peft() -> Tensors:
    layers = {
        "transformer.transformer_blocks.0.ff.net.0.proj": (WIDTH, 4 * WIDTH),
        "transformer.single_transformer_blocks.0.proj_out": (5 * WIDTH, WIDTH),
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (64, 64),
    }
    return of_layers(layers, down=".lora_A.weight", up=".lora_B.weight")


def probe(down: torch.Tensor) -> torch.Tensor:
    return torch.sin(torch.arange(down.shape[1], dtype=torch.float32))


def read_by_us(path: Path, transformer: nn.Module, clip: nn.Module) -> Tensors:
    """What each layer makes of a fixed input, by the layer's name."""
    names = {module: f"transformer.{name}" for name, module in transformer.named_modules()}
    names |= {module: f"text_encoder.{name}" for name, module in clip.named_modules()}
    file = read_lora(path, what="loras[0]")
    added = additions(file, targets(transformer, clip), 1.0, "loras[0]")
    return {names[one.layer]: one.factor * (one.up @ (one.down @ probe(one.down))) for one in added}


def read_by_diffusers(tensors: Tensors) -> Tensors:
    """The same from the halves as diffusers names them."""
    halves = PIPELINE.lora_state_dict({name: tensor.clone() for name, tensor in tensors.items()})
    answers = {}
    for name, half in halves.items():
        for down, up in ((".lora_A.weight", ".lora_B.weight"), (".down.weight", ".up.weight")):
            if name.endswith(down):
                layer = name.removesuffix(down).removesuffix(".lora_linear_layer")
                # An older name of CLIP's layers, which is translated when they are loaded.
                layer = re.sub(r"to_(q|k|v|out)_lora$", r"\1_proj", layer)
                answer = halves[name.removesuffix(down) + up] @ (half @ probe(half))
                answers[layer.replace("text_encoder.text_model.", "text_encoder.")] = answer
    return answers


@pytest.mark.parametrize("make", [kohya, kohya_sparse, comfy, xlabs, mixture, peft])
def test_a_file_is_read_as_diffusers_reads_it(
    make: Callable[[], Tensors], flux1: nn.Module, clip: nn.Module, tmp_path: Path
) -> None:
    tensors = make()
    found = read_by_us(saved(tensors, tmp_path / "a.safetensors"), flux1, clip)
    wanted = read_by_diffusers(tensors)
    assert len(wanted) >= 3
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-4, atol=1e-3) for name in wanted)


def test_the_original_names_of_layers_are_known_in_the_way_of_peft(
    flux1: nn.Module, clip: nn.Module, tmp_path: Path
) -> None:
    # Its converter takes nothing less than all of FLUX.1's 57 blocks.
    made = layer("base_model.model.double_blocks.0.txt_attn.qkv", WIDTH, 3 * WIDTH, **PEFT)
    halves = [
        made[f"base_model.model.double_blocks.0.txt_attn.qkv{end}"] for end in (PEFT["up"], PEFT["down"])
    ]
    found = read_by_us(saved(made, tmp_path / "a.safetensors"), flux1, clip)
    wanted = halves[0] @ (halves[1] @ probe(halves[1]))
    names = [f"transformer.transformer_blocks.0.attn.add_{one}_proj" for one in "qkv"]
    assert torch.allclose(torch.cat([found.pop(name) for name in names]), wanted, rtol=1e-4, atol=1e-3)
    assert not found


def test_the_halves_of_the_last_modulation_change_places(
    flux1: nn.Module, clip: nn.Module, tmp_path: Path
) -> None:
    name = "lora_unet_final_layer_adaLN_modulation_1"
    tensors = layer(name, WIDTH, 2 * WIDTH, down=".lora_down.weight", up=".lora_up.weight")
    found = read_by_us(saved(tensors, tmp_path / "a.safetensors"), flux1, clip)
    # diffusers' converter does the same, but then loses the layer for want of a prefix.
    halves = PIPELINE.lora_state_dict(dict(tensors))
    wanted = halves["norm_out.linear.lora_B.weight"] @ (
        halves["norm_out.linear.lora_A.weight"] @ probe(halves["norm_out.linear.lora_A.weight"])
    )
    assert torch.allclose(found["transformer.norm_out.linear"], wanted, rtol=1e-4, atol=1e-3)


def test_of_a_lora_in_two_trainers_names_one_is_taken(tiny_dev: Flux, tmp_path: Path) -> None:
    name = "transformer_blocks.0.attn.to_out.0"
    tensors = lora_tensors(tiny_dev, name)
    weight = tiny_dev.pipe.transformer.get_submodule(name).weight
    before = weight.clone()
    moved = []
    for more in ({}, layer("lora_unet_double_blocks_0_img_attn_proj", 128, 128, **KOHYA)):
        with applied(tiny_dev, [(saved({**tensors, **more}, tmp_path / "a.safetensors"), 1.0)]):
            moved.append(weight - before)
    assert torch.equal(moved[0], moved[1])


def test_a_file_of_kohyas_scripts_changes_the_small_model_too(tiny_dev: Flux, tmp_path: Path) -> None:
    # Which diffusers' converter cannot read: it knows how wide FLUX.1 is, and nothing else.
    tensors = layer("lora_unet_single_blocks_3_linear1", 128, 7 * 128, **KOHYA)
    halves = [tensors[f"lora_unet_single_blocks_3_linear1{end}"] for end in (KOHYA["up"], KOHYA["down"])]
    rows = torch.split(halves[0] @ halves[1], [128, 128, 128, 512])
    block = tiny_dev.pipe.transformer.single_transformer_blocks[3]
    layers = (block.attn.to_q, block.attn.to_k, block.attn.to_v, block.proj_mlp)
    before = [one.weight.clone() for one in layers]
    with applied(tiny_dev, [(saved(tensors, tmp_path / "a.safetensors"), 1.0)]):
        for one, was, added in zip(layers, before, rows, strict=True):
            assert torch.allclose(one.weight, was + added, atol=1e-5)


def test_what_is_left_out_is_remarked_on(tiny_dev: Flux, tmp_path: Path) -> None:
    tensors = lora_tensors(tiny_dev, "to_q")
    tensors |= layer("transformer.transformer_blocks.18.attn.to_q", 128, 128, **PEFT)
    tensors |= layer("text_encoder_2.encoder.block.0.layer.0.SelfAttention.q", 64, 64, **PEFT)
    tensors["transformer.transformer_blocks.0.attn.to_q.bias"] = torch.zeros(128)
    with applied(tiny_dev, [(saved(tensors, tmp_path / "a.safetensors"), 1.0)]) as remarks:
        assert remarks == (
            "loras[0]: left out 1 of its layers, which are T5's",
            "loras[0]: left out 1 of its layers, which this model does not have",
            "loras[0]: left out 1 of its tensors, which are no part of a LoRA",
        )
