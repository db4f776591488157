"""Paths that lead elsewhere, methods that mean something else, editions at the wrong place."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from .client import Client, data, path_of, smallest
from .contracts import CHANGED
from .mutant import About, Mutant, Schema, either, field, message, rule
from .server import Answer, Ask, Between, Request, changed, contracts_of, real, refusal
from .wrapped import Where, asked, on, refused, results, submits, wrapped

_NOTHING = "There is nothing here."
_MODEL = either(field("data.model"), message("*data.model*"), rule("stays"))
_METHOD = either(rule("method", "by *"), message("*unsupported_method*", "*405*"))
_ID = either(rule("id", "life"), field("data.id"), message("*which nobody was given*", "*unknown*"))


def mutants() -> Iterator[Mutant]:
    yield from _swapped()
    yield from _gone()
    yield from _editions()
    yield from _methods()
    yield from _too_much()


def _of(*models: str) -> About:
    """Any finding about one of the models: a server that does something else there is wrong in all."""
    return lambda finding: finding.case.model in models


def _to(*models: str) -> Where:
    return lambda request: request.model in models


def _swapped() -> Iterator[Mutant]:
    pairs = (("flux-dev-lora", "flux-schnell-lora"), ("flux-dev-lora-trainer", "flux-dev-lora-trainer-turbo"))
    for first, second in pairs:
        known = tuple(f"{version}/{name}" for version in ("v2", "v3") for name in (first, second))
        yield wrapped(
            f"{first} and {second} are swapped",
            "paths swapped",
            either(_MODEL, _of(*known)),
            asked(_to(*known), partial(_elsewhere, {first: second, second: first})),
            partial(_who_answers, f"v3/{first}"),
        )
    for old, new in (
        ("v3/flux-dev-lora-trainer-turbo", "flux-dev-lora-trainer"),
        ("v2/flux-dev-lora", "flux-schnell-lora"),
    ):
        yield wrapped(
            f"{old} leads to {new}",
            "paths swapped",
            either(_MODEL, _of(old)),
            asked(_to(old), partial(_elsewhere, {old.partition("/")[2]: new})),
            partial(_who_answers, old),
        )


def _elsewhere(other: dict[str, str], request: Request) -> Request:
    version, _, name = request.model.partition("/")
    return request.with_path(path_of(f"{version}/{other[name]}"))


def _who_answers(model: str, client: Client) -> Any:
    return data(client.post({"prompt": "x", "data": "x", "images_data_url": "x"}, model)).get("model")


def _gone() -> Iterator[Mutant]:
    for model, contract in contracts_of().items():
        if contract.documented:
            yield wrapped(
                f"there is no {model}",
                "nothing there",
                _of(model),
                refused(_to(model), 404, _NOTHING),
                partial(Client.status, model=model),
            )
    for version in ("v2", "v3"):
        yield wrapped(
            f"there are no results on {version}",
            "nothing there",
            either(rule("life", "lost", "versions", "answer"), message("*404*")),
            refused(on(version, results), 404, _NOTHING),
            partial(_is_found, version),
        )


def _is_found(version: str, client: Client) -> bool:
    return bool(client.poll(client.submit()["id"], version=version))


_OLDER = (
    "prompt",
    "strength",
    "guidance_scale",
    "loras[].scale",
    "mask_image",
    "enable_base64_output",
    "image",
)


def _editions() -> Iterator[Mutant]:
    yield Mutant(
        name="the older edition stands at the root",
        family="editions mixed up",
        about=field(*_OLDER),
        make=lambda data: real(data, "flux-lora"),
        shows=_older,
    )
    yield Mutant(
        name="the current edition stands where the older one ought to",
        family="editions mixed up",
        about=field(*_OLDER),
        make=lambda data: real(data, "current"),
        shows=_older,
        edition="flux-lora",
    )
    for model in ("v2/flux-dev-lora", "v3/flux-schnell-lora"):
        yield _of_the_older(model)


def _older(client: Client) -> list[int]:
    return [client.post({}, model).status_code for model in ("v2/flux-dev-lora", "v2/flux-dev-lora-trainer")]


def _of_the_older(model: str) -> Mutant:
    name = f"{model} is as in the older edition"
    schema = contracts_of("flux-lora")[model].schema

    def change(found: Schema) -> None:
        found.clear()
        found.update(schema)

    CHANGED[name] = ((model,), change, "current")

    def make(data: Path) -> ASGIApp:
        return real(data, "current", changed((model,), change))

    return Mutant(
        name=name,
        family="editions mixed up",
        about=field(*_OLDER, models=(model,)),
        make=make,
        shows=lambda client: [client.input(model).get("strength")],
        models=(model,),
    )


def _methods() -> Iterator[Mutant]:
    for method, other, where in (
        ("PUT", "POST", "submit"),
        ("PATCH", "POST", "submit"),
        ("POST", "GET", "result"),
        ("PUT", "GET", "result"),
    ):
        kind = "predictions" if where == "result" else "wavespeed-ai"
        yield wrapped(
            f"{method} is as good as {other} for a {where}",
            "method",
            _METHOD,
            _taken_for(method, other, f"/{kind}/"),
            _asked_otherwise,
        )
    for method, where in (("DELETE", "result"), ("GET", "submit"), ("DELETE", "submit")):
        kind = "predictions" if where == "result" else "wavespeed-ai"
        yield wrapped(
            f"{method} is answered with an empty success for a {where}",
            "method",
            _METHOD,
            _succeeding(method, f"/{kind}/"),
            _asked_otherwise,
        )
    yield wrapped(
        "405 does not say what is allowed", "method", _METHOD, _silent_about_methods, _asked_otherwise
    )


def _taken_for(method: str, other: str, part: str) -> Callable[[], Between]:
    return asked(
        lambda request: request.method == method and part in request.path,
        lambda request: request.with_method(other),
    )


def _succeeding(method: str, part: str) -> Callable[[], Between]:
    async def handler(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if request.method != method or part not in request.path or answer.status != 405:
            return answer
        return refusal(200).with_json({"code": 200, "message": "success", "data": {}})

    return lambda: handler


def _silent_about_methods() -> Between:
    async def handler(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if answer.status != 405:
            return answer
        return Answer(
            status=405,
            headers=tuple(each for each in answer.headers if each[0] != b"allow"),
            body=answer.body,
        )

    return handler


def _asked_otherwise(client: Client) -> list[Any]:
    name = client.submit()["id"]
    paths = (path_of("v3/flux-schnell-lora"), f"/api/v3/predictions/{name}/result")
    answers = [
        client.ask(method, path, json={"prompt": "x"})
        for path in paths
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
    ]
    return [(each.status_code, each.headers.get("allow")) for each in answers]


def _too_much() -> Iterator[Mutant]:
    """Paths and ids that are understood although nobody was told of them."""

    def shortened(request: Request) -> Request:
        # The longest name first, since one model's name begins with another's.
        for model in sorted(contracts_of(), key=len, reverse=True):
            if request.path.startswith(path_of(model)):
                return request.with_path(path_of(model))
        return request

    paths = either(rule("path"), message("*unknown path*"))
    yield wrapped(
        "whatever begins with a model's path is that model",
        "too much understood",
        paths,
        asked(lambda request: request.method == "POST", shortened),
        _nearby,
    )
    yield wrapped(
        "an unknown model is the schnell one",
        "too much understood",
        paths,
        asked(
            lambda request: submits(request) and request.model not in contracts_of(),
            lambda request: request.with_path(path_of("v3/flux-schnell-lora")),
        ),
        _nearby,
    )
    ids: dict[str, Callable[[str, str], bool]] = {
        "the beginning of an id is enough": lambda name, known: len(name) > 7 and known.startswith(name),
        "what stands behind an id is not looked at": lambda name, known: name.startswith(known),
        "the last digit of an id is not looked at": lambda name, known: (
            len(name) == 32 and name[:31] == known[:31]
        ),
    }
    for name, same in ids.items():
        yield wrapped(name, "too much understood", _ID, _nearly(same), _nearly_ids)


def _nearly(same: Callable[[str, str], bool]) -> Callable[[], Between]:
    """Finds a task by an id that is nearly its own."""

    def fresh() -> Between:
        known: list[str] = []

        async def handler(request: Request, ask: Ask) -> Answer:
            if request.task and request.task not in known:
                for name in known:
                    if same(request.task, name):
                        return await ask(request.with_path(request.path.replace(request.task, name)))
            answer = await ask(request)
            if submits(request) and answer.data:
                known.append(answer.data["id"])
            return answer

        return handler

    return fresh


def _nearby(client: Client) -> list[int]:
    body = smallest("v3/flux-schnell-lora")
    names = ("v3/flux-schnell-lorax", "v3/flux-schnell-lora/x", "v3/flux-none")
    return [client.post(body, name).status_code for name in names]


def _nearly_ids(client: Client) -> list[int]:
    name = client.submit()["id"]
    last = "1" if name[-1] == "0" else "0"
    others = (name[:-1], f"{name}0", f"{name[:-1]}{last}")
    return [client.ask("GET", f"/api/v3/predictions/{other}/result").status_code for other in others]
