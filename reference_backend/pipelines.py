"""FLUX from a directory in diffusers' layout: the small one of this project, or FLUX.1 [dev] or [schnell]."""

import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from tqdm import tqdm

from mock_server.errors import BadConfiguration
from reference_backend.memory import is_lack_of_memory

Family = Literal["dev", "schnell"]

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}
_CLASSES = {
    "transformer": {"FluxTransformer2DModel"},
    "vae": {"AutoencoderKL", "AutoencoderTiny"},
    "text_encoder": {"CLIPTextModel"},
    "text_encoder_2": {"T5EncoderModel"},
    "tokenizer": {"CLIPTokenizer", "CLIPTokenizerFast"},
    "tokenizer_2": {"T5Tokenizer", "T5TokenizerFast"},
    "scheduler": {"FlowMatchEulerDiscreteScheduler"},
}
# Neither library has types for these.
_PIPELINE: Any = diffusers.FluxPipeline
_CHATTERING: tuple[Any, ...] = (diffusers.utils.logging, transformers.utils.logging)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TRIED_TOKENS = 256
_TEXT_TOKENS: Mapping[Family, int] = {"dev": 512, "schnell": 256}
"""How much text the two FLUX.1 models were trained to read, in tokens of T5."""


class NoRoom(BadConfiguration):
    """There is not enough memory for a model beside what else is in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flux:
    """A diffusers.FluxPipeline on its device, and what kind it is.

    `family` says whether it reads a guidance scale (dev) or was distilled to a few steps without one
    (schnell). `text_tokens` is how many tokens of a prompt its T5 reads.
    """

    pipe: Any  # diffusers gives a pipeline its parts at run time, so that no type knows them
    family: Family
    device: torch.device
    dtype: torch.dtype
    text_tokens: int


def check(checkpoint: str, *, family: Family, option: str, hub: bool) -> None:
    """Raises BadConfiguration where `load` would, as far as that shows before weights are fetched or read."""
    if Path(checkpoint).is_dir() or not (hub and _HUB_ID.fullmatch(checkpoint)):
        what = f"{option}: {checkpoint}"
        _check(_folder(checkpoint, what, hub=hub), what, family)


def load(
    checkpoint: str,
    *,
    family: Family | None = None,
    option: str = "--checkpoint",
    device: str = "auto",
    dtype: str = "auto",
    compile: bool = False,  # noqa: A002  the name of the option, and of what it turns on
    attention: str | None = None,
    hub: bool = False,
) -> Flux:
    """The pipeline of a directory, or of a hub id (`owner/name`) where `hub` allows one.

    It has to be of `family`, where that is given. `option` is what named it, for errors. `device` is "auto",
    "cpu", "cuda" or "cuda:N"; `dtype` "auto" (bf16 on CUDA, else fp32), "bf16", "fp32" or "fp16"; `attention`
    one of diffusers' attention backends. Only safetensors are opened, never a pickle. Raises
    BadConfiguration; NoRoom, which is one, for lack of memory.
    """
    _be_quiet()
    where = _device(device)
    number = _dtype(dtype, where)
    what = f"{option}: {checkpoint}"
    folder = _folder(checkpoint, what, hub=hub)
    _check(folder, what, family)
    try:
        pipe: Any = _PIPELINE.from_pretrained(
            str(folder), dtype=number, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, MemoryError) as error:
        raise _refusal(f"{what} cannot be loaded", error) from None
    return prepared(pipe, device=where, compile=compile, attention=attention)


def prepared(
    pipe: Any,
    *,
    device: torch.device,
    compile: bool = False,  # noqa: A002  as above
    attention: str | None = None,
) -> Flux:
    """A FluxPipeline made ready for inference on a device, in the numbers it has. Raises as `load` does."""
    pipe.set_progress_bar_config(disable=True)
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        getattr(pipe, name).requires_grad_(False)
    _place(pipe, device)
    if attention is not None:
        _use_attention(pipe.transformer, attention)
    if compile:
        # Sizes differ from job to job: symbolic shapes, or each of them would be compiled anew.
        pipe.transformer.compile_repeated_blocks(fullgraph=True, dynamic=True)
    family = _family(pipe.transformer.config)
    tokens = min(_TEXT_TOKENS[family], pipe.tokenizer_2.model_max_length)
    return Flux(pipe=pipe, family=family, device=device, dtype=pipe.transformer.dtype, text_tokens=tokens)


def _be_quiet() -> None:
    """A worker's output is its log: no progress bars, and no reports of what was loaded."""
    for library in _CHATTERING:
        library.set_verbosity_error()
        library.disable_progress_bar()
    # Bars that are not shown have a lock, too: one among processes, that a killed one leaves behind.
    tqdm.set_lock(threading.RLock())


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise BadConfiguration(f"--device: {name} is none of auto, cpu, cuda and cuda:N")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise BadConfiguration(f"--device: {name} asked for, and torch finds {count} CUDA devices")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in _DTYPES:
        raise BadConfiguration(f"--dtype: {name} is none of auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _refusal(what: str, error: Exception) -> BadConfiguration:
    """What is said of an error. Libraries write many lines, of which the first says enough."""
    if is_lack_of_memory(error):
        return NoRoom(f"{what}: there is not enough memory")
    reason = str(error).strip().partition("\n")[0]
    return BadConfiguration(f"{what}: {reason}")


def _folder(checkpoint: str, what: str, *, hub: bool) -> Path:
    folder = Path(checkpoint)
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(checkpoint):
        raise BadConfiguration(f"{what} is not a directory")
    if not hub:
        raise BadConfiguration(f"{what} is not a directory; allow to fetch it from the hub with --hub")
    try:
        # It fetches the parts of the pipeline only, not the same weights a second time in one file.
        return Path(_PIPELINE.download(checkpoint, use_safetensors=True))
    except (OSError, ValueError) as error:
        raise _refusal(f"{what} cannot be fetched", error) from None


def _check(folder: Path, what: str, family: Family | None) -> None:
    """Raises BadConfiguration unless the folder's index names FLUX's own classes, and it is of the family."""
    index = _object(folder, "model_index.json", what)
    kind = index.get("_class_name")
    if kind != "FluxPipeline":
        raise BadConfiguration(f"{what} holds {kind or 'no pipeline'}, not a FluxPipeline")
    for part, wanted in _CLASSES.items():
        entry = index.get(part)
        library, name = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        if library not in ("diffusers", "transformers") or name not in wanted:
            raise BadConfiguration(
                f"{what}: the {part} in it is {name or 'missing'}, not {' or '.join(sorted(wanted))}"
            )
    found = _family(_object(folder, "transformer/config.json", what))
    if family not in (None, found):
        raise BadConfiguration(f"{what} holds FLUX.1 {found}; {family} is wanted there")


def _object(folder: Path, name: str, what: str) -> Mapping[str, Any]:
    """The JSON object in a file of the folder; empty where it is another value."""
    try:
        found: Any = json.loads((folder / name).read_bytes())
    except OSError:
        raise BadConfiguration(f"{what} has no {name}; a directory in diffusers' layout is wanted") from None
    except ValueError:
        raise BadConfiguration(f"{what}: its {name} is not JSON") from None
    return found if isinstance(found, dict) else {}


def _family(config: Mapping[str, Any]) -> Family:
    """The family of a transformer, by its configuration."""
    return "dev" if config.get("guidance_embeds") else "schnell"


def _place(pipe: Any, device: torch.device) -> None:
    if device.type == "cuda":
        # Read when cuBLAS starts: without it, the same seed need not give the same bytes.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if device.index is not None:
            # Or what torch does on "the current device", such as events, would be done on the first one.
            torch.cuda.set_device(device)
    try:
        pipe.to(device)
        # The order in which convolutions like their numbers: a picture of 1536x1536 decodes 1.6 times faster.
        pipe.vae.to(memory_format=torch.channels_last)
    except RuntimeError as error:
        raise _refusal(f"--device: the model cannot be put on {device}", error) from None


def _use_attention(transformer: Any, name: str) -> None:
    attention = transformer.single_transformer_blocks[0].attn
    tokens = torch.zeros(1, _TRIED_TOKENS, transformer.inner_dim)
    try:
        transformer.set_attention_backend(name)
        # Some can be chosen where they cannot be run. To fetch the outcome is to wait for it.
        with torch.no_grad():
            attention(tokens.to(transformer.device, transformer.dtype)).cpu()
    # They come from a dozen packages, each with errors of its own.
    except Exception as error:  # noqa: BLE001
        raise _refusal(f"--attention: {name} cannot be used", error) from None
