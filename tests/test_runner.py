"""What the fields of a request come to: jobs, done by the real runner with the offline model."""

import io
import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from archives import zipped
from PIL import Image
from reference import TINY
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mock_server.errors import BadConfiguration
from mock_server.prediction import Asked, Event, Prediction, Status
from mock_server.sql_store import SqlStore
from reference_backend import jobs
from reference_backend.dataset import Example
from reference_backend.folders import folders_of
from reference_backend.job import Cancelled, Done, Job, JobFailed, Report, Runner
from reference_backend.recipes import Recipe
from reference_backend.settings import WorkerSettings
from reference_backend.train import Trained

pytest_plugins = ("reference",)

DEV = "wavespeed-ai/flux-dev-lora"
SCHNELL = "wavespeed-ai/flux-schnell-lora"
BASE = "wavespeed-ai/flux-dev-lora-trainer"
TURBO = "wavespeed-ai/flux-dev-lora-trainer-turbo"

PLAIN = {
    "prompt": "a red circle",
    "image": "",
    "mask_image": "",
    "strength": 0.8,
    "loras": [],
    "size": "512*512",
    "num_inference_steps": 1,
    "guidance_scale": 3.5,
    "enable_safety_checker": True,
}
WITH_BASE = {
    "trigger_word": "p3r5on",
    "create_masks": True,
    "steps": 1,
    "is_style": False,
    "is_input_format_already_preprocessed": False,
}
WITH_TURBO = {"trigger_word": "p3r5on", "steps": 1, "learning_rate": 0.001, "lora_rank": 4}


def silent(_stage: str, _done: int, _of: int) -> None:
    return


@dataclass(kw_only=True)
class Bench:
    """A runner, the folder and store of its server, and what its safety checker has seen and is to say."""

    settings: WorkerSettings
    store: SqlStore
    run: Runner = field(init=False)
    seen: list[Image.Image] = field(default_factory=list)
    verdicts: list[bool] = field(default_factory=list)

    def check(self, picture: Image.Image) -> bool:
        self.seen.append(picture)
        return self.verdicts.pop(0) if self.verdicts else False

    def upload(self, content: bytes, suffix: str) -> str:
        """The URL of a file that a client has uploaded."""
        name = f"{secrets.token_hex(16)}.{suffix}"
        folder = self.settings.data / "uploads"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        return f"http://wavemock.test/uploads/{name}"

    def job(self, model: str, given: dict[str, Any], *makes: str, seed: int = 1, session: str = "") -> Job:
        name = secrets.token_hex(16)
        folder = folders_of(self.settings.data, session).work(name, 1)
        folder.mkdir(parents=True)
        return Job(
            id=name,
            session=session,
            model=model,
            given=given,
            seed=seed,
            makes=makes,
            folder=folder,
            attempt=1,
            created_at=0,
        )

    def pictures(
        self, model: str = DEV, *, seed: int = 1, count: int = 1, session: str = "", **given: Any
    ) -> tuple[Done, list[bytes]]:
        names = [f"{index}.png" for index in range(count)]
        job = self.job(model, {**PLAIN, **given}, *names, seed=seed, session=session)
        done = self.run(job, silent)
        return done, [(job.folder / name).read_bytes() for name in names]

    def picture(self, model: str = DEV, **given: Any) -> bytes:
        return self.pictures(model, **given)[1][0]

    def finished(self, name: str, content: bytes, *, attempt: int = 1, status: Status) -> str:
        """The URL of an output that a worker has kept; `status` is what its task has come to."""
        prediction = Prediction(
            id=secrets.token_hex(16),
            model=DEV,
            edition="current",
            version="v3",
            scenario="normal",
            created_at=1,
            makes=(name,),
            events=(Event(at=1, status=status, outputs=(name,) if status is Status.COMPLETED else ()),),
            job=True,
            attempt=attempt,
        )
        self.store.add(prediction, Asked(received="{}"), now=1)
        path = folders_of(self.settings.data, "").result(prediction.id, attempt, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return f"/outputs/{prediction.id}/{name}"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Iterator[Bench]:
    data = tmp_path_factory.mktemp("data")
    settings = WorkerSettings(store=f"sqlite:///{data}/store.db", data=data, device="cpu")
    with closing(SqlStore(settings.store)) as store, pytest.MonkeyPatch.context() as patch:
        made = Bench(settings=settings, store=store)
        patch.setattr(jobs, "checker_of", lambda _: made.check)
        made.run = jobs.make_runner(settings)
        yield made
        jobs._store(settings.store).close()
        jobs._store.cache_clear()


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def test_picture_k_is_to_the_bit_the_only_one_of_seed_plus_k(bench: Bench) -> None:
    _, several = bench.pictures(seed=7, count=3)
    assert len(set(several)) == 3
    assert several == [bench.picture(seed=seed) for seed in (7, 8, 9)]


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a blue square"},
        {"num_inference_steps": 2},
        {"guidance_scale": 8.0},
        {"seed": 2},
        {"model": SCHNELL},
    ],
    ids=str,
)
def test_a_field_changes_the_picture(bench: Bench, change: dict[str, Any]) -> None:
    assert bench.picture(**change) != bench.picture()


def test_schnell_ignores_the_guidance_scale(bench: Bench) -> None:
    assert bench.picture(SCHNELL, guidance_scale=8.0) == bench.picture(SCHNELL)


def test_a_picture_has_the_size_that_was_asked_for(bench: Bench) -> None:
    assert opened(bench.picture(size="520*600")).size == (520, 600)


def test_each_picture_has_the_flag_that_the_checker_gives_it(bench: Bench) -> None:
    bench.verdicts[:] = [True, False, False]
    bench.seen.clear()
    done, made = bench.pictures(count=3)
    assert done.nsfw == (True, False, False)
    assert [png(each) for each in bench.seen] == [png(opened(each)) for each in made]


def test_without_the_safety_checker_nobody_looks(bench: Bench) -> None:
    bench.seen.clear()
    bench.verdicts[:] = [True, True]
    done, _ = bench.pictures(count=2, enable_safety_checker=False)
    bench.verdicts.clear()
    assert done.nsfw == (False, False)
    assert bench.seen == []


def test_image_and_strength_reach_the_model(bench: Bench) -> None:
    teal = Image.new("RGB", (512, 512), (0, 120, 130))
    url = bench.upload(png(teal), "png")
    assert opened(bench.picture(image=url, strength=0)).tobytes() == teal.tobytes()
    near, far = (bench.picture(image=url, strength=strength, num_inference_steps=4) for strength in (0.3, 1))
    assert near != far


def test_the_black_half_of_a_mask_is_untouched_and_the_white_one_is_not(bench: Bench) -> None:
    teal = Image.new("RGB", (512, 512), (0, 120, 130))
    mask = Image.new("L", (512, 512), 0)
    mask.paste(255, (256, 0, 512, 512))
    made = opened(
        bench.picture(image=bench.upload(png(teal), "png"), mask_image=bench.upload(png(mask), "png"))
    )
    black, white = (0, 0, 256, 512), (256, 0, 512, 512)
    assert made.crop(black).tobytes() == teal.crop(black).tobytes()
    assert made.crop(white).tobytes() != teal.crop(white).tobytes()


def test_an_input_that_is_not_there_fails_the_job(bench: Bench) -> None:
    with pytest.raises(JobFailed, match="not_found: mask_image"):
        bench.picture(mask_image=f"/uploads/{'0' * 32}.png")


def test_a_model_that_nobody_knows_is_said(bench: Bench) -> None:
    with pytest.raises(JobFailed, match="model_unknown"):
        bench.picture("somebody/else")


def test_an_output_of_the_attempt_that_counts_is_an_input(bench: Bench) -> None:
    teal = png(Image.new("RGB", (512, 512), (0, 120, 130)))
    url = bench.finished("0.png", teal, attempt=2, status=Status.COMPLETED)
    assert opened(bench.picture(image=url, strength=0)).tobytes() == opened(teal).tobytes()


@pytest.mark.parametrize(("status", "session"), [(Status.PROCESSING, ""), (Status.COMPLETED, "other")])
def test_an_output_of_a_task_that_goes_on_or_of_another_session_is_none(
    bench: Bench, status: Status, session: str
) -> None:
    url = bench.finished("0.png", png(Image.new("RGB", (8, 8))), status=status)
    with pytest.raises(JobFailed, match="not_found: image"):
        bench.pictures(image=url, session=session)


COLOURS = ("red", "blue", "lime", "white")


def archive(**more: bytes) -> bytes:
    """Four pictures, and whatever else, by its name."""
    pictures = {f"{colour}.png": png(Image.new("RGB", (512, 512), colour)) for colour in COLOURS}
    return zipped(pictures | more)


def black() -> bytes:
    return png(Image.new("L", (512, 512), 0))


@dataclass
class Training:
    """What the trainer was asked to do."""

    examples: tuple[Example, ...] = ()
    recipe: Recipe | None = None
    remarks: tuple[str, ...] = ()

    def __call__(
        self, _pipe: object, examples: tuple[Example, ...], recipe: Recipe, *, to: Path, **_: object
    ) -> Trained:
        self.examples, self.recipe = examples, recipe
        to.write_bytes(b"")
        return Trained(steps=recipe.steps, loss=0.5, layers=1, seconds=0)


def asked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, content: bytes, model: str = BASE, **given: Any
) -> Training:
    """What a trainer is asked to do by such a request."""
    training = Training()
    monkeypatch.setattr(jobs, "train", training)
    url = bench.upload(content, "zip")
    plain = {**WITH_BASE, "images_data_url": url} if model == BASE else {**WITH_TURBO, "data": url}
    training.remarks = bench.run(bench.job(model, {**plain, **given}, "0.safetensors"), silent).remarks
    return training


def greys(training: Training) -> dict[str, int | None]:
    """Of each picture the grey of its mask, None where it has none."""
    return {
        each.name: None if each.mask is None else int(each.mask.resize((1, 1)).tobytes()[0])
        for each in training.examples
    }


def test_masks_are_made_where_none_were_given(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    training = asked(bench, monkeypatch, archive(**{"blue_mask.png": black()}))
    assert greys(training) == {"red.png": 255, "blue.png": 0, "lime.png": 255, "white.png": 255}
    assert [remark[:20] for remark in training.remarks[:-1]] == ["masks of 3 pictures:"]


@pytest.mark.parametrize("model", [BASE, TURBO])
def test_without_create_masks_there_are_none_and_given_ones_are_remarked_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    more = {"create_masks": False} if model == BASE else {}
    training = asked(bench, monkeypatch, archive(**{"blue_mask.png": black()}), model, **more)
    assert set(greys(training).values()) == {None}
    assert training.remarks[:-1] == ("masks of 1 pictures were not used, since create_masks is not on",)


def test_a_style_has_the_trigger_word_for_its_captions_and_no_masks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = archive(**{"blue.txt": b"a blue wall", "blue_mask.png": black()})
    training = asked(bench, monkeypatch, content, is_style=True, trigger_word="w4ll")
    assert set(greys(training).values()) == {None}
    assert {each.caption for each in training.examples} == {"w4ll"}


def test_a_preprocessed_archive_is_taken_as_it_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = {f"{k}.src.png": png(Image.new("RGB", (512, 512), COLOURS[k])) for k in range(4)}
    table = b"image_path,mask_path,caption\n" + b"".join(
        b"%d.src.png,,number %d\n" % (k, k) for k in range(4)
    )
    content = zipped({**pictures, "1.mask.png": black(), "captions.csv": table})
    training = asked(bench, monkeypatch, content, is_input_format_already_preprocessed=True)
    assert list(greys(training).values()) == [None, 0, None, None]
    assert [each.caption for each in training.examples] == [f"number {k}" for k in range(4)]


def test_an_archive_of_another_format_than_declared_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JobFailed, match="archive_format_mismatch"):
        asked(bench, monkeypatch, archive(), data_archive_format="tar")


def lora(bench: Bench, model: str, report: Report = silent, **given: Any) -> Path:
    """The file that a trainer makes of the four pictures."""
    name = "data" if model == TURBO else "images_data_url"
    plain = WITH_TURBO if model == TURBO else WITH_BASE
    job = bench.job(model, {**plain, name: bench.upload(archive(), "zip"), **given}, "0.safetensors", seed=5)
    bench.run(job, report)
    return job.folder / "0.safetensors"


@pytest.mark.parametrize(
    ("model", "given", "made"),
    [
        (BASE, {}, {"recipe": "base", "rank": "16", "learning_rate": "0.0004"}),
        (TURBO, {}, {"recipe": "turbo", "rank": "4", "learning_rate": "0.001"}),
        (BASE, {"lora_rank": 2, "learning_rate": 0.01}, {"rank": "2", "learning_rate": "0.01"}),
    ],
    ids=str,
)
def test_what_a_trainer_is_asked_for_is_in_the_file(
    bench: Bench, model: str, given: dict[str, Any], made: dict[str, str]
) -> None:
    steps: list[int] = []
    path = lora(
        bench,
        model,
        lambda stage, done, _: steps.append(done) if "train" in stage else None,
        steps=2,
        trigger_word="yarn",
        **given,
    )
    with safe_open(path, "pt") as file:
        about = file.metadata()
    assert made.items() <= about.items()
    assert (about["steps"], about["trigger_word"], about["seed"], about["examples"]) == (
        "2",
        "yarn",
        "5",
        "4",
    )
    assert steps == [1, 2]
    first = {each.shape[0] for name, each in load_file(path).items() if ".lora_A." in name}
    assert first == {int(made["rank"])}


def test_a_trained_lora_is_used_by_its_url_and_at_its_scale(bench: Bench) -> None:
    made = lora(bench, TURBO, learning_rate=0.05).read_bytes()
    url = bench.finished("0.safetensors", made, status=Status.COMPLETED)
    without, at_0, at_1, at_2 = (
        bench.picture(loras=loras)
        for loras in ([], *([{"path": url, "scale": scale}] for scale in (0, 1, 2)))
    )
    assert at_0 == without
    assert len({without, at_1, at_2}) == 3


def other_numbers(_folder: Path) -> dict[str, Any]:
    return {"dtype": "bf16"}


def other_weights(folder: Path) -> dict[str, Any]:
    """Weights in a folder of the same name."""
    copied = folder / "wavemock-tiny-dev"
    shutil.copytree(TINY / "dev", copied)
    path = copied / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["proj_out.weight"] = tensors["proj_out.weight"] * 1.5
    save_file(tensors, path, {"format": "pt"})
    return {"checkpoint": str(copied)}


@pytest.mark.parametrize("change", [other_numbers, other_weights])
def test_a_training_does_not_go_on_from_a_checkpoint_of_another_model(
    bench: Bench, tmp_path: Path, change: Any
) -> None:
    job = bench.job(
        TURBO, {**WITH_TURBO, "steps": 2, "data": bench.upload(archive(), "zip")}, "0.safetensors"
    )
    steps: list[int] = []

    def report(stage: str, done: int, _of: int, *, until: int = 2) -> None:
        if "train" in stage:
            steps.append(done)
            if done == until:
                raise Cancelled

    with pytest.raises(Cancelled):
        bench.run(job, partial(report, until=1))
    with pytest.raises(Cancelled):
        bench.run(job, report)
    assert steps == [1, 2]
    steps.clear()
    with pytest.raises(Cancelled):
        jobs.make_runner(replace(bench.settings, **change(tmp_path)))(job, report)
    assert steps == [1, 2]


def test_more_processes_than_gpus_are_said_at_the_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        "reference_backend.shelf.Shelf.flux", lambda *_: SimpleNamespace(device=torch.device("cuda:0"))
    )
    with pytest.raises(BadConfiguration, match="--processes: 2 asked for"):
        jobs.make_runner(replace(bench.settings, processes=2))
