import io
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from mock_server.drawing import Picture, draw

# Too small for a caption, so that all of it is the drawing.
SMALL = Picture(
    model="acme/flux",
    prompt="a quiet harbour",
    width=96,
    height=80,
    seed=7,
    steps=28,
    guidance=3.5,
    loras=(("acme/boats", 0.8),),
)
CAPTIONED = replace(SMALL, width=512, height=512)
WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (200, 30, 60)

HOSTILE = {
    "long": "wide words " * 1000,
    "unbroken": "W" * 10_000,
    "narrow": "il.'," * 2000,
    "lines": "one\ntwo\r\n\tthree\u2028four\x00five",
    "emoji": "\U0001f431\u200d\U0001f680" * 500,
    "cjk": "\u4e00\u53ea\u732b" * 300,
    "rtl": "\u202e\u05e9\u05dc\u05d5\u05dd \u0627\u0644\u0639" * 300,
    "zalgo": "Z" + "\u0338\u0301" * 5000,
    "weird": "\ud800\uffff\U0010ffff\ufdfa" * 500,
    "blank": " \n\x00",
    "empty": "",
}


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def pixels(data: bytes) -> bytes:
    return opened(data).convert("RGB").tobytes()


def caption(picture: Picture) -> bytes:
    return opened(draw(picture, "png")).crop((0, 450, 512, 512)).tobytes()


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


def metadata(data: bytes) -> dict[str, Any]:
    image = opened(data)
    found: dict[str, Any] = json.loads(image.info.get("wavemock") or image.getexif()[0x010E])
    return found


@pytest.mark.parametrize(("name", "shown"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (96, 81), (513, 777), (1536, 512), (512, 1536)])
def test_a_picture_has_the_asked_format_and_size(name: str, shown: str, size: tuple[int, int]) -> None:
    image = opened(draw(replace(SMALL, width=size[0], height=size[1]), name))
    assert (image.format, image.size) == (shown, size)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_the_same_picture_gives_the_same_bytes(name: str) -> None:
    assert draw(CAPTIONED, name) == draw(CAPTIONED, name)


def test_another_process_draws_the_same_bytes() -> None:
    program = (
        "import sys; from mock_server.drawing import Picture, draw; "
        f"sys.stdout.buffer.write(draw({SMALL!r}, 'png'))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert done.stdout == draw(SMALL, "png")


@pytest.mark.parametrize(
    "change",
    [
        {"model": "acme/other"},
        {"prompt": "a busy harbour"},
        {"seed": 8},
        {"steps": 4},
        {"guidance": 7.0},
        {"loras": ()},
        {"loras": (("acme/trains", 0.8),)},
        {"loras": (("acme/boats", 1.2),)},
        {"loras": (("acme/boats", 0.8), ("acme/boats", 0.8))},
    ],
    ids=str,
)
def test_whatever_is_asked_shows_in_the_drawing(change: dict[str, Any]) -> None:
    assert pixels(draw(replace(SMALL, **change), "png")) != pixels(draw(SMALL, "png"))


@pytest.mark.parametrize("change", [{"seed": 8}, {"prompt": "a busy harbour"}], ids=str)
def test_seed_and_prompt_change_the_shapes_and_not_only_the_colours(change: dict[str, Any]) -> None:
    plain = replace(SMALL, loras=())
    assert opened(draw(replace(plain, **change), "png")).tobytes() != opened(draw(plain, "png")).tobytes()


@pytest.mark.parametrize("change", [{"seed": 8}, {"prompt": "a busy harbour"}], ids=str)
def test_seed_and_prompt_change_the_colours(change: dict[str, Any]) -> None:
    assert (
        opened(draw(replace(SMALL, **change), "png")).getpalette() != opened(draw(SMALL, "png")).getpalette()
    )


def test_fields_that_a_model_lacks_are_left_out_of_the_metadata() -> None:
    said = metadata(draw(replace(SMALL, steps=None, guidance=None), "png"))
    assert said.keys() == {"model", "prompt", "size", "seed", "loras"}


def test_a_large_picture_stays_a_small_file() -> None:
    sizes = [len(draw(replace(SMALL, width=1024, height=1024, seed=seed), "png")) for seed in range(8)]
    assert max(sizes) < 65_000


@pytest.mark.parametrize("prompt", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_no_prompt_is_too_hostile_to_draw(prompt: str, name: str) -> None:
    assert opened(draw(replace(CAPTIONED, prompt=prompt), name)).size == (512, 512)


@pytest.mark.parametrize("prompt", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("size", [(512, 512), (1536, 512), (512, 1536)])
def test_text_never_leaves_the_caption(prompt: str, size: tuple[int, int]) -> None:
    loras = tuple((f"https://example.com/{prompt}/{index}.safetensors", 0.1 * index) for index in range(5))
    image = opened(draw(replace(CAPTIONED, width=size[0], height=size[1], prompt=prompt, loras=loras), "png"))
    (width, height), paper = size, image.getpixel((0, size[1] - 1))
    top = next(y for y in range(height) if image.getpixel((0, y)) == paper)
    margins = [(0, top, 8, height), (width - 8, top, width, height), (0, height - 8, width, height)]
    assert [colours(image.crop(margin)) for margin in margins] == [
        [(8 * (height - top), paper)],
        [(8 * (height - top), paper)],
        [(8 * width, paper)],
    ]


def test_no_prompt_makes_the_caption_cover_half_of_the_picture() -> None:
    loras = tuple((f"acme/{'long' * 100}/{index}", 1.0) for index in range(5))
    image = opened(draw(replace(CAPTIONED, prompt=HOSTILE["long"], loras=loras), "png"))
    assert image.getpixel((0, 256)) != image.getpixel((0, 511))


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("naïve café", "naive cafe"),
        ("one \u2013 two \u00d7 straße", "one - two x strasse"),
        ("two\n \x00lines\t", "two lines"),
        ("\U0001f431\u732b\u05d0", "···"),
        ("left\u202eright", "leftright"),
    ],
)
def test_the_caption_has_something_for_what_the_font_lacks(prompt: str, shown: str) -> None:
    assert caption(replace(CAPTIONED, prompt=prompt)) == caption(replace(CAPTIONED, prompt=shown))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "acme/other"},
        {"prompt": "a busy harbour"},
        {"seed": 8},
        {"steps": 29},
        {"guidance": 3.6},
        {"loras": (("acme/trains", 0.8),)},
        {"loras": (("acme/boats", 0.9),)},
        {"loras": (("acme/boats", 0.8), ("acme/trains", 1.0))},
        {"width": 513},
    ],
    ids=str,
)
def test_the_caption_says_what_was_asked(change: dict[str, Any]) -> None:
    assert caption(replace(CAPTIONED, **change)) != caption(CAPTIONED)


def test_the_caption_says_the_strength() -> None:
    asked = replace(CAPTIONED, image=encoded(noise((512, 512))))
    assert caption(replace(asked, strength=0.3)) != caption(replace(asked, strength=0.4))


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_the_metadata_say_all_that_was_asked(name: str) -> None:
    assert metadata(draw(CAPTIONED, name)) == {
        "model": "acme/flux",
        "prompt": "a quiet harbour",
        "size": "512*512",
        "seed": 7,
        "steps": 28,
        "guidance": 3.5,
        "loras": [{"path": "acme/boats", "scale": 0.8}],
    }


@pytest.mark.parametrize("prompt", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["png", "webp"])
def test_the_metadata_keep_any_prompt(prompt: str, name: str) -> None:
    assert metadata(draw(replace(SMALL, prompt=prompt), name))["prompt"] == prompt


def test_the_metadata_of_a_jpeg_shorten_what_does_not_fit() -> None:
    prompt, path = "\u732b" * 30_000, "\u72ac" * 30_000
    said = metadata(draw(replace(SMALL, prompt=prompt, loras=((path, 1.0),)), "jpeg"))
    assert (said["prompt"], said["loras"][0]["path"]) == (prompt[:4096], path[:4096])


@pytest.mark.parametrize("size", [(96, 80), (400, 300)])
def test_strength_0_gives_the_input_back(size: tuple[int, int]) -> None:
    photo = noise(size)
    asked = replace(SMALL, width=size[0], height=size[1], image=encoded(photo), strength=0.0)
    assert pixels(draw(asked, "png")) == photo.tobytes()


def test_strength_1_gives_the_drawing() -> None:
    asked = replace(SMALL, image=encoded(noise((96, 80))), strength=1.0)
    assert pixels(draw(asked, "png")) == pixels(draw(SMALL, "png"))


@pytest.mark.parametrize("size", [(96, 80), (512, 512)])
def test_the_distance_from_the_input_grows_with_strength(size: tuple[int, int]) -> None:
    photo = noise(size)
    asked = replace(SMALL, width=size[0], height=size[1], image=encoded(photo))
    drawn = [opened(draw(replace(asked, strength=step / 5), "png")) for step in range(6)]
    distances = [
        sum(ImageStat.Stat(ImageChops.difference(photo, image.convert("RGB"))).mean) for image in drawn
    ]
    assert distances == sorted(set(distances))


def test_a_strength_out_of_range_is_as_good_as_the_next_in_it() -> None:
    asked = replace(SMALL, image=encoded(noise((96, 80))))
    assert draw(replace(asked, strength=7.0), "png") == draw(replace(asked, strength=1.0), "png")


def test_a_model_without_strength_repaints_most_of_the_input() -> None:
    asked = replace(SMALL, image=encoded(noise((96, 80))))
    assert draw(asked, "png") == draw(replace(asked, strength=0.8), "png")


def test_an_input_of_another_shape_is_cropped_around_its_middle() -> None:
    photo = flat(RED, (300, 80))
    photo.paste(BLACK, (102, 0, 198, 80))
    drawn = opened(draw(replace(SMALL, image=encoded(photo), strength=0.0), "png"))
    assert colours(drawn) == [(96 * 80, BLACK)]


def test_the_metadata_say_the_strength_when_there_is_an_input() -> None:
    assert metadata(draw(replace(SMALL, image=encoded(flat(RED)), strength=0.3), "png"))["strength"] == 0.3


def test_a_mask_keeps_the_input_where_it_is_black_to_the_bit() -> None:
    photo, mask = noise((512, 512)), flat(BLACK, (512, 512))
    mask.paste(WHITE, (0, 0, 256, 512))
    asked = replace(CAPTIONED, image=encoded(photo), mask=encoded(mask), strength=1.0)
    kept = (256, 0, 512, 512)
    assert opened(draw(asked, "png")).crop(kept).tobytes() == photo.crop(kept).tobytes()


def test_a_mask_repaints_where_it_is_white() -> None:
    asked = replace(SMALL, image=encoded(noise((96, 80))), mask=encoded(flat(WHITE)), strength=1.0)
    assert pixels(draw(asked, "png")) == pixels(draw(SMALL, "png"))


def test_a_grey_mask_repaints_halfway() -> None:
    masks = [encoded(flat((tone,) * 3)) for tone in (0, 128, 255)]
    asked = replace(SMALL, image=encoded(flat(RED)), strength=1.0)
    kept, halfway, repainted = (opened(draw(replace(asked, mask=mask), "png")) for mask in masks)
    difference = ImageChops.difference(halfway, Image.blend(kept, repainted, 128 / 255))
    assert max(high for _, high in ImageStat.Stat(difference).extrema) <= 1


def test_inputs_that_cannot_be_read_are_as_good_as_none() -> None:
    assert draw(replace(SMALL, image=b"no image", mask=b"no mask", strength=0.5), "png") == draw(SMALL, "png")
