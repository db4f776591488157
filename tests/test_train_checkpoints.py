"""Checkpoints of a training: whole or not there, checked when read, and never too costly."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reference_backend import checkpoints
from reference_backend.checkpoints import Pace, State


def state(step: int, plan: str = "plan") -> State:
    return State(step=step, plan=plan, loss=0.5, tensors={"lora/a": torch.full((4, 3), float(step))})


def saved(folder: Path, *steps: int) -> None:
    for step in steps:
        checkpoints.save(folder, state(step))


def test_what_was_saved_last_is_loaded(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 10)
    loaded = checkpoints.load(tmp_path, "plan")
    assert loaded is not None
    assert (loaded.step, loaded.loss) == (10, 0.5)
    assert torch.equal(loaded.tensors["lora/a"], torch.full((4, 3), 10.0))


def test_only_the_last_two_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 10)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["step-00000002", "step-00000010"]


def flipped(place: Path) -> None:
    path = place / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(place: Path) -> None:
    path = place / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def without_tensors(place: Path) -> None:
    (place / "state.safetensors").unlink()


def without_manifest(place: Path) -> None:
    (place / "manifest.json").unlink()


def half_a_manifest(place: Path) -> None:
    (place / "manifest.json").write_text('{"about": {"step"')


def another_step(place: Path) -> None:
    path = place / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["about"]["step"] = 7
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "damage", [flipped, cut, without_tensors, without_manifest, half_a_manifest, another_step]
)
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    saved(tmp_path, 1, 2)
    damage(tmp_path / "step-00000002")
    loaded = checkpoints.load(tmp_path, "plan")
    assert loaded is not None
    assert loaded.step == 1


def test_a_damaged_one_gives_way_to_the_same_step(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    flipped(tmp_path / "step-00000002")
    saved(tmp_path, 2)
    loaded = checkpoints.load(tmp_path, "plan")
    assert loaded is not None
    assert loaded.step == 2


def test_one_of_another_training_is_passed_over(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, state(3, plan="another"))
    assert checkpoints.load(tmp_path, "plan") is None


def test_those_of_another_training_do_not_make_newer_ones_look_old(tmp_path: Path) -> None:
    for step in (10, 11):
        checkpoints.save(tmp_path, state(step, plan="another"))
    checkpoints.load(tmp_path, "plan")
    saved(tmp_path, 1)
    loaded = checkpoints.load(tmp_path, "plan")
    assert loaded is not None
    assert loaded.step == 1


def test_two_attempts_do_not_write_into_one_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two containers, both may be by the process of the same number."""
    sync = checkpoints.sync

    def meanwhile(path: Path) -> None:
        monkeypatch.setattr(checkpoints, "sync", sync)
        saved(tmp_path, 2)
        sync(path)

    monkeypatch.setattr(checkpoints, "sync", meanwhile)
    saved(tmp_path, 1)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_a_step_that_another_attempt_has_kept_first_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "other", 2)
    place = tmp_path / "mine" / "step-00000002"
    saved(tmp_path / "mine", 2)
    flipped(place)
    remove = shutil.rmtree

    def overtaken(path: Path, **more: Any) -> None:
        remove(path, **more)
        if path == place:
            shutil.copytree(tmp_path / "other" / place.name, place)

    monkeypatch.setattr(shutil, "rmtree", overtaken)
    saved(tmp_path / "mine", 2)
    assert checkpoints.load(tmp_path / "mine", "plan") is not None
    assert [each.name for each in place.parent.iterdir()] == [place.name]


def test_there_is_none_where_nothing_was_saved(tmp_path: Path) -> None:
    assert checkpoints.load(tmp_path / "nowhere", "plan") is None


def half_written(folder: Path, *, seconds_ago: int) -> Path:
    draft = folder / "draft-4711"
    draft.mkdir()
    (draft / "state.safetensors").write_bytes(b"\0" * 100)
    then = draft.stat().st_mtime - seconds_ago
    os.utime(draft, (then, then))
    return draft


def test_what_a_kill_left_half_written_is_not_read_and_goes(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    draft = half_written(tmp_path, seconds_ago=4000)
    loaded = checkpoints.load(tmp_path, "plan")
    assert loaded is not None
    assert loaded.step == 1
    assert not draft.exists()


def test_what_another_attempt_may_be_writing_stays(tmp_path: Path) -> None:
    draft = half_written(tmp_path, seconds_ago=60)
    assert checkpoints.load(tmp_path, "plan") is None
    assert draft.exists()


class Watch:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


def test_one_is_due_so_many_seconds_after_the_first_question() -> None:
    watch = Watch()
    pace = Pace(seconds=30, clock=watch)
    watch.move(1000)
    assert not pace.due()
    watch.move(29)
    assert not pace.due()
    watch.move(1)
    assert pace.due()
    pace.saving(lambda: None)
    assert not pace.due()


def test_what_takes_long_to_save_is_saved_rarely() -> None:
    watch = Watch()
    pace = Pace(seconds=30, share=0.05, clock=watch)
    pace.saving(lambda: watch.move(4))
    watch.move(79)
    assert not pace.due()
    watch.move(1)
    assert pace.due()
