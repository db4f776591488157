"""Pictures and masks from outside, decoded without trusting a byte of them.

What is read: PNG, JPEG, WebP, GIF, BMP and TIFF, told by their bytes, up to 64 megapixels; of an animation
the first frame. Everything comes out upright, in sRGB, with 8 bits per channel.
"""

import contextlib
import io
import math
import struct
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageCms, ImageOps

from reference_backend.job import JobFailed

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_MOST_PIXELS = 64_000_000

# Progressive JPEGs have about ten scans. Thousands fit into a small file, and each goes over all pixels.
_MOST_SCANS = 100
_Made = TypeVar("_Made")
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def read_picture(content: bytes, *, what: str, pixels: int | None = None) -> Image.Image:
    """A picture as RGB, transparency over white; with `pixels`, no larger than that many.

    `what` is what to call it in an error. Raises JobFailed: image_unreadable, image_too_large.
    """

    def finish(image: Image.Image) -> Image.Image:
        if pixels is not None and image.width * image.height > pixels:
            # A JPEG decodes at a fraction of its size at a fraction of the memory, never below what is asked.
            image.draft(None, _size_within(image, pixels))
        return _in_srgb(_upright(image))

    picture = _opened(content, what, finish)
    if pixels is None or picture.width * picture.height <= pixels:
        return picture
    return picture.resize(_size_within(picture, pixels), Image.Resampling.LANCZOS, reducing_gap=3.0)


def read_mask(content: bytes, *, what: str) -> Image.Image:
    """A mask as L. What is transparent was not painted, so it is black.

    Raises JobFailed: image_unreadable, image_too_large.
    """
    return _opened(content, what, lambda image: _in_grey(_upright(image)))


def pixels_in(content: bytes, *, what: str) -> int:
    """How many pixels a picture or mask says that it has; nothing of it is decoded.

    Raises JobFailed: image_unreadable, image_too_large.
    """
    return _opened(content, what, lambda image: image.width * image.height)


def _opened(content: bytes, what: str, finish: Callable[[Image.Image], _Made]) -> _Made:
    if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > _MOST_SCANS:
        raise JobFailed(
            "image_unreadable", f"{what} is a JPEG of more than {_MOST_SCANS} scans; save it again."
        )
    try:
        # Pillow warns of much that is merely odd. This changes the process, so: one thread at a time.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                _check_size(image)
                return finish(image)
    except Image.DecompressionBombError as error:
        raise JobFailed(
            "image_too_large", f"{what} has over {_MOST_PIXELS // 10**6} megapixels; make it smaller."
        ) from error
    except Exception as error:  # on hostile bytes decoders raise nearly anything
        raise JobFailed(
            "image_unreadable",
            f"{what} is broken, cut off or no picture that is read: PNG, JPEG, WebP, GIF, BMP and TIFF are.",
        ) from error


def _check_size(image: Image.Image) -> None:
    """Goes by the header, before anything is decoded. Pillow's own limit is at about three times as much."""
    if image.width * image.height > _MOST_PIXELS:
        raise Image.DecompressionBombError


def _size_within(image: Image.Image, pixels: int) -> tuple[int, int]:
    factor = math.sqrt(pixels / (image.width * image.height))
    return max(1, math.floor(image.width * factor)), max(1, math.floor(image.height * factor))


def _upright(image: Image.Image) -> Image.Image:
    with contextlib.suppress(LookupError, SyntaxError, TypeError, ValueError, struct.error):
        # Broken EXIF is no reason to refuse the picture.
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _in_srgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_sixteen_bits(image, clear=255).convert("RGB")
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(_by_profile(layer.convert("RGB"), profile), mask=layer.getchannel("A"))
        return white
    if image.mode not in _SPACES.values():
        image = _without_palette(image)
    return _by_profile(image, profile)


def _in_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_sixteen_bits(image, clear=0)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        black = Image.new("RGB", image.size, "black")
        black.paste(layer.convert("RGB"), mask=layer.getchannel("A"))
        return black.convert("L")
    return _without_palette(image).convert("L")


def _without_palette(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        # Nothing in the file says what number is white.
        raise ValueError("floating point pixels")
    return image.convert("RGB")


def _from_sixteen_bits(image: Image.Image, *, clear: int) -> Image.Image:
    """Grey of 16 bits as L, which Pillow would cut off at 255. What is transparent becomes `clear`."""
    values: np.ndarray[Any, np.dtype[Any]] = np.asarray(image)
    grey = (np.clip(values, 0, 65535) >> 8).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey[values == key] = clear
    return Image.fromarray(grey)


def _by_profile(image: Image.Image, icc: Any) -> Image.Image:
    """As RGB, by the colour profile that came with it where that can be read and fits."""
    if not isinstance(icc, bytes) or not icc:
        return image.convert("RGB")
    # A broken profile is no reason to refuse the picture.
    with contextlib.suppress(ImageCms.PyCMSError, OSError, TypeError, ValueError):
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        mode = _SPACES.get(profile.profile.xcolor_space.strip())
        if mode == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        # Going from sRGB to sRGB would only round.
        named = (profile.profile.profile_description or "").startswith("sRGB")
        if mode == image.mode and not named:
            done = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if done is not None:
                return done
    return image.convert("RGB")
