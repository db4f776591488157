"""What the jobs of each model do, from the request's fields to the files of its outputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from mock_server.errors import BadConfiguration
from mock_server.sql_store import SqlStore
from reference_backend.dataset import Dataset, Example, read_dataset
from reference_backend.fetch import fetcher_for
from reference_backend.folders import folders_of
from reference_backend.generate import Request, encode, generate
from reference_backend.job import Done, Job, JobFailed, Report, Runner
from reference_backend.loras import applied
from reference_backend.masks import mask_of
from reference_backend.models import MODELS, Model
from reference_backend.pictures import read_mask, read_picture
from reference_backend.recipes import BASE, TURBO, Recipe
from reference_backend.safety import Checker, checker_of
from reference_backend.settings import WorkerSettings
from reference_backend.shelf import Shelf
from reference_backend.sources import Sources, fetch_archive, fetch_image, fetch_lora
from reference_backend.train import train
from reference_backend.training_parallel import check_processes

_RECIPES: Mapping[str, Recipe] = {"base": BASE, "turbo": TURBO}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shop:
    """What jobs work with."""

    settings: WorkerSettings
    shelf: Shelf
    sources: Sources
    checker: Checker | None


def make_runner(settings: WorkerSettings) -> Runner:
    """Does the jobs of every model in `MODELS`, with the weights that the settings name.

    Raises BadConfiguration where those, or the safety checker, cannot be had.
    """
    shop = _Shop(
        settings=settings,
        shelf=Shelf(settings),
        sources=Sources(
            data=settings.data,
            results=partial(_result, settings),
            fetcher=fetcher_for(settings.fetch_from),
            loras=settings.loras,
            hub=settings.hub,
        ),
        checker=checker_of(settings.safety),
    )
    # What cannot be loaded is said at the start, and not to the author of the first request.
    check_processes(shop.shelf.flux("dev").device, settings.processes)
    return partial(_run, shop)


def _run(shop: _Shop, job: Job, report: Report) -> Done:
    model = MODELS.get(job.model)
    if model is None:
        raise JobFailed("model_unknown", f"This worker does not know {job.model}.")
    try:
        return (_pictures if model.makes == "images" else _lora)(shop, model, job, report)
    except BadConfiguration as error:
        # The operator reads the rest in the log.
        raise JobFailed("model_unavailable", f"This worker cannot load {job.model}.") from error


def _pictures(shop: _Shop, model: Model, job: Job, report: Report) -> Done:
    flux = shop.shelf.flux(model.base)
    first = _request(shop, job, report)
    flags = []
    with applied(flux, _loras(shop, job, report)) as remarks:
        for index, name in enumerate(job.makes):
            stage = f"picture {index + 1} of {len(job.makes)}"

            def told(_stage: str, done: int, of: int, stage: str = stage) -> None:
                report(stage, done, of)

            # One by one: a picture is the same to the bit as the only one of its seed.
            picture = generate(flux, replace(first, seed=first.seed + index), told)
            (job.folder / name).write_bytes(encode(picture, name.rpartition(".")[2]))
            flags.append(_is_unsafe(shop, job, picture))
    return Done(nsfw=tuple(flags), remarks=remarks)


def _request(shop: _Shop, job: Job, report: Report) -> Request:
    """The first of the pictures that are asked for."""
    given = job.given
    fetch = partial(_fetch_picture, shop, job, report)
    width, _, height = given["size"].partition("*")
    return Request(
        prompt=given["prompt"],
        image=fetch("image", read_picture),
        mask=fetch("mask_image", read_mask),
        strength=given["strength"],
        width=int(width),
        height=int(height),
        steps=given["num_inference_steps"],
        guidance=given["guidance_scale"],
        seed=job.seed,
    )


def _fetch_picture(
    shop: _Shop, job: Job, report: Report, name: str, read: Callable[..., Image.Image]
) -> Image.Image | None:
    text = job.given.get(name) or ""
    content = fetch_image(shop.sources, text, session=job.session, what=name, report=report)
    return None if content is None else read(content, what=name)


def _loras(shop: _Shop, job: Job, report: Report) -> list[tuple[Path, float]]:
    found = []
    for index, lora in enumerate(job.given.get("loras") or ()):
        path = fetch_lora(
            shop.sources,
            lora["path"],
            session=job.session,
            what=f"loras[{index}]",
            folder=job.folder,
            report=report,
        )
        if path is not None:
            found.append((path, float(lora["scale"])))
    return found


def _is_unsafe(shop: _Shop, job: Job, picture: Image.Image) -> bool:
    wanted = bool(job.given.get("enable_safety_checker"))
    return wanted and shop.checker is not None and shop.checker(picture)


def _lora(shop: _Shop, model: Model, job: Job, report: Report) -> Done:
    dataset, remarks = _dataset(shop, job, report)
    checkpoints = folders_of(shop.settings.data, job.session).training(job.id)
    checkpoints.mkdir(parents=True, exist_ok=True)
    [name] = job.makes
    trained = train(
        shop.shelf.flux(model.base).pipe,
        dataset.examples,
        _recipe(model, job.given),
        seed=job.seed,
        checkpoints=checkpoints,
        to=job.folder / name,
        base=shop.shelf.name(model.base),
        trigger_word=str(job.given.get("trigger_word") or ""),
        report=report,
        processes=shop.settings.processes,
    )
    told = f"trained {trained.layers} layers in {trained.seconds:.0f} s, to a loss of {trained.loss:.3f}"
    return Done(nsfw=(False,), remarks=(*dataset.remarks, *remarks, told))


def _recipe(model: Model, given: Mapping[str, Any]) -> Recipe:
    """The model's recipe with what the request says; not every trainer has every field."""
    recipe = _RECIPES[model.recipe]
    return replace(
        recipe,
        steps=given["steps"],
        learning_rate=float(given.get("learning_rate", recipe.learning_rate)),
        rank=given.get("lora_rank", recipe.rank),
    )


def _dataset(shop: _Shop, job: Job, report: Report) -> tuple[Dataset, tuple[str, ...]]:
    """What to train with, and remarks on the masks that were made."""
    given = job.given
    field = "images_data_url" if "images_data_url" in given else "data"
    is_style = bool(given.get("is_style"))
    archive = fetch_archive(
        shop.sources, given[field], session=job.session, what=field, folder=job.folder, report=report
    )
    dataset = read_dataset(
        archive,
        trigger_word=given.get("trigger_word"),
        is_style=is_style,
        preprocessed=bool(given.get("is_input_format_already_preprocessed")),
        declared_format=given.get("data_archive_format"),
        report=report,
    )
    if not given.get("create_masks"):
        return _unmasked(dataset)
    if is_style or given.get("is_input_format_already_preprocessed"):
        return dataset, ()
    return _masked(dataset, report)


def _unmasked(dataset: Dataset) -> tuple[Dataset, tuple[str, ...]]:
    """The dataset without masks."""
    count = sum(example.mask is not None for example in dataset.examples)
    plain = tuple(replace(example, mask=None) for example in dataset.examples)
    remarks = (f"masks of {count} pictures were not used, since create_masks is not on",) if count else ()
    return replace(dataset, examples=plain), remarks


def _masked(dataset: Dataset, report: Report) -> tuple[Dataset, tuple[str, ...]]:
    """The dataset with a mask for every picture that has none."""
    examples: list[Example] = []
    ways: dict[str, int] = {}
    for number, example in enumerate(dataset.examples):
        report("looking for faces", number, len(dataset.examples))
        if example.mask is None:
            mask, how = mask_of(example.picture)
            ways[how] = ways.get(how, 0) + 1
            example = replace(example, mask=mask)  # noqa: PLW2901 - the same with its mask
        examples.append(example)
    remarks = tuple(f"masks of {count} pictures: {how}" for how, count in ways.items())
    return replace(dataset, examples=tuple(examples)), remarks


@cache
def _store(url: str) -> SqlStore:
    return SqlStore(url)


def _result(settings: WorkerSettings, session: str, prediction_id: str, name: str) -> Path | None:
    """The file of an output that a worker has made, if its prediction has come to that."""
    store = _store(settings.store)
    if session and session not in store.sessions():
        return None
    prediction = store.session(session).get(prediction_id)
    if prediction is None or not prediction.job or name not in prediction.events[-1].outputs:
        return None
    return folders_of(settings.data, session).result(prediction_id, prediction.attempt, name)
