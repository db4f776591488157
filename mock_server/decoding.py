"""Images that come from outside, read without trusting a byte of them."""

import contextlib
import io
import struct
import threading
import warnings

from PIL import Image, ImageOps

_MOST_PIXELS = 64_000_000
# Progressive JPEGs have about ten scans. Thousands fit into a small file, and each goes over all pixels.
_MOST_SCANS = 100
# `warnings.catch_warnings` changes the process, so two threads must not be inside it at once. Decoding one
# input at a time also bounds the memory that large ones take.
_decoding = threading.Lock()


def decode_image(data: bytes) -> Image.Image | None:
    """The first frame of a PNG, JPEG, WebP, GIF or BMP file as upright RGB, transparency over white.

    None when it is anything else, broken, cut off, or larger than 64 megapixels.
    """
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > _MOST_SCANS:
        return None
    with _decoding, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "GIF", "BMP")) as image:
                if image.width * image.height > _MOST_PIXELS:
                    return None
                return _upright_rgb(image)
        except Exception:  # noqa: BLE001 - on hostile bytes decoders raise nearly anything
            return None


def _upright_rgb(image: Image.Image) -> Image.Image:
    with contextlib.suppress(LookupError, SyntaxError, TypeError, ValueError, struct.error):
        # Broken EXIF is no reason to refuse the picture.
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):
        # Pillow would cut 16 bits off at 255 instead of scaling them.
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", layer.size, "white")
        white.paste(layer, mask=layer)
        return white
    return image.convert("RGB")
