"""Masks for training pictures that came without: where a face is, the face counts most."""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

How = Literal["face", "no face, all counts", "no detector (the extra `masks`), all counts"]
"""What a mask was made of: a face and the person around it, or nothing, and why."""

_MODELS = Path(__file__).parent / "detectors"
_WIDENED = 1.3
"""An oval in the detector's box covers a face from brow to chin; widened, it takes in hair and ears too."""

_PERSON = 0.5
_SURE = 0.6
_SAME = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Where a face is, in pixels of its picture; it may reach over the edge. `score` is in 0..1."""

    left: float
    top: float
    right: float
    bottom: float
    score: float


class Detector(Protocol):
    """Finds people in RGB pictures."""

    def faces(self, picture: Image.Image, /) -> Sequence[Box]:
        """One box per face."""
        ...

    def person(self, picture: Image.Image, /) -> Image.Image:
        """How likely each pixel is a person's: an L picture of the same size."""
        ...


def mask_of(picture: Image.Image, detector: Detector | None = None) -> tuple[Image.Image, How]:
    """What of an RGB picture counts in a training, as an L picture of its size, and how it was found.

    A face counts fully, in an oval about it; its person by half; the rest, which is black, by what the recipe
    says. Without a face all is white: what looks for people sees them in cats too, so it is asked only beside
    a face. `detector` is the built-in one where it is None; without the extra `masks` there is none, and all
    is white as well.
    """
    detector = detector or _built_in()
    if detector is None:
        return Image.new("L", picture.size, 255), "no detector (the extra `masks`), all counts"
    faces = detector.faces(picture)
    if not faces:
        return Image.new("L", picture.size, 255), "no face, all counts"
    mask = detector.person(picture).point(lambda value: value * _PERSON)
    for face in faces:
        mask = ImageChops.lighter(mask, _oval(picture.size, face))
    return mask, "face"


def _oval(size: tuple[int, int], face: Box) -> Image.Image:
    across, down = ((face.right - face.left) * _WIDENED / 2, (face.bottom - face.top) * _WIDENED / 2)
    x, y = (face.left + face.right) / 2, (face.top + face.bottom) / 2
    oval = Image.new("L", size, 0)
    ImageDraw.Draw(oval).ellipse((x - across, y - down, x + across, y + down), fill=255)
    return oval


@cache
def _built_in() -> Detector | None:
    try:
        interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    except ImportError:
        return None
    return _LiteRt(
        face=interpreter(str(_MODELS / "face.tflite"), num_threads=1),
        person=interpreter(str(_MODELS / "person.tflite"), num_threads=1),
    )


class _LiteRt:
    """MediaPipe's two networks: BlazeFace (full range) for faces, and the one for selfies for people.

    A face is found from about a sixteenth of the picture's longer side on (measured).
    """

    def __init__(self, *, face: Any, person: Any) -> None:
        self._face = face
        self._person = person
        for each in (face, person):
            each.allocate_tensors()

    def faces(self, picture: Image.Image, /) -> Sequence[Box]:
        side = 192
        scale = side / max(picture.size)
        small = picture.resize(
            (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))),
            Image.Resampling.BILINEAR,
        )
        square = Image.new("RGB", (side, side))
        left, top = (side - small.width) // 2, (side - small.height) // 2
        square.paste(small, (left, top))
        outputs = _asked(self._face, np.asarray(square, np.float32)[None] / np.float32(127.5) - np.float32(1))
        # Per cell of a 48 x 48 grid: offsets of the box's middle from the cell's, its size, and a score.
        rows, scores = sorted((each[0] for each in outputs), key=lambda each: -each.shape[1])
        cell = side / math.isqrt(len(rows))
        grid = int(side / cell)
        found = []
        for index in np.flatnonzero(scores[:, 0] > math.log(_SURE / (1 - _SURE))):
            x = (index % grid + 0.5) * cell + rows[index, 0] - left
            y = (index // grid + 0.5) * cell + rows[index, 1] - top
            width, height = rows[index, 2], rows[index, 3]
            found.append(
                Box(
                    left=float(x - width / 2) / scale,
                    top=float(y - height / 2) / scale,
                    right=float(x + width / 2) / scale,
                    bottom=float(y + height / 2) / scale,
                    score=1 / (1 + math.exp(-float(scores[index, 0]))),
                )
            )
        return _distinct(found)

    def person(self, picture: Image.Image, /) -> Image.Image:
        small = picture.resize((256, 256), Image.Resampling.BILINEAR)
        (likely,) = _asked(self._person, np.asarray(small, np.float32)[None] / np.float32(255))
        shown = Image.fromarray((likely[0, :, :, 0].clip(0, 1) * 255).astype(np.uint8))
        return shown.resize(picture.size, Image.Resampling.BILINEAR)


def _asked(network: Any, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    network.set_tensor(network.get_input_details()[0]["index"], values)
    network.invoke()
    return [network.get_tensor(each["index"]) for each in network.get_output_details()]


def _distinct(found: Sequence[Box]) -> list[Box]:
    """One box per face: of those that overlap, the one with the best score."""
    kept: list[Box] = []
    for box in sorted(found, key=lambda each: -each.score):
        if all(_overlap(box, other) < _SAME for other in kept):
            kept.append(box)
    return kept


def _overlap(one: Box, other: Box) -> float:
    """The area that two boxes share, of the area that they cover together."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((each.right - each.left) * (each.bottom - each.top) for each in (one, other))
    return width * height / (areas - width * height)
