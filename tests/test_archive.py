"""Reading archives: which kinds, by which names, and what is left out."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from archives import tarred, zipped

from reference_backend.archive import read_archive
from reference_backend.job import JobFailed

FILES = {"a.png": b"one", "b/c.txt": b"two" * 300_000, "b/empty.txt": b""}


def code(archive: bytes, declared: str = "") -> str:
    with pytest.raises(JobFailed) as failed:
        read_archive(archive, declared=declared)
    return failed.value.code


@pytest.mark.parametrize(
    "archive",
    [
        zipped(FILES),
        zipped(FILES, packing=zipfile.ZIP_STORED),
        tarred(FILES),
        tarred(FILES, style=tarfile.GNU_FORMAT),
        tarred(FILES, style=tarfile.USTAR_FORMAT),
        tarred(FILES, mode="w:gz"),
        gzip.compress(tarred(FILES)) + gzip.compress(b""),
    ],
)
def test_an_archive_is_read_whatever_its_kind(archive: bytes, tmp_path: Path) -> None:
    assert read_archive(archive) == FILES
    (tmp_path / "archive").write_bytes(archive)
    assert read_archive(tmp_path / "archive") == FILES


def test_a_tar_of_a_folder_is_read() -> None:
    assert read_archive(tarred({"a.png": b"one"}, folder="./set")) == {"set/a.png": b"one"}


@pytest.mark.parametrize("style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_other_letters_are_read_from_a_tar(style: int) -> None:
    files = {f"{'folder/' * 40}ä.png": b"one", "b.png": b"two"}
    assert read_archive(tarred(files, style=style)) == files


def test_a_long_path_is_read_from_an_old_tar() -> None:
    files = {f"{'f' * 90}/{'g' * 90}.png": b"one"}
    assert read_archive(tarred(files, style=tarfile.USTAR_FORMAT)) == files


def test_other_letters_are_read_from_a_zip() -> None:
    assert read_archive(zipped({"ä.png": b"one"})) == {"ä.png": b"one"}


def test_a_name_is_composed() -> None:
    assert list(read_archive(zipped({"a\u0308.png": b"one"}))) == ["\u00e4.png"]


def test_the_slashes_of_windows_part_folders() -> None:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        entry = zipfile.ZipInfo("x")
        entry.filename = "set\\a.png"
        archive.writestr(entry, b"one")
    assert read_archive(into.getvalue()) == {"set/a.png": b"one"}


@pytest.mark.parametrize(
    "junk",
    [
        "__MACOSX/._a.png",
        "__MACOSX/a.png",
        "._a.png",
        "b/._c.png",
        ".DS_Store",
        "b/Thumbs.db",
        "desktop.ini",
        ".git/x",
    ],
)
def test_what_systems_add_is_left_out(junk: str) -> None:
    for archive in (zipped({"a.png": b"one", junk: b"x"}), tarred({"a.png": b"one", junk: b"x"})):
        assert read_archive(archive) == {"a.png": b"one"}


@pytest.mark.parametrize("declared", ["", "zip", ".zip", " ZIP "])
def test_a_format_that_is_declared_may_be_right(declared: str) -> None:
    assert read_archive(zipped(FILES), declared=declared) == FILES


@pytest.mark.parametrize("declared", ["tar.gz", "tgz", ".TGZ"])
def test_a_packed_tar_has_two_names(declared: str) -> None:
    assert read_archive(tarred(FILES, mode="w:gz"), declared=declared) == FILES


@pytest.mark.parametrize("declared", ["tar", "tar.gz", "tgz"])
def test_a_format_that_is_declared_may_not_be_wrong(declared: str) -> None:
    assert code(zipped(FILES), declared) == "archive_format_mismatch"


@pytest.mark.parametrize("declared", ["rar", "7z", "application/zip", "zip\0", "x" * 9999])
def test_a_format_of_which_nothing_is_known_is_refused(declared: str) -> None:
    assert code(zipped(FILES), declared) == "archive_format_unsupported"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"P",
        b"<html>",
        b"7z\xbc\xaf\x27\x1c" + bytes(600),
        b"Rar!\x1a\x07\x01\x00" + bytes(600),
        b"BZh91AY&SY" + bytes(600),
        b"\xfd7zXZ\x00" + bytes(600),
        b"\x28\xb5\x2f\xfd" + bytes(600),
        bytes(1024),
        b"x" * 2000,
    ],
)
def test_what_is_no_archive_that_is_read_is_refused(content: bytes) -> None:
    assert code(content) == "archive_format_unsupported"


def test_an_empty_zip_holds_nothing() -> None:
    assert read_archive(zipped({})) == {}
