"""How training pictures come to their sizes, and what of them counts."""

import pytest
import torch
from PIL import Image, ImageDraw

from reference_backend.training_pictures import bucket, fitted, pixels, sizes_of, weights

SIZE = (128, 128)
CELLS = (8, 8)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (800, 800, (512, 512)),
        (1200, 800, (624, 416)),
        (800, 1200, (416, 624)),
        (5000, 100, (720, 368)),
        (3, 4000, (368, 720)),
    ],
)
def test_a_bucket_has_the_pictures_shape_within_bounds(
    width: int, height: int, size: tuple[int, int]
) -> None:
    assert bucket(width, height, resolution=512, step=16) == size


@pytest.mark.parametrize("step", [16, 64])
@pytest.mark.parametrize("width", [100, 333, 512, 700, 1000, 4000])
def test_every_bucket_is_whole_tokens_of_about_the_same_area(width: int, step: int) -> None:
    wide, high = bucket(width, 700, resolution=512, step=step)
    assert wide % step == 0
    assert high % step == 0
    # Rounding a side moves it by half a token at most.
    assert abs(wide * high / 512**2 - 1) < 1.5 * step / 362


def test_a_small_picture_is_trained_at_the_smallest_size_only() -> None:
    assert sizes_of(Image.new("RGB", (300, 300)), (512, 768, 1024), 16) == ((512, 512),)


def test_a_large_picture_is_trained_at_every_size() -> None:
    found = sizes_of(Image.new("RGB", (1024, 1024)), (1024, 512, 768), 16)
    assert found == ((512, 512), (768, 768), (1024, 1024))


@pytest.mark.parametrize(
    ("width", "height"), [(2048, 512), (500, 4000), (1023, 1030), (1100, 960), (5000, 700), (900, 900)]
)
@pytest.mark.parametrize("step", [16, 64])
def test_a_picture_is_enlarged_to_the_smallest_size_only(width: int, height: int, step: int) -> None:
    _, *larger = sizes_of(Image.new("L", (width, height)), (512, 768, 1024), step)
    assert all(wide <= width and high <= height for wide, high in larger)


def test_a_long_picture_is_trained_at_what_is_left_of_it() -> None:
    found = sizes_of(Image.new("L", (2400, 600)), (512, 768, 1024), 16)
    assert found == ((720, 368), (1088, 544))


def test_a_circle_stays_a_circle_in_the_middle() -> None:
    picture = Image.new("L", (400, 200))
    ImageDraw.Draw(picture).ellipse((150, 50, 250, 150), fill=255)
    shown = fitted(picture, (100, 100)).point(lambda value: 255 * (value > 127)).getbbox()
    assert shown == pytest.approx((25, 25, 75, 75), abs=1)


def test_pixels_are_rows_and_columns_from_minus_1_to_1() -> None:
    picture = Image.new("RGB", (3, 2), (0, 127, 255))
    picture.putpixel((2, 0), (255, 255, 255))
    values = pixels(picture)
    assert values.shape == (1, 3, 2, 3)
    assert values[0, :, 1, 2].tolist() == pytest.approx([-1, -0.00392, 1], abs=1e-4)
    assert values[0, :, 0, 2].tolist() == [1, 1, 1]


def half() -> Image.Image:
    mask = Image.new("L", SIZE)
    mask.paste(255, (0, 0, 64, 128))
    return mask


def test_black_counts_the_floor_and_white_fully() -> None:
    counted = weights(half(), SIZE, latent=CELLS, floor=0.1)
    assert counted.shape == (1, 8, 8)
    assert float(counted[0, 0, 7] / counted[0, 0, 0]) == pytest.approx(0.1)


def test_at_a_floor_of_0_black_does_not_count() -> None:
    assert weights(half(), SIZE, latent=CELLS, floor=0.0)[0, :, 4:].abs().max() == 0


@pytest.mark.parametrize("mask", [None, Image.new("L", SIZE, 0), Image.new("L", SIZE, 255), half()])
def test_weights_have_a_mean_of_1(mask: Image.Image | None) -> None:
    assert float(weights(mask, SIZE, latent=CELLS, floor=0.1).mean()) == pytest.approx(1)


def test_an_all_black_mask_at_a_floor_of_0_is_no_mask() -> None:
    black = weights(Image.new("L", SIZE), SIZE, latent=CELLS, floor=0.0)
    assert torch.equal(black, weights(None, SIZE, latent=CELLS, floor=0.0))


def test_a_mask_of_another_size_is_cut_as_its_picture_is() -> None:
    mask = Image.new("L", (512, 256))
    mask.paste(255, (128, 0, 384, 256))
    counted = weights(mask, SIZE, latent=CELLS, floor=0.0)
    assert torch.equal(counted, torch.ones(1, 8, 8))
