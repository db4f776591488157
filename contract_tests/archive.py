"""A small archive of drawn pictures, for trainers that work for real."""

import io
import zipfile

from PIL import Image, ImageDraw

from contract_tests.exchange import Request

_SIDE = 512
_SCENES = (("navy", "gold"), ("seagreen", "ivory"), ("firebrick", "skyblue"), ("dimgray", "orange"))
_DATE = (2026, 1, 1, 0, 0, 0)  # the same bytes in every run
_BOUNDARY = "wavemock-verify-c5d1"


def pictures() -> bytes:
    """A zip of four PNG pictures of 512x512: a disc before a plain ground, each somewhere else."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for number, (ground, disc) in enumerate(_SCENES):
            image = Image.new("RGB", (_SIDE, _SIDE), ground)
            left, top = 32 + 192 * (number % 2), 32 + 192 * (number // 2)
            ImageDraw.Draw(image).ellipse((left, top, left + 256, top + 256), fill=disc)
            encoded = io.BytesIO()
            image.save(encoded, "PNG")
            opened.writestr(zipfile.ZipInfo(f"{number}.png", _DATE), encoded.getvalue())
    return archive.getvalue()


def upload(archive: bytes) -> Request:
    """The request that uploads it as a form; its answer has the address as `data.download_url`."""
    head = (
        f"--{_BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="file"; filename="pictures.zip"\r\n'
        "Content-Type: application/zip\r\n\r\n"
    )
    return Request(
        method="POST",
        path="/api/v3/media/upload/binary",
        headers=(("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}"),),
        body=head.encode() + archive + f"\r\n--{_BOUNDARY}--\r\n".encode(),
    )
