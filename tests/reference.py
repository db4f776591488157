"""The offline model, and LoRAs for it; what tests of the reference backend stand on.

Its functions are imported before its fixtures are, and it asserts nothing: PYTEST_DONT_REWRITE.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import reference_backend
from reference_backend.generate import Request, generate
from reference_backend.pipelines import Flux, load

Tensors = dict[str, torch.Tensor]

TINY = Path(reference_backend.__file__).parent / "tiny"
KOHYA = {"down": ".lora_down.weight", "up": ".lora_up.weight"}
PEFT = {"down": ".lora_A.weight", "up": ".lora_B.weight"}


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Sums of several threads come out differently, and tests share the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_dev(one_thread: None) -> Flux:
    """The offline model with a guidance embedding. Whoever changes its weights puts them back."""
    return load(str(TINY / "dev"), device="cpu")


@pytest.fixture(scope="session")
def tiny_schnell(one_thread: None) -> Flux:
    """The offline model of few steps."""
    return load(str(TINY / "schnell"), device="cpu")


def picture(flux: Flux, prompt: str = "a large red circle on the left", **asked: Any) -> Image.Image:
    """A picture by the model: 512x512, in four steps, where nothing else is asked for."""
    given = {"width": 512, "height": 512, "steps": 4, "guidance": 3.5, "seed": 1, **asked}
    return generate(flux, Request(prompt=prompt, **given), lambda *_: None)


def pixels(image: Image.Image) -> NDArray[np.float64]:
    """The picture's values, 0 to 255, by row, column and channel."""
    return np.asarray(image, np.float64)


def distance(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures of the same size, in values of 0 to 255."""
    return float(np.abs(pixels(one) - pixels(other)).mean())


def linears(flux: Flux, *endings: str) -> dict[str, nn.Linear]:
    """The transformer's linear layers whose names end so; all that are within its blocks without any."""
    return {
        name: module
        for name, module in flux.pipe.transformer.named_modules()
        if isinstance(module, nn.Linear) and "blocks." in name and name.endswith(endings or ("",))
    }


def lora_tensors(flux: Flux, *endings: str, rank: int = 4, seed: int = 0, size: float = 0.3) -> Tensors:
    """A LoRA in diffusers' names, of random numbers, on the layers of those endings."""
    chance = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, layer in linears(flux, *endings).items():
        down = torch.randn(rank, layer.in_features, generator=chance)
        up = torch.randn(layer.out_features, rank, generator=chance)
        tensors[f"transformer.{name}.lora_A.weight"] = size * down / layer.in_features**0.5
        tensors[f"transformer.{name}.lora_B.weight"] = size * up / rank**0.5
    return tensors


def layer(name: str, inputs: int, outputs: int, *, down: str, up: str, alpha: str = "") -> Tensors:
    """What a LoRA of rank 3 adds to one layer, in names with these endings; alpha is half of the rank."""
    chance = torch.Generator().manual_seed(sum(name.encode()))
    made = {
        f"{name}{down}": torch.randn(3, inputs, generator=chance),
        f"{name}{up}": torch.randn(outputs, 3, generator=chance),
    }
    return made | ({f"{name}{alpha}": torch.tensor(1.5)} if alpha else {})


def of_layers(layers: dict[str, tuple[int, int]], **endings: str) -> Tensors:
    """The same for several, by their names: numbers of inputs and of outputs."""
    found: Tensors = {}
    for name, (inputs, outputs) in layers.items():
        found |= layer(name, inputs, outputs, **endings)
    return found


def saved(tensors: Tensors, path: Path, metadata: dict[str, str] | None = None) -> Path:
    """The path, now of a safetensors file with these tensors."""
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


def weights(flux: Flux) -> Tensors:
    """A copy of every weight that a LoRA could change."""
    parts = {"transformer": flux.pipe.transformer, "text_encoder": flux.pipe.text_encoder}
    return {
        f"{part}.{name}": tensor.clone()
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


def same(one: Tensors, other: Tensors) -> bool:
    """Whether two sets of weights are the same to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
