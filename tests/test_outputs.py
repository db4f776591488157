"""What predictions produce, and how it is handed out."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
from PIL import Image, ImageChops, ImageStat

from conftest import Client, MakeClient
from mock_server.clock import SystemClock
from mock_server.memory_store import MemoryStore
from mock_server.outputs import Outputs
from mock_server.prediction import Asked, Event, Prediction, Status

SMALL: dict[str, Any] = {"size": "512*512", "seed": 7}


def outputs(client: Client, model: str = "flux-schnell-lora", **given: Any) -> list[str]:
    return list(client.result(client.submit(model, scenario="instant", **given))["outputs"])


def image(client: Client, **given: Any) -> Image.Image:
    return Image.open(io.BytesIO(client.get(outputs(client, **{**SMALL, **given})[0]).content))


def encoded(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def difference(one: Image.Image, other: Image.Image) -> float:
    return sum(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean)


@pytest.mark.parametrize("size", ["512*512", "1536*512", "513*1535", "1536*1536"])
def test_an_image_has_the_size_that_was_asked_for(client: Client, size: str) -> None:
    assert "*".join(map(str, image(client, size=size).size)) == size


def test_there_are_as_many_images_as_were_asked_for(client: Client) -> None:
    urls = outputs(client, num_images=4, size="512*512")
    assert len({client.get(url).content for url in urls}) == 4


def test_the_same_seed_gives_the_same_bytes(client: Client) -> None:
    assert client.get(outputs(client, **SMALL)[0]).content == client.get(outputs(client, **SMALL)[0]).content


def test_the_second_image_is_the_first_of_the_next_seed(client: Client) -> None:
    second = client.get(outputs(client, num_images=2, **SMALL)[1]).content
    assert second == client.get(outputs(client, size="512*512", seed=8)[0]).content


def test_minus_one_draws_another_seed_each_time(client: Client) -> None:
    given: dict[str, Any] = {"size": "512*512", "seed": -1}
    assert client.get(outputs(client, **given)[0]).content != client.get(outputs(client, **given)[0]).content


def test_the_request_can_be_read_in_the_images_metadata(client: Client) -> None:
    loras = [{"path": "a/yarn", "scale": 0.5}]
    told = json.loads(
        image(client, prompt="猫 and a cat", loras=loras, num_inference_steps=3).info["wavemock"]
    )
    assert (told["prompt"], told["seed"], told["steps"], told["loras"]) == ("猫 and a cat", 7, 3, loras)


@pytest.mark.parametrize(
    ("file_format", "media_type"), [("png", "image/png"), ("jpeg", "image/jpeg"), ("webp", "image/webp")]
)
def test_images_are_encoded_as_the_server_was_told(
    make_client: MakeClient, file_format: str, media_type: str
) -> None:
    client = make_client(image_format=file_format)
    answer = client.get(outputs(client, **SMALL)[0])
    assert answer.headers["Content-Type"] == media_type
    assert Image.open(io.BytesIO(answer.content)).format == file_format.upper()


def test_a_request_may_ask_for_another_format(client: Client) -> None:
    assert image(client, output_format="webp").format == "WEBP"


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_an_image_in_base64_is_the_start_of_the_result(client: Client, prefix: str) -> None:
    red = Image.new("RGB", (300, 200), (200, 0, 0))
    near, far = (image(client, image=prefix + encoded(red), strength=each) for each in (0, 1))
    assert difference(near, red.resize((512, 512))) < 1 < difference(far, red.resize((512, 512)))


def test_strength_orders_the_distance_to_the_start(client: Client) -> None:
    start = Image.effect_noise((512, 512), 80).convert("RGB")
    distances = [
        difference(image(client, image=encoded(start), strength=each / 4), start) for each in range(5)
    ]
    assert distances == sorted(distances)


def test_under_a_mask_the_black_half_stays_bit_for_bit(client: Client) -> None:
    start = Image.effect_noise((512, 512), 80).convert("RGB")
    mask = Image.new("L", (512, 512), 0)
    mask.paste(255, (256, 0, 512, 512))
    result = image(client, image=encoded(start), mask_image=encoded(mask), strength=1).convert("RGB")
    left, right = (0, 0, 256, 512), (256, 0, 512, 512)
    assert result.crop(left).tobytes() == start.crop(left).tobytes()
    assert difference(result.crop(right), start.crop(right)) > 10


def test_an_output_of_the_server_can_be_the_start_of_another(client: Client) -> None:
    url = outputs(client, **SMALL)[0]
    assert difference(image(client, image=url, strength=0, seed=9), image(client)) < 1


def test_a_chain_of_outputs_ends_somewhere(client: Client) -> None:
    url = ""
    for _ in range(12):
        url = outputs(client, image=url, **SMALL)[0]
    assert client.get(url).status_code == 200


@pytest.mark.parametrize(
    "text", ["no base64!", "aGVsbG8=", "data:image/png;base64,AAAA", "file:///etc/passwd"]
)
def test_what_is_no_image_is_as_good_as_none(client: Client, text: str) -> None:
    assert difference(image(client, image=text), image(client)) == 0


def test_base64_is_answered_where_it_is_asked_for(client: Client) -> None:
    text = outputs(client, enable_base64_output=True, **SMALL)[0]
    assert Image.open(io.BytesIO(base64.b64decode(text, validate=True))).size == (512, 512)


def test_base64_is_the_default_of_the_dev_model(client: Client) -> None:
    assert not outputs(client, "flux-dev-lora", **SMALL)[0].startswith("http")


def test_base64_can_be_a_data_uri(make_client: MakeClient) -> None:
    client = make_client(base64="data-uri")
    assert outputs(client, enable_base64_output=True, **SMALL)[0].startswith("data:image/png;base64,iVBOR")


def test_base64_and_url_are_the_same_image(client: Client) -> None:
    text = outputs(client, enable_base64_output=True, **SMALL)[0]
    assert base64.b64decode(text) == client.get(outputs(client, **SMALL)[0]).content


@pytest.mark.parametrize("rank", [1, 16, 64])
def test_a_lora_has_the_rank_that_was_asked_for(client: Client, tmp_path: Path, rank: int) -> None:
    url = outputs(client, "flux-dev-lora-trainer-turbo", lora_rank=rank, trigger_word="zyx")[0]
    file = tmp_path / "lora.safetensors"
    file.write_bytes(client.get(url).content)
    with safetensors.safe_open(file, "np") as opened:
        assert {min(opened.get_tensor(name).shape) for name in opened.keys()} == {rank}  # noqa: SIM118
        assert opened.metadata()["trigger_word"] == "zyx"


def test_a_lora_has_its_defaults_where_nothing_was_asked(client: Client) -> None:
    content = client.get(outputs(client, "flux-dev-lora-trainer")[0]).content
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert (header["__metadata__"]["rank"], header["__metadata__"]["steps"]) == ("16", "1000")


def test_an_output_says_what_it_is_and_how_long(client: Client) -> None:
    answer = client.get(outputs(client, **SMALL)[0])
    assert answer.headers["Content-Type"] == "image/png"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_part_of_an_output_can_be_had(client: Client) -> None:
    url = outputs(client, "flux-dev-lora-trainer")[0]
    whole = client.get(url)
    part = client.get(url, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(whole.content)}"


def test_an_output_that_has_not_changed_is_not_sent_again(client: Client) -> None:
    url = outputs(client, **SMALL)[0]
    etag = client.get(url).headers["ETag"]
    again = client.get(url, headers={"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)


def test_the_head_of_an_output_is_that_of_the_whole(client: Client) -> None:
    url = outputs(client, **SMALL)[0]
    head, whole = client.request("HEAD", url), client.get(url)
    assert (head.content, head.headers["Content-Length"]) == (b"", whole.headers["Content-Length"])


def test_an_output_can_only_be_read(client: Client) -> None:
    answer = client.request("DELETE", outputs(client, **SMALL)[0])
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_there_is_no_output_before_the_end(client: Client) -> None:
    prediction_id = client.submit(**SMALL)
    before = client.get(f"/outputs/{prediction_id}/0.png").status_code
    client.clock(advance=60)
    assert [before, client.get(f"/outputs/{prediction_id}/0.png").status_code] == [404, 200]


def test_an_output_that_was_swept_away_is_made_again(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client()
    url = outputs(client, **SMALL)[0]
    before = client.get(url).content
    for file in tmp_path.glob("outputs-*/outputs/*"):
        file.unlink()
    assert client.get(url).content == before


def test_a_folder_that_cannot_be_written_is_503(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client()
    url = outputs(client, **SMALL)[0]
    (tmp_path / "outputs-0" / "outputs").write_text("a file in its place")
    answer = client.get(url)
    assert (answer.status_code, answer.json()["code"]) == (503, 503)


def test_a_poll_needs_no_folder(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client()
    (tmp_path / "outputs-0" / "sessions").write_text("a file in its place")
    prefix, model = "/_session/a/api/v3", "wavespeed-ai/flux-schnell-lora"
    prediction_id = client.post(f"{prefix}/{model}", {"prompt": "x"}).json()["data"]["id"]
    assert client.get(f"{prefix}/predictions/{prediction_id}/result").status_code == 200


def test_an_output_is_kept_although_another_goes_while_there_is_tidied_up(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    prediction = Prediction(
        id="0" * 32,
        model="m",
        edition="current",
        version="v3",
        scenario="instant",
        created_at=1,
        makes=("0.png",),
        events=(Event(at=1, status=Status.COMPLETED, outputs=("0.png",), nsfw=(False,)),),
    )
    store = MemoryStore(keep=1, keep_bytes=1000)
    store.add(prediction, Asked(received="{}"), now=1)
    kept = Outputs(
        directory=tmp_path, results=tmp_path, store=store, clock=SystemClock(), make=lambda *_: b"picture"
    )
    assert kept.read(prediction.id, "0.png") == b"picture"
