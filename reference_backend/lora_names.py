"""The names that trainers give to FLUX's layers, and which layers of diffusers' model each of them means."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

_DOUBLE = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
    # xlabs
    "processor.qkv_lora1": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "processor.proj_lora1": ("attn.to_out.0",),
    "processor.qkv_lora2": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "processor.proj_lora2": ("attn.to_add_out",),
}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
    # xlabs
    "processor.qkv_lora": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "processor.proj_lora": ("proj_out",),
}
_AROUND = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
_SWAPPED = "final_layer.adaLN_modulation.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The layers that one name means: their outputs one after the other are the named layer's output.

    Where `swapped`, the two halves of the output are the other way round.
    """

    layers: tuple[nn.Linear, ...]
    swapped: bool = False


def targets(transformer: nn.Module, text_encoder: nn.Module) -> Mapping[str, Target]:
    """Every name of a layer of FLUX's transformer and of its CLIP, and what it means in these two.

    The names are those of diffusers and peft (`transformer.`), of the original model as kohya's scripts
    (`lora_unet_`), ComfyUI (`diffusion_model.`) and xlabs write them, and diffusers' with underscores
    (`lora_transformer_`).
    """
    layers = {name: module for name, module in transformer.named_modules() if isinstance(module, nn.Linear)}
    found = {}
    for name, layer in layers.items():
        found[f"transformer.{name}"] = Target(layers=(layer,))
        found[f"lora_transformer_{name.replace('.', '_')}"] = Target(layers=(layer,))
    for name, members in _original_names(layers).items():
        target = Target(layers=tuple(layers[member] for member in members), swapped=name == _SWAPPED)
        found[name] = found[f"diffusion_model.{name}"] = found[f"base_model.model.{name}"] = target
        found[f"lora_unet_{name.replace('.', '_')}"] = target
    return found | _text_targets(text_encoder)


def _original_names(layers: Mapping[str, nn.Linear]) -> dict[str, tuple[str, ...]]:
    """The names of Black Forest Labs' own model, each with those of diffusers that it stands for."""
    named = {}
    for ours, theirs, table in (
        ("transformer_blocks", "double_blocks", _DOUBLE),
        ("single_transformer_blocks", "single_blocks", _SINGLE),
    ):
        for index in {name.split(".")[1] for name in layers if name.startswith(f"{ours}.")}:
            for name, members in table.items():
                named[f"{theirs}.{index}.{name}"] = tuple(f"{ours}.{index}.{member}" for member in members)
    named |= {name: (member,) for name, member in _AROUND.items()}
    named[_SWAPPED] = ("norm_out.linear",)
    return {name: members for name, members in named.items() if all(member in layers for member in members)}


def _text_targets(text_encoder: nn.Module) -> dict[str, Target]:
    found = {}
    for name, module in text_encoder.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        target = Target(layers=(module,))
        # Newer transformers have no level of this name any more; LoRA files still do.
        short = name.removeprefix("text_model.")
        for dotted in (f"text_encoder.{short}", f"text_encoder.text_model.{short}"):
            found[dotted] = target
        found[f"text_encoders.clip_l.transformer.text_model.{short}"] = target
        for prefix in ("lora_te1_text_model_", "lora_te_text_model_"):
            found[prefix + short.replace(".", "_")] = target
    return found
