"""Which scenario a submit gets: four ways to say it, magic inputs, and what the server was told."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Scope

from mock_server.auth import bearer_key
from mock_server.body import header
from mock_server.catalog import Contract
from mock_server.desk import Desk
from mock_server.errors import Refusal
from mock_server.scenarios import Scenario
from mock_server.scripts import magic_in, read_scenario

HEADER = "X-Mock-Scenario"
QUERY = "__scenario"
KEY = b"mk_"
"""What an API key begins with that chooses a scenario."""
STANDING = "scenario"
"""The kind of the notes that hold what the server was told, by model."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario for submits to come that name none; `times` is for how many, None for all."""

    scenario: str
    times: int | None = None


_decode = msgspec.json.Decoder(Standing).decode
_encode = msgspec.json.encode


def choose(desk: Desk, contract: Contract, scope: Scope, given: Mapping[str, Any]) -> Scenario:
    """The scenario for a submit: that of its header, its query, its key, its input, or of the server.

    Raises Refusal 400 for one that cannot be read or that the contract does not allow.
    """
    base = read_scenario(desk.scenario, what="--scenario")
    text, what = _said(scope) or (desk.magic and _magic(given)) or _told(desk, contract.model) or ("", "")
    scenario = read_scenario(text, what=what, base=base) if text else base
    if text and scenario.nsfw and contract.produces != "images":
        raise Refusal(400, f"{what}: nsfw: what {contract.model} makes is not looked at by a safety checker.")
    return scenario


def _said(scope: Scope) -> tuple[str, str] | None:
    text = header(scope, HEADER.lower().encode()).decode("latin-1").strip()
    if text:
        return text, HEADER
    query: bytes = scope["query_string"]
    if QUERY.encode() in query:
        text = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)).get(QUERY, "").strip()
        if text:
            return text, QUERY
    key = bearer_key(scope)
    if key.startswith(KEY) and (text := key.removeprefix(KEY).decode("latin-1").strip()):
        return text, "the API key"
    return None


def _magic(given: Mapping[str, Any]) -> tuple[str, str] | None:
    return magic_in((given.get("prompt"), given.get("trigger_word")), given.get("seed"))


def _told(desk: Desk, model: str) -> tuple[str, str] | None:
    for key in (model, ""):
        if desk.store.note(STANDING, key) is None:
            continue
        found: list[Standing] = []

        def take(note: bytes | None, found: list[Standing] = found) -> bytes | None:
            if note is None:
                return None
            standing = _decode(note)
            found.append(standing)
            if standing.times is None:
                return note
            left = Standing(scenario=standing.scenario, times=standing.times - 1)
            return _encode(left) if left.times else None

        desk.store.change_note(STANDING, key, take)
        if found:
            return found[0].scenario, "POST /_mock/scenario"
    return None


def stand(desk: Desk, *, scenario: str, model: str = "", times: int | None = None) -> None:
    """Sets the scenario of submits to come, of one model or, with an empty name, of all others.

    Raises Refusal 400 for a text that cannot be read.
    """
    read_scenario(scenario, what="scenario", base=read_scenario(desk.scenario, what="--scenario"))
    note = _encode(Standing(scenario=scenario, times=times))
    desk.store.change_note(STANDING, model, lambda _: note)


def standing(desk: Desk) -> dict[str, Standing]:
    """What has been set, by model."""
    return {model: _decode(value) for model, value in desk.store.notes(STANDING)}


def stand_down(desk: Desk) -> None:
    """Takes back all of it."""
    for model, _ in desk.store.notes(STANDING):
        desk.store.change_note(STANDING, model, lambda _: None)
