"""Safety checkers: they tell whether a picture shows what should not be shown.

A checker only flags: the picture is given out as it is, with true at its place in `has_nsfw_contents`; what
to do with it is its reader's decision.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mock_server.errors import BadConfiguration

Checker = Callable[[Image.Image], bool]
"""Whether a picture (RGB) is unsafe."""

_NUDE_FROM = 0.4
"""The score, 0 to 1, from which NudeNet's finding counts. Below it, a beach is mostly enough."""
_UNSAFE_FROM = 0.5
_UNSAFE_LABELS = {"nsfw", "unsafe", "porn", "hentai", "sexy", "explicit"}
_MEAN_BGR = (104.0, 117.0, 123.0)
_SIDE = 224


def checker_of(name: str) -> Checker | None:
    """The checker of that name: "none", "nudenet", "onnx:FILE" or "hf:DIRECTORY".

    nudenet is the package of that name (the extra `safety`; its licence is the AGPL-3.0). The file is a
    network with the input and output of Yahoo's open_nsfw, the directory a classifier of images for
    transformers with a label such as "nsfw". Nothing is fetched from anywhere. Raises BadConfiguration.
    """
    kind, _, where = name.partition(":")
    if name == "none":
        return None
    if name == "nudenet":
        return _nudenet()
    if kind == "onnx" and where:
        return _onnx(Path(where))
    if kind == "hf" and where:
        return _classifier(Path(where))
    raise BadConfiguration(f"--safety: {name} is none of none, nudenet, onnx:FILE and hf:DIRECTORY")


def _nudenet() -> Checker:
    detector = _package("nudenet").NudeDetector()

    def unsafe(picture: Image.Image) -> bool:
        pixels = np.ascontiguousarray(np.asarray(picture.convert("RGB"))[:, :, ::-1])
        return any(
            found["class"].endswith("_EXPOSED")
            and found["class"].startswith(
                ("FEMALE_GENITALIA", "MALE_GENITALIA", "FEMALE_BREAST", "ANUS", "BUTTOCKS")
            )
            and found["score"] >= _NUDE_FROM
            for found in detector.detect(pixels)
        )

    return unsafe


def _onnx(file: Path) -> Checker:
    """A network of Yahoo's layout: (1, 224, 224, 3) BGR less the mean -> (1, 2), the second being unsafe."""
    runtime = _package("onnxruntime")
    if not file.is_file():
        raise BadConfiguration(f"--safety: there is no file {file}")
    try:
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    # onnxruntime has an exception type for each of a dozen reasons, and no other base for them.
    except Exception as error:  # noqa: BLE001
        reason = str(error).partition("\n")[0]
        raise BadConfiguration(f"--safety: {file} is not a network that can be run: {reason}") from None
    given, made = session.get_inputs(), session.get_outputs()
    if [list(one.shape[1:]) for one in (*given, *made)] != [[_SIDE, _SIDE, 3], [2]]:
        raise BadConfiguration(f"--safety: {file} does not have the input and output of open_nsfw")

    def unsafe(picture: Image.Image) -> bool:
        scores = session.run(None, {given[0].name: _yahoo_pixels(picture)})[0]
        return float(scores[0][1]) >= _UNSAFE_FROM

    return unsafe


def _yahoo_pixels(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The middle of the picture as the network was trained to see it."""
    margin = (256 - _SIDE) // 2
    small = picture.convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
    middle = small.crop((margin, margin, margin + _SIDE, margin + _SIDE))
    return (np.asarray(middle, np.float32)[:, :, ::-1] - np.array(_MEAN_BGR, np.float32))[None]


def _classifier(folder: Path) -> Checker:
    transformers = _package("transformers")
    if not (folder / "config.json").is_file():
        raise BadConfiguration(f"--safety: {folder} is not a directory of a transformers model")
    try:
        model: Any = transformers.AutoModelForImageClassification.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True
        ).eval()
        processor: Any = transformers.AutoImageProcessor.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BadConfiguration(f"--safety: {folder} cannot be loaded: {reason}") from None
    wanted = [index for index, label in model.config.id2label.items() if label.lower() in _UNSAFE_LABELS]
    if not wanted:
        known = ", ".join(sorted(_UNSAFE_LABELS))
        raise BadConfiguration(f"--safety: {folder} has no label of unsafe pictures ({known})")

    def unsafe(picture: Image.Image) -> bool:
        torch = importlib.import_module("torch")
        with torch.inference_mode():
            scores = model(**processor(picture.convert("RGB"), return_tensors="pt")).logits[0].softmax(0)
        return float(scores[wanted].sum()) >= _UNSAFE_FROM

    return unsafe


def _package(name: str) -> Any:
    """A package that need not be there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        extra = "reference" if name == "transformers" else "safety"
        raise BadConfiguration(
            f"--safety: the package {name} is not installed; the extra `{extra}` brings it"
        ) from None
