"""One picture from a prompt, or from a prompt and a picture, or only where a mask is white."""

import copy
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import FluxImg2ImgPipeline, FluxInpaintPipeline, FluxPipeline
from PIL import Image

from reference_backend.job import JobFailed, Report
from reference_backend.memory import within_memory
from reference_backend.pipelines import Flux

REPAINTED_FROM = 128
"""A mask's grey value from which a pixel is repainted. Darker ones are kept as they are."""

_MOST_CHARACTERS = 20_000
"""Of a prompt: far more than 512 tokens hold, and few enough to be split into tokens at once."""

_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_TWISTER = slice(24, 24 + 8 * 624)
"""Where in the state of a generator the numbers of its Mersenne twister are, each in 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one picture is made from.

    `image` (RGB) and `mask` (L) are fitted to `width` and `height`, in pixels, by stretching. `strength`, 0
    to 1, is how far the picture may depart from the image; `guidance` is without effect on schnell. `seed` is
    not negative.
    """

    prompt: str
    image: Image.Image | None = None
    mask: Image.Image | None = None
    strength: float = 0.8
    width: int
    height: int
    steps: int
    guidance: float
    seed: int


def generate(flux: Flux, request: Request, report: Report) -> Image.Image:
    """The picture (RGB), of exactly the asked size; on one device the same request gives the same pixels.

    Reports after each step as "denoising". Raises JobFailed, and Cancelled as `report` does.
    """
    if request.mask is not None and request.image is None:
        raise JobFailed("mask_without_image", "A mask_image needs an image to repaint; give an image too.")
    size = (request.width, request.height)
    reference = None if request.image is None else _fitted(request.image, size, Image.Resampling.LANCZOS)
    if reference is not None and _steps_taken(request) == 0:
        return reference
    mask = None if request.mask is None else _mask(request.mask, size)
    made = within_memory(
        lambda: _denoised(flux, request, reference, mask, report),
        otherwise="There is not enough memory for this picture; ask for a smaller size.",
    )
    if reference is None or mask is None:
        return made
    # The autoencoder changes even what it is told to keep, so that the kept pixels are put back.
    return Image.composite(made, reference, mask)


def encode(picture: Image.Image, suffix: str) -> bytes:
    """The picture as a file: `suffix` is "png", "jpeg" (or "jpg") or "webp"."""
    out = io.BytesIO()
    if suffix == "png":
        # Level 1 takes less than half the time of the usual 6, for about a seventh more bytes.
        picture.save(out, "PNG", compress_level=1)
    elif suffix in ("jpeg", "jpg"):
        picture.save(out, "JPEG", quality=95, subsampling=0)
    elif suffix == "webp":
        picture.save(out, "WEBP", quality=95)
    else:
        raise ValueError(f"pictures are not written as {suffix!r}")
    return out.getvalue()


def noise_source(seed: int) -> torch.Generator:
    """A generator on the CPU, whatever the device: its noise is the same everywhere.

    Seeds below 2^32 mean what they mean to torch, which heeds no other bits. With more of them, up to 64, the
    generator begins where the Mersenne twister's own seeding by several words has it begin.
    """
    source = torch.Generator("cpu").manual_seed(seed & 0xFFFFFFFF)
    if seed >> 32:
        state = source.get_state()
        words = np.frombuffer(seed.to_bytes(8, "little"), np.uint32)
        begun: Any = np.random.RandomState(words).get_state(legacy=False)
        state.numpy()[_TWISTER] = begun["state"]["key"].astype(np.uint64).view(np.uint8)
        source.set_state(state)
    return source


def _denoised(
    flux: Flux,
    request: Request,
    reference: Image.Image | None,
    mask: Image.Image | None,
    report: Report,
) -> Image.Image:
    pipe = flux.pipe
    block = pipe.vae_scale_factor * 2
    width, height = (-(-side // block) * block for side in (request.width, request.height))
    frame = _Frame(
        left=(width - request.width) // 2, top=(height - request.height) // 2, width=width, height=height
    )
    asked: dict[str, Any] = {
        "prompt": _LONE_SURROGATES.sub("\ufffd", request.prompt[:_MOST_CHARACTERS]),
        "width": width,
        "height": height,
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance,
        "generator": noise_source(request.seed),
        "max_sequence_length": flux.text_tokens,
        "output_type": "latent",
        "callback_on_step_end": _told(report, _steps_taken(request)),
        "callback_on_step_end_tensor_inputs": [],
    }
    kind: Any = FluxPipeline
    if reference is not None:
        kind = FluxImg2ImgPipeline
        asked |= {"image": frame.filled(reference), "strength": request.strength}
    if mask is not None:
        kind = FluxInpaintPipeline
        asked["mask_image"] = _cells(frame.filled(mask), pipe.vae_scale_factor)
    # The scheduler has a state of its own, which a job that was cancelled or failed leaves anywhere.
    parts = {**pipe.components, "scheduler": copy.deepcopy(pipe.scheduler)}
    one = kind(**parts)
    one.set_progress_bar_config(disable=True)
    report("denoising", 0, _steps_taken(request))
    return frame.cut(_decoded(one, one(**asked).images, frame), request)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """The canvas a model can make, around the picture that was asked for; all in pixels."""

    left: int
    top: int
    width: int
    height: int

    def filled(self, picture: Image.Image) -> Image.Image:
        """The picture in the middle of the canvas, its outermost pixels carried on to the edges."""
        right = self.width - picture.width - self.left
        bottom = self.height - picture.height - self.top
        pixels = np.asarray(picture)
        margins = ((self.top, bottom), (self.left, right), (0, 0))[: pixels.ndim]
        return Image.fromarray(np.pad(pixels, margins, mode="edge"))

    def cut(self, canvas: Image.Image, request: Request) -> Image.Image:
        """The middle of the canvas."""
        return canvas.crop((self.left, self.top, self.left + request.width, self.top + request.height))


def _steps_taken(request: Request) -> int:
    """How many of the steps are taken: the later ones only, where a picture is given."""
    if request.image is None:
        return request.steps
    # As the pipelines count, to the last bit: they refuse to take none at all.
    return request.steps - int(max(request.steps - min(request.steps * request.strength, request.steps), 0))


def _told(report: Report, steps: int) -> Callable[..., dict[str, Any]]:
    def told(_pipe: Any, index: int, _time: Any, _tensors: Any) -> dict[str, Any]:
        report("denoising", index + 1, steps)
        return {}

    return told


def _fitted(picture: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    return picture.copy() if picture.size == size else picture.resize(size, how)


def _mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The mask at the picture's size, with no grey left."""
    fitted = _fitted(mask.convert("L"), size, Image.Resampling.BILINEAR)
    return fitted.point(lambda grey: 255 if grey >= REPAINTED_FROM else 0)


def _cells(mask: Image.Image, side: int) -> Image.Image:
    """The mask with every latent cell white that has a white pixel.

    The pipeline looks at one pixel of each cell; a line thinner than a cell would be missed.
    """
    pixels = np.asarray(mask)
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    cells = pixels.reshape(rows, side, columns, side).max(axis=(1, 3))
    return Image.fromarray(cells.repeat(side, axis=0).repeat(side, axis=1))


@torch.no_grad()
def _decoded(pipe: Any, latents: torch.Tensor, frame: _Frame) -> Image.Image:
    """The picture of latents, as the pipelines decode them: they would make white of what is infinite."""
    vae = pipe.vae
    cells = pipe._unpack_latents(latents, frame.height, frame.width, pipe.vae_scale_factor)
    decoded = vae.decode(cells / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
    if not torch.isfinite(decoded).all():
        raise JobFailed(
            "picture_not_finite",
            "The model made numbers that are no picture; a LoRA at a lower scale, or without fp16, may help.",
        )
    pixels = pipe.image_processor.postprocess(decoded, output_type="pt")[0]
    rows = (pixels.float() * 255).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(rows.cpu().numpy())
