"""Outputs that are too many, too few, of another form or size, or not there."""

import base64
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from PIL import Image

from .client import URL, Client
from .mutant import About, Mutant, either, field, message, rule
from .names import DEV2, SCHNELL2, SCHNELL3, TRAINER3, TURBO3
from .server import Answer, Ask, Between, Request
from .wrapped import Where, edited, on, refused, results, wrapped

_COUNT = either(field("data.outputs", "num_images"), rule("count"))
_FLAGS = either(field("data.has_nsfw_contents"), rule("count"))
_THERE = either(field("data.outputs"), rule("outputs"), message("*output*"))


def mutants() -> Iterator[Mutant]:
    yield from _counts()
    yield from _forms()
    yield from _files()


def _completed(name: str, about: About, where: Where, change: Callable[[dict[str, Any]], Any]) -> Mutant:
    def on_data(envelope: dict[str, Any]) -> None:
        if envelope["data"]["status"] == "completed":
            change(envelope["data"])

    return wrapped(name, "outputs counted wrongly", about, edited(where, on_data), _looks)


def _looks(client: Client) -> list[Any]:
    """The ends of some tasks, with as many outputs as one can ask for."""
    found = []
    for model, counts in (
        (SCHNELL3, (1, 2, 4)),
        (SCHNELL2, (2,)),
        (TRAINER3, (0,)),
    ):
        for count in counts:
            for version in ("v3", "v2"):
                data = client.finish(model, version=version, **({"num_images": count} if count else {}))
                found.append([data["outputs"], data["has_nsfw_contents"]])
    return found


def _counts() -> Iterator[Mutant]:
    def both(data: dict[str, Any], count: int) -> None:
        data.update(outputs=data["outputs"][:count], has_nsfw_contents=data["has_nsfw_contents"][:count])

    def more(data: dict[str, Any]) -> None:
        data["outputs"].append(data["outputs"][0])
        data["has_nsfw_contents"].append(False)

    yield _completed("one output too many", _COUNT, results, more)
    yield _completed("one output too many on v2", _COUNT, on("v2", results), more)
    yield _completed("one output too few", _COUNT, results, lambda data: both(data, len(data["outputs"]) - 1))
    yield _completed("one output at most", _COUNT, results, lambda data: both(data, 1))
    yield _completed("three outputs at most", _COUNT, results, lambda data: both(data, 3))
    yield _completed("one output at most on v2", _COUNT, on("v2", results), lambda data: both(data, 1))
    yield _completed("no outputs", _COUNT, results, lambda data: both(data, 0))
    yield _completed("no outputs, but flags", _COUNT, on("v3", results), lambda data: data.update(outputs=[]))
    yield _completed("no flags", _FLAGS, results, lambda data: data.update(has_nsfw_contents=[]))
    yield _completed(
        "one flag too many", _FLAGS, on("v2", results), lambda data: data["has_nsfw_contents"].append(False)
    )
    yield _completed(
        "one flag for all outputs", _FLAGS, results, lambda data: data.update(has_nsfw_contents=[False])
    )
    yield _completed(
        "one flag too few", _FLAGS, on("v3", results), lambda data: data["has_nsfw_contents"].pop()
    )
    yield _completed(
        "a LoRA has no flag",
        _FLAGS,
        results,
        lambda data: data.update(has_nsfw_contents=[]) if "trainer" in data["model"] else None,
    )
    yield _completed(
        "four outputs whatever was asked",
        _COUNT,
        on("v2", results),
        lambda data: data.update(outputs=data["outputs"][:1] * 4, has_nsfw_contents=[False] * 4),
    )


def _forms() -> Iterator[Mutant]:
    """URLs and base64 texts where the other is due."""
    form = field("enable_base64_output")

    def linked(data: dict[str, Any]) -> None:
        data["outputs"] = [_url(data["id"], index, each) for index, each in enumerate(data["outputs"])]

    for name, where in (("anywhere", results), ("on v2", on("v2", results))):
        yield wrapped(
            f"base64 is never answered {name}",
            "outputs of another form",
            form,
            edited(where, lambda each: linked(each["data"])),
            _form,
        )

    async def inline(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if not request.task or not any(
            each.startswith("http") and each.endswith(".png") for each in answer.data.get("outputs", [])
        ):
            return answer
        got = [await ask(request.with_path(each.removeprefix(URL))) for each in answer.data["outputs"]]
        return answer.with_data(outputs=[base64.b64encode(each.body).decode() for each in got])

    yield wrapped("base64 is always answered", "outputs of another form", form, lambda: inline, _form)
    texts: dict[str, Callable[[str], str]] = {
        "cut off": lambda text: text[: len(text) // 2 // 4 * 4],
        "in hexadecimal": lambda text: base64.b64decode(text).hex(),
        "encoded twice": lambda text: base64.b64encode(text.encode()).decode(),
        "empty": lambda _: "",
    }
    for name, change in texts.items():
        yield wrapped(
            f"base64 is {name}",
            "outputs of another form",
            either(form, _THERE),
            edited(results, partial(_rewrite, change, urls=False)),
            _form,
        )
    urls: dict[str, Callable[[str], str]] = {
        "relative": lambda url: url.removeprefix(URL),
        "without a scheme": lambda url: url.removeprefix("http:"),
        "of files that are not there": lambda url: url.replace("/0.", "/7."),
        "of the server's own disk": lambda url: url.replace(URL, "file:///srv"),
        "names of files": lambda url: url.rpartition("/")[2],
        "empty": lambda _: "",
    }
    for name, change in urls.items():
        yield wrapped(
            f"URLs of outputs are {name}",
            "outputs of another form",
            either(form, _THERE),
            edited(results, partial(_rewrite, change, urls=True)),
            _form,
        )


def _rewrite(change: Callable[[str], str], envelope: dict[str, Any], *, urls: bool) -> None:
    """Changes those outputs that are URLs, or those that are not."""
    data = envelope["data"]
    data["outputs"] = [change(each) if each.startswith("http") is urls else each for each in data["outputs"]]


def _url(name: str, index: int, output: str) -> str:
    return output if output.startswith("http") else f"{URL}/outputs/{name}/{index}.png"


def _form(client: Client) -> list[Any]:
    size = {"size": "512*512"}
    found = []
    for model in (SCHNELL3, DEV2):
        for flag in (True, False):
            data = client.finish(model, version=model[:2], enable_base64_output=flag, **size)
            found += data["outputs"]
    return found


def _file(
    where: Callable[[Request], bool], change: Callable[[Request, bytes], bytes]
) -> Callable[[], Between]:
    """Changes outputs when they are fetched, and those within answers."""

    async def handler(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if request.path.startswith("/outputs/") and answer.status == 200 and where(request):
            return replace(answer, body=change(request, answer.body))
        outputs = answer.data.get("outputs", []) if request.task and where(request) else []
        if any(not each.startswith("http") for each in outputs):
            made = [base64.b64encode(change(request, base64.b64decode(each))).decode() for each in outputs]
            return answer.with_data(outputs=made)
        return answer

    return lambda: handler


def _everywhere(_: Request) -> bool:
    return True


def _is_png(body: bytes) -> bool:
    return body.startswith(b"\x89PNG")


def _drawn(change: Callable[[Image.Image], Image.Image]) -> Callable[[Request, bytes], bytes]:
    def changed(_: Request, body: bytes) -> bytes:
        if not _is_png(body):
            return body
        file = io.BytesIO()
        change(Image.open(io.BytesIO(body))).save(file, "PNG")
        return file.getvalue()

    return changed


def _files() -> Iterator[Mutant]:
    size = field("size")
    images: dict[str, Callable[[Image.Image], Image.Image]] = {
        "are 1024*1024": lambda image: image.resize((1024, 1024)),
        "have their sides swapped": lambda image: image.transpose(Image.Transpose.ROTATE_90),
        "lack a column": lambda image: image.crop((0, 0, image.width - 1, image.height)),
        "are multiples of 128": lambda image: image.resize(
            (image.width // 128 * 128, image.height // 128 * 128)
        ),
        "are square": lambda image: image.resize((image.width, image.width)),
        "are half as large": lambda image: image.convert("RGB").reduce(2),
    }
    for name, change in images.items():
        yield wrapped(
            f"images {name}", "image of another size", size, _file(_everywhere, _drawn(change)), _image
        )
    seed = either(field("seed"), rule("seed"))
    yield wrapped("the same seed gives another image", "seed", seed, _file(_everywhere, _spotted), _seeded)
    yield wrapped("any seed gives the same image", "seed", seed, _same_image, _seeded)
    yield wrapped("any LoRA is the first one", "rank", field("lora_rank"), _first_lora, _ranked)
    bad: dict[str, Callable[[Request, bytes], bytes]] = {
        "empty": lambda _, __: b"",
        "cut off": lambda _, body: body[:100],
        "pages": lambda _, __: b"<html>not found</html>",
    }
    for name, make in bad.items():
        yield wrapped(
            f"outputs are {name}",
            "outputs not there",
            _THERE,
            _file(lambda each: not each.task, make),
            _fetched,
        )
    for status in (404, 403, 500):
        yield wrapped(
            f"outputs are answered with {status}",
            "outputs not there",
            _THERE,
            refused(lambda request: request.path.startswith("/outputs/"), status),
            _fetched,
        )


def _spotted(request: Request, body: bytes) -> bytes:
    """The image with a spot by which each task's differs."""
    if not _is_png(body):
        return body
    found = re.search(r"[0-9a-f]{32}", request.path)
    colour = bytes.fromhex(found[0][:6]) if found else b"\0\0\0"
    image = Image.open(io.BytesIO(body)).convert("RGB")
    image.paste((colour[0], colour[1], colour[2]), (0, 0, 9, 9))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _same_image() -> Between:
    kept: dict[tuple[int, int], bytes] = {}

    def change(_: Request, body: bytes) -> bytes:
        return kept.setdefault(Image.open(io.BytesIO(body)).size, body) if _is_png(body) else body

    return _file(lambda _: True, change)()


def _first_lora() -> Between:
    kept: list[bytes] = []

    def change(_: Request, body: bytes) -> bytes:
        if not _is_png(body):
            kept.append(body)
        return body if _is_png(body) else kept[0]

    return _file(lambda request: request.path.endswith(".safetensors"), change)()


def _bytes(client: Client, model: str, **given: Any) -> bytes:
    (output,) = client.finish(model, version=model[:2], **given)["outputs"]
    return client.ask("GET", output).content if output.startswith("http") else base64.b64decode(output)


def _image(client: Client) -> list[Any]:
    found = []
    for size in ("512*576", "1030*512"):
        body = _bytes(client, SCHNELL3, size=size)
        found.append(Image.open(io.BytesIO(body)).size)
    return found


def _seeded(client: Client) -> list[bool]:
    made = [_bytes(client, SCHNELL3, size="512*512", seed=seed) for seed in (7, 7, 8)]
    return [made[0] == made[1], made[0] == made[2]]


def _ranked(client: Client) -> list[int]:
    return [len(_bytes(client, TURBO3, lora_rank=rank)) for rank in (4, 8)]


def _fetched(client: Client) -> list[Any]:
    (output,) = client.finish(SCHNELL3, size="512*512")["outputs"]
    answer = client.ask("GET", output)
    return [answer.status_code, answer.content]
