"""A store and the data folder that belongs to it: found out where one of them is the wrong one."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from mock_server.errors import BadConfiguration
from mock_server.sql_store import SqlStore
from mock_server.store import Store
from reference_backend import pairing
from reference_backend.pairing import are_paired, pair

OpenStore = Callable[[str], Store]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[OpenStore]:
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(closing(SqlStore(f"sqlite:///{tmp_path}/{name}.db")))


def test_a_new_store_and_a_new_folder_belong_together(opened: OpenStore, tmp_path: Path) -> None:
    pair(opened("a"), tmp_path / "new/data")
    pair(opened("a"), tmp_path / "new/data")
    assert are_paired(opened("a"), tmp_path / "new/data")


def test_a_new_store_does_not_get_the_folder_of_another(opened: OpenStore, tmp_path: Path) -> None:
    pair(opened("a"), tmp_path)
    with pytest.raises(
        BadConfiguration, match=r"is not the folder of this --store: .* write [0-9a-f]{32} into"
    ):
        pair(opened("b"), tmp_path)
    assert are_paired(opened("a"), tmp_path)


def test_a_worker_with_the_wrong_store_ends_in_one_line(opened: OpenStore, tmp_path: Path) -> None:
    pair(opened("a"), tmp_path)
    where = ["--store", f"sqlite:///{tmp_path}/typo.db", "--data", str(tmp_path)]
    command = [sys.executable, "-W", "ignore", "-m", "mock_server", "worker", *where]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "is not the folder of this --store" in ended.stderr


def test_a_store_does_not_get_another_folder(opened: OpenStore, tmp_path: Path) -> None:
    pair(opened("a"), tmp_path / "data")
    with pytest.raises(BadConfiguration, match="is not the folder"):
        pair(opened("a"), tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("results", ["results", "sessions/a/results"])
def test_results_without_a_mark_are_not_taken_for_ones_own(
    opened: OpenStore, tmp_path: Path, results: str
) -> None:
    (tmp_path / results).mkdir(parents=True)
    with pytest.raises(BadConfiguration, match="is not the folder"):
        pair(opened("a"), tmp_path)


def test_what_the_message_says_joins_a_store_and_a_folder(opened: OpenStore, tmp_path: Path) -> None:
    pair(opened("a"), tmp_path)
    with pytest.raises(BadConfiguration) as refused:
        pair(opened("b"), tmp_path)
    mark, _, file = str(refused.value).partition(", write ")[2].partition(" into ")
    Path(file).write_text(mark)
    pair(opened("b"), tmp_path)
    assert [are_paired(opened(name), tmp_path) for name in "ab"] == [False, True]


def test_a_reset_does_not_part_them(opened: OpenStore, tmp_path: Path) -> None:
    store = opened("a")
    pair(store, tmp_path)
    store.clear()
    assert (are_paired(store, tmp_path), store.sessions()) == (True, [])


def test_a_start_that_was_cut_short_is_made_good(opened: OpenStore, tmp_path: Path) -> None:
    pair(opened("a"), tmp_path)
    opened("a").session("/", begin=False).change_note("data-folder", "marked", lambda _: None)
    pair(opened("a"), tmp_path)
    with pytest.raises(BadConfiguration):
        pair(opened("a"), tmp_path / "typo")


def test_many_may_start_at_once(opened: OpenStore, tmp_path: Path) -> None:
    stores = [opened("a") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda store: pair(store, tmp_path / "data"), stores))
    assert are_paired(opened("a"), tmp_path / "data")


def test_a_folder_that_another_store_has_just_marked_stays_its_own(
    opened: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def come_too_late(data: Path, mark: str) -> None:
        monkeypatch.undo()
        pair(opened("a"), data)
        pairing._write(data, mark)

    monkeypatch.setattr(pairing, "_write", come_too_late)
    with pytest.raises(BadConfiguration, match="is not the folder"):
        pair(opened("b"), tmp_path)
    assert are_paired(opened("a"), tmp_path)


def test_a_mark_that_a_power_cut_has_emptied_belongs_to_nobody(
    opened: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference_backend.pairing._PAUSE_SECONDS", 0)
    (tmp_path / "store-id").touch()
    with pytest.raises(BadConfiguration, match="is not the folder"):
        pair(opened("a"), tmp_path)


@pytest.mark.parametrize("place", ["a.db", "file/data"])
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(
    opened: OpenStore, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadConfiguration, match=r"--data .*: cannot be used: [A-Z]\w+[^\n]*$"):
        pair(opened("a"), tmp_path / place)
