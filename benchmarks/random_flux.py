"""Pipelines with random weights: of FLUX.1's size, made on the device, or of the small model's.

Speed does not depend on what the weights are, so that nothing has to be fetched to measure it.
"""

from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from reference_backend.tiny.model import build_pipeline
from reference_backend.tiny.words import context_tokenizer, pooled_tokenizer

Family = Literal["dev", "schnell"]

_DIFFUSERS: Any = diffusers  # whose classes have no types
RANK = 16


def large_pipeline(family: Family, device: torch.device) -> Any:
    """FLUX.1's architecture in bf16: 11.9 billion parameters, T5-XXL, CLIP-L and the autoencoder."""
    with torch.device("meta"):
        transformer = _DIFFUSERS.FluxTransformer2DModel(guidance_embeds=family == "dev")
        context: Any = transformers.T5EncoderModel(
            transformers.T5Config(
                d_model=4096,
                d_kv=64,
                d_ff=10240,
                num_layers=24,
                num_heads=64,
                feed_forward_proj="gated-gelu",
                vocab_size=32128,
            )
        )
    for module in (transformer, context):
        module.to(torch.bfloat16).to_empty(device=device)
        _fill(module)
    pooled_words, context_words = pooled_tokenizer(), context_tokenizer()
    pooled_words.model_max_length, context_words.model_max_length = 77, 512
    with device:
        pooled: Any = transformers.CLIPTextModel(_clip(pooled_words.eos_token_id))
        vae = _autoencoder()
    return _DIFFUSERS.FluxPipeline(
        scheduler=_scheduler(family),
        vae=vae.to(torch.bfloat16),
        text_encoder=pooled.to(torch.bfloat16),
        tokenizer=pooled_words,
        text_encoder_2=context,
        tokenizer_2=context_words,
        transformer=transformer,
    )


def small_pipeline(family: Family) -> Any:
    """The offline model's architecture, in fp32."""
    return build_pipeline(family, seed=0)


def random_loras(transformer: nn.Module, count: int, folder: Path) -> list[Path]:
    """16-bit files of LoRAs of rank 16 on every linear layer of the blocks, in diffusers' names."""
    paths = []
    for number in range(count):
        chance = torch.Generator().manual_seed(number)
        tensors = {}
        for name, layer in transformer.named_modules():
            if isinstance(layer, nn.Linear) and "blocks." in name:
                down = torch.randn(RANK, layer.in_features, generator=chance) / layer.in_features**0.5
                up = torch.randn(layer.out_features, RANK, generator=chance) * 0.01
                tensors[f"transformer.{name}.lora_A.weight"] = down.bfloat16()
                tensors[f"transformer.{name}.lora_B.weight"] = up.bfloat16()
        paths.append(folder / f"{number}.safetensors")
        save_file(tensors, paths[-1])
    return paths


def _fill(module: nn.Module) -> None:
    """Random weights small enough that nothing overflows; the scales of norms are 1."""
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1:
            parameter.data.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            parameter.data.normal_(std=0.02)


def _clip(end: int) -> Any:
    return transformers.CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        projection_dim=768,
        eos_token_id=end,
    )


def _autoencoder() -> Any:
    return _DIFFUSERS.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=16,
        norm_num_groups=32,
        sample_size=1024,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _scheduler(family: Family) -> Any:
    if family == "schnell":
        return _DIFFUSERS.FlowMatchEulerDiscreteScheduler(shift=1.0)
    return _DIFFUSERS.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, shift=3.0
    )
