"""What an archive of pictures becomes: examples with captions and masks, and remarks."""

import io

import pytest
from archives import tarred, zipped
from PIL import Image

from reference_backend import captions, dataset
from reference_backend.dataset import Dataset, Example, read_dataset
from reference_backend.job import Cancelled, JobFailed


def png(color: str = "red", size: tuple[int, int] = (16, 8), mode: str = "RGB") -> bytes:
    into = io.BytesIO()
    Image.new(mode, size, color).save(into, "PNG")
    return into.getvalue()


FOUR = {f"{number}.png": png() for number in range(4)}


def read(
    files: dict[str, bytes],
    *,
    trigger: str | None = "p3r5on",
    is_style: bool = False,
    preprocessed: bool = False,
) -> Dataset:
    return read_dataset(
        zipped(files),
        trigger_word=trigger,
        is_style=is_style,
        preprocessed=preprocessed,
        declared_format=None,
    )


def captioned(files: dict[str, bytes], *, preprocessed: bool = False) -> dict[str, str]:
    found = read(files, preprocessed=preprocessed)
    return {example.name: example.caption for example in found.examples}


def only(files: dict[str, bytes], *, preprocessed: bool = False) -> Example:
    [example] = read(files, preprocessed=preprocessed).examples
    return example


@pytest.mark.parametrize(
    ("caption", "trigger", "is_style", "trained"),
    [
        ("a star", "p3r5on", False, "a star"),
        ("a star", None, False, "a star"),
        (None, "p3r5on", False, "p3r5on"),
        (None, None, False, ""),
        (None, "", False, ""),
        (" \n", "p3r5on", False, "p3r5on"),
        (None, " \n", False, ""),
        ("a star", "p3r5on", True, "p3r5on"),
        ("a star", None, True, ""),
        (None, "p3r5on", True, "p3r5on"),
        (None, None, True, ""),
    ],
)
def test_what_a_picture_is_trained_with(
    caption: str | None, trigger: str | None, is_style: bool, trained: str
) -> None:
    files = {"a.png": png()} | ({} if caption is None else {"a.txt": caption.encode()})
    [example] = read(files, trigger=trigger, is_style=is_style).examples
    assert example.caption == trained


def test_each_picture_has_its_own_caption_or_the_trigger_word() -> None:
    found = read(FOUR | {"1.txt": b"one", "3.txt": b"three"})
    assert [example.caption for example in found.examples] == ["p3r5on", "one", "p3r5on", "three"]
    assert found.remarks == ("2 of 4 pictures have no caption, and the trigger_word stands in",)


def test_a_caption_is_found_in_the_same_folder_whatever_its_capitals() -> None:
    files = {"x/Photo.JPG": png(), "x/photo.TXT": b"one", "y/photo.jpg": png(), "photo.txt": b"two"}
    found = read(files)
    assert [(example.name, example.caption) for example in found.examples] == [
        ("x/Photo.JPG", "one"),
        ("y/photo.jpg", "p3r5on"),
    ]
    assert "there is no picture for photo.txt" in found.remarks


def test_dots_in_a_name_part_nothing_but_its_ending() -> None:
    assert captioned({"a.b.png": png(), "a.b.txt": b"one", "a.txt": b"two"}) == {"a.b.png": "one"}


def test_a_caption_may_belong_to_pictures_of_two_forms() -> None:
    assert captioned({"a.png": png(), "a.webp": png(), "a.txt": b"one"}) == {"a.png": "one", "a.webp": "one"}


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        ("Käse".encode(), "Käse"),
        ("Käse".encode("utf-8-sig"), "Käse"),
        ("Käse".encode("utf-16"), "Käse"),
        (b"\xfe\xff" + "Käse".encode("utf-16-be"), "Käse"),
        ("Käse “x”".encode("cp1252"), "Käse “x”"),
        (b"\x81\x8d", "\ufffd\ufffd"),
        (b"a\r\nb\tc\x00d\x1b[2Je\x7f", "a b cd[2Je"),
        ("a\u202eb\u2066c\ufeff\u200b\u061cd".encode(), "abcd"),
        ("a\u2028b\u00a0c".encode(), "a b c"),
        ("K\u0061\u0308se".encode(), "Käse"),
        ("👩\u200d🎨 \u0646\u200c\u0645".encode(), "👩\u200d🎨 \u0646\u200c\u0645"),
        (b"x" * 5000, "x" * 4000),
        ("ä".encode() * 8191 + b"xx", "ä" * 4000),
        (b"x" + b" " * 16_382 + "ä".encode(), "x"),
        (b"\xff\xfea", ""),
    ],
)
def test_a_caption_is_one_clean_line(content: bytes, caption: str) -> None:
    assert captions.read_caption(content) == caption


def test_a_trigger_word_is_cleaned_like_a_caption() -> None:
    [example] = read({"a.png": png()}, trigger=" p3r5on\u202e\n\ud800 x").examples
    assert example.caption == "p3r5on x"


def test_pictures_come_in_the_order_of_their_names_whatever_the_archive() -> None:
    names = ["10.png", "2.png", "b/1.png", "a10.png", "a9.png"]
    files = {name: png() for name in names}
    for archive in (zipped(files), tarred(files), tarred(dict(reversed(files.items())), mode="w:gz")):
        found = read_dataset(
            archive, trigger_word="x", is_style=False, preprocessed=False, declared_format=None
        )
        assert [example.name for example in found.examples] == [
            "2.png",
            "10.png",
            "a9.png",
            "a10.png",
            "b/1.png",
        ]


def test_a_mask_belongs_to_its_picture() -> None:
    example = only({"a.png": png(), "A_mask.jpg": png("white", mode="L")})
    assert example.mask is not None
    assert (example.mask.mode, example.mask.size, example.mask.getpixel((0, 0))) == ("L", (16, 8), 255)


def test_a_mask_is_brought_to_the_size_of_its_picture() -> None:
    found = read(FOUR | {"0_mask.png": png("white", (160, 80), "L"), "1_mask.png": png("white", (9, 9), "L")})
    sizes = [example.mask and example.mask.size for example in found.examples]
    assert sizes == [(16, 8), (16, 8), None, None]
    assert found.remarks == ("1_mask.png has not the shape of its picture, and was stretched",)


def test_a_mask_without_a_picture_is_a_picture() -> None:
    assert captioned({"a_mask.png": png(), "a_mask.txt": b"venice"}) == {"a_mask.png": "venice"}
    assert captioned({"x/a_mask.png": png(), "y/a.png": png()}).keys() == {"x/a_mask.png", "y/a.png"}


def test_a_style_has_neither_masks_nor_captions() -> None:
    found = read(FOUR | {"0.txt": b"one", "0_mask.png": png(mode="L")}, is_style=True)
    assert {(example.caption, example.mask) for example in found.examples} == {("p3r5on", None)}
    assert found.remarks == (
        "is_style is on, so the captions in the archive were not used",
        "is_style is on, so the masks in the archive were not used",
    )


@pytest.mark.parametrize("is_style", [False, True])
def test_nothing_to_learn_under_is_remarked(is_style: bool) -> None:
    found = read(FOUR, trigger=None, is_style=is_style)
    assert found.remarks == ("there is no trigger_word to learn under, so an empty text is learnt from",)


def test_fewer_than_four_pictures_are_remarked() -> None:
    assert read(FOUR).remarks == ()
    assert read({"a.png": png()}).remarks == (
        "the archive holds 1 of the at least 4 pictures that are advised",
    )


@pytest.mark.parametrize(
    "files", [{}, {"a.txt": b"x"}, {"__MACOSX/a.png": png()}, {"inner.zip": zipped(FOUR)}]
)
def test_no_pictures_are_a_failure(files: dict[str, bytes]) -> None:
    with pytest.raises(JobFailed, match=r"^no_images"):
        read(files)


def test_other_files_are_left_out_with_a_remark() -> None:
    found = read(FOUR | {"notes.md": b"x", "b.json": b"{}", "c.mp4": b"\0\0\0\x18ftypmp42", "d": b"x"})
    assert found.remarks == ("b.json, c.mp4, d and 1 more was not used, being neither picture nor text",)


def test_a_picture_is_told_by_its_bytes_where_its_name_does_not() -> None:
    assert captioned({"a": png(), "b.dat": png(), "BMW.txt": b"BMW", "c.log": b"BM"}).keys() == {"a", "b.dat"}
    assert captioned({"a.jpg": png()}).keys() == {"a.jpg"}


@pytest.mark.parametrize(
    ("name", "content"), [("a.png", b"x"), ("set/a.jpg", png()[:40]), ("a.HEIC", png()), ("a.avif", b"")]
)
def test_a_picture_that_cannot_be_read_is_named(name: str, content: bytes) -> None:
    with pytest.raises(JobFailed) as failed:
        read(FOUR | {name: content})
    assert failed.value.code == "image_unreadable"
    assert failed.value.message.startswith(f"{name} in the archive ")


def test_a_mask_that_cannot_be_read_is_named() -> None:
    with pytest.raises(JobFailed, match=r"^image_unreadable: 0_mask.png in the archive "):
        read(FOUR | {"0_mask.png": b"x"})


def test_equal_pixels_have_equal_digests() -> None:
    bitmap = io.BytesIO()
    Image.new("RGB", (16, 8), "red").save(bitmap, "BMP")
    one, same, other, turned = (
        only({"a.png": content}).digest
        for content in (png(), bitmap.getvalue(), png("blue"), png(size=(8, 16)))
    )
    assert one == same
    assert len({one, other, turned}) == 3


def test_pictures_are_made_smaller_the_more_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_PIXELS_EACH", 900)
    monkeypatch.setattr(dataset, "_PIXELS_IN_ALL", 1600)
    big = png(size=(100, 100))
    assert only({"a.png": big}).picture.size == (30, 30)
    found = read({f"{number}.png": big for number in range(4)} | {"0_mask.png": big})
    assert {example.picture.size for example in found.examples} == {(20, 20)}
    assert found.examples[0].mask is not None
    assert found.examples[0].mask.size == (20, 20)


def test_too_many_pictures_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_MOST_PICTURES", 3)
    with pytest.raises(JobFailed, match=r"^archive_too_large"):
        read(FOUR)


def test_pictures_and_masks_of_too_many_pixels_are_refused_before_any_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = FOUR | {"0_mask.png": png()}
    monkeypatch.setattr(dataset, "_MOST_DECODED", 5 * 16 * 8)
    assert read(files)
    monkeypatch.setattr(dataset, "_MOST_DECODED", 5 * 16 * 8 - 1)
    assert read(files, is_style=True)
    monkeypatch.setattr(dataset, "read_picture", None)
    with pytest.raises(JobFailed, match=r"^archive_too_large: .* and masks have over"):
        read(files)


def test_a_format_that_is_declared_is_checked() -> None:
    with pytest.raises(JobFailed, match=r"^archive_format_mismatch"):
        read_dataset(zipped(FOUR), trigger_word="", is_style=False, preprocessed=False, declared_format="tar")


@pytest.mark.parametrize("given_up", [("measuring pictures", 1), ("reading pictures", 1)])
def test_reading_can_be_given_up(given_up: tuple[str, int]) -> None:
    told = []

    def report(stage: str, done: int, of: int) -> None:
        told.append((stage, done, of))
        if (stage, done) == given_up:
            raise Cancelled

    with pytest.raises(Cancelled):
        read_dataset(
            zipped(FOUR),
            trigger_word="",
            is_style=False,
            preprocessed=False,
            declared_format="",
            report=report,
        )
    assert told[-2:] == [(given_up[0], 0, 4), (given_up[0], 1, 4)]


SOURCES = {f"set/{number}.src.png": png() for number in range(11)}
MASKS = {f"set/{number}.mask.png": png("white", mode="L") for number in range(11)}


def test_the_table_of_a_preprocessed_archive_is_read() -> None:
    table = "caption,mask_path,image_path\n" + "".join(
        f'"number {number}, a star",/tmp/x/{number}.mask.png,/tmp/x/{number}.src.png\n' for number in (10, 2)
    )
    found = read(SOURCES | MASKS | {"set/captions.csv": table.encode()}, preprocessed=True)
    by_name = {example.name: example for example in found.examples}
    assert list(by_name) == [f"set/{number}.src.png" for number in range(11)]
    assert all(example.mask is not None for example in found.examples)
    assert by_name["set/10.src.png"].caption == "number 10, a star"
    assert by_name["set/3.src.png"].caption == "p3r5on"
    assert found.remarks == ("9 of 11 pictures have no caption, and the trigger_word stands in",)


def test_the_table_of_a_preprocessed_archive_may_come_from_windows() -> None:
    table = "image_path,caption\r\nC:\\x\\0.src.png,a star\r\n".encode("utf-8-sig")
    assert captioned({"0.src.png": png(), "captions.csv": table}, preprocessed=True) == {
        "0.src.png": "a star"
    }


def test_the_lines_of_a_preprocessed_archive_are_read_in_order() -> None:
    lines = "".join(f"number {number}\r\n" for number in range(11))
    found = captioned(SOURCES | MASKS | {"set/caption.txt": lines.encode()}, preprocessed=True)
    assert found == {f"set/{number}.src.png": f"number {number}" for number in range(11)}


def test_fewer_lines_than_pictures_caption_the_first() -> None:
    found = captioned({"0.src.png": png(), "1.src.png": png(), "caption.txt": b"one"}, preprocessed=True)
    assert found == {"0.src.png": "one", "1.src.png": "p3r5on"}


def test_a_preprocessed_archive_may_be_laid_out_plainly() -> None:
    example = only({"a.png": png(), "a.txt": b"one", "a_mask.png": png(mode="L")}, preprocessed=True)
    assert (example.caption, example.mask is not None) == ("one", True)


def test_the_preprocessed_layout_is_not_read_unasked() -> None:
    found = read(
        {"0.src.png": png(), "0.mask.png": png(), "captions.csv": b"image_path,caption\n0.src.png,x"}
    )
    assert [(example.name, example.caption) for example in found.examples] == [
        ("0.mask.png", "p3r5on"),
        ("0.src.png", "p3r5on"),
    ]


@pytest.mark.parametrize(
    "table", [b"\0", b"", b"\xff\xfe\x00", b"name,words\n0.src.png,x", b"image_path\n0.src.png"]
)
def test_a_table_that_says_nothing_is_as_good_as_none(table: bytes) -> None:
    files = {"0.src.png": png(), "captions.csv": table}
    assert captioned(files, preprocessed=True) == {"0.src.png": "p3r5on"}


def test_a_table_that_cannot_be_read_is_refused() -> None:
    table = b'image_path,caption\n0.src.png,"' + b"x" * 200_000
    with pytest.raises(JobFailed, match=r"^archive_unreadable: captions.csv"):
        read({"0.src.png": png(), "captions.csv": table}, preprocessed=True)
