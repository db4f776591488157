"""The weights that a worker holds: loaded when first needed, and let go where there is no room for two."""

import logging
from collections.abc import Mapping
from pathlib import Path

from mock_server.errors import BadConfiguration
from reference_backend.memory import give_back
from reference_backend.pipelines import Family, Flux, NoRoom, check, load
from reference_backend.settings import WorkerSettings

OFFLINE = Path(__file__).parent / "tiny"
"""Where the small models lie that come with the package: a folder for each family."""

_OPTIONS: Mapping[Family, str] = {"dev": "--checkpoint", "schnell": "--checkpoint-schnell"}
_log = logging.getLogger(__name__)


class Shelf:
    """Keeps what has been loaded until the memory of the device is needed for another.

    To make one looks at the directories of both families: raises BadConfiguration for those of no use.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._loaded: dict[Family, Flux] = {}
        for family, option in _OPTIONS.items():
            check(self._source(family), family=family, option=option, hub=settings.hub)

    def flux(self, family: Family) -> Flux:
        """The weights of a family. Raises BadConfiguration where they cannot be had, which is logged too."""
        if family not in self._loaded:
            try:
                self._loaded[family] = self._load_beside(family) or self._load_alone(family)
            except BadConfiguration as error:
                _log.error("FLUX.1 %s cannot be had: %s", family, error)
                raise
        return self._loaded[family]

    def _load_beside(self, family: Family) -> Flux | None:
        """The weights beside those that are loaded; None where there is no room for both."""
        try:
            return self._load(family)
        except NoRoom:
            if not self._loaded:
                raise
            return None

    def _load_alone(self, family: Family) -> Flux:
        # Outside of `except`: while the error lives, so does what was half loaded.
        self._loaded.clear()
        give_back()
        return self._load(family)

    def name(self, family: Family) -> str:
        """What the weights of a family are called: by their folder or hub id."""
        return Path(self._named(family) or f"wavemock-tiny-{family}").name

    def _named(self, family: Family) -> str | None:
        return self._settings.checkpoint if family == "dev" else self._settings.checkpoint_schnell

    def _source(self, family: Family) -> str:
        return self._named(family) or str(OFFLINE / family)

    def _load(self, family: Family) -> Flux:
        settings = self._settings
        return load(
            self._source(family),
            family=family,
            option=_OPTIONS[family],
            device=settings.device,
            dtype=settings.dtype,
            compile=settings.compile,
            attention=settings.attention,
            hub=settings.hub,
        )
