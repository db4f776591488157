import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from store_processes import a_prediction, a_request, fill, run

from mock_server.clock import ClockState
from mock_server.errors import BadConfiguration, StoreUnavailable
from mock_server.sql_store import SqlStore

KILLS = 300
STARTS = 50


@contextmanager
def opened(file: Path) -> Iterator[SqlStore]:
    with closing(SqlStore(f"sqlite:///{file}", busy_timeout=0.2)) as store:
        yield store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def filled(file: Path) -> Path:
    with opened(file) as store:
        fill(store, *range(300))
    return file


@pytest.fixture(scope="module")
def after_kills(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The file that killed writers left behind, and the ids of what it had acknowledged to them."""
    file = tmp_path_factory.mktemp("kills") / "store.db"
    return file, list(filter(None, run("kills", f"sqlite:///{file}", KILLS, 20_261_108)))


def test_every_killed_writer_had_something_acknowledged(after_kills: tuple[Path, list[str]]) -> None:
    _, acknowledged = after_kills
    assert len({line[:16] for line in acknowledged}) == KILLS


def test_everything_acknowledged_is_there_after_a_kill(after_kills: tuple[Path, list[str]]) -> None:
    file, acknowledged = after_kills
    with opened(file) as store:
        assert set(acknowledged) - {kept.id for kept in store.newest(limit=store.count())} == set()


def test_every_record_is_whole_after_a_kill(after_kills: tuple[Path, list[str]]) -> None:
    file, _ = after_kills
    with opened(file) as store:
        kept = store.newest(limit=store.count())
    assert kept == [a_prediction(int(prediction.id, 16)) for prediction in kept]


def test_the_last_request_before_each_kill_is_whole(after_kills: tuple[Path, list[str]]) -> None:
    file, acknowledged = after_kills
    last_words = {line[:16]: line for line in acknowledged}.values()
    with opened(file) as store:
        assert {store.asked(line) == a_request() for line in last_words} == {True}


def test_the_file_is_sound_after_a_kill(after_kills: tuple[Path, list[str]]) -> None:
    file, _ = after_kills
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_two_processes_can_start_together_on_a_new_file(tmp_path: Path) -> None:
    lines = run("starts", tmp_path, STARTS)
    assert sorted(lines) == ["0"] * STARTS + ["1"] * STARTS


def test_two_processes_never_draw_the_same_number(file: Path) -> None:
    assert sorted(map(int, run("draw_together", f"sqlite:///{file}", 300))) == list(range(600))


def test_two_processes_never_lose_a_change_of_the_clock(file: Path) -> None:
    run("draw_together", f"sqlite:///{file}", 300)
    with opened(file) as store:
        assert store.clock_state() == ClockState(offset=600)


def test_a_new_file_that_another_process_is_at_is_waited_for(file: Path) -> None:
    # The write-ahead log cannot be turned on meanwhile, and SQLite says so without waiting.
    with released_soon(file), closing(SqlStore(f"sqlite:///{file}", busy_timeout=30)) as store:
        assert store.count() == 0


def test_a_store_can_be_used_on_both_sides_of_a_fork(file: Path) -> None:
    assert run("used_before_a_fork", f"sqlite:///{file}") == ["0", "1", "2", "3"]


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process saw whose disk was full for a while."""
    (line,) = run("full_disk", f"sqlite:///{tmp_path_factory.mktemp('full')}/store.db")
    seen: dict[str, Any] = json.loads(line)
    return seen


def test_a_full_disk_refuses_to_write(full_disk: dict[str, Any]) -> None:
    assert full_disk["refusal"].startswith("the store cannot be written at the moment: ")


def test_a_full_disk_still_reads(full_disk: dict[str, Any]) -> None:
    assert full_disk["readable"] == full_disk["acknowledged"]


def test_room_on_the_disk_is_enough_to_go_on(full_disk: dict[str, Any]) -> None:
    assert full_disk["afterwards"] == full_disk["acknowledged"] + 1


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
connection.close()
"""


@contextmanager
def held_by_another_process(file: Path) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
        holder.communicate("")


@contextmanager
def released_soon(file: Path) -> Iterator[None]:
    """Holds the lock on a file for a moment, as another process would."""
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.2, holder.rollback)
        release.start()
        try:
            yield
        finally:
            release.join()


def test_a_locked_store_refuses_to_write(filled: Path) -> None:
    with (
        opened(filled) as store,
        held_by_another_process(filled),
        pytest.raises(StoreUnavailable, match="database is locked"),
    ):
        store.add(a_prediction(1_000), a_request(), now=0)


def test_a_locked_store_still_reads(filled: Path) -> None:
    with opened(filled) as store, held_by_another_process(filled):
        assert store.count() == 300


def test_a_released_store_writes_again(filled: Path) -> None:
    with opened(filled) as store:
        with held_by_another_process(filled), pytest.raises(StoreUnavailable):
            store.next_number()
        assert store.next_number() == 0


def test_a_locked_store_is_given_up_in_time(filled: Path) -> None:
    with opened(filled) as store, held_by_another_process(filled):
        begin = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.next_number()
        assert 0.1 < time.monotonic() - begin < 10


def test_a_lock_that_is_soon_released_is_waited_for(filled: Path) -> None:
    with closing(SqlStore(f"sqlite:///{filled}", busy_timeout=30)) as store, released_soon(filled):
        assert store.next_number() == 0


def test_a_writer_that_waits_too_long_behind_another_is_turned_away(filled: Path) -> None:
    with opened(filled) as store, ThreadPoolExecutor(1) as pool:

        def change(state: ClockState) -> ClockState:
            with pytest.raises(StoreUnavailable, match="too many calls wait"):
                pool.submit(store.next_number).result()
            return state

        store.change_clock(change)


def test_a_locked_file_is_no_place_to_start(filled: Path) -> None:
    with (
        held_by_another_process(filled),
        pytest.raises(BadConfiguration, match="another program keeps it locked"),
    ):
        SqlStore(f"sqlite:///{filled}", busy_timeout=0.2)


def overwrite(file: Path, place: int, garbage: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(place)
        stream.write(garbage)


def test_a_garbled_header_is_refused(filled: Path) -> None:
    overwrite(filled, 0, b"\x00garbage\xff" * 8)
    with pytest.raises(BadConfiguration, match="not a SQLite database"):
        SqlStore(f"sqlite:///{filled}")


@pytest.mark.parametrize("seed", range(10))
def test_a_randomly_damaged_file_is_refused(filled: Path, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(50):
        overwrite(filled, chance.randrange(100, filled.stat().st_size), chance.randbytes(64))
    with pytest.raises(BadConfiguration, match=r"store\.db' as the store: .*(name|another file)"):
        SqlStore(f"sqlite:///{filled}")


def test_a_truncated_file_is_refused(filled: Path) -> None:
    os.truncate(filled, filled.stat().st_size // 2)
    with pytest.raises(BadConfiguration, match="damaged"):
        SqlStore(f"sqlite:///{filled}")


def test_damage_that_comes_later_makes_the_store_unavailable_to_readers(filled: Path) -> None:
    with opened(filled) as store:
        overwrite(filled, 0, bytes(10_000))
        with pytest.raises(StoreUnavailable):
            store.get(a_prediction(0).id)


def test_damage_that_comes_later_makes_the_store_unavailable_to_writers(filled: Path) -> None:
    with opened(filled) as store:
        overwrite(filled, 0, bytes(10_000))
        with pytest.raises(StoreUnavailable):
            store.add(a_prediction(1_000), a_request(), now=0)


def change_behind_its_back(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(statement)


@pytest.mark.parametrize("damage", ["DROP TABLE sessions", "DROP TABLE predictions"])
def test_what_is_missing_later_makes_the_store_unavailable(filled: Path, damage: str) -> None:
    with opened(filled) as store:
        change_behind_its_back(filled, damage)
        with pytest.raises(StoreUnavailable):
            (store.clock_state(), store.count())


def test_a_damaged_record_makes_the_store_unavailable(filled: Path) -> None:
    change_behind_its_back(filled, "UPDATE predictions SET record = '{'")
    with opened(filled) as store, pytest.raises(StoreUnavailable, match="damaged record"):
        store.get(a_prediction(0).id)


def test_a_directory_that_vanishes_makes_the_store_unavailable(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with opened(tmp_path / "here" / "store.db") as store:
        (tmp_path / "here").rename(tmp_path / "there")
        with pytest.raises(StoreUnavailable):
            store.count()
