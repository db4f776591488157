"""The official Python SDK uploads an archive, trains on it, and makes images with what it has trained."""

import io
import zipfile
from pathlib import Path

import pytest
import requests
import wavespeed
from PIL import Image

from conftest import KEY, Server, StartServer

TRAINER = "wavespeed-ai/flux-dev-lora-trainer-turbo"
DEV = "wavespeed-ai/flux-dev-lora"


@pytest.fixture
def sdk(server: Server) -> wavespeed.Client:
    return wavespeed.Client(api_key="any-key", base_url=server.url)


def png(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> str:
    """An archive of two images, one with a caption."""
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one.png", png())
        archive.writestr("two.png", png("blue"))
        archive.writestr("one.txt", "p3r5on, red")
    return str(path)


def warnings(url: str) -> list[list[str]]:
    """The remarks on the predictions so far, newest first."""
    shown = requests.get(f"{url}/_mock/predictions", timeout=30).json()["data"]["predictions"]
    return [each["warnings"] for each in shown]


def test_an_archive_is_uploaded_trained_on_and_its_lora_makes_images(serve: StartServer, photos: str) -> None:
    url = serve("--scenario", "instant").url
    sdk = wavespeed.Client(api_key="any-key", base_url=url)
    uploaded = sdk.upload(photos)
    assert requests.get(uploaded, timeout=30).content == Path(photos).read_bytes()
    [lora] = sdk.run(TRAINER, {"data": uploaded, "trigger_word": "p3r5on"}, poll_interval=0.1)["outputs"]
    assert lora.endswith(".safetensors")
    given = {
        "prompt": "p3r5on in a storm",
        "loras": [{"path": lora, "scale": 1}],
        "size": "512*512",
        "enable_base64_output": False,
    }
    [made] = sdk.run(DEV, given, poll_interval=0.1)["outputs"]
    assert Image.open(io.BytesIO(requests.get(made, timeout=30).content)).size == (512, 512)
    assert warnings(url) == [[], ["data: 2 images, 1 caption"]]


def test_what_is_no_file_on_disk_can_be_uploaded_too(sdk: wavespeed.Client) -> None:
    uploaded = sdk.upload(io.BytesIO(png()))
    assert requests.get(uploaded, timeout=30).content == png()


def test_an_uploaded_image_is_the_start_of_another(sdk: wavespeed.Client) -> None:
    given = {
        "prompt": "x",
        "image": sdk.upload(io.BytesIO(png())),
        "strength": 0,
        "size": "512*512",
        "enable_base64_output": False,
    }
    [made] = sdk.run(DEV, given, poll_interval=0.1)["outputs"]
    image = Image.open(io.BytesIO(requests.get(made, timeout=30).content)).convert("RGB")
    red, green, blue = image.resize((1, 1)).tobytes()
    assert (red > 250, green < 5, blue < 5) == (True, True, True)


def test_the_sdk_uploads_into_a_session(serve: StartServer, photos: str) -> None:
    sdk = wavespeed.Client(api_key="ms_one", base_url=serve().url)
    uploaded = sdk.upload(photos)
    assert "/_session/one/uploads/" in uploaded
    assert requests.get(uploaded, timeout=30).status_code == 200


def test_the_sdk_says_what_was_wrong_with_an_upload(server: Server, sdk: wavespeed.Client) -> None:
    arm = {"fault": "503; on=upload; times=1"}
    requests.post(f"{server.url}/_mock/faults", json=arm, timeout=30).raise_for_status()
    with pytest.raises(RuntimeError, match="Failed to create upload: HTTP 503"):
        sdk.upload(io.BytesIO(b"x"))


def test_a_form_as_older_clients_send_it_is_taken(server: Server) -> None:
    files = {"file": ("photo.png", io.BytesIO(png()), "application/octet-stream")}
    for version in ("v2", "v3"):
        files["file"][1].seek(0)
        url = f"{server.url}/api/{version}/media/upload/binary"
        answer = requests.post(url, files=files, headers=KEY, timeout=30)
        data = answer.json()["data"]
        assert (answer.status_code, answer.json()["code"], data["filename"]) == (200, 200, "photo.png")
        assert requests.get(data["download_url"], timeout=30).content == png()


def test_ten_megabytes_go_up_and_come_down_either_way(server: Server, sdk: wavespeed.Client) -> None:
    content = bytes(range(256)) * 40_000
    form = requests.post(
        f"{server.url}/api/v3/media/upload/binary", files={"file": content}, headers=KEY, timeout=60
    )
    for url in (sdk.upload(io.BytesIO(content)), form.json()["data"]["download_url"]):
        assert requests.get(url, timeout=60).content == content


def test_a_file_may_come_in_chunks_of_unknown_length(server: Server) -> None:
    told = requests.post(
        f"{server.url}/api/v3/media/uploads", json={"filename": "a", "size": 6}, headers=KEY, timeout=30
    ).json()["data"]
    answer = requests.put(told["upload"]["url"], data=iter([b"abc", b"def"]), timeout=30)
    assert answer.status_code == 200
    assert requests.get(told["download_url"], timeout=30).content == b"abcdef"
