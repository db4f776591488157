"""The same work by plain diffusers and peft, as their documentation shows it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from peft import LoraConfig
from PIL import Image
from torch import nn

from reference_backend.pipelines import Flux
from reference_backend.recipes import EVERY_LINEAR

RANK = 16
_DIFFUSERS: Any = diffusers  # whose classes have no types


def be_quiet() -> None:
    """diffusers says of each LoRA that it is not one of the text encoder's."""
    _DIFFUSERS.utils.logging.set_verbosity_error()


@contextmanager
def eager(transformer: Any, attention: str | None) -> Iterator[None]:
    """The transformer as it is without --compile and --attention."""
    blocks = (*transformer.transformer_blocks, *transformer.single_transformer_blocks)
    compiled = [block._compiled_call_impl for block in blocks]
    for block in blocks:
        block._compiled_call_impl = None
    if attention is not None:
        transformer.reset_attention_backend()
    try:
        yield
    finally:
        for block, call in zip(blocks, compiled, strict=True):
            block._compiled_call_impl = call
        if attention is not None:
            transformer.set_attention_backend(attention)


@contextmanager
def adapters(flux: Flux, loras: Sequence[Path]) -> Iterator[None]:
    """LoRAs as adapters beside the weights, all at scale 1."""
    for index, path in enumerate(loras):
        flux.pipe.load_lora_weights(str(path), adapter_name=f"l{index}")
    if loras:
        flux.pipe.set_adapters([f"l{index}" for index in range(len(loras))], [1.0] * len(loras))
    try:
        yield
    finally:
        if loras:
            flux.pipe.unload_lora_weights()


def picture(flux: Flux, prompt: str, *, steps: int, side: int) -> Image.Image:
    """A picture by the pipeline's own call."""
    made: Image.Image = flux.pipe(
        prompt,
        width=side,
        height=side,
        num_inference_steps=steps,
        guidance_scale=3.5,
        generator=torch.Generator(flux.device).manual_seed(0),
        max_sequence_length=flux.text_tokens,
    ).images[0]
    return made


def training_steps(flux: Flux, picture: Image.Image, prompt: str, *, batch: int, steps: int) -> list[float]:
    """The seconds of each step of a loop as that of diffusers' own FLUX LoRA example, with its defaults.

    One prompt, whose embeddings are made once; the pictures are encoded anew in every step; AdamW; autocast.
    The adapted layers and the rank are those of ours, so that the same is trained.
    """
    pipe, transformer = flux.pipe, flux.pipe.transformer
    transformer.requires_grad_(False)
    transformer.add_adapter(
        LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=EVERY_LINEAR),
        adapter_name="plain",
    )
    try:
        learned = [each for each in transformer.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=1e-4, weight_decay=1e-4)
        with torch.no_grad():
            text = pipe.encode_prompt(prompt, None, max_sequence_length=flux.text_tokens)
        pixels = pipe.image_processor.preprocess(picture).to(flux.device, pipe.vae.dtype)
        pixels = pixels.repeat(batch, 1, 1, 1)
        seconds = []
        for _ in range(steps):
            began = time.perf_counter()
            _step(flux, pixels, text, learned, optimizer)
            seconds.append(time.perf_counter() - began)
        return seconds
    finally:
        transformer.unload_lora()


def _step(
    flux: Flux,
    pixels: torch.Tensor,
    text: tuple[torch.Tensor, ...],
    learned: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    pipe, batch = flux.pipe, len(pixels)
    words, pooled, places = text
    with torch.no_grad():
        latents = pipe.vae.encode(pixels).latent_dist.sample()
    latents = (latents - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor
    noise = torch.randn_like(latents)
    sigmas = torch.rand(batch, device=flux.device, dtype=latents.dtype)
    level = sigmas.view(-1, 1, 1, 1)
    rows, columns = latents.shape[2:]
    kind = _DIFFUSERS.FluxPipeline
    guided = flux.family == "dev"
    with torch.autocast(flux.device.type, torch.bfloat16, enabled=flux.dtype == torch.bfloat16):
        predicted = pipe.transformer(
            hidden_states=kind._pack_latents(
                (1 - level) * latents + level * noise, batch, latents.shape[1], rows, columns
            ),
            timestep=sigmas,
            guidance=torch.full((batch,), 3.5, device=flux.device) if guided else None,
            pooled_projections=pooled.expand(batch, -1),
            encoder_hidden_states=words.expand(batch, -1, -1),
            txt_ids=places,
            img_ids=kind._prepare_latent_image_ids(
                batch, rows // 2, columns // 2, flux.device, latents.dtype
            ),
            return_dict=False,
        )[0]
    wanted = kind._pack_latents(noise - latents, batch, latents.shape[1], rows, columns)
    loss = ((predicted.float() - wanted.float()) ** 2).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(learned, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    float(loss.detach())  # as the example logs it, which also waits for the device
