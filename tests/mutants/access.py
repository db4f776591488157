"""Keys that are not looked at, looked at too late, or not believed."""

from collections.abc import Callable, Iterator
from typing import Any

from .client import MODEL, Client, path_of
from .mutant import Mutant, either, message, rule
from .server import Answer, Ask, Between, Request, refusal
from .wrapped import Where, asked, on, refused, results, shortly, submits, tasks, wrapped

_ABOUT = either(rule("key"), message("*without a key*", "*ignored_auth*", "*refuses the key*"))
_GOOD = b"Bearer key"
_UNKNOWN = "The key is not known."


def mutants() -> Iterator[Mutant]:
    places: dict[str, Where] = {
        "on submits": submits,
        "on results": results,
        "on v2": on("v2", tasks),
        "on v3 results": on("v3", results),
        "on v2 submits": on("v2", submits),
        "at the short address": shortly,
        "anywhere": tasks,
        "for the turbo trainer": lambda request: request.model.endswith("-turbo"),
    }
    for name, where in places.items():
        yield _mutant(
            f"no key is needed {name}",
            asked(_keyless(where), _let_in),
        )
    believed: dict[str, Callable[[Request], bool]] = {
        "an empty header is a key": lambda each: _key(each) == b"" and _has(each, b"authorization"),
        "Bearer without a key will do": lambda each: _key(each).strip().lower() == b"bearer",
        "another scheme will do": lambda each: _key(each).lower().startswith((b"basic ", b"digest ")),
        "any word is a key": lambda each: bool(_key(each)) and b" " not in _key(each).strip(),
        "X-API-Key is a key": lambda each: _has(each, b"x-api-key"),
    }
    for name, where in believed.items():
        yield _mutant(name, asked(where, _let_in))
    yield _mutant("the key is looked at after the body", _late)
    yield _mutant("no key is good for results", refused(results, 401, _UNKNOWN))
    yield _mutant("no key is good on v2", refused(on("v2", tasks), 401, _UNKNOWN))
    yield _mutant("without a key, 200 with the code 401", _politely)


def _keyless(where: Where) -> Where:
    return lambda request: where(request) and not _key(request)


def _mutant(name: str, handler: Callable[[], Between]) -> Mutant:
    return wrapped(name, "key", _ABOUT, handler, _doors)


def _key(request: Request) -> bytes:
    return request.header(b"authorization")


def _has(request: Request, name: bytes) -> bool:
    return any(key == name for key, _ in request.scope["headers"])


def _let_in(request: Request) -> Request:
    return request.with_header(b"authorization", _GOOD)


def _late() -> Between:
    async def handler(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if answer.status != 401 or not submits(request):
            return answer
        # A task that this begins has an id that nobody hears of.
        checked = await ask(_let_in(request))
        return answer if checked.status == 200 else checked

    return handler


def _politely() -> Between:
    async def handler(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        return refusal(200).with_json({**answer.json, "code": 401}) if answer.status == 401 else answer

    return handler


def _doors(client: Client) -> list[Any]:
    """What every door answers to every kind of key."""
    name = client.submit("v2/flux-schnell-lora").get("id") or client.submit().get("id")
    paths = [
        f"/api/{version}/predictions/{name}{rest}" for version in ("v2", "v3") for rest in ("/result", "")
    ]
    keys: tuple[dict[str, str], ...] = (
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic a2V5OmtleQ=="},
        {"Authorization": "key"},
        {"X-API-Key": "key"},
        {"Authorization": "Bearer key"},
    )
    found = []
    for headers in keys:
        found += [_said(client.ask("GET", path, keyed=False, headers=headers)) for path in paths]
        for model in ("v2/flux-dev-lora", MODEL, "v3/flux-dev-lora-trainer-turbo"):
            body = {"prompt": "x", "data": "x"}
            found.append(_said(client.ask("POST", path_of(model), keyed=False, headers=headers, json=body)))
        found.append(_said(client.ask("POST", path_of(MODEL), keyed=False, headers=headers, json=[])))
    return found


def _said(answer: Any) -> tuple[int, Any]:
    return answer.status_code, answer.json().get("code")
