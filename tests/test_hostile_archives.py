"""Archives that mean harm: each kind is refused with a code, in bounded memory, and nothing is written."""

import gzip
import io
import random
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from archives import tarred, zipped
from attacks import attacked, mutation

from reference_backend.archive import Caps, read_archive
from reference_backend.dataset import read_dataset
from reference_backend.job import JobFailed

MIB = 2**20


def refusal(archive: bytes, caps: Caps | None = None) -> str:
    with pytest.raises(JobFailed) as failed:
        read_archive(archive, caps=caps)
    return failed.value.code


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, 1)


def both(name: str, content: bytes) -> tuple[bytes, bytes, bytes]:
    """An archive of one file, of each kind."""
    return zipped({name: content}), tarred({name: content}), tarred({name: content}, mode="w:gz")


@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "b/../../a.png",
        "b/../a.png",
        "..",
        "/etc/passwd",
        "//host/share",
        "\\\\host\\share",
        "..\\a.png",
        "b\\..\\..\\a.png",
        "C:\\a.png",
        "c:a.png",
        "C:/a.png",
        "n" * 1001,
    ],
)
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    for archive in (zipped({name: b"x"}), tarred({name: b"x"})):
        assert refusal(archive) == "archive_unsafe"


@pytest.mark.parametrize(
    "names", [("a.png", "A.PNG"), ("ä.png", "a\u0308.png"), ("b/a.png", "b//a.png"), ("ß", "SS")]
)
def test_a_name_that_comes_twice_is_refused(names: tuple[str, str]) -> None:
    for archive in (zipped(dict.fromkeys(names, b"x")), tarred(dict.fromkeys(names, b"x"))):
        assert refusal(archive) == "archive_unsafe"


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.GNUTYPE_SPARSE,
        b"V",
    ],
)
def test_a_tar_with_more_than_files_is_refused(kind: bytes) -> None:
    entry = tarfile.TarInfo("a.png")
    entry.type, entry.linkname = kind, "/etc/passwd"
    assert refusal(entry.tobuf() + bytes(1024)) == "archive_unsafe"


def test_a_tar_with_a_hole_in_a_file_is_refused() -> None:
    entry = tarfile.TarInfo("a.png")
    entry.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "1000000000000"}
    assert refusal(entry.tobuf(tarfile.PAX_FORMAT) + bytes(1024)) == "archive_unsafe"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_a_zip_with_more_than_files_is_refused(kind: int) -> None:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        entry = zipfile.ZipInfo("a.png")
        entry.external_attr = (kind | 0o777) << 16
        archive.writestr(entry, b"/etc/passwd")
    assert refusal(into.getvalue()) == "archive_unsafe"


def test_an_entry_over_the_cap_is_refused() -> None:
    for archive in both("a.png", bytes(1001)):
        assert refusal(archive, Caps(entry=1000)) == "archive_too_large"
        assert read_archive(archive, caps=Caps(entry=1001))


def test_an_archive_over_the_cap_is_refused() -> None:
    files = {f"{number}.png": bytes(1000) for number in range(10)}
    for archive in (zipped(files), tarred(files)):
        assert refusal(archive, Caps(total=9999)) == "archive_too_large"
        assert read_archive(archive, caps=Caps(total=10_000))


def test_what_is_left_out_counts_too() -> None:
    for archive in both(".DS_Store", bytes(10_000)):
        assert refusal(archive, Caps(total=9999)) == "archive_too_large"


def test_too_many_entries_are_refused() -> None:
    files = {f"{number}.png": b"" for number in range(11)}
    for archive in (zipped(files), tarred(files), tarred(files, mode="w:gz")):
        assert refusal(archive, Caps(entries=10)) == "archive_too_large"
        assert read_archive(archive, caps=Caps(entries=11))


def test_folders_and_headers_count_as_entries() -> None:
    folder = tarfile.TarInfo("b")
    folder.type = tarfile.DIRTYPE
    assert refusal(folder.tobuf() * 11 + bytes(1024), Caps(entries=10)) == "archive_too_large"
    entry = tarfile.TarInfo("x")
    entry.type = tarfile.XGLTYPE
    assert refusal(entry.tobuf() * 11 + bytes(1024), Caps(entries=10)) == "archive_too_large"


def test_too_much_for_its_size_is_refused() -> None:
    caps = Caps(ratio=100, harmless=1000)
    for archive in (zipped({"a.png": bytes(100_000)}), tarred({"a.png": bytes(100_000)}, mode="w:gz")):
        assert refusal(archive, caps) == "archive_too_large"
        assert read_archive(archive)


@pytest.mark.parametrize(("name", "kind"), [("b", tarfile.DIRTYPE), ("b/", tarfile.AREGTYPE)])
def test_a_folder_of_a_tar_has_no_bytes(name: str, kind: bytes) -> None:
    folder = tarfile.TarInfo(name)
    folder.type, folder.size = kind, 2**40
    header = folder.tobuf(tarfile.GNU_FORMAT)
    assert read_archive(header + tarred({"a.png": b"x"})) == {"a.png": b"x"}


def test_a_bomb_behind_the_end_of_a_tar_is_refused() -> None:
    whole = tarred({"a.png": b"x"})
    assert refusal(gzipped(whole + bytes(100_000)), Caps(total=50_000)) == "archive_too_large"
    assert refusal(gzipped(whole) + gzipped(bytes(100_000)), Caps(total=50_000)) == "archive_too_large"


@pytest.mark.parametrize(
    "kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE]
)
def test_a_header_of_absurd_length_is_refused(kind: bytes) -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = kind, 8 * 2**30
    assert refusal(gzipped(entry.tobuf(tarfile.GNU_FORMAT) + bytes(MIB))) == "archive_unsafe"


@pytest.mark.parametrize(
    "records",
    [
        b"99 path=x\n",
        b"0 path=x\n",
        b"8 path=x",
        b"path=x\n",
        b"999999999999999999999 path=x\n",
        b"11 size=-1\n",
        b"12 size=1_0\n",
        b"-9 path=x\n",
        b" " * 60_000,
        b"1" * 60_000,
    ],
)
def test_an_extended_header_that_cannot_be_read_is_refused(records: bytes) -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, len(records)
    archive = entry.tobuf() + records + bytes(-len(records) % 512) + tarred({"a.png": b"x"})
    assert refusal(archive) == "archive_unreadable"


def test_a_size_from_an_extended_header_is_not_believed() -> None:
    records = b"18 size=999999999\n"
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, len(records)
    archive = entry.tobuf() + records + bytes(512 - len(records)) + tarred({"a.png": b"x"})
    assert refusal(archive) == "archive_unreadable"


def test_a_header_of_a_tar_that_was_changed_is_refused() -> None:
    archive = tarred({"a.png": b"x", "b.png": b"y"})
    assert refusal(archive.replace(b"b.png", b"c.png")) == "archive_unreadable"


def test_a_tar_of_lying_size_is_refused() -> None:
    entry = tarfile.TarInfo("a.png")
    entry.size = 2**40
    assert refusal(entry.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)) == "archive_unreadable"


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_what_is_cut_off_anywhere_is_refused(kind: str) -> None:
    files = {"a.png": random.Random(1).randbytes(2000), "b.png": b"x"}
    whole = {"zip": zipped(files), "tar": tarred(files), "tar.gz": tarred(files, mode="w:gz")}[kind]
    last = whole.rstrip(b"\0") if kind == "tar" else whole
    for length in range(0, len(last), 97):
        with pytest.raises(JobFailed) as failed:
            read_archive(whole[:length])
        assert failed.value.code in {"archive_unreadable", "archive_format_unsupported", "archive_unsafe"}


def test_a_zip_whose_entries_share_their_bytes_is_refused() -> None:
    assert refusal(overlapping(entries=30, size=MIB)) == "archive_unsafe"


def overlapping(*, entries: int, size: int) -> bytes:
    """Many entries over one run of bytes: each quotes the header of the next, and all end in one kernel."""
    kernel = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = kernel.compress(bytes(size)) + kernel.flush()
    names = [b"%d.png" % number for number in range(entries)]
    plain, packed_sizes, bodies, header = bytes(size), [], b"", b""
    for name in reversed(names):
        if header:
            # A stored block of deflate that holds the header behind it.
            quote = struct.pack("<BHH", 0, len(header), len(header) ^ 0xFFFF)
            packed, plain = quote + header + packed, header + plain
        header = struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, zlib.crc32(plain), len(packed), len(plain), len(name), 0
        )
        header += name
        packed_sizes.append((name, len(packed), zlib.crc32(plain), len(plain), len(header) + len(packed)))
        bodies = header + packed
    directory = b""
    for name, size_packed, crc, size_plain, from_end in reversed(packed_sizes):
        at = len(bodies) - from_end
        directory += struct.pack(
            "<4s6H3L5H2L",
            b"PK\1\2",
            20,
            20,
            0,
            8,
            0,
            0,
            crc,
            size_packed,
            size_plain,
            len(name),
            0,
            0,
            0,
            0,
            0,
            at,
        )
        directory += name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, entries, entries, len(directory), len(bodies), 0)
    return bodies + directory + end


def patched(archive: bytes, *, at: int, form: str, value: int) -> bytes:
    """A ZIP archive of one file with a number changed: at that place in its entry of the directory."""
    place = archive.rindex(b"PK\1\2") + at
    return archive[:place] + struct.pack(form, value) + archive[place + struct.calcsize(form) :]


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [
        (16, "<L", 12345),  # checksum
        (20, "<L", 3),  # packed size
        (24, "<L", 10),  # size: smaller
        (24, "<L", 99999),  # size: larger
    ],
)
def test_a_zip_that_lies_about_an_entry_is_refused(at: int, form: str, value: int) -> None:
    archive = zipped({"a.png": bytes(5000)})
    assert refusal(patched(archive, at=at, form=form, value=value)) == "archive_unreadable"


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_could_unpack_without_a_limit_is_refused(packing: int) -> None:
    assert refusal(zipped({"a.png": bytes(5000)}, packing=packing)) == "archive_unreadable"


@pytest.mark.parametrize("flags", [0x1, 0x41])
def test_a_zip_with_a_password_is_told(flags: int) -> None:
    with pytest.raises(JobFailed, match="without a password"):
        read_archive(patched(zipped({"a.png": b"x"}), at=8, form="<H", value=flags))


@pytest.mark.parametrize(("at", "value"), [(20, 0xFFFFFFFF), (20, 200), (42, 40), (42, 0xFFFFFFF0)])
def test_a_zip_that_points_elsewhere_is_refused(at: int, value: int) -> None:
    archive = zipped({"a.png": bytes(5000)})
    assert refusal(patched(archive, at=at, form="<L", value=value)) in {
        "archive_unreadable",
        "archive_unsafe",
    }


def test_a_directory_of_the_64_bit_kind_is_refused() -> None:
    archive = zipped({"a.png": b"x"})
    at = archive.rindex(b"PK\5\6")
    assert refusal(archive[:at] + b"PK\6\7" + bytes(16) + archive[at:]) == "archive_too_large"


@pytest.mark.parametrize(("at", "form", "value"), [(10, "<H", 60_000), (12, "<L", 9 * MIB)])
def test_an_absurd_directory_is_refused_before_it_is_loaded(
    at: int, form: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped({"a.png": b"x"})
    place = archive.rindex(b"PK\5\6") + at
    monkeypatch.setattr(zipfile, "ZipFile", None)
    archive = archive[:place] + struct.pack(form, value) + archive[place + struct.calcsize(form) :]
    assert refusal(archive) == "archive_too_large"


def test_an_archive_in_an_archive_stays_packed() -> None:
    inner = zipped({"a.png": bytes(MIB)})
    assert read_archive(zipped({"inner.zip": inner})) == {"inner.zip": inner}


def test_a_gzip_of_something_else_is_refused() -> None:
    assert refusal(gzipped(b"hello" * 500)) == "archive_unreadable"
    assert refusal(gzipped(tarred({"a.png": b"x"})) + b"rubbish") == "archive_unreadable"


def test_a_packed_tar_with_a_wrong_checksum_is_refused() -> None:
    archive = tarred({"a.png": b"x" * 999}, mode="w:gz")
    assert refusal(archive[:-8] + b"1234" + archive[-4:]) == "archive_unreadable"


def test_what_cannot_be_printed_is_not_said() -> None:
    with pytest.raises(JobFailed) as failed:
        read_archive(zipped({"\u202e\x1b[2J.png": bytes(99)}), caps=Caps(entry=9))
    assert failed.value.message.isprintable()


def read(archive: bytes) -> None:
    read_dataset(archive, trigger_word="x", is_style=False, preprocessed=False, declared_format=None)


def bombs() -> list[bytes]:
    """Small archives that would come to gigabytes."""
    zeros = bytes(60 * MIB)
    chunk = zlib.compressobj(1, zlib.DEFLATED, 31)
    entry = tarfile.TarInfo(".unwanted")
    entry.size = 2 * 2**30
    stream = chunk.compress(entry.tobuf(tarfile.GNU_FORMAT))
    for _ in range(5):
        stream += chunk.compress(zeros)
    return [
        zipped({f"{number}.png": zeros for number in range(4)}, level=1),
        zipped({"a.png": bytes(65 * MIB)}, level=1),
        stream + chunk.flush(),
        overlapping(entries=40, size=2 * MIB),
    ]


def test_bombs_end_in_bounded_memory(tmp_path: Path) -> None:
    harm, refused, grown = attacked(bombs, read, tmp_path)
    assert (harm, refused) == (0, 4)
    assert grown < 500 * 1024
    assert list(tmp_path.iterdir()) == []


def mutated() -> list[bytes]:
    """350 archives with a few bytes changed, moved, doubled or left out."""
    from test_hostile_images import samples

    chance = random.Random(20)
    pictures = samples()
    files = {
        "set/a.png": pictures[0],
        "set/a.txt": b"a red star",
        "set/b.jpg": pictures[1],
        "set/b_mask.png": pictures[0],
    }
    whole = [
        zipped(files),
        zipped(files, packing=zipfile.ZIP_STORED),
        tarred(files),
        tarred(files, mode="w:gz"),
    ]
    whole.append(
        tarred({"x" * 120 + each: content for each, content in files.items()}, style=tarfile.GNU_FORMAT)
    )
    return [mutation(chance.choice(whole), chance) for _ in range(350)]


def test_hundreds_of_broken_archives_end_in_codes(tmp_path: Path) -> None:
    harm, refused, grown = attacked(mutated, read, tmp_path)
    assert harm == 0
    assert refused > 200
    assert grown < 300 * 1024
    assert list(tmp_path.iterdir()) == []
