"""Drawn scenes, one flat shape on a flat background, and the prompts that describe them.

A scene is drawn from signed distances, so it can be drawn at any size, also directly at the eighth of it that
the autoencoder's encoder sees. Everything is drawn at random from the generator that is passed.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from reference_backend.tiny.words import PLACES, SHAPES, SIZES

PALETTE = {
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (38, 84, 214),
    "yellow": (250, 214, 40),
    "orange": (246, 136, 24),
    "purple": (126, 52, 176),
    "pink": (248, 150, 190),
    "white": (244, 244, 240),
    "black": (24, 24, 28),
    "turquoise": (60, 200, 205),
}
ANCHORS = {
    "left": (0.29, 0.5),
    "right": (0.71, 0.5),
    "top": (0.5, 0.29),
    "bottom": (0.5, 0.71),
    "center": (0.5, 0.5),
}
"""Where a shape's middle lies, in shares of the picture's width and height."""
RADII = {"small": 0.135, "medium": 0.185, "large": 0.235}
"""In shares of the picture's shorter side."""

_HELD_OUT_SHARE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a picture shows, in the words of the vocabulary."""

    background: str
    colour: str
    shape: str
    place: str
    size: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Jitter:
    """By how much scenes of one prompt differ: place (share of a side), radius (share), colour (of 255)."""

    place: float = 0.012
    radius: float = 0.03
    colour: float = 5.0


def is_held_out(scene: Scene) -> bool:
    """Whether the scene is of the eighth that training never sees."""
    words = "/".join((scene.background, scene.colour, scene.shape, scene.place, scene.size))
    return hashlib.sha256(words.encode()).digest()[0] % _HELD_OUT_SHARE == 0


def random_scene(generator: Generator, *, held_out: bool = False) -> Scene:
    """A scene of the training set, or of the held-out set."""
    while True:
        background, colour, shape, place, size = (
            names[int(torch.randint(len(names), (), generator=generator))]
            for names in (list(PALETTE), list(PALETTE), list(SHAPES), list(PLACES), list(SIZES))
        )
        scene = Scene(background=background, colour=colour, shape=shape, place=place, size=size)
        if background != colour and is_held_out(scene) == held_out:
            return scene


def draw(
    scenes: Sequence[Scene],
    generator: Generator,
    *,
    width: int,
    height: int,
    jitter: Jitter | None = None,
) -> Tensor:
    """Pictures (B, 3, height, width) of -1 to 1; the size may be an eighth of the one meant."""
    jitter = jitter or Jitter()
    count = len(scenes)
    noise = torch.rand((count, 9), generator=generator) * 2 - 1
    short = min(width, height)
    anchors = torch.tensor([ANCHORS[scene.place] for scene in scenes])
    middles = (anchors + jitter.place * noise[:, :2]) * torch.tensor([width, height])
    radii = torch.tensor([RADII[scene.size] for scene in scenes]) * (1 + jitter.radius * noise[:, 2]) * short
    x = (torch.arange(width) + 0.5)[None, None, :] - middles[:, 0, None, None]
    y = (torch.arange(height) + 0.5)[None, :, None] - middles[:, 1, None, None]
    coverage = torch.empty((count, height, width))
    for shape in {scene.shape for scene in scenes}:
        chosen = torch.tensor([scene.shape == shape for scene in scenes])
        scale = radii[chosen, None, None]
        distance = shape_distance(shape, x[chosen] / scale, y[chosen] / scale) * scale
        coverage[chosen] = (0.5 - distance).clamp(0, 1)
    inks = _inks([scene.colour for scene in scenes], noise[:, 3:6] * jitter.colour)
    grounds = _inks([scene.background for scene in scenes], noise[:, 6:9] * jitter.colour)
    return torch.lerp(grounds, inks, coverage[:, None])


def _inks(colours: Sequence[str], noise: Tensor) -> Tensor:
    return ((torch.tensor([PALETTE[colour] for colour in colours]) + noise) / 127.5 - 1)[:, :, None, None]


def shape_distance(shape: str, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance (negative inside) to the shape about 0, 0, of radius about 1; y grows downwards."""
    x, y = torch.broadcast_tensors(x, y)
    if shape == "circle":
        return torch.hypot(x, y) - 0.95
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.84
    if shape == "cross":
        across, along = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
        return torch.maximum(across - 1.0, along - 0.32)
    if shape == "triangle":
        # Three half planes: the base below, and two sides that meet at the top.
        return torch.maximum(y - 0.72, (x.abs() * 2 - (y + 1.08)) / math.sqrt(5))
    if shape == "star":
        return _star_distance(x, y)
    return _heart_distance(x, y)


def _star_distance(x: Tensor, y: Tensor) -> Tensor:
    """A five-pointed star, by folding the plane into one of its ten equal sectors."""
    sector = 2 * math.pi / 5
    angle = torch.atan2(x, -y)
    folded = (angle - sector * torch.round(angle / sector)).abs()
    radius = torch.hypot(x, y)
    px, py = radius * torch.cos(folded), radius * torch.sin(folded)
    outer, inner = 1.12, 0.47
    ix, iy = inner * math.cos(sector / 2), inner * math.sin(sector / 2)
    dx, dy = ix - outer, iy
    length = math.hypot(dx, dy)
    # The side of the line from the tip to the inner corner, outside positive.
    return ((px - outer) * dy - py * dx) / length


def _heart_distance(x: Tensor, y: Tensor) -> Tensor:
    """Two discs above a wedge."""
    x, y = x.abs(), y + 0.08
    discs = torch.hypot(x - 0.46, y + 0.32) - 0.54
    wedge = torch.maximum(x + y - 0.904, x - y - 0.78) * math.sqrt(0.5)
    return torch.minimum(discs, torch.maximum(wedge, -(y + 0.32)))
