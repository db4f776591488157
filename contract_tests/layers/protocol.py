"""How the target speaks: keys, paths, methods, media types, envelopes, the pages' own examples."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from contract_tests.case import Broken, Case, Unproven
from contract_tests.exchange import Headers, Request
from contract_tests.layers.bodies import expect, json_of, of_bodies, submit
from contract_tests.layers.boundary import REFUSALS
from contract_tests.layers.claims import Claim, case_of
from contract_tests.layers.outputs import is_url
from contract_tests.session import JSON, NOBODYS_KEY, Session, smallest
from contract_tests.table import Model

CURLS = Path(__file__).parent.parent / "curls.json"
_NOBODY = "00000000000000000000000000000000"
KeyCheck = Callable[[Headers, tuple[int, ...], Model, Session], None]


@cache
def curls() -> Mapping[str, Any]:
    """What the pages' curl commands send, by edition and model; `lacks` names required fields left out."""
    found: Mapping[str, Any] = json.loads(CURLS.read_text(encoding="utf-8"))
    return found


def cases(session: Session) -> Iterator[Case]:
    """Every case of every model, then those about polling."""
    for model in session.models:
        for claim in _of_submits(model):
            yield case_of(claim, model, layer="protocol")
    for version in sorted({model.version for model in session.models}):
        known = min(
            (each for each in session.models if each.version == version), key=lambda each: not each.documented
        )
        for claim in _of_polls():
            yield case_of(claim, known, layer="protocol", subject=f"{version}/predictions")


def _curl(model: Model, session: Session) -> None:
    example = curls()[f"{model.edition}/{model.name}"]
    session.require(model)
    if example["lacks"]:
        expect(session.post(model, example["body"], accepted=False), *REFUSALS)
    complete = {**example["body"], **{name: smallest(model)[name] for name in example["lacks"]}}
    expect(session.post(model, complete, accepted=True), 200)


def _without_key(headers: Headers, wanted: tuple[int, ...], model: Model, session: Session) -> None:
    expect(submit(model, session, keyed=False, headers=(JSON, *headers)), *wanted)


def _key_before_body(model: Model, session: Session) -> None:
    expect(submit(model, session, keyed=False, body=b"{"), 401)


def _wrong_method(method: str, model: Model, session: Session) -> None:
    session.require(model)
    exchange = session.send(Request(method=method, path=model.path))
    expect(exchange, 405)
    if "POST" not in exchange.header("allow"):
        raise Broken(f"405 with Allow: {exchange.header('allow') or 'nothing'}")


def _unknown_field(model: Model, session: Session) -> None:
    body = {**smallest(model), "a_field_that_no_page_shows": {"x": [1]}}
    expect(submit(model, session, body=json_of(body), paid=True), 200)


def _unknown_path(model: Model, session: Session) -> None:
    session.require(model)
    for path in (f"{model.path}x", f"{model.path}/x"):
        expect(session.send(Request(method="POST", path=path, headers=(JSON,), body=b"{}")), 404)


def _first_answer(model: Model, session: Session) -> None:
    exchange = submit(model, session, paid=True)
    expect(exchange, 200)
    data = exchange.data
    if data.get("model") != f"{model.vendor}/{model.name}":
        raise Broken(f"data.model is {data.get('model')!r}")
    if not isinstance(data.get("id"), str) or not data["id"]:
        raise Broken(f"data.id is {data.get('id')!r}")


def _not_at_once(model: Model, session: Session) -> None:
    if (status := session.submit(model).get("status")) not in {"created", "processing"}:
        raise Broken(f"data.status is {status!r} at once")


def _ids_differ(model: Model, session: Session) -> None:
    names = [session.submit(model).get("id") for _ in range(5)]
    if len(set(map(str, names))) != len(names):
        raise Broken(f"five tasks got the ids {names}")


def _poll_url(model: Model, session: Session) -> None:
    data = session.submit(model)
    urls = data.get("urls")
    url = str(urls.get("get") if isinstance(urls, dict) else None)
    if not is_url(url):
        raise Broken(f"urls.get is {url[:200]!r}, which is no address")
    found = session.follow(url)
    if found.data.get("id") != data.get("id"):
        raise Broken(f"urls.get is answered with HTTP {found.status} and the id {found.data.get('id')!r}")


def _no_key_for_result(headers: Headers, wanted: tuple[int, ...], model: Model, session: Session) -> None:
    name = session.submit(model).get("id")
    path = model.result.format(id=name)
    # No page shows the short address.
    for each in (path,) if len(wanted) > 1 else (path, path.removesuffix("/result")):
        expect(session.send(Request(method="GET", path=each, keyed=False, headers=headers)), *wanted)


def _with_key(model: Model, session: Session) -> None:
    exchange = submit(model, session, paid=True)
    if exchange.accepted:
        exchange = session.get(model.result.format(id=exchange.data.get("id")))
    if exchange.status in {401, 403}:
        raise Broken(f"the key is good elsewhere, and here answered with HTTP {exchange.status}")


def _wrong_key(model: Model, session: Session) -> None:
    if session.takes_any_key:
        raise Unproven("the target takes any key, as a server for tests may")
    _no_key_for_result((NOBODYS_KEY,), (401,), model, session)


def _unknown_id(model: Model, session: Session) -> None:
    random = session.random(f"ids {model.version}")
    names = [_NOBODY, f"{random.getrandbits(128):032x}", "nobody", "00000000-0000-4000-8000-000000000000"]
    for name in names:
        for path in (model.result, model.result.removesuffix("/result")):
            expect(session.get(path.format(id=name)), 404)


def _nearly_the_id(model: Model, session: Session) -> None:
    name = str(session.submit(model).get("id"))
    if not name:
        raise Broken("data.id: it is empty")
    others = {name[:-1], f"{name}0", f"{name[:-1]}{'1' if name[-1] == '0' else '0'}"}
    for other in sorted(others - session.watch.seen.keys() - {""}):
        exchange = session.get(model.result.format(id=other))
        if exchange.status != 404:
            raise Broken(f"the id {other}, which nobody was given, is answered with HTTP {exchange.status}")


def _poll_method(method: str, model: Model, session: Session) -> None:
    name = session.submit(model).get("id")
    exchange = session.send(Request(method=method, path=model.result.format(id=name)))
    expect(exchange, 405)


def _both_versions(model: Model, session: Session) -> None:
    data = session.submit(model)
    for version in ("v2", "v3"):
        for short in (False, True):
            found = session.poll(str(data.get("id")), version=version, short=short)
            if (found.get("id"), found.get("model")) != (data.get("id"), data.get("model")):
                raise Broken(f"{version} tells of {found.get('id')!r} by {found.get('model')!r}")


_KEYS: Mapping[str, Headers] = {
    "an empty key": (("Authorization", ""),),
    "Bearer without a key": (("Authorization", "Bearer"),),
    "another scheme": (("Authorization", "Basic a2V5OmtleQ=="),),
    "a key without a scheme": (("Authorization", "0123456789abcdef"),),
    "a key in another header": (("X-API-Key", "0123456789abcdef"),),
}


def _of_submits(model: Model) -> Iterator[Claim]:
    if f"{model.edition}/{model.name}" in curls():
        says = "the request that the page shows is accepted, once it is complete"
        yield Claim(label="the page's curl", rule="example", says=says, check=_curl)
    says = "a task begins as created, by the model that was asked"
    yield Claim(label="the first answer", rule="answer", says=says, check=_first_answer)
    says = "a task takes its time"
    yield Claim(label="the first status", rule="answer", says=says, check=_not_at_once, source="reading")
    yield Claim(label="ids", rule="ids", says="an id names one task", check=_ids_differ)
    says = "urls.get is where the result is"
    yield Claim(label="urls.get", rule="answer", says=says, check=_poll_url)
    says = "a task is the same one on both versions and at both addresses"
    yield Claim(label="both versions", rule="versions", says=says, check=_both_versions, source="reading")
    says = "fields that no page shows are let pass"
    yield Claim(
        label="an unknown field", rule="unknown field", says=says, check=_unknown_field, source="reading"
    )
    says = "there is nothing where no model is"
    yield Claim(label="an unknown path", rule="path", says=says, check=_unknown_path, source="reading")
    says = "without a key nothing else is looked at"
    yield Claim(label="the key goes first", rule="key", says=says, check=_key_before_body, source="reading")
    says = "a key that is good for anything is good for all"
    yield Claim(label="with the key", rule="key", says=says, check=_with_key)
    yield from _without_keys("a request needs a key", _without_key)
    yield from of_bodies(model)
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        check = partial(_wrong_method, method)
        yield Claim(
            label=f"by {method}",
            rule="method",
            says="a task is submitted by POST",
            check=check,
            source="reading",
        )


def _without_keys(says: str, check: KeyCheck) -> Iterator[Claim]:
    yield Claim(label="no key", rule="key", says=says, check=partial(check, (), (401, 403)))
    for label, headers in {"no key, to the letter": (), **_KEYS}.items():
        said = f"{says}, and is told so by HTTP 401"
        yield Claim(
            label=label, rule="key", says=said, check=partial(check, headers, (401,)), source="reading"
        )


def _of_polls() -> Iterator[Claim]:
    yield from _without_keys("a result needs a key", _no_key_for_result)
    says = "a key that nobody was given opens nothing"
    yield Claim(label="a wrong key", rule="key", says=says, check=_wrong_key, source="reading")
    says = "an id that nobody was given names nothing"
    yield Claim(label="an unknown id", rule="id", says=says, check=_unknown_id, source="reading")
    says = "an id names one task, and no other text does"
    yield Claim(label="nearly an id", rule="id", says=says, check=_nearly_the_id, source="reading")
    for method in ("POST", "PUT", "DELETE"):
        check = partial(_poll_method, method)
        yield Claim(
            label=f"by {method}", rule="method", says="a result is read by GET", check=check, source="reading"
        )
