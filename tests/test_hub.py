"""LoRAs from a model hub: which file is meant, fetched as from any host, and kept within bounds."""

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants
from sites import Site, moved, ok, site

from reference_backend import hub
from reference_backend.fetch import fetcher_for
from reference_backend.job import Cancelled, JobFailed, Report
from reference_backend.sources import Limits, Sources, fetch_lora

NOW = "a" * 40
BEFORE = "b" * 40


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A hub of this machine, with the repository org/one."""
    with site() as made:
        monkeypatch.setattr(constants, "ENDPOINT", made.url(""))
        publish(made, "one", "x.safetensors", "README.md")
        yield made


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    (tmp_path / "data").mkdir()
    return Sources(data=tmp_path / "data", results=lambda *_: None, hub=True, limits=Limits(lora=1000))


def publish(there: Site, name: str, *files: str, at: str = "", revision: str = NOW) -> None:
    """Puts a repository on a hub, each of its files with its own name in it."""
    about = {"id": f"org/{name}", "sha": revision, "siblings": [{"rfilename": file} for file in files]}
    path = f"/api/models/org/{name}" + (f"/revision/{at}" if at else "")
    there.answers[path] = ok(json.dumps(about).encode(), "Content-Type: application/json")
    for file in files:
        place = f"/org/{name}/resolve/{revision}/{file}".replace(" ", "%20")
        there.answers[place] = ok(f"{revision[0]} {name} {file}".encode())


def fetched(sources: Sources, text: str, *, report: Report | None = None) -> str:
    """What is in the file that a text names, which is one of the job's own folder."""
    folder = sources.data / "work"
    folder.mkdir(exist_ok=True)
    found = fetch_lora(sources, text, session="", what="loras[0].path", folder=folder, report=report)
    assert found is not None
    assert found.parent == folder
    return found.read_text()


def refusal(sources: Sources, text: str) -> JobFailed:
    with pytest.raises(JobFailed) as failed:
        fetched(sources, text)
    assert "127.0.0.1" not in failed.value.message
    return failed.value


def downloads(there: Site) -> int:
    return sum(" /org/" in head.partition("\r\n")[0] for head in there.heads)


def test_the_only_weights_of_a_repository_are_fetched(sources: Sources, there: Site) -> None:
    assert fetched(sources, "org/one") == "a one x.safetensors"


def test_of_several_files_the_usual_name_is_meant(sources: Sources, there: Site) -> None:
    publish(there, "usual", "other.safetensors", "pytorch_lora_weights.safetensors")
    assert fetched(sources, "org/usual") == "a usual pytorch_lora_weights.safetensors"


def test_of_several_files_one_has_to_be_named(sources: Sources, there: Site) -> None:
    publish(there, "many", "a.safetensors", "b/c d.safetensors")
    assert refusal(sources, "org/many").code == "not_found"
    assert fetched(sources, "org/many/b/c d.safetensors") == "a many b/c d.safetensors"
    for missing in ("missing.safetensors", "../a.safetensors"):
        assert refusal(sources, f"org/many/{missing}").code == "not_found"


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/org/one",
        "https://huggingface.co/org/one/",
        "http://www.huggingface.co/org/one",
        "HTTPS://HuggingFace.co/org/one",
        "https://huggingface.co/org/one/blob/v1/x.safetensors",
        "https://huggingface.co/org/one/resolve/v1/x.safetensors",
        "https://huggingface.co/org/one/resolve/v1/x.safetensors?download=true",
        "https://huggingface.co/org/one/tree/v1",
    ],
)
def test_the_url_of_a_repository_is_taken_as_its_id(sources: Sources, there: Site, text: str) -> None:
    publish(there, "one", "x.safetensors", at="v1", revision=BEFORE)
    assert fetched(sources, text) == ("b" if "v1" in text else "a") + " one x.safetensors"


def test_the_url_of_a_file_names_it_in_its_folder(sources: Sources, there: Site) -> None:
    publish(there, "many", "a.safetensors", "b/c d.safetensors", at="main")
    url = "https://huggingface.co/org/many/blob/main/b/c%20d.safetensors"
    assert fetched(sources, url) == "a many b/c d.safetensors"


@pytest.mark.parametrize("text", ["org/one", "org/one/blob/main/x.safetensors"])
def test_without_the_hub_the_url_of_a_page_is_refused_with_the_option(
    sources: Sources, there: Site, text: str
) -> None:
    closed = replace(sources, hub=False, fetcher=fetcher_for(["public"]))
    failed = refusal(closed, f"https://huggingface.co/{text}")
    assert failed.code == "url_not_allowed"
    assert "--hub" in failed.message
    assert there.calls == 0


def test_without_the_hub_the_url_of_a_file_is_a_url_like_any(sources: Sources, there: Site) -> None:
    failed = refusal(replace(sources, hub=False), "https://huggingface.co/org/one/resolve/main/x.safetensors")
    assert failed.code == "url_not_allowed"
    assert "--fetch-from" in failed.message


@pytest.mark.parametrize("file", ["pytorch_lora_weights.bin", "README.md", "..safetensors/../x.safetensors"])
def test_a_repository_without_weights_is_told(sources: Sources, there: Site, file: str) -> None:
    publish(there, "none", file)
    assert refusal(sources, "org/none").code == "not_found"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("401 Unauthorized", "not_found"),
        ("403 Forbidden", "not_found"),
        ("404 Not Found", "not_found"),
        ("400 Bad Request", "download_failed"),
        ("503 Away", "download_failed"),
    ],
)
def test_what_the_hub_does_not_give_is_told(sources: Sources, there: Site, status: str, code: str) -> None:
    there.answers["/api/models/org/one"] = ok(b"", status=status)
    failed = refusal(sources, "org/one")
    assert failed.code == code
    assert "hub" in failed.message


@pytest.mark.parametrize(
    "about",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"sha": "../..", "siblings": [{"rfilename": "x.safetensors"}]}',
        b'{"sha": null, "siblings": null}',
        b"[" * 100_000,
    ],
)
def test_an_answer_that_cannot_be_read_is_told(sources: Sources, there: Site, about: bytes) -> None:
    there.answers["/api/models/org/one"] = ok(about)
    assert refusal(sources, "org/one").code == "download_failed"


def test_bytes_are_counted_as_they_come(sources: Sources, there: Site) -> None:
    there.answers[f"/org/one/resolve/{NOW}/x.safetensors"] = endless
    assert refusal(sources, "org/one").code == "too_large"


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(65536))


def test_a_download_is_given_up_when_nobody_wants_it(sources: Sources, there: Site) -> None:
    there.answers[f"/org/one/resolve/{NOW}/x.safetensors"] = silent

    def report(_stage: str, _done: int, of: int) -> None:
        if of == 1000:
            raise Cancelled

    with pytest.raises(Cancelled):
        fetched(sources, "org/one", report=report)


def silent(connection: socket.socket) -> None:
    """Announces ten bytes, and sends none until the caller has gone."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    connection.recv(1)


def test_where_the_hub_leads_to_is_followed(sources: Sources, there: Site) -> None:
    there.answers[f"/org/one/resolve/{NOW}/x.safetensors"] = moved("/elsewhere")
    there.answers["/elsewhere"] = ok(b"weights")
    assert fetched(sources, "org/one") == "weights"


def test_the_hub_does_not_lead_into_the_network_here(sources: Sources, there: Site) -> None:
    with site({"/": ok(b"inside")}) as inside:
        there.answers[f"/org/one/resolve/{NOW}/x.safetensors"] = moved(inside.url("/"))
        assert refusal(sources, "org/one").code == "download_failed"
        assert inside.calls == 0


def test_a_hub_that_is_off_line_is_not_asked(
    sources: Sources, there: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal(sources, "org/one").code == "download_failed"
    assert there.calls == 0


def test_nobody_s_token_is_sent(sources: Sources, there: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetched(sources, "org/one")
    assert not any("hf_secret" in head or "Authorization" in head for head in there.heads)


def test_weights_are_kept_for_later_requests(sources: Sources, there: Site) -> None:
    assert [fetched(sources, "org/one") for _ in range(3)] == ["a one x.safetensors"] * 3
    assert downloads(there) == 1


def test_weights_that_changed_on_the_hub_are_fetched_again(sources: Sources, there: Site) -> None:
    fetched(sources, "org/one")
    publish(there, "one", "x.safetensors", revision=BEFORE)
    assert fetched(sources, "org/one") == "b one x.safetensors"


def test_what_was_used_longest_ago_makes_room(
    sources: Sources, there: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three files fit, of about twenty bytes each.
    monkeypatch.setattr(hub, "MOST_KEPT", 65)
    for number in range(3):
        publish(there, f"r{number}", "x.safetensors")
        fetched(sources, f"org/r{number}")
        for path in (sources.data / "hub").iterdir():
            if path.stat().st_mtime > 2:  # it has just come
                os.utime(path, (number, number))
    fetched(sources, "org/r0")
    fetched(sources, "org/one")
    before = downloads(there)
    for name in ("r0", "one", "r2"):
        fetched(sources, f"org/{name}")
    assert downloads(there) == before
    fetched(sources, "org/r1")
    assert downloads(there) == before + 1


def test_weights_of_a_job_stay_when_room_is_made(sources: Sources, there: Site) -> None:
    fetched(sources, "org/one")
    for path in (sources.data / "hub").iterdir():
        path.unlink()
    [held] = (sources.data / "work").iterdir()
    assert held.read_text() == "a one x.safetensors"


def test_a_disk_without_links_keeps_nothing(
    sources: Sources, there: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert [fetched(sources, "org/one") for _ in range(2)] == ["a one x.safetensors"] * 2
    assert downloads(there) == 2
