"""What clients upload: both ways of sending it, how it is handed out, and what becomes of it."""

import io
import os
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageChops, ImageStat

from conftest import KEY, Client, MakeClient
from mock_server.contents import archive_contents, media_of
from mock_server.uploads import clean

TICKET = "/api/v3/media/uploads"
FORM = "/api/v3/media/upload/binary"
HOUR = 3600
DAY = 24 * HOUR
SMALL: dict[str, Any] = {"size": "512*512", "seed": 7}


def png(colour: str = "red", size: tuple[int, int] = (64, 48)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def archive(compression: int = zipfile.ZIP_DEFLATED, **files: bytes) -> bytes:
    """A ZIP archive; a double underscore in a name stands for the dot before its ending."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as opened:
        for name, content in files.items():
            opened.writestr(name.replace("__", "."), content)
    return out.getvalue()


def announce(client: Client, size: int, filename: str = "a.zip", **more: Any) -> dict[str, Any]:
    answer = client.post(TICKET, {"filename": filename, "size": size, **more})
    assert (answer.status_code, answer.json()["code"]) == (200, 200), answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def put(client: Client, url: str, content: bytes) -> httpx.Response:
    """Sends it as a client does that has only an address: with no key."""
    request = httpx.Request("PUT", url, content=content)
    return client.loop.run_until_complete(client.http.send(request))


def upload(client: Client, content: bytes, filename: str = "a.zip") -> str:
    """The address of what was uploaded with a ticket."""
    told = announce(client, len(content), filename)
    assert put(client, told["upload"]["url"], content).status_code == 200
    return str(told["download_url"])


def form(client: Client, content: bytes, filename: str = "a.png", path: str = FORM) -> dict[str, Any]:
    answer = client.post(path, files={"file": (filename, content, "application/octet-stream")})
    assert (answer.status_code, answer.json()["code"]) == (200, 200), answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def fetch(client: Client, url: str, method: str = "GET", **headers: str) -> httpx.Response:
    """Fetches it with no key."""
    request = httpx.Request(method, url, headers=headers)
    return client.loop.run_until_complete(client.http.send(request))


def refused(client: Client, body: bytes, content_type: str = "multipart/form-data; boundary=b") -> int:
    answer = client.post(FORM, content=body, headers={"Content-Type": content_type})
    assert answer.json()["code"] == answer.status_code
    return answer.status_code


def part(*headers: str, content: str = "x") -> bytes:
    return "\r\n".join(("--b", *headers, "", content, "")).encode()


FILE = 'Content-Disposition: form-data; name="file"; filename="a.bin"'


def test_what_was_announced_and_sent_is_found_at_its_address(client: Client) -> None:
    assert fetch(client, upload(client, b"some bytes")).content == b"some bytes"


def test_a_ticket_says_how_to_send(client: Client) -> None:
    told = announce(client, 3, "a.zip", content_type="application/zip")["upload"]
    assert (told["method"], told["headers"]) == ("PUT", {"Content-Type": "application/zip"})


def test_a_media_type_that_is_none_is_not_given_back(client: Client) -> None:
    assert announce(client, 3, content_type="a/b\r\nX-Evil: 1")["upload"]["headers"] == {}


@pytest.mark.parametrize("path", [FORM, "/api/v2/media/upload/binary"])
def test_a_form_is_the_other_way(client: Client, path: str) -> None:
    told = form(client, png(), path=path)
    assert told == {
        "type": "image",
        "download_url": told["download_url"],
        "filename": "a.png",
        "size": len(png()),
    }
    assert fetch(client, told["download_url"]).content == png()


def test_an_empty_file_is_a_file(client: Client) -> None:
    assert fetch(client, upload(client, b"")).content == b""
    assert form(client, b"")["size"] == 0


def test_both_ways_want_a_key(client: Client) -> None:
    ticket = client.post(TICKET, {"filename": "a", "size": 1}, headers={"Authorization": ""})
    sent = client.post(FORM, files={"file": b"x"}, headers={"Authorization": ""})
    assert (ticket.status_code, sent.status_code) == (401, 401)


def test_an_address_works_once(client: Client) -> None:
    told = announce(client, 3)
    answers = [put(client, told["upload"]["url"], each).status_code for each in (b"one", b"two")]
    assert (answers, fetch(client, told["download_url"]).content) == ([200, 409], b"one")


@pytest.mark.parametrize(("content", "status"), [(b"", 400), (b"12", 400), (b"1234", 413)])
def test_another_size_than_announced_is_refused(client: Client, content: bytes, status: int) -> None:
    told = announce(client, 3)
    assert put(client, told["upload"]["url"], content).status_code == status
    assert fetch(client, told["download_url"]).status_code == 404


def test_after_a_wrong_size_the_right_one_may_be_sent(client: Client) -> None:
    told = announce(client, 3)
    assert [put(client, told["upload"]["url"], each).status_code for each in (b"1", b"123")] == [400, 200]


@pytest.mark.parametrize("query", ["", "?ticket=", "?ticket=0", "?ticket=%ff", "?ticket=é"])
def test_without_its_ticket_nothing_can_be_sent(client: Client, query: str) -> None:
    assert put(client, announce(client, 3)["download_url"] + query, b"123").status_code == 403


def test_a_ticket_is_good_for_an_hour_on_the_servers_clock(client: Client) -> None:
    one, other = announce(client, 3), announce(client, 3)
    client.clock(advance=HOUR - 1)
    before = put(client, one["upload"]["url"], b"123").status_code
    client.clock(advance=1)
    assert [before, put(client, other["upload"]["url"], b"123").status_code] == [200, 403]


def test_an_upload_is_kept_for_seven_days(client: Client) -> None:
    url = upload(client, b"123")
    client.clock(advance=7 * DAY - 1)
    before = fetch(client, url).status_code
    client.clock(advance=1)
    assert [before, fetch(client, url).status_code] == [200, 410]


def test_nothing_above_the_limit_is_taken(make_client: MakeClient) -> None:
    client = make_client(max_upload=1000)
    ticket = client.post(TICKET, {"filename": "a", "size": 1001})
    sent = client.post(FORM, files={"file": b"x" * 1001})
    assert (ticket.status_code, sent.status_code) == (413, 413)
    assert form(client, b"x" * 1000)["size"] == 1000


def test_a_form_that_says_to_be_too_large_is_refused_unread(make_client: MakeClient) -> None:
    client = make_client(max_upload=1000)
    answer = client.post(FORM, content=b"", headers={"Content-Length": "999999"})
    assert answer.status_code == 415  # the media type comes first
    kind = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": "999999"}
    assert client.post(FORM, content=b"", headers=kind).status_code == 413


HOSTILE = {
    "no boundary": (b"x", "multipart/form-data"),
    "an empty boundary": (b"x", "multipart/form-data; boundary="),
    "a boundary of a thousand letters": (b"x", "multipart/form-data; boundary=" + "b" * 1000),
    "nothing": (b"", "multipart/form-data; boundary=b"),
    "no form": (b"hello", "multipart/form-data; boundary=b"),
    "another boundary": (part(FILE) + b"--b--\r\n", "multipart/form-data; boundary=c"),
    "breaks off in the file": (part(FILE), "multipart/form-data; boundary=b"),
    "breaks off in a header": (b"--b\r\nContent-Dispo", "multipart/form-data; boundary=b"),
    "no part": (b"--b--\r\n", "multipart/form-data; boundary=b"),
    "no file": (
        part('Content-Disposition: form-data; name="other"') + b"--b--\r\n",
        "multipart/form-data; boundary=b",
    ),
    "a file without a name": (part("Content-Type: x/y") + b"--b--\r\n", "multipart/form-data; boundary=b"),
    "two files": (part(FILE) + part(FILE) + b"--b--\r\n", "multipart/form-data; boundary=b"),
    "a header of a megabyte": (
        part(FILE, "X: " + "y" * 1_000_000) + b"--b--\r\n",
        "multipart/form-data; boundary=b",
    ),
    "a thousand headers": (part(FILE, *["X: y"] * 1000) + b"--b--\r\n", "multipart/form-data; boundary=b"),
    "a thousand parts": (part(FILE) + part("X: y") * 1000 + b"--b--\r\n", "multipart/form-data; boundary=b"),
    "a header that is none": (part("no colon") + b"--b--\r\n", "multipart/form-data; boundary=b"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_form_that_is_none_is_refused(client: Client, name: str) -> None:
    assert refused(client, *HOSTILE[name]) == 400


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/mixed; boundary=b", "text/plain"])
def test_what_does_not_say_to_be_a_form_is_415(client: Client, kind: str) -> None:
    assert refused(client, part(FILE) + b"--b--\r\n", kind) == 415


@pytest.mark.parametrize("end", [b"--b--", b"--b--\r\n", b"--b--\r\nsomething behind"])
def test_a_form_may_end_as_it_likes(client: Client, end: bytes) -> None:
    kind = {"Content-Type": 'multipart/form-data; boundary="b"'}
    assert client.post(FORM, content=part(FILE) + end, headers=kind).json()["data"]["size"] == 1


def test_other_fields_of_a_form_are_passed_over(client: Client) -> None:
    answer = client.post(FORM, files={"file": b"123"}, data={"more": "x" * 1000})
    assert answer.json()["data"]["size"] == 3


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\a.png", "a.png"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("a\x00\x1b[31m.png", "a[31m.png"),
        ("..", "upload"),
        ("", "upload"),
        ("x/", "upload"),
        ("ü.png", "ü.png"),
        ("x" * 999, "x" * 200),
    ],
)
def test_a_file_name_is_given_back_clean(given: str, told: str) -> None:
    assert clean(given) == told


def test_no_file_is_named_by_the_client(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client()
    form(client, b"x", "../../escaped.png")
    upload(client, b"x", "../../escaped.zip")
    assert not [path for path in tmp_path.rglob("*") if "escaped" in path.name]


def test_what_was_not_kept_leaves_nothing_behind(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client()
    refused(client, part(FILE))
    put(client, announce(client, 3)["upload"]["url"], b"1234")
    assert list(tmp_path.glob("*/uploads/*")) == []


@pytest.mark.parametrize(
    ("content", "filename"),
    [
        (b"<html><script>alert(1)</script>", "a.html"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "a.svg"),
        (b"hello", "a.png"),
        (b"PK\x03\x04", "a.html"),
    ],
)
def test_what_could_run_in_a_browser_is_sent_for_saving(
    client: Client, content: bytes, filename: str
) -> None:
    for url in (upload(client, content, filename), form(client, content, filename)["download_url"]):
        headers = fetch(client, url).headers
        assert headers["Content-Type"] in {"application/octet-stream", "application/zip"}
        assert headers["Content-Disposition"].startswith("attachment")
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_an_image_is_sent_as_what_it_is(client: Client) -> None:
    headers = fetch(client, form(client, png(), "a.html")["download_url"]).headers
    assert (headers["Content-Type"], headers["X-Content-Type-Options"]) == ("image/png", "nosniff")


@pytest.mark.parametrize(
    ("head", "media"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\0\0\0\0WEBP", "image/webp"),
        (b"RIFF\0\0\0\0AVI ", "application/octet-stream"),
        (b"\0\0\0\x18ftypmp42", "video/mp4"),
        (b"", "application/octet-stream"),
    ],
)
def test_a_file_is_what_its_first_bytes_say(head: bytes, media: str) -> None:
    assert media_of(head) == media


def test_a_part_and_the_head_of_an_upload_can_be_had(client: Client) -> None:
    url = upload(client, b"0123456789")
    some = fetch(client, url, Range="bytes=2-4")
    head = fetch(client, url, "HEAD")
    assert (some.status_code, some.content) == (206, b"234")
    assert (head.content, head.headers["Content-Length"]) == (b"", "10")


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH"])
def test_an_upload_can_be_read_or_put(client: Client, method: str) -> None:
    answer = fetch(client, upload(client, b"x"), method)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, PUT")


@pytest.mark.parametrize("name", ["x", "../x", f"{0:032x}.zip", f"{0:032x}", "%00.zip"])
def test_there_is_nothing_at_other_addresses(client: Client, name: str) -> None:
    assert fetch(client, f"http://127.0.0.1:8080/uploads/{name}").status_code == 404


def test_an_upload_is_not_found_under_another_ending(client: Client) -> None:
    assert fetch(client, upload(client, b"x").replace(".zip", ".html")).status_code == 404


def test_a_file_that_was_swept_away_is_404(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client()
    url = upload(client, b"x")
    next(tmp_path.glob("*/uploads/*")).unlink()
    assert fetch(client, url).status_code == 404


def test_a_folder_that_cannot_be_written_is_503(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client()
    (next(tmp_path.glob("outputs-*")) / "uploads").write_text("no folder")
    assert client.post(FORM, files={"file": b"x"}).status_code == 503


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("*/uploads/*")}


def test_the_oldest_uploads_make_room(
    make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mock_server.uploads._MOST_BYTES", 4)
    monkeypatch.setattr("mock_server.uploads._PIECE", 1)
    client = make_client()
    urls = []
    for _ in range(3):
        urls.append(upload(client, b"12"))
        client.clock(advance=1)
    assert [fetch(client, url).status_code for url in urls] == [404, 200, 200]
    assert files(tmp_path) == {url.rpartition("/")[2] for url in urls[1:]}


def test_what_never_came_and_what_belongs_to_nobody_is_let_go_of(
    make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mock_server.uploads._PIECE", 1)
    client = make_client()
    kept, never = upload(client, b"12"), announce(client, 3)["download_url"]
    for name, at in (("stray", 0), ("young", time.time())):
        file = next(tmp_path.glob("*/uploads")) / name
        file.touch()
        os.utime(file, (at, at))
    client.clock(advance=HOUR)
    other = upload(client, b"12")
    assert files(tmp_path) == {"young", *(url.rpartition("/")[2] for url in (kept, other))}
    assert remarks(client, images_data_url=never) == ["images_data_url: there is no such upload here"]


def test_with_a_seed_uploads_have_the_same_addresses_and_predictions_keep_theirs(
    make_client: MakeClient,
) -> None:
    one, other = make_client(seed=5), make_client(seed=5)
    assert upload(one, b"x") == upload(other, b"y")
    assert form(one, b"x")["download_url"] != upload(one, b"x")
    assert one.submit() == make_client(seed=5).submit()


# What was uploaded, used.


def start_of(client: Client, **given: Any) -> Image.Image:
    prediction_id = client.submit(scenario="instant", **SMALL, **given)
    [url] = client.result(prediction_id)["outputs"]
    return Image.open(io.BytesIO(client.get(url).content)).convert("RGB")


def difference(one: Image.Image, other: Image.Image) -> float:
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean)


def test_an_uploaded_image_is_the_start_of_the_result(client: Client) -> None:
    url = upload(client, png(), "a.png")
    red = Image.new("RGB", (512, 512), "red")
    assert difference(start_of(client, image=url, strength=0), red) < 1
    assert difference(start_of(client, image=url, strength=1), red) > 1


def test_an_uploaded_mask_says_where(client: Client) -> None:
    image, mask = form(client, png("red"))["download_url"], form(client, png("black"))["download_url"]
    red = Image.new("RGB", (512, 512), "red")
    assert difference(start_of(client, image=image, mask_image=mask, strength=1), red) == 0


def test_an_image_that_is_kept_no_longer_is_as_good_as_none(client: Client) -> None:
    url = upload(client, png(), "a.png")
    client.clock(advance=7 * DAY)
    assert difference(start_of(client, image=url, strength=0), start_of(client)) == 0


def test_an_image_that_came_after_its_use_is_as_good_as_none(client: Client) -> None:
    told = announce(client, len(png()), "a.png")
    prediction_id = client.submit(scenario="instant", image=told["download_url"], strength=0, **SMALL)
    client.clock(advance=1)
    assert put(client, told["upload"]["url"], png()).status_code == 200
    content = client.get(client.result(prediction_id)["outputs"][0]).content
    assert difference(Image.open(io.BytesIO(content)).convert("RGB"), start_of(client)) == 0


def test_a_picture_over_an_upload_is_the_same_after_the_upload_has_expired(
    make_client: MakeClient, tmp_path: Path
) -> None:
    client = make_client()
    image = upload(client, png(), "a.png")
    client.clock(advance=DAY)
    prediction_id = client.submit(scenario="instant", image=image, **SMALL)
    [url] = client.result(prediction_id)["outputs"]
    before = client.get(url).content
    for file in tmp_path.glob("*/outputs/*"):
        file.unlink()
    client.clock(advance=7 * DAY - 60)
    assert fetch(client, image).status_code == 410
    assert client.get(url).content == before


def remarks(client: Client, model: str = "flux-dev-lora-trainer", **given: Any) -> list[str]:
    found: list[str] = client.inside(client.submit(model, **given))["warnings"]
    return found


def test_an_archive_is_looked_into(client: Client) -> None:
    content = archive(a__png=png(), b__png=png("blue"), a__txt=b"a caption", c__txt=b"of nothing")
    url = upload(client, content)
    assert remarks(client, images_data_url=url) == ["images_data_url: 2 images, 1 caption"]
    assert remarks(client, "flux-dev-lora-trainer-turbo", data=url) == ["data: 2 images, 1 caption"]


LOOKED_INTO = {
    "no ZIP": (b"hello", "is no ZIP archive, but application/octet-stream"),
    "an image": (png(), "is no ZIP archive, but image/png"),
    "an empty archive": (archive(), "has no image in it"),
    "no image": (archive(a__txt=b"x", b__png=b"no image"), "has no image in it"),
    "cut off": (archive(a__png=png())[:-30], "is no ZIP archive"),
    "only a beginning": (b"PK\x03\x04", "is no ZIP archive"),
}


@pytest.mark.parametrize("name", LOOKED_INTO)
def test_what_is_wrong_with_an_archive_is_a_remark(client: Client, name: str) -> None:
    content, remark = LOOKED_INTO[name]
    url = upload(client, content)
    assert remarks(client, images_data_url=url) == [f"images_data_url: {remark}"]


def test_a_damaged_image_in_an_archive_is_counted_as_one_that_cannot_be_read(tmp_path: Path) -> None:
    whole = archive(zipfile.ZIP_STORED, a__png=png(), b__png=png("blue"))
    spoilt = whole.replace(png("blue"), png("blue")[:-1] + b"?")
    assert looked_into(tmp_path, spoilt) == "1 image, 0 captions, 1 of the files cannot be read"


def looked_into(folder: Path, content: bytes) -> str:
    path = folder / "a.zip"
    path.write_bytes(content)
    return archive_contents(path)


def test_folders_and_what_a_mac_adds_do_not_count(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as opened:
        for name in ("in/a.png", "__MACOSX/in/b.png", ".hidden.png", "in/._a.png"):
            opened.writestr(name, png())
        opened.writestr("in/a.txt", "caption")
        opened.mkdir("empty.png")
    assert looked_into(tmp_path, out.getvalue()) == "1 image, 1 caption"


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked_to_the_end(tmp_path: Path) -> None:
    bomb = archive(a__png=png() + bytes(64 * 1024 * 1024))
    assert looked_into(tmp_path, bomb) == "is over the caps: it unpacks to too many bytes for its size"


def test_a_length_that_lies_does_not_hide_a_bomb(tmp_path: Path) -> None:
    content = bytes(64 * 1024 * 1024)
    bomb = archive(a__png=content).replace(struct.pack("<I", len(content)), struct.pack("<I", 100))
    assert zlib.crc32(content).to_bytes(4, "little") in bomb
    assert looked_into(tmp_path, bomb) == "has no image in it"


def test_too_many_entries_are_not_even_listed(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as opened:
        for number in range(10_001):
            opened.writestr(str(number), b"")
    assert looked_into(tmp_path, out.getvalue()) == "is over the caps: more than 10000 entries"


def test_a_directory_that_lies_about_its_length_is_not_loaded(tmp_path: Path) -> None:
    whole = archive(a__png=png())
    end = whole.rindex(b"PK\5\6")
    content = whole[: end + 12] + struct.pack("<I", 0xFFFFFFF) + whole[end + 16 :]
    assert looked_into(tmp_path, content).startswith("is over the caps")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unpacks_without_a_limit_is_not_unpacked(tmp_path: Path, method: int) -> None:
    assert looked_into(tmp_path, archive(method, a__png=png())) == "has no image in it"


def test_bytes_changed_at_random_are_never_more_than_a_remark(tmp_path: Path) -> None:
    whole = archive(a__png=png(), a__txt=b"caption")
    for place in range(len(whole)):
        assert looked_into(tmp_path, whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])


@pytest.mark.parametrize(
    ("url", "remark"),
    [
        (f"http://127.0.0.1:8080/uploads/{0:032x}.zip", ["images_data_url: there is no such upload here"]),
        (
            "https://example.com/a.zip",
            ["images_data_url was not looked at: only uploads to this server are"],
        ),
        ("no url", []),
    ],
)
def test_what_was_not_uploaded_here_is_remarked_on(client: Client, url: str, remark: list[str]) -> None:
    assert remarks(client, images_data_url=url) == remark


def test_an_upload_that_has_not_been_sent_is_remarked_on(client: Client) -> None:
    url = announce(client, 3)["download_url"]
    assert remarks(client, images_data_url=url) == [
        "images_data_url: that upload was announced, and has not been sent"
    ]


def test_an_upload_that_is_kept_no_longer_is_remarked_on(client: Client) -> None:
    url = upload(client, archive(a__png=png()))
    client.clock(advance=7 * DAY)
    assert remarks(client, images_data_url=url) == ["images_data_url: that upload is kept no longer"]


def test_an_image_that_is_none_is_remarked_on(client: Client) -> None:
    url = upload(client, archive(a__png=png()))
    assert remarks(client, "flux-schnell-lora", image=url, **SMALL) == [
        "image: the upload is no image that can be read, but application/zip"
    ]


# Sessions, the journal, faults.


def test_an_upload_belongs_to_its_session(make_client: MakeClient) -> None:
    client = make_client(seed=1)
    inside = {"Authorization": "Bearer ms_one"}
    told = client.post(TICKET, {"filename": "a.png", "size": len(png())}, headers=inside).json()["data"]
    assert put(client, told["upload"]["url"], png()).status_code == 200
    url = told["download_url"]
    assert "/_session/one/uploads/" in url
    assert fetch(client, url).content == png()
    for other in ("", "/_session/two"):
        assert fetch(client, url.replace("/_session/one", other)).status_code == 404
    own = upload(client, png(), "a.png")
    for other in (url, own.replace("/uploads/", "/_session/two/uploads/")):
        assert remarks(client, "flux-schnell-lora", image=other) == ["image: there is no such upload here"]


def test_an_upload_of_a_session_is_read_in_that_session(client: Client) -> None:
    base = "/_session/one"
    answer = client.post(f"{base}{FORM}", files={"file": ("a.zip", archive(a__png=png()))})
    given = {"images_data_url": answer.json()["data"]["download_url"]}
    submitted = client.post(f"{base}/api/v3/wavespeed-ai/flux-dev-lora-trainer", given).json()["data"]["id"]
    inside = client.get(f"{base}/_mock/predictions/{submitted}").json()["data"]
    assert inside["warnings"] == ["images_data_url: 1 image, 0 captions"]


def journal(client: Client) -> list[tuple[str, str, int]]:
    requests = client.get("/_mock/requests").json()["data"]["requests"]
    return [(each["kind"], each["method"], each["status"]) for each in requests]


def test_the_journal_has_what_was_uploaded_and_fetched(client: Client) -> None:
    fetch(client, upload(client, b"x"))
    form(client, b"x")
    assert journal(client) == [
        ("upload", "POST", 200),
        ("upload", "PUT", 200),
        ("output", "GET", 200),
        ("upload", "POST", 200),
    ]


def arm(client: Client, fault: str) -> None:
    assert client.post("/_mock/faults", {"fault": fault}).status_code == 200


def test_a_fault_strikes_an_upload_and_nothing_is_kept(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client()
    for request in ("ticket", "put", "form"):
        told = announce(client, 1) if request == "put" else {}
        arm(client, "503; on=upload; times=1")
        if request == "ticket":
            answer = client.post(TICKET, {"filename": "a", "size": 1})
        elif request == "put":
            answer = put(client, told["upload"]["url"], b"x")
        else:
            answer = client.post(FORM, files={"file": b"x"})
        assert answer.status_code == 503, request
    assert list(tmp_path.glob("*/uploads/*")) == []


def test_after_a_fault_that_came_too_late_the_upload_is_there(client: Client) -> None:
    told = announce(client, 1)
    arm(client, "500; on=upload; after-commit=true; times=1")
    assert put(client, told["upload"]["url"], b"x").status_code == 500
    assert fetch(client, told["download_url"]).content == b"x"


@pytest.mark.parametrize("fault", ["latency; on=upload; seconds=0.01s", "slow; on=upload; seconds=0.01s"])
def test_an_upload_that_is_slow_arrives_all_the_same(make_client: MakeClient, fault: str) -> None:
    client = make_client()
    told = announce(client, 3)
    arm(client, fault)
    assert put(client, told["upload"]["url"], b"123").status_code == 200
    assert fetch(client, told["download_url"]).content == b"123"


def test_a_fetched_upload_can_be_damaged(client: Client) -> None:
    url = upload(client, b"123")
    arm(client, "corrupt; on=output; times=1")
    assert [fetch(client, url).content == b"123" for _ in range(2)] == [False, True]


def test_uploads_work_on_a_store_in_a_file(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(store=f"sqlite:///{tmp_path}/store.db")
    url = upload(client, archive(a__png=png()))
    assert remarks(client, images_data_url=url) == ["images_data_url: 1 image, 0 captions"]
    assert fetch(client, url).status_code == 200


def test_the_key_of_these_tests_is_not_sent_with_a_ticket() -> None:
    assert "Authorization" in KEY
    assert "Authorization" not in httpx.Request("PUT", "http://127.0.0.1:8080").headers
