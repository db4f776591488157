"""What can be seen of an output from outside: how it is handed out, and what it is."""

import base64
import binascii
import io
import json
import re
import struct
from typing import Any

from PIL import Image, UnidentifiedImageError

from contract_tests.case import Broken, Unproven
from contract_tests.session import Session

_HEADER = 8
_DOWN = re.compile(r"lora_A\.|lora_down\.|lora\.down\.")


def is_url(output: str) -> bool:
    """Whether an output is handed out as an address."""
    return output.startswith(("http://", "https://"))


def completed(session: Session, name: str, version: str) -> dict[str, Any]:
    """The `data` of a task when it has ended. Raises Unproven where it failed."""
    data = session.finish(name, version=version)
    if data.get("status") != "completed":
        raise Unproven(f"the task {data.get('status')}: {str(data.get('error'))[:200]}")
    return data


def outputs_of(session: Session, name: str, version: str) -> list[str]:
    """The outputs of a task when it has ended.

    Raises Unproven where it failed, Broken where outputs are no texts or there are none.
    """
    outputs = completed(session, name, version).get("outputs")
    if not isinstance(outputs, list) or not outputs or not all(isinstance(each, str) for each in outputs):
        raise Broken("data.outputs: there is no list of texts")
    return outputs


def fetch(session: Session, output: str) -> bytes:
    """The bytes of an output.

    Raises Broken where there are none, Unproven where they lie on another machine than the target.
    """
    if not is_url(output):
        try:
            return base64.b64decode(output.partition(";base64,")[2] or output, validate=True)
        except binascii.Error as error:
            raise Broken(f"the output is neither a URL nor base64: {output[:60]!r}") from error
    exchange = session.follow(output)
    if exchange.status != 200:
        raise Broken(f"the output is answered with HTTP {exchange.status}")
    return exchange.body


def size_of(image: bytes) -> str:
    """Width and height of an image, as `W*H`. Raises Broken where it does not decode."""
    try:
        with Image.open(io.BytesIO(image)) as opened:
            opened.load()
            return f"{opened.width}*{opened.height}"
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise Broken(f"the output is no image that decodes: {type(error).__name__}") from error


def rank_of(weights: bytes) -> int:
    """The rank of a LoRA in the safetensors format: the first dimension of the matrices that lead down.

    Raises Broken where it is no such file, Unproven where it has no such matrices, or several ranks.
    """
    try:
        (length,) = struct.unpack("<Q", weights[:_HEADER])
        header = json.loads(weights[_HEADER : _HEADER + length])
        ranks = {int(each["shape"][0]) for name, each in header.items() if _DOWN.search(name)}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Broken("the output is no safetensors file") from error
    if len(ranks) != 1:
        raise Unproven(f"its ranks are {sorted(ranks)[:5]}")
    return ranks.pop()
