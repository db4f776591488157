"""Pictures that mean harm: each kind is refused with a code, in bounded memory."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attacks import attacked, mutation
from PIL import Image

from reference_backend.job import JobFailed
from reference_backend.pictures import read_mask, read_picture


def samples() -> list[bytes]:
    """A small picture in every form that is read."""
    noise = Image.fromarray(np.random.default_rng(7).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    deep = Image.fromarray(np.arange(32 * 24, dtype=np.uint16).reshape(24, 32) * 80)
    frames = {"save_all": True, "append_images": [noise.rotate(90)]}
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encoded(noise, "PNG"),
        encoded(noise, "JPEG", exif=exif),
        encoded(noise.convert("CMYK"), "JPEG"),
        encoded(noise, "JPEG", progressive=True),
        encoded(noise, "WEBP", lossless=True),
        encoded(noise, "WEBP", **frames),
        encoded(noise, "GIF", **frames),
        encoded(noise, "PNG", **frames),
        encoded(noise, "BMP"),
        encoded(noise, "TIFF", compression="tiff_lzw"),
        encoded(noise, "TIFF", compression="tiff_deflate"),
        encoded(noise.convert("P"), "PNG", transparency=3),
        encoded(noise.convert("RGBA"), "PNG"),
        encoded(deep, "PNG"),
        encoded(deep, "TIFF"),
    ]


def encoded(image: Image.Image, form: str, **how: object) -> bytes:
    into = io.BytesIO()
    image.save(into, form, **how)
    return into.getvalue()


def refusal(content: bytes) -> str:
    codes = set()
    for read in (read_picture, read_mask):
        with pytest.raises(JobFailed) as failed:
            read(content, what="image")
        codes.add(failed.value.code)
    [code] = codes
    return code


def png(width: int, height: int, body: bytes = b"", *more: bytes) -> bytes:
    return png_of(width, height, zlib.compress(body), *more)


def png_of(width: int, height: int, packed: bytes, *more: bytes) -> bytes:
    header = struct.pack(">2L5B", width, height, 8, 2, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", packed), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    "content",
    [
        png(8001, 8000),
        png(2**31 - 1, 2**31 - 1),
        b"BM" + struct.pack("<3L3L2H6L", 54, 0, 54, 40, 8001, 8000, 1, 24, 0, 0, 0, 0, 0, 0),
        b"GIF89a"
        + struct.pack("<2H3B", 65535, 65535, 0, 0, 0)
        + b","
        + struct.pack("<4HB", 0, 0, 9, 9, 0)
        + bytes(9),
    ],
)
def test_what_is_too_large_is_told_by_its_header(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: Image.Image) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert refusal(content) == "image_too_large"


def test_a_frame_may_not_be_larger_than_its_picture_said() -> None:
    head = b"GIF89a" + struct.pack("<2H3B", 9, 9, 0, 0, 0)
    assert refusal(head + b"," + struct.pack("<4HB", 0, 0, 65535, 65535, 0) + bytes(9)) == "image_too_large"


@pytest.mark.parametrize("number", range(15))
def test_what_is_cut_off_is_refused(number: int) -> None:
    whole = samples()[number]
    for part in (0.1, 0.3):  # of an animation the first picture is enough
        assert refusal(whole[: int(len(whole) * part)]) == "image_unreadable"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
        b"%PDF-1.4\n",
        b"P6 2 2 255\n" + bytes(12),
        b"\x00\x00\x01\x00" + bytes(40),
        b"8BPS\x00\x01" + bytes(40),
        b"\x00\x00\x00\x1cftypheic" + bytes(40),
        b"/* XPM */\nstatic char *x[] = {};",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
    ],
)
def test_what_is_no_picture_that_is_read_is_refused(content: bytes) -> None:
    assert refusal(content) == "image_unreadable"


@pytest.mark.parametrize("form", ["PPM", "TGA", "ICO", "PCX", "JPEG2000", "AVIF", "DDS", "EPS", "PDF"])
def test_other_forms_are_refused_though_they_are_known(form: str) -> None:
    assert refusal(encoded(Image.new("RGB", (32, 32)), form)) == "image_unreadable"


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    whole = encoded(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    at = whole.rindex(b"\xff\xda")
    assert refusal(whole[:at] + whole[at:-2] * 3000 + whole[-2:]) == "image_unreadable"


def test_a_text_that_unpacks_to_much_is_refused() -> None:
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(70 * 2**20)))
    assert refusal(png(2, 2, bytes(14), bomb)) == "image_unreadable"


def test_a_colour_profile_that_cannot_be_read_is_left_out() -> None:
    for profile in (b"rubbish", bytes(200), b"\xff" * 4000):
        content = encoded(Image.new("RGB", (4, 4), "red"), "PNG", icc_profile=profile)
        assert read_picture(content, what="image").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    "exif",
    [
        b"neither",
        b"rubbish" * 9,
        b"MM\0*\0\0\0\x08\xff\xff",
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0" + b"\xff" * 90,
    ],
)
def test_exif_that_cannot_be_read_is_left_out(form: str, exif: bytes) -> None:
    content = encoded(Image.new("RGB", (16, 8), "red"), form, exif=b"Exif\0\0" + exif)
    assert read_picture(content, what="image").size == (16, 8)


def read(content: bytes) -> None:
    refused = [found for found in (failure(read_picture, content), failure(read_mask, content)) if found]
    assert {each.code for each in refused} <= {"image_unreadable", "image_too_large"}
    if refused:
        raise refused[0]


def failure(reader: Callable[..., Image.Image], content: bytes) -> JobFailed | None:
    try:
        made = reader(content, what="image")
    except JobFailed as failed:
        return failed
    assert made.mode == {read_picture: "RGB", read_mask: "L"}[reader]
    return None


def mutated() -> list[bytes]:
    """350 pictures with a few bytes changed, moved, doubled or left out."""
    chance = random.Random(21)
    whole = samples()
    return [mutation(chance.choice(whole), chance) for _ in range(350)]


def test_hundreds_of_broken_pictures_end_in_codes(tmp_path: Path) -> None:
    harm, refused, grown = attacked(mutated, read, tmp_path)
    assert harm == 0
    assert refused > 200
    assert grown < 50 * 1024
    assert list(tmp_path.iterdir()) == []


def bombs() -> list[bytes]:
    """Small pictures of more pixels than are read, and texts that unpack to more than is kept."""
    texts = [chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**20))) for _ in range(100)]
    flat = zlib.compressobj(1)
    lines = b"".join([flat.compress(bytes(8001 * 3 + 1)) for _ in range(8001)]) + flat.flush()
    return [png_of(8001, 8001, lines), png(2, 2, bytes(14), *texts)]


def test_bombs_end_in_bounded_memory(tmp_path: Path) -> None:
    harm, refused, grown = attacked(bombs, read, tmp_path)
    assert (harm, refused) == (0, 2)
    assert grown < 50 * 1024
