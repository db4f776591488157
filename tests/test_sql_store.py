import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from store_processes import a_prediction, a_request, fill, in_eight_threads, numbers_of

from mock_server.clock import ClockState
from mock_server.errors import BadConfiguration
from mock_server.sql_store import SqlStore


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


def use(store: SqlStore, number: int) -> None:
    fill(store, number)
    assert store.count() > 0


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_a_file_remembers(url: str) -> None:
    with closing(SqlStore(url)) as store:
        fill(store, 2, 1)
        store.next_number()
        store.change_clock(lambda state: state.advance(7))
    with closing(SqlStore(url)) as store:
        assert numbers_of(store.newest(limit=9)) == [1, 2]
        assert store.asked(a_prediction(2).id) == a_request()
        assert (store.next_number(), store.clock_state()) == (1, ClockState(offset=7))


def test_a_store_of_jobs_outlasts_a_power_cut_and_one_of_stories_a_kill(url: str) -> None:
    levels = []
    for enqueue in (lambda *_: None, None):
        with closing(SqlStore(url, enqueue=enqueue)) as store, store._writing() as connection:
            levels.append(connection.exec_driver_sql("PRAGMA synchronous").scalar())
    assert levels == [2, 1]  # FULL and NORMAL


def test_two_stores_on_one_file_see_the_same(url: str) -> None:
    with closing(SqlStore(url)) as one, closing(SqlStore(url)) as other:
        fill(one, 1)
        fill(other, 2)
        assert numbers_of(one.newest(limit=9)) == numbers_of(other.newest(limit=9)) == [2, 1]
        assert [one.next_number(), other.next_number(), one.next_number()] == [0, 1, 2]
        one.change_clock(lambda state: state.advance(3))
        assert other.clock_state() == ClockState(offset=3)


def test_a_closed_store_leaves_the_database_file_alone_behind(url: str, tmp_path: Path) -> None:
    with closing(SqlStore(url)) as store:
        in_eight_threads(partial(use, store))
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"]


def test_a_closed_store_holds_no_file_open(url: str) -> None:
    before = open_files()
    with closing(SqlStore(url)) as store:
        in_eight_threads(partial(use, store))
    assert open_files() == before


def test_a_store_opens_nothing_before_it_is_used(url: str) -> None:
    before = open_files()
    with closing(SqlStore(url)):
        assert open_files() == before


def test_an_empty_file_becomes_a_store(url: str, tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    with closing(SqlStore(url)) as store:
        assert store.count() == 0


def execute(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(statement)


def test_a_file_of_another_version_is_refused(url: str, tmp_path: Path) -> None:
    SqlStore(url).close()
    execute(tmp_path / "store.db", "UPDATE wavemock SET schema_version = 99")
    with pytest.raises(BadConfiguration, match=r"schema 99 .*; name another file"):
        SqlStore(url)


def test_a_file_that_has_lost_its_version_is_refused(url: str, tmp_path: Path) -> None:
    SqlStore(url).close()
    execute(tmp_path / "store.db", "DELETE FROM wavemock")
    with pytest.raises(BadConfiguration, match="name another file"):
        SqlStore(url)


def test_the_database_of_another_program_is_left_as_it_was(url: str, tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    execute(file, "CREATE TABLE bookmarks (url TEXT)")
    before = file.read_bytes()
    with pytest.raises(BadConfiguration, match=r"store\.db' .*another program; name another file"):
        SqlStore(url)
    assert file.read_bytes() == before


def test_a_text_file_is_left_as_it_was(url: str, tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    file.write_text("dear diary, " * 1_000)
    with pytest.raises(BadConfiguration, match=r"store\.db' .*not a SQLite database"):
        SqlStore(url)
    assert file.read_text() == "dear diary, " * 1_000


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match=re.escape(f"no directory '{tmp_path}/missing'; create it")):
        SqlStore(f"sqlite:///{tmp_path}/missing/store.db")


def test_a_directory_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="not a file; name another"):
        SqlStore(f"sqlite:///{tmp_path}")


def test_a_pipe_is_no_store(url: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "store.db")
    with pytest.raises(BadConfiguration, match="not a file; name another"):
        SqlStore(url)


@pytest.mark.parametrize("path", ["x" * 10_000, "d/" * 10_000 + "x", "a/\0/b"], ids=["name", "path", "nul"])
def test_an_impossible_path_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(BadConfiguration):
        SqlStore(f"sqlite:///{tmp_path}/{path}")


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder of somebody whom permissions bind; root, who may do everything, becomes nobody for a test."""
    nobody = 65534
    with TemporaryDirectory() as name:
        folder = Path(name)
        if is_root := os.geteuid() == 0:
            os.chown(folder, nobody, nobody)
            os.setresuid(nobody, nobody, 0)
        try:
            yield folder
        finally:
            folder.chmod(0o700)
            if is_root:
                os.setresuid(0, 0, 0)


def test_a_file_that_cannot_be_written_is_refused(own_folder: Path) -> None:
    url = f"sqlite:///{own_folder}/store.db"
    SqlStore(url).close()
    (own_folder / "store.db").chmod(0o400)
    with pytest.raises(BadConfiguration, match=r"store\.db' .*cannot be written; change its permissions"):
        SqlStore(url)


def test_a_directory_that_cannot_be_written_is_refused(own_folder: Path) -> None:
    own_folder.chmod(0o500)
    with pytest.raises(BadConfiguration, match=r"store\.db' .*check the permissions"):
        SqlStore(f"sqlite:///{own_folder}/store.db")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "store.db",
        "sqlite",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true",
        "sqlite:///store.db?mode=ro",
        "sqlite://store.db",
        "sqlite://host/store.db",
        "sqlite://user:secret@/store.db",
        "sqlite://:99999999/store.db",
        "sqlite+aiosqlite:///store.db",
        "sqlite+:///store.db",
        "postgresql+psycopg://user:secret@localhost/db",
        "redis://localhost",
        "memory://",
        "\0",
        "sqlite:///\0",
        "sqlite:///a\nb/c",
        "sqlite:///\ud800/x",
        "://" * 1_000,
    ],
)
def test_a_url_that_names_no_file_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(BadConfiguration, match=r"sqlite:///FILE|create it") as refusal:
        SqlStore(url)
    assert len(str(refusal.value).splitlines()) == 1
    assert "secret" not in str(refusal.value)
