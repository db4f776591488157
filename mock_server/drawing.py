"""The pictures that the simulated backend makes: drawn from the request alone, and captioned with it."""

import io
import json
import math
import random
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

from mock_server.decoding import decode_image

# A drawing is a field of tones from 0, the darkest, to 255, coloured by a mix of two of these.
_RAMPS = (
    "0b132b 1c2541 3a506b 5bc0be f4f1de",
    "2b193d 5f3a72 b8527a f08a6c ffe5c2",
    "14213d 26547c 2a9d8f e9c46a fff3d6",
    "1f2421 216869 49a078 9cc5a1 f1efe2",
    "3b1f2b 7a2f3d d1495b edae49 fbeed2",
    "22223b 4a4e69 9a8c98 d9b8a8 f6ece6",
    "0d1b2a 1b4965 5fa8d3 f2a88d fdf0e6",
    "2d1e2f 8a3033 dd6e42 e8c07d faf3e0",
    "1a1a2e 3f3a78 8e6bbf eca0b8 fdf1ea",
    "10302f 2f6f5e d98f4e f3c98b f9f4e7",
)
# The 256 colours of a finished picture: the tones of the drawing, then the caption's, from ink to paper.
_TONES, _INKS = 192, 64
_INK, _SOFT_INK, _PAPER = 0, 85, 255

_Ellipses = tuple[tuple[float, float, float, float, int], ...]
_DISC: _Ellipses = ((0, 0, 1, 1, 255),)
# What a tile can show, as ellipses in a unit square: left, top, right, bottom, and 255 to add or 0 to cut.
_TILES: tuple[_Ellipses, ...] = (
    ((-1, -1, 1, 1, 255),),
    ((-1, -1, 1, 1, 255), (-0.5, -0.5, 0.5, 0.5, 0)),
    ((0, -0.5, 1, 0.5, 255),),
    ((0, -0.5, 1, 0.5, 255), (0, 0.5, 1, 1.5, 255)),
    ((0.12, 0.12, 0.88, 0.88, 255),),
    ((0, 0, 1, 1, 255), (0.28, 0.28, 0.72, 0.72, 0)),
)

# What Pillow's built-in font has; it draws a crossed box for anything else.
_DRAWABLE = frozenset([*map(chr, range(0x20, 0x7F)), *"©°±·\u2018\u2019“”…"])
_SPELLED = str.maketrans({"\u2013": "-", "\u2014": "-", "\u00d7": "x", "ß": "ss"})
# More than a caption has room for; what follows need not be looked at.
_LONGEST_CAPTION = 5000
# A JPEG segment holds 65,533 bytes, and the text is not alone in it.
_LONGEST_EXIF = 65_000

# How far the input is repainted by a model that has no field for it.
_USUAL_STRENGTH = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Everything that a generated picture depends on. None stands for a field that the model lacks.

    `width` and `height` are in pixels, 1 to 4096. `loras` are pairs of path and scale. `image` is the input
    to repaint and `mask` says where, both as encoded files; `strength`, 0 to 1, is how far.
    """

    model: str
    prompt: str
    width: int
    height: int
    seed: int
    steps: int | None
    guidance: float | None
    loras: tuple[tuple[str, float], ...]
    strength: float | None = None
    image: bytes | None = None
    mask: bytes | None = None


def draw(picture: Picture, file_format: str) -> bytes:
    """The encoded picture, of exactly the asked size; `file_format` is "png", "jpeg" or "webp".

    The same picture gives the same bytes. A caption says what was asked, unless the picture is too small
    to read one. The metadata (PNG text "wavemock", else EXIF ImageDescription) say it as JSON, in full
    except for what a JPEG cannot hold.

    An input image is cropped to the size and blended with the drawing: strength 0 is the input without a
    caption, strength 1 the drawing. A mask, cropped likewise, keeps the input where it is black, to the
    bit, and there is no caption. An input that cannot be read is as good as none.
    """
    size = (picture.width, picture.height)
    source = decode_image(picture.image) if picture.image else None
    mask = decode_image(picture.mask) if picture.mask and source else None
    strength = None
    art, palette = _artwork(picture), _palette(picture)
    art.putpalette(palette)
    if source:
        strength = min(max(_USUAL_STRENGTH if picture.strength is None else picture.strength, 0.0), 1.0)
        source = ImageOps.fit(source, size, Image.Resampling.BICUBIC)
        art = Image.blend(source, art.convert("RGB"), strength)
    about = _about(picture, strength)
    if source and mask:
        art = Image.composite(art, source, ImageOps.fit(mask.convert("L"), size, Image.Resampling.BILINEAR))
    elif strength != 0 and (caption := _caption(about, size)):
        caption.putpalette(palette)
        art.paste(caption.convert(art.mode), (0, picture.height - caption.height))
    return _encoded(art, file_format, about)


def _encoded(art: Image.Image, file_format: str, about: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    text = json.dumps(about)
    if file_format == "png":
        info = PngInfo()
        info.add_text("wavemock", text)
        art.save(out, "PNG", pnginfo=info, compress_level=6)
        return out.getvalue()
    longest = 8192
    while file_format == "jpeg" and len(text) > _LONGEST_EXIF:
        longest //= 2
        loras = [{**lora, "path": lora["path"][:longest]} for lora in about["loras"][:longest]]
        text = json.dumps({**about, "prompt": about["prompt"][:longest], "loras": loras})
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = text
    art.convert("RGB").save(out, file_format, quality=90, method=2, exif=exif)
    return out.getvalue()


def _about(picture: Picture, strength: float | None) -> dict[str, Any]:
    said = {
        "model": picture.model,
        "prompt": picture.prompt,
        "size": f"{picture.width}*{picture.height}",
        "seed": picture.seed,
        "steps": picture.steps,
        "guidance": picture.guidance,
        "loras": [{"path": path, "scale": scale} for path, scale in picture.loras],
        "strength": strength,
    }
    return {name: value for name, value in said.items() if value is not None}


def _dice(*parts: Any) -> random.Random:
    # JSON is plain ASCII, so that any prompt can be a seed.
    return random.Random(json.dumps(parts))  # noqa: S311 - pictures, not secrets


def _palette(picture: Picture) -> bytes:
    """768 bytes of RGB. The more guidance, the more vivid."""
    dice = _dice("palette", picture.prompt, picture.seed)
    vivid = 1.0 if picture.guidance is None else 0.5 + min(max(picture.guidance, 0.0), 12.0) / 7
    one, other = (bytes.fromhex(_RAMPS[int(len(_RAMPS) * dice.random())]) for _ in range(2))
    mixed = _between(one, other, 0.35 * dice.random())
    anchors = [mixed[at : at + 3] for at in range(0, len(mixed), 3)]
    colours = []
    for tone in range(_TONES):
        place = tone * (len(anchors) - 1) / _TONES
        colour = _between(anchors[int(place)], anchors[int(place) + 1], place % 1)
        colours.append(_between([sum(colour) / 3] * 3, colour, vivid))
    ink, paper = [part * 0.6 for part in anchors[0]], [170 + part / 3 for part in anchors[-1]]
    colours += [_between(ink, paper, step / (_INKS - 1)) for step in range(_INKS)]
    return bytes(min(max(round(part), 0), 255) for colour in colours for part in colour)


def _between(start: Sequence[float], end: Sequence[float], share: float) -> list[float]:
    return [a + (b - a) * share for a, b in zip(start, end, strict=True)]


def _artwork(picture: Picture) -> Image.Image:
    """The drawing, as places in the palette. The more steps, the finer its tones."""
    dice = _dice(picture.model, picture.prompt, picture.seed)
    levels = 2 + min(max(picture.steps or 28, 1), 60)
    field = Image.new("L", (picture.width, picture.height))
    (_hills if dice.random() < 0.5 else _tiles)(field, dice, levels)
    for index, (path, scale) in enumerate(picture.loras):
        _stamp(field, _dice(picture.seed, index, path), scale)
    return field.point([tone * _TONES // 256 for tone in range(256)])


def _fade(size: tuple[int, int], start: float, end: float, levels: int) -> Image.Image:
    """Tones from `start` at the top to `end` at the bottom, in so many levels."""
    tones = [start + (end - start) * round(at / 255 * levels) / levels for at in range(256)]
    ramp = Image.linear_gradient("L").resize((1, size[1]), Image.Resampling.BILINEAR)
    column = ramp.point([min(max(round(tone), 0), 255) for tone in tones])
    return column.resize(size, Image.Resampling.NEAREST)


def _mask(side: int, ellipses: _Ellipses, opacity: float = 1.0) -> Image.Image:
    """Ellipses in a square, with smooth edges: drawn at twice the size."""
    double = Image.new("L", (2 * side, 2 * side))
    pen = ImageDraw.Draw(double)
    for *box, fill in ellipses:
        pen.ellipse([2 * side * at for at in box], fill=int(fill))
    return double.reduce(2).point([round(value * opacity) for value in range(256)])


def _hills(field: Image.Image, dice: random.Random, levels: int) -> None:
    width, height = field.size
    field.paste(_fade(field.size, 150 - 60 * dice.random(), 255, levels))
    sun = min(field.size) * (0.3 + 0.25 * dice.random())
    middle = (width * (0.25 + 0.5 * dice.random()), height * (0.2 + 0.13 * dice.random()))
    for growth, opacity in ((2.1, 0.16), (1.55, 0.27), (1, 1)):
        side = max(1, int(sun * growth))
        place = (int(middle[0] - side / 2), int(middle[1] - side / 2))
        field.paste(_fade((side, side), 255, 215, levels), place, _mask(side, _DISC, opacity))
    for ridge in range(5):
        level, tone = height * (0.4 + 0.09 * ridge), 175 - 41 * ridge
        waves = [(turns * (0.4 + 1.2 * dice.random()), dice.random()) for turns in (1, 2, 3)]
        outline = [(width + 16.0, height + 9.0), (-16.0, height + 9.0)]
        for x in range(-8, width + 16, max(1, width // 200)):
            along = math.tau * x / max(width, 0.6 * height)
            rise = sum(math.sin(along * turns + math.tau * start) / turns for turns, start in waves)
            outline.append((x, level + height * 0.06 * rise))
        top = int(min(y for _, y in outline))
        double = Image.new("L", (2 * width, 2 * (height - top)))
        ImageDraw.Draw(double).polygon([(2 * x, 2 * (y - top)) for x, y in outline], fill=255)
        field.paste(_fade((width, height - top), tone + 75, tone - 45, levels), (0, top), double.reduce(2))


def _tiles(field: Image.Image, dice: random.Random, levels: int) -> None:
    side = max(8, math.ceil(min(field.size) / (3 + int(3 * dice.random()))))
    tones = (8, 66, 128, 190, 248)
    for left in range(0, field.width, side):
        for top in range(0, field.height, side):
            back = int(5 * dice.random())
            front = tones[(back + 1 + int(4 * dice.random())) % 5]
            field.paste(tones[back], (left, top, left + side, top + side))
            mask = _mask(side, _TILES[int(len(_TILES) * dice.random())]).rotate(90 * int(4 * dice.random()))
            field.paste(_fade((side, side), front - 32, front + 32, levels), (left, top), mask)


def _stamp(field: Image.Image, dice: random.Random, scale: float) -> None:
    """What a LoRA adds: a striped disc, the more opaque the larger its scale."""
    side = max(1, int(min(field.size) * (0.13 + 0.1 * dice.random())))
    count = 4 + int(5 * dice.random())
    stripes = Image.new("L", (side, side), 250)
    for stripe in range(count):
        stripes.paste(10, (0, side * stripe // count, side, side * (2 * stripe + 1) // (2 * count)))
    x, y = (field.width - side) * dice.random(), (field.height * 0.6 - side) * dice.random()
    turned = stripes.rotate(15 * int(12 * dice.random()), Image.Resampling.BILINEAR, fillcolor=250)
    field.paste(turned, (int(x), int(y)), _mask(side, _DISC, min(abs(scale) / 1.5, 1.0)))


def _caption(about: dict[str, Any], size: tuple[int, int]) -> Image.Image | None:
    """What was asked, as a strip below the drawing, in places of the palette; None without room for it."""
    letter = max(14, round(math.sqrt(size[0] * size[1]) / 46))
    margin, leading = letter, round(letter * 1.4)
    width = size[0] - 2 * margin
    rows = int((size[1] * 0.6 - 2 * margin) / leading)
    if width < 12 * letter or rows < 4:
        return None
    font = ImageFont.load_default(letter)
    facts = [f"{name} {about[name]}" for name in ("seed", "steps", "guidance", "strength") if name in about]
    facts = [about["model"], *facts, about["size"].replace("*", " x ")]
    loras = [f"LoRA {lora['path']} x {lora['scale']}" for lora in about["loras"]]
    below = [*_flowed(facts, font, width), *_flowed(loras, font, width)][: rows - 1]
    above = _wrapped(_drawable(about["prompt"]), font, width, min(3, rows - len(below)))
    strip = Image.new("L", (size[0], 2 * margin + leading * len(above + below)), _PAPER)
    pen = ImageDraw.Draw(strip)
    for row, line in enumerate(above + below):
        pen.text((margin, margin + row * leading), line, _INK if row < len(above) else _SOFT_INK, font)
    strip = strip.point([_TONES + tone * _INKS // 256 for tone in range(256)])
    for swatch in range(6):
        left, right = (size[0] * at // 6 for at in (swatch, swatch + 1))
        strip.paste(swatch * (_TONES - 1) // 5, (left, 0, right, margin // 3))
    return strip


def _drawable(text: str) -> str:
    """One line of what the font can draw: without accents, and with dots for other letters."""
    cut = text[:_LONGEST_CAPTION] + ("…" if len(text) > _LONGEST_CAPTION else "")
    kept = []
    for letter in unicodedata.normalize("NFKD", cut.translate(_SPELLED)):
        if letter in _DRAWABLE:
            kept.append(letter)
        elif letter.isspace() or unicodedata.category(letter) == "Cc":
            kept.append(" ")
        elif unicodedata.category(letter) not in {"Mn", "Me", "Cf"}:
            kept.append("·")
    return " ".join("".join(kept).split())


def _fitting(text: str, font: Any, width: float) -> int:
    """How many of the first letters fit into the width."""
    most = min(len(text), int(5 * width / font.size))
    return bisect_right(range(most + 1), width, key=lambda count: font.getlength(text[:count])) - 1


def _wrapped(text: str, font: Any, width: float, rows: int) -> list[str]:
    """The text in at most so many lines; the last ends in an ellipsis when there is more."""
    lines: list[str] = []
    while text:
        count = _fitting(text, font, width)
        if len(lines) == rows - 1 and count < len(text):
            return [*lines, text[: _fitting(text, font, width - font.getlength("…"))].rstrip() + "…"]
        space = text.rfind(" ", 1, count + 1) if count < len(text) else -1
        lines.append(text[: space if space > 0 else count])
        text = text[len(lines[-1]) :].lstrip()
    return lines


def _flowed(items: list[str], font: Any, width: float) -> list[str]:
    """Items side by side, as many in a line as fit; of one that is too long, the end is kept."""
    lines: list[str] = []
    for item in map(_drawable, items):
        fits = font.getlength(item) <= width
        tail = item if fits else "…" + item[-_fitting(item[::-1], font, width - font.getlength("…")) :]
        joined = f"{lines[-1]}  ·  {tail}" if lines else tail
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(tail)
    return lines
