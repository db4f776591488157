"""Brings training pictures to the sizes that a model can be trained at."""

import math

import torch
from PIL import Image

LONGEST = 2.0
"""The most that a training picture is longer than it is wide, or wider: what is beyond is cut off."""


def bucket(width: int, height: int, *, resolution: int, step: int) -> tuple[int, int]:
    """The training size of a picture: about its shape, about resolution x resolution pixels in all.

    Both sides are multiples of `step`, the pixels that one token covers.
    """
    shape = min(LONGEST, max(1 / LONGEST, width / height))
    wide = max(step, round(resolution * math.sqrt(shape) / step) * step)
    high = max(step, round(resolution / math.sqrt(shape) / step) * step)
    return wide, high


def sizes_of(picture: Image.Image, resolutions: tuple[int, ...], step: int) -> tuple[tuple[int, int], ...]:
    """The sizes that a picture is trained at, one per resolution, smallest first.

    A size that it would have to be enlarged for is left out, since that shows nothing new; the smallest one
    always counts.
    """
    least, *others = (
        bucket(picture.width, picture.height, resolution=each, step=step) for each in sorted(resolutions)
    )
    fitting = (size for size in others if size[0] <= picture.width and size[1] <= picture.height)
    return (least, *fitting)


def fitted(
    picture: Image.Image, size: tuple[int, int], how: Image.Resampling = Image.Resampling.LANCZOS
) -> Image.Image:
    """The picture scaled to cover the size, what stands over cut off evenly. Aspect is kept."""
    width, height = size
    # The part of the source that is shown, as a box in its own pixels.
    scale = min(picture.width / width, picture.height / height)
    left = (picture.width - width * scale) / 2
    top = (picture.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    return picture.resize(size, how, box=box)


def pixels(picture: Image.Image) -> torch.Tensor:
    """An RGB picture as (1, 3, height, width) in -1..1."""
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.view(1, picture.height, picture.width, 3).permute(0, 3, 1, 2).float() / 127.5 - 1


def weights(
    mask: Image.Image | None, size: tuple[int, int], *, latent: tuple[int, int], floor: float
) -> torch.Tensor:
    """How much each latent cell counts in the loss: (1, rows, columns), with a mean of 1.

    White counts fully and black `floor` before the mean is taken out. Without that division a small mask
    would also be a small learning rate. `latent` is (rows, columns).
    """
    if mask is None:
        return torch.ones(1, *latent)
    shown = fitted(mask.convert("L"), size, Image.Resampling.BOX)
    flat = torch.frombuffer(bytearray(shown.tobytes()), dtype=torch.uint8)
    share = flat.view(1, 1, shown.height, shown.width).float() / 255
    cells = torch.nn.functional.adaptive_avg_pool2d(share, latent)[0]
    counted = floor + (1 - floor) * cells
    mean = counted.mean()
    return counted / mean if mean > 0 else torch.ones_like(counted)
