"""Masks that are made of training pictures: a real face, and pictures without any."""

import importlib.util

import pytest
from PIL import Image
from skimage import data

from reference_backend import masks
from reference_backend.masks import Box, mask_of

needs_detector = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="the extra `masks` is not installed"
)


class Found:
    """A detector that knows what it finds."""

    def __init__(self, *faces: Box) -> None:
        self._faces = faces

    def faces(self, _picture: Image.Image) -> list[Box]:
        return list(self._faces)

    def person(self, picture: Image.Image) -> Image.Image:
        shown = Image.new("L", picture.size)
        shown.paste(255, (0, 50, 100, 100))
        return shown


def face(left: float, top: float, right: float, bottom: float) -> Box:
    return Box(left=left, top=top, right=right, bottom=bottom, score=0.9)


def at(mask: Image.Image, x: int, y: int) -> int:
    return mask.tobytes()[y * mask.width + x]


def photo(name: str) -> Image.Image:
    """A photograph that scikit-image carries in its wheel."""
    return Image.fromarray(getattr(data, name)())


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return photo("astronaut")


@needs_detector
def test_a_face_counts_fully_its_person_by_half_and_the_rest_hardly(astronaut: Image.Image) -> None:
    mask, how = mask_of(astronaut)
    assert (how, mask.mode, mask.size) == ("face", "L", astronaut.size)
    assert at(mask, 225, 120) == 255  # the nose
    assert 115 < at(mask, 150, 400) < 129  # the suit
    assert at(mask, 20, 20) < 10  # the flag


@needs_detector
@pytest.mark.parametrize("side", [200, 400, 800])
def test_a_face_is_found_where_it_is_at_any_size(astronaut: Image.Image, side: int) -> None:
    canvas = Image.new("RGB", (1024, 700), (120, 120, 120))
    canvas.paste(astronaut.resize((800, 800)).crop((100, 0, 500, 400)).resize((side, side)), (100, 0))
    mask, how = mask_of(canvas)
    assert how == "face"
    assert at(mask, 100 + int(side * 0.63), int(side * 0.47)) == 255
    assert at(mask, 1000, 650) == 0


@needs_detector
@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket"])
def test_where_no_face_is_everything_counts(name: str) -> None:
    picture = photo(name)
    mask, how = mask_of(picture)
    assert how == "no face, all counts"
    assert mask.size == picture.size
    assert mask.getextrema() == (255, 255)


def test_a_small_and_a_thin_picture_have_masks() -> None:
    for size in ((1, 1), (3, 900)):
        assert mask_of(Image.new("RGB", size))[0].size == size


def test_every_face_gets_its_oval() -> None:
    found = Found(face(10, 10, 30, 30), face(60, 10, 80, 30))
    mask, _ = mask_of(Image.new("RGB", (100, 100)), found)
    assert [at(mask, x, 20) for x in (20, 45, 70)] == [255, 0, 255]
    assert at(mask, 50, 80) == 128


def test_the_oval_is_wider_than_the_box_and_has_no_corners() -> None:
    mask, _ = mask_of(Image.new("RGB", (100, 100)), Found(face(20, 0, 60, 40)))
    assert [at(mask, x, 20) for x in (13, 15, 65, 67)] == [0, 255, 255, 0]
    assert at(mask, 21, 1) == 0


def test_a_face_over_the_edge_is_no_trouble() -> None:
    mask, how = mask_of(Image.new("RGB", (100, 100)), Found(face(-20, -20, 20, 20)))
    assert how == "face"
    assert at(mask, 0, 0) == 255


def test_without_the_extra_everything_counts_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_built_in", lambda: None)
    mask, how = mask_of(Image.new("RGB", (20, 10)))
    assert "extra `masks`" in how
    assert mask.getextrema() == (255, 255)


@needs_detector
def test_one_face_is_one_box(astronaut: Image.Image) -> None:
    detector = masks._built_in()
    assert detector is not None
    [found] = detector.faces(astronaut)
    assert found.score > 0.85
    assert found.left < 225 < found.right
    assert found.top < 120 < found.bottom
