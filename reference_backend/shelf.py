"""The weights that a worker holds: loaded when first needed, and let go where there is no room for two."""

import gc
from pathlib import Path

import torch

from mock_server.errors import BadConfiguration
from reference_backend.pipelines import Family, Flux, load
from reference_backend.settings import WorkerSettings

OFFLINE = Path(__file__).parent / "tiny"
"""Where the small models lie that come with the package: a folder for each family."""


class Shelf:
    """Keeps what has been loaded until the memory of the device is needed for another."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._loaded: dict[Family, Flux] = {}

    def flux(self, family: Family) -> Flux:
        """The weights of a family. Raises BadConfiguration where they cannot be had."""
        if family not in self._loaded:
            loaded = self._load_beside(family)
            if loaded is None:
                # Outside of `except`: while the error lives, so does what was half loaded.
                self._loaded.clear()
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                loaded = self._load(family)
            if loaded.family != family:
                raise BadConfiguration(
                    f"--checkpoint{'-schnell' if family == 'schnell' else ''}: these weights are of FLUX.1 "
                    f"{loaded.family}; {family} is wanted there"
                )
            self._loaded[family] = loaded
        return self._loaded[family]

    def _load_beside(self, family: Family) -> Flux | None:
        """The weights beside those that are loaded; None where that may be what they cannot be had for."""
        try:
            return self._load(family)
        except (torch.OutOfMemoryError, BadConfiguration):
            if not self._loaded:
                raise
            return None

    def name(self, family: Family) -> str:
        """What the weights of a family are called: by their folder or hub id."""
        return Path(self._named(family) or f"wavemock-tiny-{family}").name

    def _named(self, family: Family) -> str | None:
        return self._settings.checkpoint if family == "dev" else self._settings.checkpoint_schnell

    def _load(self, family: Family) -> Flux:
        settings = self._settings
        return load(
            self._named(family) or str(OFFLINE / family),
            device=settings.device,
            dtype=settings.dtype,
            compile=settings.compile,
            attention=settings.attention,
            hub=settings.hub,
        )
