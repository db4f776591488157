"""Training of the text encoders: each must say linearly which value of each attribute the prompt names.

The denoiser then finds in the pooled vector, and in every token, all that the prompt says.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import FluxPipeline
from torch import Generator, Tensor, nn
from torch.nn import functional

from reference_backend.tiny.model import TEXT_WIDTH
from reference_backend.tiny.prompts import VALUES, Prompt, random_prompt
from reference_backend.tiny.scenes import random_scene
from reference_backend.tiny.stages import Stage
from reference_backend.tiny.words import CONTEXT_TOKENS, POOLED_TOKENS


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Prompts as the denoiser takes them: tokens (B, 28, 64) and pooled (B, 64)."""

    tokens: Tensor
    pooled: Tensor


def embed(pipeline: FluxPipeline, texts: Sequence[str]) -> Embedded:
    """What `FluxPipeline.encode_prompt` gives, for a batch of texts and with gradients."""
    context = pipeline.tokenizer_2(
        list(texts), padding="max_length", max_length=CONTEXT_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    pooled = pipeline.tokenizer(
        list(texts), padding="max_length", max_length=POOLED_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    device = pipeline.transformer.device
    return Embedded(
        tokens=pipeline.text_encoder_2(context.to(device))[0],
        pooled=pipeline.text_encoder(pooled.to(device)).pooler_output,
    )


def text_stage(pipeline: FluxPipeline, *, batch: int) -> Stage:
    """Train both encoders in place, together with readouts that are then thrown away."""
    device = pipeline.transformer.device
    outputs = sum(len(values) + 1 for values in VALUES)
    readouts = nn.ModuleList(nn.Linear(TEXT_WIDTH, outputs) for _ in range(2)).to(device)
    encoders = (pipeline.text_encoder, pipeline.text_encoder_2)

    def loss(generator: Generator) -> Tensor:
        prompts = [random_prompt(random_scene(generator), generator) for _ in range(batch)]
        embedded = embed(pipeline, [prompt.text for prompt in prompts])
        pooled = embedded.pooled[:, None]
        return readout_loss(readouts[0](embedded.tokens), prompts) + readout_loss(
            readouts[1](pooled), prompts
        )

    return Stage(name="text", module=nn.ModuleList([*encoders, readouts]), loss=loss, learning_rate=2e-3)


def readout_loss(read: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """Mean cross entropy of every attribute over all of the (B, T, attributes' values) readouts."""
    labels = torch.tensor([prompt.labels for prompt in prompts], device=read.device)
    total = read.new_zeros(())
    for index, part in enumerate(read.split([len(values) + 1 for values in VALUES], dim=-1)):
        wanted = labels[:, index, None].expand(-1, read.shape[1]).reshape(-1)
        total = total + functional.cross_entropy(part.flatten(0, 1), wanted, label_smoothing=0.02)
    return total / len(VALUES)
