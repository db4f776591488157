"""Which weights a worker holds at a time, and what it says of those that it cannot have."""

import shutil
from pathlib import Path

import pytest
from reference import TINY

from mock_server.errors import BadConfiguration
from reference_backend import shelf
from reference_backend.pipelines import Family, Flux, NoRoom, load
from reference_backend.settings import WorkerSettings
from reference_backend.shelf import Shelf

pytest_plugins = ("reference",)


def settings(**given: str | bool) -> WorkerSettings:
    return WorkerSettings(store="", data=Path(), device="cpu", **given)  # type: ignore[arg-type]  # some of its fields


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the directories whose weights are loaded, one after the other."""
    names: list[str] = []

    def loading(checkpoint: str, **given: object) -> Flux:
        names.append(Path(checkpoint).name)
        return load(checkpoint, **given)  # type: ignore[arg-type]  # as the shelf gives them

    monkeypatch.setattr(shelf, "load", loading)
    return names


@pytest.mark.parametrize(
    ("place", "reason"), [("/nowhere", "is not a directory"), (str(TINY / "dev"), "schnell is wanted there")]
)
def test_a_directory_of_no_use_is_said_before_anything_is_loaded(place: str, reason: str) -> None:
    with pytest.raises(BadConfiguration, match=f"^--checkpoint-schnell: {place} .*{reason}"):
        Shelf(settings(checkpoint_schnell=place))


def test_a_name_of_the_hub_is_not_fetched_at_the_start() -> None:
    Shelf(settings(checkpoint_schnell="nobody/nothing-at-all", hub=True))


def test_a_family_that_cannot_be_loaded_is_logged_and_does_not_cost_the_other_one(
    tmp_path: Path, loads: list[str], caplog: pytest.LogCaptureFixture, one_thread: None
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(TINY / "schnell", broken)
    (broken / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    kept = Shelf(settings(checkpoint_schnell=str(broken)))
    dev = kept.flux("dev")
    with pytest.raises(BadConfiguration):
        kept.flux("schnell")
    assert kept.flux("dev") is dev
    assert loads == ["dev", "broken"]
    assert f"FLUX.1 schnell cannot be had: --checkpoint-schnell: {broken} cannot be loaded: " in caplog.text


def test_one_family_makes_room_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    held: set[str] = set()

    class Held:
        """Weights that count as held for as long as somebody has them."""

        def __init__(self, name: str) -> None:
            if held:
                raise NoRoom("there is not enough memory")
            self.name = name
            held.add(name)

        def __del__(self) -> None:
            held.discard(getattr(self, "name", ""))

    monkeypatch.setattr(shelf, "load", lambda checkpoint, **_: Held(Path(checkpoint).name))
    kept = Shelf(settings())
    families: tuple[Family, ...] = ("dev", "schnell", "dev")
    for family in families:
        assert isinstance(kept.flux(family), Held)
        assert held == {family}


def test_a_family_that_does_not_fit_alone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_none(*_: object, **__: object) -> None:
        raise NoRoom("there is not enough memory")

    monkeypatch.setattr(shelf, "load", load_none)
    with pytest.raises(BadConfiguration, match="not enough memory"):
        Shelf(settings()).flux("dev")
