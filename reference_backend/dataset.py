"""Makes examples to train with of an archive of pictures, captions and masks.

As the pages tell it, `photo.jpg` is a picture and `photo.txt` in the same folder its caption. Beyond them,
`photo_mask.png` is its mask wherever there is a `photo.*`.

What the pages call preprocessed is described nowhere. The layout that is read then, beside the plain one, is
that of a public trainer of the same lineage: `0.src.png`, `0.mask.png`, and `captions.csv` with the columns
image_path, mask_path and caption, or `caption.txt` with one line for each picture, in order.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from mock_server.contents import HEAD, IMAGES, media_of
from reference_backend import captions
from reference_backend.archive import read_archive, shown
from reference_backend.job import JobFailed, Report
from reference_backend.pictures import pixels_in, read_mask, read_picture

FEWEST = 4
"""How many pictures the pages advise at least."""

_MOST_PICTURES = 2000
# Training looks at no more than about a megapixel of a picture. All of them are in memory at once.
_PIXELS_EACH = 1536 * 1536
_PIXELS_IN_ALL = 400_000_000
# Of pictures and masks as they come: 64 megapixels fit into 2.5 kB, and take seconds at the worst.
_MOST_DECODED = 4_000_000_000
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
_UNREAD = frozenset(
    {".heic", ".heif", ".avif", ".svg", ".jp2", ".jxl", ".psd", ".raw", ".dng", ".cr2", ".nef", ".arw"}
)
_TIFF = (b"II*\0", b"MM\0*")
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One picture to train with, in RGB; `mask` in L and of its size, where the archive holds one.

    `digest` tells pictures apart by their pixels.
    """

    name: str
    picture: Image.Image
    caption: str
    mask: Image.Image | None
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The examples in the order of their names, and what their author should know of them."""

    examples: tuple[Example, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Which files of an archive are what: masks and captions by the name of their picture."""

    pictures: Sequence[str]
    masks: Mapping[str, str]
    captions: Mapping[str, str]
    orphans: Sequence[str]
    others: Sequence[str]


def read_dataset(
    archive: bytes | Path,
    *,
    trigger_word: str | None,
    is_style: bool,
    preprocessed: bool,
    declared_format: str | None,
    report: Report | None = None,
) -> Dataset:
    """The examples of an archive. With `is_style` neither its captions nor its masks are used.

    Pictures are made smaller where they are over 2.4 megapixels, or less where there are many. Raises
    JobFailed: no_images, image_unreadable, image_too_large, and what `read_archive` raises.
    """
    files = read_archive(archive, declared=declared_format or "")
    layout = _laid_out(files, preprocessed=preprocessed)
    if not layout.pictures:
        raise JobFailed("no_images", "The archive holds no picture; put PNG, JPEG or WebP files into it.")
    if len(layout.pictures) > _MOST_PICTURES:
        raise JobFailed("archive_too_large", f"The archive holds more than {_MOST_PICTURES} pictures.")
    masks = {} if is_style else layout.masks
    _check_pixels(files, [*layout.pictures, *masks.values()], report)
    trigger = captions.clean(trigger_word or "")
    pixels = min(_PIXELS_EACH, _PIXELS_IN_ALL // len(layout.pictures))
    examples, remarks = [], []
    for number, name in enumerate(layout.pictures):
        if report is not None:
            report("reading pictures", number, len(layout.pictures))
        picture = read_picture(files.pop(name), what=f"{shown(name)} in the archive", pixels=pixels)
        mask = None
        if found := masks.get(name):
            mask, remark = _mask_for(picture, found, files[found])
            remarks += remark
        caption = captions.choose(layout.captions.get(name, ""), trigger_word=trigger, is_style=is_style)
        examples.append(
            Example(name=name, picture=picture, caption=caption, mask=mask, digest=_digest(picture))
        )
    return Dataset(
        examples=tuple(examples),
        remarks=(*_remarks(layout, trigger_word=trigger, is_style=is_style), *remarks),
    )


def _check_pixels(files: Mapping[str, bytes], names: Sequence[str], report: Report | None) -> None:
    left = _MOST_DECODED
    for number, name in enumerate(names):
        if report is not None:
            report("measuring pictures", number, len(names))
        left -= pixels_in(files[name], what=f"{shown(name)} in the archive")
        if left < 0:
            raise JobFailed(
                "archive_too_large",
                f"The archive's pictures and masks have over {_MOST_DECODED // 10**6} megapixels in all; make"
                " them smaller.",
            )


def _digest(picture: Image.Image) -> str:
    return hashlib.sha256(b"%dx%d " % picture.size + picture.tobytes()).hexdigest()


def _mask_for(picture: Image.Image, name: str, content: bytes) -> tuple[Image.Image, list[str]]:
    mask = read_mask(content, what=f"{shown(name)} in the archive")
    remarks = []
    if abs(mask.width * picture.height - mask.height * picture.width) > 0.02 * mask.width * picture.height:
        remarks.append(f"{shown(name)} has not the shape of its picture, and was stretched")
    if mask.size != picture.size:
        mask = mask.resize(picture.size, Image.Resampling.BOX)
    return mask, remarks


def _laid_out(files: Mapping[str, bytes], *, preprocessed: bool) -> _Layout:
    images = sorted((name for name, content in files.items() if _is_picture(name, content)), key=_in_order)
    stems = {_stem(name): name for name in reversed(images)}
    masks: dict[str, str] = {}
    for name in images:
        if (base := _masked(name, stems, preprocessed=preprocessed)) is not None:
            masks[base] = name
    pictures = [name for name in images if _masked(name, stems, preprocessed=preprocessed) is None]
    texts = {_stem(name): name for name in files if _suffix(name) == ".txt"}
    written, tables = _tabled(files, pictures) if preprocessed else ({}, frozenset())
    for name in pictures:
        text = texts.get(_stem(name))
        if text is not None and text not in tables:
            written.setdefault(name, captions.read_caption(files[text]))
    used = {texts.get(_stem(name)) for name in pictures} | tables
    return _Layout(
        pictures=pictures,
        masks={name: masks[_stem(name)] for name in pictures if _stem(name) in masks},
        captions={name: text for name, text in written.items() if text},
        orphans=sorted(name for name in texts.values() if name not in used),
        others=sorted(set(files) - set(images) - set(texts.values()) - tables),
    )


def _is_picture(name: str, content: bytes) -> bool:
    """Whether a file is meant as a picture: by its name, and else by its first bytes."""
    suffix = _suffix(name)
    if suffix in _UNREAD:
        raise JobFailed(
            "image_unreadable", f"{shown(name)} in the archive cannot be read; save it as JPEG or PNG."
        )
    if suffix in _PICTURES:
        return True
    # Two letters are the whole mark of a BMP, and a text may begin with them too.
    media = media_of(content[:HEAD])
    return suffix not in {".txt", ".csv"} and (media in IMAGES - {"image/bmp"} or content.startswith(_TIFF))


def _masked(name: str, stems: Mapping[str, str], *, preprocessed: bool) -> str | None:
    """The stem of the picture that a file is the mask of; None where it is none."""
    stem = _stem(name)
    bases = [stem.removesuffix("_mask")] if stem.endswith("_mask") else []
    if preprocessed and stem.endswith(".mask"):
        bases.append(stem.removesuffix(".mask") + ".src")
    return next((base for base in bases if base in stems), None)


def _tabled(files: Mapping[str, bytes], pictures: Iterable[str]) -> tuple[dict[str, str], frozenset[str]]:
    """The captions that the tables of a preprocessed archive give, and which files those are."""
    written: dict[str, str] = {}
    tables = set()
    folders: dict[str, list[str]] = {}
    for name in pictures:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    for folder, names in folders.items():
        table, lines = (f"{folder}/{each}".removeprefix("/") for each in ("captions.csv", "caption.txt"))
        if table in files:
            tables.add(table)
            written |= _from_table(files[table], names)
        elif lines in files:
            tables.add(lines)
            written |= dict(zip(names, captions.read_lines(files[lines]), strict=False))
    return written, frozenset(tables)


def _from_table(content: bytes, names: Iterable[str]) -> dict[str, str]:
    by_name = {PurePosixPath(name).name.casefold(): name for name in names}
    written = {}
    try:
        for row in captions.read_table(content):
            # The paths are those of the machine that made the table.
            name = by_name.get(re.split(r"[/\\]", row.get("image_path", ""))[-1].casefold())
            if name is not None:
                written[name] = captions.clean(row.get("caption", ""))
    except ValueError as error:
        raise JobFailed(
            "archive_unreadable", "captions.csv in the archive is no table; write it as CSV."
        ) from error
    return written


def _remarks(layout: _Layout, *, trigger_word: str, is_style: bool) -> list[str]:
    count, captioned = len(layout.pictures), len(layout.captions)
    remarks = []
    if count < FEWEST:
        remarks.append(f"the archive holds {count} of the at least {FEWEST} pictures that are advised")
    if is_style and captioned:
        remarks.append("is_style is on, so the captions in the archive were not used")
    if is_style and layout.masks:
        remarks.append("is_style is on, so the masks in the archive were not used")
    if not trigger_word and (is_style or not captioned):
        remarks.append("there is no trigger_word to learn under, so an empty text is learnt from")
    elif not is_style and 0 < captioned < count:
        instead = "the trigger_word" if trigger_word else "an empty text"
        remarks.append(f"{count - captioned} of {count} pictures have no caption, and {instead} stands in")
    if layout.orphans:
        remarks.append(f"there is no picture for {_listed(layout.orphans)}")
    if layout.others:
        remarks.append(f"{_listed(layout.others)} was not used, being neither picture nor text")
    return remarks


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(shown(name) for name in names[:_NAMED]) + more


def _stem(name: str) -> str:
    """A file's name with its folder and without its ending, for comparison."""
    return str(PurePosixPath(name).with_suffix("")).casefold()


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _in_order(name: str) -> list[tuple[int, str]]:
    """A key by which 2 comes before 10."""
    return [
        (int(part[:18]), "") if part.isascii() and part.isdecimal() else (-1, part)
        for part in re.split("([0-9]+)", name)
    ]
