"""The offline model's architecture: FLUX with small sizes, of plain diffusers and transformers classes.

Two variants: `dev` has a guidance embedding and a time shift that grows with the picture, as FLUX.1-dev has;
`schnell` has neither and is meant for four steps.
"""

import json
import math
from pathlib import Path
from typing import Literal

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from reference_backend.tiny.autoencoder import LATENT_CHANNELS, build_autoencoder
from reference_backend.tiny.words import POOLED_TOKENS, context_tokenizer, pooled_tokenizer

Variant = Literal["dev", "schnell"]

VARIANTS: tuple[Variant, ...] = ("dev", "schnell")
TEXT_WIDTH = 64
SMALLEST_SHIFT = 8.0
LARGEST_SHIFT = 24.0
"""Flat pictures are redundant: their layout is decided while nearly all is noise, the more so the larger they
are. FLUX's own shifts (1.6 to 3.2) would spend no step there."""
_SMALLEST_SEQUENCE = 64
_LARGEST_SEQUENCE = 576


def time_shift(tokens: int) -> float:
    """The shift of the noise levels for a picture of so many tokens, as the dev scheduler computes it."""
    share = (tokens - _SMALLEST_SEQUENCE) / (_LARGEST_SEQUENCE - _SMALLEST_SEQUENCE)
    low, high = math.log(SMALLEST_SHIFT), math.log(LARGEST_SHIFT)
    return math.exp(low + share * (high - low))


def build_transformer(variant: Variant) -> FluxTransformer2DModel:
    """The denoiser with random weights: one two-stream block and four one-stream blocks, 128 wide."""
    return FluxTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        num_layers=1,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=variant == "dev",
        axes_dims_rope=(8, 12, 12),
    )


def build_scheduler(variant: Variant) -> FlowMatchEulerDiscreteScheduler:
    """The scheduler of a variant."""
    if variant == "schnell":
        return FlowMatchEulerDiscreteScheduler(shift=SMALLEST_SHIFT)
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=math.log(SMALLEST_SHIFT),
        max_shift=math.log(LARGEST_SHIFT),
        base_image_seq_len=_SMALLEST_SEQUENCE,
        max_image_seq_len=_LARGEST_SEQUENCE,
    )


def build_pipeline(variant: Variant, *, seed: int) -> FluxPipeline:
    """A whole pipeline with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pooled, context = pooled_tokenizer(), context_tokenizer()
        return FluxPipeline(
            scheduler=build_scheduler(variant),
            vae=build_autoencoder(),
            text_encoder=_pooled_encoder(len(pooled), pooled.eos_token_id),
            tokenizer=pooled,
            text_encoder_2=_context_encoder(len(context)),
            tokenizer_2=context,
            transformer=build_transformer(variant),
        )


def _pooled_encoder(vocabulary: int, end: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=POOLED_TOKENS,
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def _context_encoder(vocabulary: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary,
            d_model=TEXT_WIDTH,
            d_kv=TEXT_WIDTH // 4,
            d_ff=2 * TEXT_WIDTH,
            num_layers=2,
            num_heads=4,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=32,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


def save_pipeline(pipeline: FluxPipeline, folder: Path) -> None:
    """Write the pipeline in 16-bit floats; the one in memory keeps its own."""
    modules = (pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2, pipeline.transformer)
    for module in modules:
        module.to(torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    for module in modules:
        module.to(torch.float32)
    # transformers loads in the type that the configuration names, diffusers in single precision: without this
    # a pipeline loaded with no type given would be of two types and fail.
    for name in ("text_encoder", "text_encoder_2"):
        path = folder / name / "config.json"
        configuration = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(configuration | {"dtype": "float32"}, indent=2) + "\n", encoding="utf-8")
