"""Which models workers know, and what each of them does. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What a model's jobs make, of which base, and for trainers by which recipe."""

    makes: Literal["images", "lora"]
    base: Literal["dev", "schnell"]
    recipe: Literal["", "base", "turbo"] = ""


MODELS: Mapping[str, Model] = {
    "wavespeed-ai/flux-dev-lora": Model(makes="images", base="dev"),
    "wavespeed-ai/flux-schnell-lora": Model(makes="images", base="schnell"),
    "wavespeed-ai/flux-dev-lora-trainer": Model(makes="lora", base="dev", recipe="base"),
    "wavespeed-ai/flux-dev-lora-trainer-turbo": Model(makes="lora", base="dev", recipe="turbo"),
}
"""By the id that a request's path names."""
