"""Images from outside: what is read, and what is not."""

import io
import random
import struct
import warnings
import zlib
from typing import Any

import pytest
from PIL import Image, ImageStat

from mock_server.decoding import decode_image

RED = (200, 30, 60)
WHITE = (255, 255, 255)


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def flat(colour: Any, size: tuple[int, int] = (96, 80), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(1).randbytes(3 * size[0] * size[1]))


def colours(image: Image.Image) -> list[tuple[int, Any]] | None:
    found: list[tuple[int, Any]] | None = image.getcolors()
    return found


def one_bit_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compress(bytes(height * (1 + (width + 7) // 8)))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("PNG", {}), ("JPEG", {"quality": 100}), ("WEBP", {"lossless": True}), ("GIF", {}), ("BMP", {})],
)
def test_five_formats_are_read(file_format: str, options: dict[str, Any]) -> None:
    image = decode_image(encoded(flat(RED), file_format, **options))
    assert image is not None
    assert ImageStat.Stat(image).mean == pytest.approx(RED, abs=2)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"<svg/>", encoded(flat(RED), "TIFF"), encoded(flat(RED), "PPM")]
)
def test_nothing_else_is_read(data: bytes) -> None:
    assert decode_image(data) is None


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_truncated_file_is_not_read(file_format: str) -> None:
    data = encoded(noise((96, 80)).convert("RGB"), file_format)
    assert [decode_image(data[: len(data) * part // 10]) for part in range(10)] == [None] * 10


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_damaged_file_never_raises(file_format: str) -> None:
    dice = random.Random(file_format)
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = encoded(noise((20, 16)), file_format, exif=exif)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(4):
            data[dice.randrange(len(data))] = dice.choice((0, 127, 255, dice.randrange(256)))
        image = decode_image(bytes(data))
        assert image is None or image.mode == "RGB"


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_an_input_is_turned_upright(file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode_image(encoded(flat(RED, (96, 80)), file_format, exif=exif))
    assert image is not None
    assert image.size == (80, 96)


def test_broken_exif_does_not_spoil_an_input() -> None:
    assert decode_image(encoded(flat(RED), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")) is not None
    assert decode_image(encoded(flat(RED), "PNG", exif=b"Exif\x00\x00neither")) is not None


def in_modes() -> dict[str, tuple[Image.Image, dict[str, Any], tuple[int, ...]]]:
    palette = flat(RED).convert("P", palette=Image.Palette.ADAPTIVE)
    return {
        "alpha": (flat((0, 0, 0, 51), mode="RGBA"), {}, (204, 204, 204)),
        "grey with alpha": (flat((0, 51), mode="LA"), {}, (204, 204, 204)),
        "transparent colour": (flat(RED), {"transparency": RED}, WHITE),
        "palette": (palette, {}, RED),
        "transparent palette": (palette, {"transparency": palette.getpixel((0, 0))}, WHITE),
        "black and white": (Image.new("1", (96, 80), 1), {}, WHITE),
        "16 bits": (Image.new("I;16", (96, 80), 128 * 257), {}, (128, 128, 128)),
    }


@pytest.mark.parametrize("mode", in_modes())
def test_an_input_becomes_plain_rgb_over_white(mode: str) -> None:
    source, options, colour = in_modes()[mode]
    image = decode_image(encoded(source, **options))
    assert image is not None
    assert colours(image) == [(96 * 80, colour)]


def test_a_cmyk_jpeg_is_read() -> None:
    image = decode_image(encoded(flat(RED).convert("CMYK"), "JPEG", quality=100))
    assert image is not None
    assert ImageStat.Stat(image).mean == pytest.approx(RED, abs=3)


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = encoded(flat(RED), "WEBP", save_all=True, append_images=[flat(WHITE)], lossless=True)
    image = decode_image(frames)
    assert image is not None
    assert image.getpixel((0, 0)) == RED


def test_64_megapixels_are_the_most() -> None:
    assert decode_image(one_bit_png(8000, 8000)) is not None
    assert decode_image(one_bit_png(8001, 8000)) is None


@pytest.mark.parametrize("side", [9_000, 10_000, 40_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_without_a_warning(side: int) -> None:
    bomb = one_bit_png(8, 8).replace(struct.pack(">II", 8, 8), struct.pack(">II", side, side), 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert decode_image(bomb) is None
    assert caught == []


def test_a_jpeg_with_endless_scans_is_refused() -> None:
    whole = encoded(flat(RED), "JPEG", progressive=True)
    last_scan = whole[whole.rindex(b"\xff\xda") : -2]
    assert decode_image(whole[:-2] + last_scan * 50 + whole[-2:]) is not None
    assert decode_image(whole[:-2] + last_scan * 100 + whole[-2:]) is None
