"""States of a training on disk that outlive a killed process: whole or not there, and checked when read."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

KEPT = 2
"""How many are kept: the newest, and the one before in case the newest turns out to be damaged."""

_ABANDONED_SECONDS = 3600
"""Longer than the slowest disk takes to write one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A training after `step` steps. `plan` is a digest of all that must be the same for it to go on."""

    step: int
    plan: str
    loss: float
    tensors: Mapping[str, torch.Tensor]


def save(folder: Path, state: State) -> None:
    """Writes a state, and removes those that are no longer needed.

    Everything is written and synced beside its place first, and then renamed: there is no moment at which a
    kill leaves half a checkpoint under a name that `load` reads. An attempt that has been given up for lost
    may write here as well, until it learns of that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Not the process's number, which is the same in many a container.
    draft = folder / f"draft-{secrets.token_hex(8)}"
    draft.mkdir()
    save_file({name: each.contiguous() for name, each in state.tensors.items()}, draft / "state.safetensors")
    about = {
        "step": state.step,
        "plan": state.plan,
        "loss": state.loss,
        "sha256": _digest(draft / "state.safetensors"),
    }
    text = json.dumps(about, sort_keys=True)
    manifest = {"about": about, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (draft / "manifest.json").write_text(json.dumps(manifest, sort_keys=True))
    for path in (draft / "state.safetensors", draft / "manifest.json", draft):
        sync(path)
    _move(draft, folder / f"step-{state.step:08d}", state.plan)
    sync(folder)
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, plan: str) -> State | None:
    """The newest whole state of that plan, or None. Damaged ones and those of another are passed over.

    Those of another are removed: this plan's next ones would count as older. So are drafts of long ago.
    """
    for left in folder.glob("draft-*"):
        with contextlib.suppress(FileNotFoundError):  # it has its name by now
            if left.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    for place in sorted(folder.glob("step-*"), reverse=True):
        state = _read(place)
        if state is None:
            continue
        if state.plan == plan:
            return state
        shutil.rmtree(place, ignore_errors=True)
    return None


def _move(draft: Path, place: Path, plan: str) -> None:
    """Gives a draft its name, unless the same state has it already."""
    found = _read(place)
    if found is None or found.plan != plan:
        # Damaged, so that the run fell back behind it, or another training's.
        shutil.rmtree(place, ignore_errors=True)
    try:
        draft.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # Another attempt has come to this step as well.
        shutil.rmtree(draft, ignore_errors=True)


def sync(path: Path) -> None:
    """Makes sure that a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Pace:
    """When a checkpoint is due: `seconds` after the last, and never for more than `share` of the time.

    `clock` gives seconds, and they run from when it is first asked. Saving a large state takes its time, so a
    slow disk makes checkpoints rarer, not the training much longer.
    """

    def __init__(
        self, *, seconds: float = 30.0, share: float = 0.05, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._share = share
        self._clock = clock
        self._last: float | None = None
        self._cost = 0.0

    def due(self) -> bool:
        """Whether a checkpoint should be written now."""
        now = self._clock()
        if self._last is None:
            self._last = now
        return now - self._last >= max(self._seconds, self._cost / self._share)

    def saving(self, save_now: Callable[[], None]) -> None:
        """Saves, and remembers when that was and how long it took."""
        began = self._clock()
        save_now()
        ended = self._clock()
        self._last, self._cost = ended, ended - began


def _read(place: Path) -> State | None:
    try:
        manifest: Any = json.loads((place / "manifest.json").read_text())
        about = manifest["about"]
        text = json.dumps(about, sort_keys=True)
        if hashlib.sha256(text.encode()).hexdigest() != manifest["sha256"]:
            return None
        if _digest(place / "state.safetensors") != about["sha256"]:
            return None
        tensors = load_file(place / "state.safetensors")
        return State(step=about["step"], plan=about["plan"], loss=about["loss"], tensors=tensors)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
