"""Pictures of all kinds, drawn at random, for the autoencoder: users train on pictures that are no scenes."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from reference_backend.tiny.scenes import draw, random_scene, shape_distance
from reference_backend.tiny.words import SHAPES


def random_pictures(count: int, side: int, generator: Generator) -> Tensor:
    """Pictures (count, 3, side, side) of -1 to 1: scenes' cut-outs, shapes, gradients, noise, stripes."""
    makers = (_scene, _scene, _shapes, _shapes, _gradient, _noise, _stripes)
    kinds = torch.randint(len(makers), (count,), generator=generator).tolist()
    return torch.stack([makers[kind](side, generator) for kind in kinds]).clamp(-1, 1)


def _uniform(generator: Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def _grid(side: int) -> tuple[Tensor, Tensor]:
    steps = (torch.arange(side) + 0.5) / side * 2 - 1
    return steps[None, :], steps[:, None]


def _scene(side: int, generator: Generator) -> Tensor:
    """A cut-out of a scene that is up to four times as large, about its shape's outline as often as not."""
    whole = int(side * float(_uniform(generator, 1, low=1.0, high=3.0)))
    picture = draw([random_scene(generator)], generator, width=whole, height=whole)[0]
    y, x = (torch.randint(whole - side + 1, (2,), generator=generator)).tolist()
    return picture[:, y : y + side, x : x + side]


def _shapes(side: int, generator: Generator) -> Tensor:
    """One to five shapes of any colour, turned and placed anywhere, on a flat ground or a gradient."""
    x, y = _grid(side)
    picture = _gradient(side, generator) if float(_uniform(generator, 1)) < 0.3 else _flat(generator, side)
    for _ in range(int(torch.randint(1, 6, (), generator=generator))):
        shape = list(SHAPES)[int(torch.randint(len(SHAPES), (), generator=generator))]
        radius, angle, mx, my = (_uniform(generator, 4) * torch.tensor([0.7, 6.3, 2, 2])).tolist()
        radius += 0.1
        dx, dy = (x - mx + 1) / radius, (y - my + 1) / radius
        turned = dx * math.cos(angle) - dy * math.sin(angle), dx * math.sin(angle) + dy * math.cos(angle)
        coverage = (0.5 - shape_distance(shape, *turned) * radius * side / 2).clamp(0, 1)
        picture = torch.lerp(picture, _flat(generator, side), coverage)
    return picture


def _flat(generator: Generator, side: int) -> Tensor:
    return _uniform(generator, 3, 1, 1, low=-1, high=1).expand(3, side, side)


def _gradient(side: int, generator: Generator) -> Tensor:
    """Two to three colours blended over the picture."""
    corners = _uniform(
        generator, 1, 3, *torch.randint(2, 4, (2,), generator=generator).tolist(), low=-1, high=1
    )
    return functional.interpolate(corners, size=(side, side), mode="bilinear", align_corners=True)[0]


def _noise(side: int, generator: Generator) -> Tensor:
    """Noise whose strength falls with its frequency, as in photographs."""
    picture = _uniform(generator, 1, 3, 1, 1, low=-0.6, high=0.6)
    grey = float(_uniform(generator, 1))
    cells, strength = 2, 0.6
    while cells <= side:
        octave = torch.randn((1, 3, cells, cells), generator=generator)
        octave = grey * octave.mean(1, keepdim=True) * 1.7 + (1 - grey) * octave
        picture = functional.interpolate(
            picture.expand(1, 3, *picture.shape[2:]), size=(cells, cells), mode="bicubic"
        )
        picture = picture + strength * octave
        cells, strength = cells * 2, strength * 0.55
    return functional.interpolate(picture, size=(side, side), mode="bicubic")[0]


def _stripes(side: int, generator: Generator) -> Tensor:
    """Stripes, a chequered pattern or a frame in two colours."""
    x, y = _grid(side)
    draws = _uniform(generator, 4).tolist()
    if draws[0] < 0.4:
        inside = torch.maximum(x.abs(), y.abs()) - (0.4 + 0.55 * draws[1])
        coverage = (0.5 - inside * side / 2).clamp(0, 1)
    else:
        angle, waves = draws[1] * math.pi, 2 + 14 * draws[2]
        wave = torch.sin((x * math.cos(angle) + y * math.sin(angle)) * waves)
        if draws[3] < 0.4:
            wave = wave * torch.sin((y * math.cos(angle) - x * math.sin(angle)) * waves)
        coverage = (0.5 + wave * side / waves).clamp(0, 1)
    return torch.lerp(_flat(generator, side), _flat(generator, side), coverage)
