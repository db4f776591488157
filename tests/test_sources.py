"""Where inputs come from: this server's own files, text, the operator's folder, a hub, and allowed hosts."""

import base64
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sites import Site, moved, ok, site

from reference_backend.fetch import fetcher_for
from reference_backend.job import JobFailed
from reference_backend.sources import Limits, Sources, fetch_archive, fetch_image, fetch_lora

ID = "0123456789abcdef" * 2
OTHER = "f" * 32


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """A data folder with an upload and an output of the nameless session and of the session `one`."""
    data = tmp_path / "data"
    for home in (data, data / "sessions" / "one"):
        for name in (
            f"uploads/{ID}.png",
            f"uploads/{ID}.zip",
            f"results/{ID}-1-0.png",
            f"results/{ID}-1-0.safetensors",
        ):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_bytes(f"{home.name} {name}".encode())

    def results(session: str, prediction: str, name: str) -> Path | None:
        home = data / "sessions" / session if session else data
        return home / "results" / f"{prediction}-1-{name}"

    return Sources(data=data, results=results)


def image(sources: Sources, text: str, *, session: str = "") -> bytes | None:
    return fetch_image(sources, text, session=session, what="image")


def lora(sources: Sources, text: str, folder: Path) -> Path | None:
    return fetch_lora(sources, text, session="", what="loras[0].path", folder=folder)


def code(call: Any, *given: Any, **more: Any) -> str:
    with pytest.raises(JobFailed) as failed:
        call(*given, **more)
    assert "data/" not in failed.value.message
    return failed.value.code


HOSTS = ["", "http://127.0.0.1:8000", "https://mock.example.com", "http://[::1]:1"]


@pytest.mark.parametrize("host", HOSTS)
def test_an_upload_is_read_from_disk_whatever_host_its_url_names(sources: Sources, host: str) -> None:
    assert image(sources, f"{host}/uploads/{ID}.png") == f"data uploads/{ID}.png".encode()


@pytest.mark.parametrize("host", HOSTS)
def test_an_output_is_read_from_disk_whatever_host_its_url_names(sources: Sources, host: str) -> None:
    assert image(sources, f"{host}/outputs/{ID}/0.png") == f"data results/{ID}-1-0.png".encode()


def test_a_session_has_its_own_files(sources: Sources) -> None:
    for url in (f"/_session/one/uploads/{ID}.png", f"http://x/_session/one/outputs/{ID}/0.png"):
        found = image(sources, url, session="one")
        assert found is not None
        assert found.startswith(b"one ")


@pytest.mark.parametrize("kind", ["uploads/{}.png", "outputs/{}/0.png"])
@pytest.mark.parametrize(("named", "asking"), [("/_session/one", ""), ("", "one"), ("/_session/one", "two")])
def test_a_session_does_not_see_into_another(sources: Sources, kind: str, named: str, asking: str) -> None:
    assert code(image, sources, f"http://x{named}/{kind.format(ID)}", session=asking) == "not_found"


@pytest.mark.parametrize("path", [f"/uploads/{OTHER}.png", f"/uploads/{ID}.jpg", f"/outputs/{OTHER}/0.png"])
def test_what_is_not_here_is_not_found(sources: Sources, path: str) -> None:
    assert code(image, sources, f"http://127.0.0.1:8000{path}") == "not_found"
    assert code(image, replace(sources, results=lambda *_: None), f"/outputs/{ID}/0.png") == "not_found"


@pytest.mark.parametrize(
    "text",
    [
        f"http://x/uploads/../{ID}.png",
        f"http://x/uploads/{ID}.png?x",
        f"http://x/uploads/{ID}.png/../y",
        f"http://x/_session/../uploads/{ID}.png",
        f"http://x/outputs/{ID}/../0.png",
        f"file:///data/uploads/{ID}.png",
    ],
)
def test_what_only_looks_like_ours_is_fetched_if_that_is_allowed(sources: Sources, text: str) -> None:
    assert code(image, sources, text) == "url_not_allowed"


PIXELS = bytes(range(256))
PLAIN = base64.b64encode(PIXELS).decode()


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.rstrip("="),
        base64.urlsafe_b64encode(PIXELS).decode(),
        base64.encodebytes(PIXELS).decode(),
        f"  {PLAIN}\r\n",
        f"data:image/png;base64,{PLAIN}",
        f"DATA:;BASE64,{PLAIN}",
        f"data:image/png;charset=x;base64,\n{PLAIN}",
        "data:image/png;base64," + PLAIN.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
    ],
)
def test_base64_is_read_however_it_is_written(sources: Sources, text: str) -> None:
    assert image(sources, text) == PIXELS


@pytest.mark.parametrize(
    "text",
    [
        "hello world!",
        "x.png",
        "QUJD*",
        "A",
        "QUJDR",
        "QQ==QQ",
        "ä",
        "data:image/png,abc",
        "data:image/png;base64",
        "\ud800",
    ],
)
def test_what_is_neither_a_url_nor_base64_is_refused(sources: Sources, text: str) -> None:
    assert code(image, sources, text) == "image_unreadable"


def test_nothing_is_no_image(sources: Sources) -> None:
    assert image(sources, "") is None


def test_an_image_may_not_be_too_large(sources: Sources) -> None:
    small = replace(sources, limits=Limits(image=20))
    assert code(image, small, PLAIN) == "too_large"
    assert code(image, small, f"/uploads/{ID}.png") == "too_large"
    assert code(image, replace(sources, limits=Limits(image=255)), PLAIN) == "too_large"
    assert image(replace(sources, limits=Limits(image=256)), PLAIN) == PIXELS


def test_a_text_that_is_absurd_is_not_even_decoded(sources: Sources) -> None:
    assert code(image, replace(sources, limits=Limits(image=20)), "!" * 1000) == "too_large"


@pytest.fixture
def there() -> Iterator[Site]:
    with site({"/file": ok(PIXELS)}) as made:
        yield made


def test_a_url_is_fetched_where_that_is_allowed(sources: Sources, there: Site, tmp_path: Path) -> None:
    assert code(image, sources, there.url()) == "url_not_allowed"
    assert code(lora, sources, there.url(), tmp_path) == "url_not_allowed"
    assert there.calls == 0
    allowed = replace(sources, fetcher=fetcher_for(["127.0.0.1"]))
    assert image(allowed, there.url()) == PIXELS
    found = lora(allowed, there.url(), tmp_path)
    assert found is not None
    assert (found.parent, found.read_bytes()) == (tmp_path, PIXELS)
    archive = fetch_archive(allowed, there.url(), session="", what="data", folder=tmp_path)
    assert isinstance(archive, Path)
    assert (archive.parent, archive.read_bytes()) == (tmp_path, PIXELS)
    assert archive != found


def test_what_is_fetched_may_not_be_too_large(sources: Sources, there: Site, tmp_path: Path) -> None:
    small = Limits(image=255, archive=255, lora=255)
    allowed = replace(sources, fetcher=fetcher_for(["127.0.0.1"]), limits=small)
    assert code(image, allowed, there.url()) == "too_large"
    assert code(lora, allowed, there.url(), tmp_path) == "too_large"
    assert code(fetch_archive, allowed, there.url(), session="", what="data", folder=tmp_path) == "too_large"


def test_a_redirect_to_our_own_upload_is_a_redirect_like_any(sources: Sources, there: Site) -> None:
    there.answers["/out"] = moved(f"http://10.0.0.1/uploads/{ID}.png")
    allowed = replace(sources, fetcher=fetcher_for(["127.0.0.1"]))
    assert code(image, allowed, there.url("/out")) == "url_not_allowed"


def test_an_upload_that_is_an_archive_is_read_where_it_lies(sources: Sources, tmp_path: Path) -> None:
    found = fetch_archive(sources, f"http://x/uploads/{ID}.zip", session="", what="data", folder=tmp_path)
    assert found == sources.data / "uploads" / f"{ID}.zip"


def test_an_archive_may_be_a_data_uri_but_not_bare_base64(sources: Sources, tmp_path: Path) -> None:
    def archive(text: str) -> Path | bytes:
        return fetch_archive(sources, text, session="", what="data", folder=tmp_path)

    assert archive(f"data:application/zip;base64,{PLAIN}") == PIXELS
    assert code(archive, "data:application/zip;base64,!") == "archive_unreadable"
    for text in ("", PLAIN, "images.zip", "/etc/passwd", "file:///etc/passwd"):
        assert code(archive, text) == "url_not_allowed"


@pytest.fixture
def kept(sources: Sources, tmp_path: Path) -> Sources:
    """An operator's folder of LoRAs, and a file beside it."""
    folder = tmp_path / "loras"
    for name in (
        "style.safetensors",
        "org/yarn.safetensors",
        "notes.txt",
        ".hidden.safetensors",
        "ä b.safetensors",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    (folder / "out.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (folder / "up").symlink_to(tmp_path)
    (folder / "loop.safetensors").symlink_to(folder / "loop.safetensors")
    (folder / "in.safetensors").symlink_to(folder / "style.safetensors")
    (folder / "folder.safetensors").mkdir()
    os.mkfifo(folder / "pipe.safetensors")
    return replace(sources, loras=folder)


def test_nothing_is_no_lora(kept: Sources, tmp_path: Path) -> None:
    assert lora(kept, "", tmp_path) is None


def test_a_lora_that_was_trained_here_is_found(sources: Sources, tmp_path: Path) -> None:
    found = lora(sources, f"http://127.0.0.1:8000/outputs/{ID}/0.safetensors", tmp_path)
    assert found == sources.data / "results" / f"{ID}-1-0.safetensors"
    assert code(lora, sources, f"/outputs/{OTHER}/0.safetensors", tmp_path) == "not_found"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("style.safetensors", "style.safetensors"),
        ("style", "style.safetensors"),
        ("org/yarn", "org/yarn.safetensors"),
        ("org/yarn.safetensors", "org/yarn.safetensors"),
        ("ä b", "ä b.safetensors"),
        ("in", "style.safetensors"),
    ],
)
def test_a_lora_of_the_operator_is_found_by_name(kept: Sources, tmp_path: Path, name: str, file: str) -> None:
    found = lora(kept, name, tmp_path)
    assert found is not None
    assert found.read_bytes() == file.encode()


@pytest.mark.parametrize(
    "name",
    [
        "missing",
        "notes.txt",
        "notes",
        "../secret",
        "../secret.safetensors",
        "org/../../secret",
        "./style",
        "org//yarn",
        "/style",
        "..",
        ".",
        "/",
        "org",
        "org/",
        ".hidden",
        ".hidden.safetensors",
        "out",
        "out.safetensors",
        "up/secret",
        "loop",
        "folder",
        "pipe",
        "..\\secret",
        "org\\yarn",
        "style\0",
        "style\n",
        "~/style",
        "x" * 250,
        "x/" * 140 + "x",
        "\ud800",
        "/etc/passwd",
    ],
)
def test_no_name_leads_out_of_the_folder(kept: Sources, tmp_path: Path, name: str) -> None:
    assert code(lora, kept, name, tmp_path) == "not_found"


@pytest.mark.parametrize("name", ["C:\\style", "C:/style", "file:style", "s3://bucket/style"])
def test_what_looks_like_an_address_is_not_a_name(kept: Sources, tmp_path: Path, name: str) -> None:
    assert code(lora, kept, name, tmp_path) == "url_not_allowed"


def test_a_name_is_only_looked_for_where_there_is_a_folder(sources: Sources, tmp_path: Path) -> None:
    assert code(lora, sources, "style", tmp_path) == "not_found"
    assert code(lora, sources, "org/yarn", tmp_path) == "not_found"


def test_a_lora_may_not_be_too_large(kept: Sources, tmp_path: Path) -> None:
    assert code(lora, replace(kept, limits=Limits(lora=9)), "style", tmp_path) == "too_large"


def test_a_hub_is_not_asked_unless_that_is_on(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference_backend.sources.fetch_weights", None)
    assert code(lora, sources, "org/name", tmp_path) == "not_found"
    with pytest.raises(TypeError):
        lora(replace(sources, hub=True), "org/name", tmp_path)
