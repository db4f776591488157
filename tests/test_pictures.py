"""Pictures and masks: whatever form they come in, they come out upright, in sRGB, over white."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from reference_backend.job import JobFailed
from reference_backend.pictures import read_mask, read_picture

NOISE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8))
Profile = ImageCms.ImageCmsProfile


def encoded(image: Image.Image, form: str, **how: object) -> bytes:
    into = io.BytesIO()
    image.save(into, form, **how)
    return into.getvalue()


def flat(color: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (16, 8), color)


def corner(content: bytes) -> object:
    picture = read_picture(content, what="image")
    assert picture.mode == "RGB"
    return picture.getpixel((0, 0))


def near(found: object, wanted: tuple[int, ...], by: int = 3) -> bool:
    assert isinstance(found, tuple)
    return all(abs(one - other) <= by for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("form", "how"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_a_picture_is_read_bit_for_bit(form: str, how: dict[str, object]) -> None:
    picture = read_picture(encoded(NOISE, form, **how), what="image")
    assert picture.mode == "RGB"
    assert picture.tobytes() == NOISE.tobytes()


@pytest.mark.parametrize("form", ["JPEG", "GIF"])
def test_a_picture_of_a_form_that_loses_is_read(form: str) -> None:
    assert near(corner(encoded(flat((200, 30, 60)), form)), (200, 30, 60))


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_turned_upright(form: str, orientation: int, stored: Image.Transpose | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.new("RGB", (64, 32), "white")
    upright.paste("red", (0, 0, 16, 16))
    lying = upright if stored is None else upright.transpose(stored)
    content = encoded(lying, form, exif=exif, **({"quality": 100} if form in {"JPEG", "WEBP"} else {}))
    picture = read_picture(content, what="image")
    assert picture.size == (64, 32)
    assert near(picture.getpixel((4, 4)), (255, 0, 0), by=40)
    assert near(picture.getpixel((60, 28)), (255, 255, 255), by=20)
    assert read_mask(content, what="mask").size == (64, 32)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(form: str) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    content = encoded(Image.fromarray(values), form)
    picture = np.asarray(read_picture(content, what="image"))
    assert (picture[..., 0] == values >> 8).all()
    assert (picture == picture[..., :1]).all()
    assert (np.asarray(read_mask(content, what="mask")) == values >> 8).all()


def test_sixteen_bits_of_the_other_byte_order_become_eight() -> None:
    values = (np.arange(256, dtype=np.uint16).reshape(16, 16) * 257).astype(">u2")
    content = encoded(Image.frombytes("I;16B", (16, 16), values.tobytes()), "TIFF")
    assert (np.asarray(read_picture(content, what="image"))[..., 0] == values >> 8).all()


def test_a_value_of_sixteen_bits_may_mean_transparent() -> None:
    content = encoded(Image.fromarray(np.full((4, 4), 5000, dtype=np.uint16)), "PNG", transparency=5000)
    assert corner(content) == (255, 255, 255)
    assert read_mask(content, what="mask").getpixel((0, 0)) == 0


def test_what_shines_through_is_white() -> None:
    hidden = flat((255, 0, 0, 0), "RGBA")
    for form in ("PNG", "WEBP", "TIFF"):
        assert corner(encoded(hidden, form, lossless=True)) == (255, 255, 255)
    assert near(corner(encoded(flat((255, 0, 0, 127), "RGBA"), "PNG")), (255, 128, 128))
    assert corner(encoded(flat((0, 0), "LA"), "PNG")) == (255, 255, 255)


def test_a_palette_may_have_a_transparent_colour() -> None:
    palette = NOISE.quantize(8)
    first = palette.getpixel((0, 0))
    for form in ("PNG", "GIF"):
        assert corner(encoded(palette, form, transparency=first)) == (255, 255, 255)
    assert corner(encoded(palette, "PNG")) == palette.convert("RGB").getpixel((0, 0))


def test_one_bit_and_grey_are_read() -> None:
    assert corner(encoded(Image.new("1", (8, 8), 1), "PNG")) == (255, 255, 255)
    assert corner(encoded(Image.new("L", (8, 8), 77), "PNG")) == (77, 77, 77)


def test_the_colours_of_print_are_read() -> None:
    red = flat((0, 255, 255, 0), "CMYK")
    assert near(corner(encoded(red, "TIFF")), (255, 0, 0))
    assert near(corner(encoded(red, "JPEG", quality=100)), (255, 0, 0), by=6)


def test_floating_point_is_refused() -> None:
    with pytest.raises(JobFailed, match=r"^image_unreadable"):
        read_picture(encoded(Image.new("F", (4, 4), 0.5), "TIFF"), what="image")


def swapped() -> bytes:
    """A colour profile in which red is green and green is red."""
    profile = bytearray(Profile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    # It must not call itself sRGB.
    return bytes(profile.replace(b"s\0R\0G\0B", b"t\0e\0s\0t"))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_colours_are_by_the_profile_that_comes_along(form: str) -> None:
    content = encoded(flat((255, 0, 0)), form, icc_profile=swapped())
    assert near(corner(content), (0, 255, 0), by=10)


def test_a_profile_holds_under_transparency_too() -> None:
    content = encoded(flat((255, 0, 0, 255), "RGBA"), "PNG", icc_profile=swapped())
    assert near(corner(content), (0, 255, 0), by=10)


def test_a_profile_for_other_channels_is_left_out() -> None:
    content = encoded(flat((0, 255, 255, 0), "CMYK"), "TIFF", icc_profile=swapped())
    assert near(corner(content), (255, 0, 0))
    grey = encoded(Image.new("L", (8, 8), 77), "PNG", icc_profile=swapped())
    assert near(corner(grey), (77, 77, 77))


def test_srgb_changes_no_bit() -> None:
    profile = Profile(ImageCms.createProfile("sRGB")).tobytes()
    picture = read_picture(encoded(NOISE, "PNG", icc_profile=profile), what="image")
    assert picture.tobytes() == NOISE.tobytes()


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_picture_is_read(form: str) -> None:
    content = encoded(
        flat((255, 0, 0)), form, save_all=True, append_images=[flat((0, 0, 255))], lossless=True
    )
    assert corner(content) == (255, 0, 0)


def test_of_many_pages_the_first_is_read() -> None:
    content = encoded(flat((255, 0, 0)), "TIFF", save_all=True, append_images=[flat((0, 0, 255))])
    assert corner(content) == (255, 0, 0)


def test_the_photograph_of_a_telephone_is_read() -> None:
    content = encoded(flat((255, 0, 0)), "MPO", save_all=True, append_images=[flat((0, 0, 255))], quality=100)
    assert near(corner(content), (255, 0, 0))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(400, 300), (3000, 10), (10, 3000)])
def test_a_picture_is_made_no_larger_than_asked(form: str, size: tuple[int, int]) -> None:
    picture = read_picture(encoded(Image.new("RGB", size, "red"), form), what="image", pixels=5000)
    assert 4000 < picture.width * picture.height <= 5000
    assert abs(picture.width / picture.height / (size[0] / size[1]) - 1) < 0.3


def test_a_picture_that_is_small_enough_stays_as_it_is() -> None:
    picture = read_picture(encoded(NOISE, "PNG"), what="image", pixels=24 * 32)
    assert picture.tobytes() == NOISE.tobytes()


def test_a_mask_is_grey_and_what_is_transparent_is_black() -> None:
    def grey(image: Image.Image, form: str = "PNG") -> object:
        mask = read_mask(encoded(image, form), what="mask")
        assert mask.mode == "L"
        return mask.getpixel((0, 0))

    assert [grey(Image.new("L", (4, 4), value)) for value in (0, 127, 128, 255)] == [0, 127, 128, 255]
    assert grey(flat((255, 255, 255))) == 255
    assert grey(flat((255, 255, 255, 0), "RGBA")) == 0
    assert grey(flat((255, 255, 255, 255), "RGBA")) == 255
    assert grey(Image.new("1", (4, 4), 1)) == 255
    assert grey(flat((0, 0, 0, 0), "CMYK"), "TIFF") == 255


def test_an_error_names_what_it_is_about() -> None:
    with pytest.raises(JobFailed, match=r"^image_unreadable: mask_image is broken") as failed:
        read_mask(b"x", what="mask_image")
    assert failed.value.code == "image_unreadable"
