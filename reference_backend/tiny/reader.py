"""Reads a picture of a scene from its pixels alone: colours, shape, place and size."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from reference_backend.tiny.scenes import ANCHORS, PALETTE, RADII, Scene, shape_distance
from reference_backend.tiny.words import SHAPES

_SIDE = 128
"""Pixels of the shorter side at which a picture is read."""
_FAINTEST = 40.0
"""A shape's colour is at least this far (of 255, over three channels) from the ground's."""
_SMALLEST_SHARE = 0.004

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the picture shows; None where no shape stands out from the ground."""

    background: str
    colour: str | None = None
    shape: str | None = None
    place: str | None = None
    size: str | None = None

    def agrees(self, scene: Scene) -> dict[str, bool]:
        """For each attribute whether the scene has it."""
        return {name: getattr(self, name) == getattr(scene, name) for name in ATTRIBUTES}


ATTRIBUTES = ("background", "colour", "shape", "place", "size")


def read_picture(picture: Image.Image) -> Reading:
    """Read a picture of any size."""
    scale = _SIDE / min(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    small = picture.convert("RGB").resize((width, height), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32)
    ground = _ground(pixels)
    background = _nearest_colour(ground)
    mask = _largest_piece(np.linalg.norm(pixels - ground, axis=2) > _threshold(pixels, ground))
    if mask.mean() < _SMALLEST_SHARE:
        return Reading(background=background)
    rows, columns = np.nonzero(mask)
    return Reading(
        background=background,
        colour=_nearest_colour(np.median(pixels[_inside(mask)], axis=0)),
        place=_place(columns.mean() / width, rows.mean() / height),
        **_shape_and_size(mask),
    )


def _ground(pixels: Pixels) -> Pixels:
    """The colour of the border: its median, which a shape at one edge does not move."""
    rim = np.concatenate(
        [
            pixels[:3].reshape(-1, 3),
            pixels[-3:].reshape(-1, 3),
            pixels[:, :3].reshape(-1, 3),
            pixels[:, -3:].reshape(-1, 3),
        ]
    )
    middle: Pixels = np.median(rim, axis=0).astype(np.float32)
    return middle


def _threshold(pixels: Pixels, ground: Pixels) -> float:
    """Half way from the ground to the colour farthest from it (one pixel in two hundred is farther)."""
    farthest = float(np.quantile(np.linalg.norm(pixels - ground, axis=2), 0.995))
    return max(_FAINTEST, farthest / 2)


def _nearest_colour(colour: Pixels) -> str:
    distances = {name: float(np.linalg.norm(colour - np.array(rgb))) for name, rgb in PALETTE.items()}
    return min(distances, key=lambda name: distances[name])


def _inside(mask: Mask) -> Mask:
    """The mask without its rim, where colours mix; the mask itself if nothing else is left."""
    core = mask.copy()
    for _ in range(2):
        core[1:-1, 1:-1] &= core[:-2, 1:-1] & core[2:, 1:-1] & core[1:-1, :-2] & core[1:-1, 2:]
    return core if core.any() else mask


def _largest_piece(mask: Mask) -> Mask:
    """The largest connected piece, by spreading the highest label over each piece."""
    labels = torch.where(
        torch.from_numpy(mask), torch.arange(1, mask.size + 1).reshape(mask.shape), 0
    ).float()
    inside = labels > 0
    while True:
        spread = torch.nn.functional.max_pool2d(labels[None], 9, stride=1, padding=4)[0]
        # A step of four pixels may leap over a gap narrower than that: specks beside the shape belong to it.
        spread = torch.where(inside, spread, 0.0)
        if torch.equal(spread, labels):
            break
        labels = spread
    counts = torch.bincount(labels.long().flatten())
    counts[0] = 0
    return np.asarray(labels.long() == int(counts.argmax())) & mask


def _place(x: float, y: float) -> str:
    return min(ANCHORS, key=lambda name: (ANCHORS[name][0] - x) ** 2 + (ANCHORS[name][1] - y) ** 2)


def _shape_and_size(mask: Mask) -> dict[str, str]:
    """The drawn shape, at any radius, that overlaps most with the mask when their middles coincide."""
    short = min(mask.shape)
    rows, columns = np.nonzero(mask)
    middle = columns.mean() + 0.5, rows.mean() + 0.5
    x = (torch.arange(mask.shape[1]) + 0.5)[None, :] - middle[0]
    y = (torch.arange(mask.shape[0]) + 0.5)[:, None] - middle[1]
    wanted = torch.from_numpy(mask)
    best = (0.0, "", 0.0)
    for shape in SHAPES:
        area, offset_x, offset_y = _TEMPLATES[shape]
        middling = float(np.sqrt(mask.sum() / area))
        for factor in (0.88, 0.94, 1.0, 1.06, 1.12):
            radius = middling * factor
            drawn = shape_distance(shape, x / radius + offset_x, y / radius + offset_y) < 0
            overlap = float((drawn & wanted).sum() / (drawn | wanted).sum())
            best = max(best, (overlap, shape, radius / short))
    size = min(RADII, key=lambda name: abs(RADII[name] - best[2]))
    return {"shape": best[1], "size": size}


def _template(shape: str) -> tuple[float, float, float]:
    """Area and middle of the shape of radius one."""
    steps = torch.linspace(-1.5, 1.5, 601)
    inside = shape_distance(shape, steps[None, :], steps[:, None]) < 0
    ys, xs = torch.nonzero(inside, as_tuple=True)
    return float(inside.sum()) * 0.005**2, float(steps[xs].mean()), float(steps[ys].mean())


_TEMPLATES = {shape: _template(shape) for shape in SHAPES}
