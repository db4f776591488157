"""What jobs leave behind, and what of it is swept away."""

import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from store_processes import a_request

from mock_server.prediction import Event, Prediction, Status
from mock_server.sql_store import SqlStore
from mock_server.store import Store
from reference_backend.folders import Folders, folders_of
from reference_backend.pairing import pair
from reference_backend.sweeping import sweep

DAY = 86_400_000
ID = "1" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(SqlStore(f"sqlite:///{tmp_path}/store.db")) as made:
        made.change_clock(lambda state: replace(state, frozen_at=10 * DAY))
        pair(made, tmp_path)
        yield made


def a_job(*more: Event, attempt: int = 2) -> Prediction:
    return Prediction(
        id=ID,
        model="m",
        edition="current",
        version="v3",
        scenario="normal",
        created_at=0,
        events=(Event(at=0, status=Status.CREATED), *more),
        job=True,
        attempt=attempt,
    )


def keep(store: Store, prediction: Prediction) -> None:
    store.add(prediction, a_request(), now=0)


def completed(at: int) -> Event:
    return Event(at=at, status=Status.COMPLETED, outputs=("0.png",), nsfw=(False,))


FAILED = Event(at=9 * DAY, status=Status.FAILED, error="x")
PROCESSING = Event(at=9 * DAY, status=Status.PROCESSING)


def fill(folders: Folders) -> None:
    """A result and a folder of each of three attempts, and checkpoints."""
    folders.results.mkdir(parents=True)
    for attempt in (1, 2, 3):
        folders.result(ID, attempt, "0.png").touch()
        folders.work(ID, attempt).mkdir(parents=True)
        (folders.work(ID, attempt) / "half").touch()
    folders.training(ID).mkdir(parents=True)


def left(folders: Folders) -> tuple[list[int], list[int], bool]:
    """The attempts whose results are left, those whose folders are, and whether the checkpoints are."""
    results = [attempt for _, attempt, _ in folders.results_kept()]
    return results, [attempt for _, attempt, _ in folders.attempts_kept()], folders.training(ID).exists()


@pytest.mark.parametrize(
    ("prediction", "stay"),
    [
        (a_job(PROCESSING), ([2, 3], [2], True)),
        (a_job(PROCESSING, completed(9 * DAY)), ([2], [], False)),
        (a_job(PROCESSING, completed(2 * DAY)), ([], [], False)),
        (a_job(PROCESSING, FAILED), ([], [], False)),
    ],
    ids=["goes-on", "completed", "completed-long-ago", "failed"],
)
def test_what_is_outdated_is_swept_away(
    store: Store, tmp_path: Path, prediction: Prediction, stay: tuple[list[int], list[int], bool]
) -> None:
    keep(store, prediction)
    fill(folders_of(tmp_path, ""))
    sweep(store, tmp_path, retention_days=7)
    assert left(folders_of(tmp_path, "")) == stay


def make_old(folders: Folders) -> None:
    for path in folders.root.rglob("*"):
        os.utime(path, (time.time() - 7200,) * 2)


@pytest.mark.parametrize("session", ["", "a"])
def test_what_belongs_to_nothing_goes_after_a_while(store: Store, tmp_path: Path, session: str) -> None:
    folders = folders_of(tmp_path, session)
    fill(folders)
    sweep(store, tmp_path, retention_days=7)
    assert left(folders) == ([1, 2, 3], [1, 2, 3], True)
    make_old(folders)
    sweep(store, tmp_path, retention_days=7)
    assert left(folders) == ([], [], False)
    assert store.sessions() == []


@pytest.mark.parametrize("mark", [None, "another store's"])
def test_nothing_is_swept_from_a_folder_of_another_store(
    store: Store, tmp_path: Path, mark: str | None
) -> None:
    keep(store, a_job(PROCESSING, FAILED))
    fill(folders_of(tmp_path, ""))
    make_old(folders_of(tmp_path, ""))
    if mark is None:
        (tmp_path / "store-id").unlink()
    else:
        (tmp_path / "store-id").write_text(mark)
    sweep(store, tmp_path, retention_days=7)
    assert left(folders_of(tmp_path, "")) == ([1, 2, 3], [1, 2, 3], True)


def test_a_session_that_is_swept_does_not_begin_again(store: Store, tmp_path: Path) -> None:
    fill(folders_of(tmp_path, "a"))
    store.session("a")
    sessions = store.sessions

    def reset_meanwhile() -> list[str]:
        found = sessions()
        store.session("a").clear()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "sessions", reset_meanwhile)
        sweep(store, tmp_path, retention_days=7)
    assert store.sessions() == []


def test_a_session_is_swept_by_its_own_clock(store: Store, tmp_path: Path) -> None:
    session = store.session("a")
    session.change_clock(lambda state: replace(state, frozen_at=DAY))
    keep(session, a_job(PROCESSING, completed(DAY // 2)))
    fill(folders_of(tmp_path, "a"))
    sweep(store, tmp_path, retention_days=7)
    assert left(folders_of(tmp_path, "a"))[0] == [2]


@pytest.mark.parametrize("name", ["readme.txt", f"{ID}-x-0.png", f"{ID}.png", ".half"])
def test_what_is_not_ours_is_left_alone(store: Store, tmp_path: Path, name: str) -> None:
    folders = folders_of(tmp_path, "")
    folders.results.mkdir(parents=True)
    (folders.results / name).touch()
    make_old(folders)
    sweep(store, tmp_path, retention_days=7)
    assert (folders.results / name).exists()
