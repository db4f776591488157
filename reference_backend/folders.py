"""Where the files of jobs lie: results, the folders of attempts, and the checkpoints of trainings."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mock_server.outputs import result_name

_ATTEMPT = re.compile(r"(?P<id>[0-9a-f]{32})-(?P<attempt>[0-9]{1,9})(?:-(?P<name>.+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """The folders of one session below the data folder. None of them has to be there."""

    root: Path

    @property
    def results(self) -> Path:
        """Finished outputs, as ID-ATTEMPT-NAME, so that two attempts never share a name."""
        return self.root / "results"

    def result(self, prediction: str, attempt: int, name: str) -> Path:
        """Where one output of an attempt is kept."""
        return self.results / result_name(prediction, attempt, name)

    def work(self, prediction: str, attempt: int) -> Path:
        """The folder that one attempt has for itself, removed when it is over."""
        return self.root / "work" / f"{prediction}-{attempt}"

    def training(self, prediction: str) -> Path:
        """Where a training keeps its checkpoints for the next attempt, until the task has ended."""
        return self.root / "training" / prediction

    def results_kept(self) -> Iterator[tuple[str, int, Path]]:
        """Every result with the prediction and the attempt that it is of."""
        for path in _inside(self.results):
            if (found := _ATTEMPT.fullmatch(path.name)) and found["name"]:
                yield found["id"], int(found["attempt"]), path

    def attempts_kept(self) -> Iterator[tuple[str, int, Path]]:
        """Every folder of an attempt, with the prediction and the attempt's number."""
        for path in _inside(self.root / "work"):
            if (found := _ATTEMPT.fullmatch(path.name)) and not found["name"]:
                yield found["id"], int(found["attempt"]), path

    def trainings_kept(self) -> Iterator[tuple[str, Path]]:
        """Every folder of checkpoints, with its prediction."""
        for path in _inside(self.root / "training"):
            yield path.name, path


def folders_of(data: Path, session: str) -> Folders:
    """The folders of a session; the empty name is for whoever names none."""
    return Folders(root=data / "sessions" / session if session else data)


def sessions_in(data: Path) -> list[str]:
    """The names of the sessions that have a folder, the empty one among them."""
    return ["", *(path.name for path in _inside(data / "sessions") if path.is_dir())]


def take_in(folders: Folders, prediction: str, attempt: int, names: Sequence[str]) -> None:
    """Moves what an attempt has made to the results, safe against a power cut once this returns.

    Raises FileNotFoundError where one of the outputs was not made, and OSError where it cannot be kept.
    """
    made = folders.work(prediction, attempt)
    folders.results.mkdir(parents=True, exist_ok=True)
    for name in names:
        _flush(made / name)
    for name in names:
        (made / name).replace(folders.result(prediction, attempt, name))
    _flush(folders.results)


def discard(folders: Folders, prediction: str, attempt: int, names: Sequence[str]) -> None:
    """Removes the results of an attempt that came to nothing, as far as they were kept."""
    for name in names:
        with contextlib.suppress(OSError):
            folders.result(prediction, attempt, name).unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Removes a folder with all that is in it; what cannot be removed now is swept later."""
    shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
