"""Servers that keep what the pages say in ways of their own are accused of nothing, and no task is begun."""

import json
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import pytest

from conftest import MakeClient
from contract_tests.case import Report
from contract_tests.run import Options, verify

SCHNELL = ("flux-schnell-lora",)
Answer = tuple[int, Any]
Change = Callable[[str, str, int, Any], Answer]


def answering(app: Any, change: Change, *, path_of: Callable[[str], str] = str) -> Any:
    """The application with its JSON answers changed: method, path, status and body give status and body."""

    async def around(scope: dict[str, Any], receive: Any, send: Any) -> None:
        kept: list[dict[str, Any]] = []

        async def keep(message: dict[str, Any]) -> None:
            kept.append(message)

        inner = path_of(scope["path"])
        await app({**scope, "path": inner, "raw_path": inner.encode()}, receive, keep)
        body = b"".join(each.get("body", b"") for each in kept[1:])
        kind = dict(kept[0]["headers"]).get(b"content-type")
        status = kept[0]["status"]
        if kind == b"application/json" and not scope["path"].startswith("/_mock/"):
            status, changed = change(scope["method"], scope["path"], status, json.loads(body or b"null"))
            body = json.dumps(changed).encode()
        headers = [(name, value) for name, value in kept[0]["headers"] if name != b"content-length"]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return around


def plain_errors(_method: str, _path: str, status: int, body: Any) -> Answer:
    """Errors as another framework writes them."""
    if status in {400, 413, 415}:
        return 422, {"detail": [{"msg": "value error"}]}
    return (status, {"detail": "not so"}) if status > 400 else (status, body)


def forbidding(_method: str, _path: str, status: int, body: Any) -> Answer:
    return (403, {**body, "code": 403}) if status == 401 else (status, body)


def more_to_tell(_method: str, _path: str, status: int, body: Any) -> Answer:
    if status != 200:
        return status, body
    return status, {**body, "request_id": "7", "data": {**body["data"], "input": {"prompt": "x"}}}


def one_address(_method: str, path: str, status: int, body: Any) -> Answer:
    """Results are where the page shows them alone."""
    if "/predictions/" in path and not path.endswith("/result"):
        return 404, {"code": 404, "message": "not found"}
    return status, body


def signing() -> Change:
    """Outputs lie behind long signatures that are made anew every time."""
    numbers = count()

    def sign(_method: str, _path: str, status: int, body: Any) -> Answer:
        if status == 200:
            more = f"?signature={next(numbers):0600}"
            outputs = [each + more if each.startswith("http") else each for each in body["data"]["outputs"]]
            body = {**body, "data": {**body["data"], "outputs": outputs}}
        return status, body

    return sign


def often_failing(_method: str, path: str, status: int, body: Any) -> Answer:
    """Some tasks fail, as tasks do."""
    data = body.get("data", {}) if status == 200 else {}
    if data.get("status") == "completed" and int(data["id"][0], 16) < 5:
        failed = {"status": "failed", "error": "no room", "outputs": [], "has_nsfw_contents": []}
        return status, {**body, "data": {**data, **failed}}
    return status, body


FAIR: Mapping[str, Callable[[], Change]] = {
    "errors of another form": lambda: plain_errors,
    "403 instead of 401": lambda: forbidding,
    "more fields than the page": lambda: more_to_tell,
    "no short address": lambda: one_address,
    "signed outputs": signing,
    "tasks that fail": lambda: often_failing,
}


def complaints(report: Report) -> list[str]:
    return [f"{each.case.id}: {each.message}" for each in report.of("refuted")]


@pytest.mark.parametrize("name", FAIR)
def test_a_server_that_keeps_the_pages_in_its_own_way_is_accused_of_nothing(
    make_client: MakeClient, name: str
) -> None:
    app = answering(make_client(seed=1).app, FAIR[name]())
    report = verify(Options(app=app, only=SCHNELL, pages_only=True))
    assert (complaints(report), report.exit_code) == ([], 0)


def test_ids_that_are_numbers_are_fine(make_client: MakeClient) -> None:
    known: dict[str, str] = {}

    def numbered(_method: str, _path: str, status: int, body: Any) -> Answer:
        data = body.get("data") if status == 200 else None
        if not data:
            return status, body
        number = next((key for key, value in known.items() if value == data["id"]), str(len(known) + 1))
        known[number] = data["id"]
        urls = {"get": data["urls"]["get"].replace(data["id"], number)}
        return status, {**body, "data": {**data, "id": number, "urls": urls}}

    def path_of(path: str) -> str:
        parts = path.split("/")
        return "/".join(known.get(part, part) if parts[-3:-2] != ["api"] else part for part in parts)

    app = answering(make_client(seed=1).app, numbered, path_of=path_of)
    layers = ("protocol", "lifecycle", "machine", "judges")
    assert complaints(verify(Options(app=app, only=("v3/flux-schnell-lora",), layers=layers))) == []


def test_a_server_without_a_control_plane_is_judged_by_what_it_shows(make_client: MakeClient) -> None:
    client = make_client(seed=1, scenario="instant")

    async def closed(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["path"].startswith("/_mock/"):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await client.app(scope, receive, send)

    report = verify(Options(app=closed, only=("v3/flux-schnell-lora",), layers=("defaults", "lifecycle")))
    assert complaints(report) == []
    assert "v3/flux-schnell-lora size size of outputs, unless given" in {
        each.case.id for each in report.of("proven")
    }


def lenient(status: int, code: int) -> Change:
    """Takes everything, and says so in its own way."""

    def take(method: str, path: str, was: int, body: Any) -> Answer:
        if method == "POST" and was == 400:
            return status, {"code": code, "message": "success", "data": {}}
        return was, body

    return take


@pytest.mark.parametrize(("status", "code"), [(200, 200), (201, 201), (200, 0), (202, 200)])
def test_without_a_budget_a_server_that_takes_everything_begins_one_task(
    make_client: MakeClient, status: int, code: int
) -> None:
    begun = []

    def counted(method: str, path: str, was: int, body: Any) -> Answer:
        answer = lenient(status, code)(method, path, was, body)
        if method == "POST" and answer[0] < 300:
            begun.append(path)
        return answer

    verify(Options(app=answering(make_client().app, counted), only=SCHNELL, budget=0))
    assert len(begun) == 1


def test_a_refused_good_request_is_told_of_where_it_belongs(make_client: MakeClient) -> None:
    def refusing(method: str, path: str, status: int, body: Any) -> Answer:
        return (400, {"code": 400, "message": "no"}) if method == "POST" and status == 200 else (status, body)

    app = answering(make_client().app, refusing)
    report = verify(Options(app=app, only=("v3/flux-schnell-lora",), layers=("protocol", "lifecycle")))
    assert {each.case.rule for each in report.of("refuted")} <= {
        "example",
        "answer",
        "unknown field",
        "media type",
    }
