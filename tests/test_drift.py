"""Drift: each change of a contract is told once, and what was seen is held against what is documented."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import wavespeed
from test_proxy import StartProxy, prediction, start

from conftest import StartServer
from contract_tests import drift, recording
from contract_tests.changes import Change, between, picture
from contract_tests.document import bundled, read_document
from contract_tests.drift import BadSource, Drift
from contract_tests.exchange import Exchange, Request
from contract_tests.recording import Entry

__all__ = ["start"]
PATH = "/api/v3/wavespeed-ai/flux-dev-lora"
OPERATION = f"POST {PATH}"
POLL = "GET /api/v3/predictions/{id}/result"


@cache
def text_of_one_operation() -> str:
    document = read_document("current")
    return json.dumps({**document, "paths": {PATH: document["paths"][PATH]}})


def one_operation() -> dict[str, Any]:
    """A document of one operation, of which nothing is shared between two places."""
    document: dict[str, Any] = json.loads(text_of_one_operation())
    return document


def operation(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["paths"][PATH]["post"]
    return found


def schema(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = operation(document)["requestBody"]["content"]["application/json"]["schema"]
    return found


def sent(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = schema(document)["properties"][name]
    return found


def lora(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = sent(document, "loras")["items"]
    return found


def envelope(document: dict[str, Any], status: str = "200") -> dict[str, Any]:
    found: dict[str, Any] = operation(document)["responses"][status]["content"]["application/json"]["schema"]
    return found


def data(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = envelope(document)["properties"]["data"]
    return found


def status(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = data(document)["properties"]["status"]
    return found


NEW = {"type": "string"}
ON = {"type": "boolean", "default": True}
SEED = {"type": "integer", "default": 0}
Mutation = Callable[[dict[str, Any]], Any]
PATTERN = json.dumps(sent(one_operation(), "size")["pattern"])
SIZES = '{"maximum": 1536, "minimum": 512}'
STATES = '["created", "processing", "completed", "failed"]'
MUTATIONS: list[tuple[Mutation, tuple[str, str, str, str, bool]]] = [
    (lambda d: schema(d).update(required=[]), ("prompt", "required", "true", "false", False)),
    (lambda d: schema(d)["required"].append("size"), ("size", "required", "false", "true", True)),
    (lambda d: sent(d, "strength").update(default=0.5), ("strength", "default", "0.8", "0.5", True)),
    (lambda d: sent(d, "strength").pop("default"), ("strength", "default", "0.8", "", True)),
    (lambda d: sent(d, "image").update(default=""), ("image", "default", "", '""', True)),
    (lambda d: sent(d, "seed").update(minimum=0), ("seed", "minimum", "-1", "0", True)),
    (lambda d: sent(d, "seed").update(minimum=-2), ("seed", "minimum", "-1", "-2", False)),
    (lambda d: sent(d, "seed").pop("minimum"), ("seed", "minimum", "-1", "", False)),
    (lambda d: sent(d, "num_images").update(maximum=3), ("num_images", "maximum", "4", "3", True)),
    (lambda d: sent(d, "num_images").update(maximum=9), ("num_images", "maximum", "4", "9", False)),
    (lambda d: sent(d, "image").update(maxLength=9), ("image", "maxLength", "", "9", True)),
    (
        lambda d: sent(d, "strength").update(exclusiveMaximum=True),
        ("strength", "exclusiveMaximum", "", "true", True),
    ),
    (lambda d: sent(d, "seed").update(multipleOf=2), ("seed", "multipleOf", "", "2", True)),
    (lambda d: sent(d, "seed").update(format="int32"), ("seed", "format", '"int64"', '"int32"', True)),
    (lambda d: sent(d, "seed").update(type="number"), ("seed", "type", '"integer"', '"number"', False)),
    (
        lambda d: lora(d)["properties"]["scale"].update(type="integer"),
        ("loras[].scale", "type", '"number"', '"integer"', True),
    ),
    (lambda d: lora(d)["required"].remove("scale"), ("loras[].scale", "required", "true", "false", False)),
    (lambda d: lora(d)["properties"].update(more=NEW), ("loras[].more", "field", "", '"string"', False)),
    (lambda d: sent(d, "loras").update(maxItems=4), ("loras", "maxItems", "5", "4", True)),
    (lambda d: sent(d, "size").update(pattern="x"), ("size", "pattern", PATTERN, '"x"', True)),
    (
        lambda d: sent(d, "size").update({"x-dimensions": {"minimum": 512, "maximum": 1024}, "pattern": "x"}),
        ("size", "x-dimensions", SIZES, '{"maximum": 1024, "minimum": 512}', True),
    ),
    (
        lambda d: sent(d, "size").update({"x-dimensions": {"minimum": 256, "maximum": 1536}}),
        ("size", "x-dimensions", SIZES, '{"maximum": 1536, "minimum": 256}', False),
    ),
    (lambda d: sent(d, "image").update(enum=["a"]), ("image", "enum", "", '["a"]', True)),
    (lambda d: sent(d, "image").update(nullable=True), ("image", "nullable", "", "true", False)),
    (lambda d: schema(d)["properties"].pop("mask_image"), ("mask_image", "field", '"string"', "", True)),
    (lambda d: schema(d)["properties"].pop("loras"), ("loras", "field", '"array"', "", True)),
    (lambda d: schema(d)["properties"].update(more=NEW), ("more", "field", "", '"string"', False)),
    (
        lambda d: schema(d)["properties"].update(more=ON),
        ("more", "field", "", '"boolean", default true', True),
    ),
    (
        lambda d: schema(d)["properties"].update(more={**ON, "default": False}),
        ("more", "field", "", '"boolean"', False),
    ),
    (
        lambda d: schema(d)["properties"].update(more={**NEW, "default": "x"}),
        ("more", "field", "", '"string", default "x"', True),
    ),
    (
        lambda d: schema(d)["properties"].update(more={**NEW, "default": ""}),
        ("more", "field", "", '"string"', False),
    ),
    (
        lambda d: schema(d)["properties"].update(more={"type": "array", "default": []}),
        ("more", "field", "", '"array"', False),
    ),
    (
        lambda d: schema(d)["properties"].update(more=SEED),
        ("more", "field", "", '"integer", default 0', True),
    ),
    (
        lambda d: schema(d).update(additionalProperties=False),
        ("(the object)", "additionalProperties", "true", "false", True),
    ),
    (
        lambda d: operation(d)["requestBody"].update(required=False),
        ("(the body)", "required", "true", "false", False),
    ),
    (lambda d: operation(d).pop("requestBody"), ("(the body)", "field", "documented, required", "", True)),
    (lambda d: operation(d).update(security=[]), ("", "security", '[{"apiKey": []}]', "[]", True)),
    (
        lambda d: operation(d).update(
            parameters=[{"name": "a", "in": "query", "required": True, "schema": NEW}]
        ),
        ("query a", "field", "", '"string", required', True),
    ),
    (lambda d: operation(d)["responses"].pop("503"), ("503", "status", "documented", "", True)),
    (
        lambda d: operation(d)["responses"].update({"429": {"description": ""}}),
        ("429", "status", "", "documented", True),
    ),
    (
        lambda d: operation(d)["responses"]["401"].pop("headers"),
        ("401 header WWW-Authenticate", "field", '"string"', "", True),
    ),
    (
        lambda d: status(d)["enum"].append("queued"),
        (
            "200 data.status",
            "enum",
            STATES,
            '["created", "processing", "completed", "failed", "queued"]',
            True,
        ),
    ),
    (lambda d: status(d).update(type="integer"), ("200 data.status", "type", '"string"', '"integer"', True)),
    (lambda d: status(d).update(nullable=True), ("200 data.status", "nullable", "", "true", True)),
    (
        lambda d: data(d)["required"].remove("timings"),
        ("200 data.timings", "required", "true", "false", True),
    ),
    (lambda d: data(d)["required"].append("code"), ("200 data.code", "required", "false", "true", False)),
    (lambda d: data(d)["properties"].update(more=NEW), ("200 data.more", "field", "", '"string"', True)),
    (
        lambda d: data(d)["properties"].pop("timings"),
        ("200 data.timings", "field", '"object", required', "", True),
    ),
    (
        lambda d: data(d).update(additionalProperties=True),
        ("200 data", "additionalProperties", "false", "true", True),
    ),
    (
        lambda d: envelope(d, "400")["properties"]["code"].update(maximum=499),
        ("400 code", "maximum", "599", "499", False),
    ),
    (
        lambda d: envelope(d, "400")["properties"]["code"].update(maximum=999),
        ("400 code", "maximum", "599", "999", True),
    ),
]


def differences(mutation: Mutation, **more: Any) -> list[Change]:
    before, after = one_operation(), one_operation()
    mutation(after)
    return between(picture(before), picture(after), **more)


@pytest.mark.parametrize(
    ("mutation", "expected"),
    [pytest.param(*each, id=f"{each[1][0]} {each[1][1]} {each[1][3]}") for each in MUTATIONS],
)
def test_one_change_of_a_contract_is_one_change(
    mutation: Mutation, expected: tuple[str, str, str, str, bool]
) -> None:
    field, aspect, before, after, noticeable = expected
    assert differences(mutation) == [
        Change(
            operation=OPERATION, field=field, aspect=aspect, before=before, after=after, noticeable=noticeable
        )
    ]


def test_an_operation_that_goes_is_noticed() -> None:
    gone = differences(lambda document: document["paths"].clear())
    assert [(each.aspect, each.after, each.noticeable) for each in gone] == [("operation", "", True)]


def test_an_operation_that_comes_is_not_noticed() -> None:
    both = one_operation()
    both["paths"]["/x"] = both["paths"][PATH]
    come = between(picture(one_operation()), picture(both))
    assert [(each.operation, each.aspect, each.noticeable) for each in come] == [
        ("POST /x", "operation", False)
    ]


@pytest.mark.parametrize(
    "mutation",
    [
        lambda d: sent(d, "prompt").update(description="Other words."),
        lambda d: sent(d, "prompt").update(example="Another one."),
        lambda d: operation(d).update(summary="Other words."),
        lambda d: operation(d).update(operationId="another"),
        lambda d: operation(d)["x-wavemock"].update(seconds=9),
        lambda d: operation(d)["responses"]["400"].update(description="Other words."),
        lambda d: operation(d)["responses"]["200"].pop("links"),
    ],
)
def test_words_are_listed_only_where_they_are_asked_for(mutation: Mutation) -> None:
    assert not differences(mutation)
    assert [each.noticeable for each in differences(mutation, everything=True)] == [False]


@pytest.mark.parametrize("edition", ["current", "flux-lora"])
def test_an_edition_does_not_differ_from_itself(edition: str) -> None:
    assert drift.compare(edition, edition, everything=True) == Drift(changes=())


def test_the_older_page_differs_as_its_readers_found() -> None:
    found = drift.compare("current", "flux-lora")
    told = {
        (each.field, each.aspect, each.before, each.after)
        for each in found.changes
        if each.operation == OPERATION
    }
    assert told == {
        ("prompt", "required", "true", "false"),
        ("prompt", "default", "", '""'),
        ("image", "default", "", '""'),
        ("mask_image", "field", '"string"', ""),
        ("strength", "default", "0.8", "0.6"),
        ("loras[].scale", "type", '"number"', '"integer"'),
        ("guidance_scale", "default", "3.5", "5.0"),
        ("enable_base64_output", "field", '"boolean"', ""),
        ("200 data.timings", "required", "true", "false"),
        ("200 data.executionTime", "required", "false", "true"),
    }
    assert found.exit_code == 1


def test_trainers_are_not_on_the_older_page() -> None:
    gone = {each.operation for each in drift.compare("current", "flux-lora").changes if not each.field}
    assert gone == {
        f"POST /api/{version}/wavespeed-ai/flux-dev-lora-trainer{more}"
        for version in ("v2", "v3")
        for more in ("", "-turbo")
    }


def test_files_are_compared_like_editions(tmp_path: Path) -> None:
    file = tmp_path / "flux-dev-lora.yaml"
    text = (bundled() / "flux-dev-lora.yaml").read_text()
    file.write_text(text.replace("default: 0.8", "default: 0.7"))
    whole = drift.compare(str(bundled() / "flux-dev-lora.yaml"), str(tmp_path))
    assert {(each.field, each.aspect, each.before, each.after) for each in whole.changes} == {
        ("strength", "default", "0.8", "0.7")
    }


def test_a_folder_of_the_projects_files_is_the_edition() -> None:
    assert drift.compare("current", str(bundled())).changes == ()


def test_two_versions_stand_in_one_line() -> None:
    table = drift.render_table(drift.compare("current", "flux-lora"))
    line = [each for each in table.splitlines() if "guidance_scale" in each and "flux-dev" in each]
    assert [each.split() for each in line] == [
        ["POST", "/api/v*/wavespeed-ai/flux-dev-lora", "guidance_scale", "default", "3.5", "5.0", "yes"]
    ]


def test_a_table_without_changes_says_so() -> None:
    assert drift.render_table(Drift(changes=())) == "no change.\n"


def test_a_table_holds_nothing_that_a_terminal_would_obey() -> None:
    change = Change(operation="x", field="\x1b[2J\r\n", aspect="[red]", before="", after="", noticeable=True)
    table = drift.render_table(Drift(changes=(change,)))
    assert not set(table) & {"\x1b", "\r"}
    assert "[red]" in table


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("gone.yaml", None, "is no edition (current, flux-lora), no file and no folder"),
        ("x.yaml", "[]", "is not an OpenAPI document"),
        ("x.yaml", "a: [", "cannot be read"),
        ("x.yaml", "{}", "describes no operation"),
        ("x.yaml", "paths: 3", "cannot be compared"),
        ("x.yaml", "paths: {/x: {get: {responses: 3}}}", "cannot be compared"),
        ("x.jsonl", "nothing", "x.jsonl:1: is no exchange"),
        ("gone.jsonl", None, "cannot be read: No such file"),
    ],
)
def test_what_cannot_be_compared_is_one_line(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(BadSource) as caught:
        drift.compare("current", str(file))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_recordings_are_not_compared() -> None:
    with pytest.raises(BadSource, match="two recordings"):
        drift.compare("a.jsonl", "b.jsonl")


SUBMIT = f"{PATH.replace('dev', 'schnell')}"
URL = "http://upstream"


def seen(
    tmp_path: Path,
    answer: bytes,
    *,
    code: int = 200,
    body: Any = None,
    path: str = "/api/v3/predictions/x1/result",
    size: int | None = None,
) -> Drift:
    """The drift of a recording of one exchange against the current edition."""
    text = None if body is None else json.dumps(body).encode()
    headers = () if body is None else (("content-type", "application/json"),)
    exchange = Exchange(
        request=Request(method="POST" if body is not None else "GET", path=path, headers=headers, body=text),
        status=code,
        headers=(("content-type", "application/json"),),
        body=answer,
        seconds=0.1,
    )
    file = tmp_path / "seen.jsonl"
    with recording.open_to_write(file) as opened:
        known = len(answer) if size is None else size
        entry = Entry(at="", exchange=exchange, request_size=len(text or b""), answer_size=known)
        recording.write(opened, entry)
    return drift.compare("current", str(file))


def told(found: Drift) -> list[tuple[str, str, str, bool]]:
    return [(each.field, each.aspect, each.before, each.noticeable) for each in found.changes]


def test_a_status_of_a_task_that_no_page_knows_is_drift(tmp_path: Path) -> None:
    found = seen(tmp_path, prediction(URL, status="queued"))
    assert told(found) == [("200 data.status", "enum", STATES, True)]
    assert "queued" in found.changes[0].after


def test_a_type_that_no_page_knows_is_drift(tmp_path: Path) -> None:
    assert told(seen(tmp_path, prediction(URL, error=None))) == [("200 data.error", "type", '"string"', True)]


def test_a_field_that_no_page_knows_is_drift(tmp_path: Path) -> None:
    found = seen(tmp_path, prediction(URL, queue_position=3))
    assert told(found) == [("200 data.queue_position", "field", "", True)]
    assert found.changes[0].after == '"integer"'


def test_a_new_field_where_there_may_be_any_is_not_noticeable(tmp_path: Path) -> None:
    document = read_document("current")
    paths = {"/api/v3/predictions/{id}/result": document["paths"]["/api/v3/predictions/{id}/result"]}
    text = json.dumps({**document, "paths": paths}).replace('"additionalProperties": false', '"x-open": true')
    (tmp_path / "open.json").write_text(text)
    seen(tmp_path, prediction(URL, more=1))
    found = drift.compare(str(tmp_path / "open.json"), str(tmp_path / "seen.jsonl"))
    assert told(found) == [("200 data.more", "field", "", False)]


def test_a_field_that_is_missing_is_drift(tmp_path: Path) -> None:
    answer = prediction(URL).replace(b'"inference"', b'"other"')
    assert told(seen(tmp_path, answer)) == [
        ("200 data.timings.inference", "required", "true", True),
        ("200 data.timings.other", "field", "", True),
    ]


def test_an_http_status_that_is_not_documented_is_drift(tmp_path: Path) -> None:
    found = seen(tmp_path, b'{"code":429,"message":"slow down"}', code=429)
    assert told(found) == [("429", "status", "", True)]


def test_a_value_that_is_accepted_out_of_its_range_is_drift(tmp_path: Path) -> None:
    body = {"prompt": "x", "num_inference_steps": 9}
    found = seen(tmp_path, prediction(URL), body=body, path=SUBMIT)
    assert told(found) == [("num_inference_steps", "maximum", "8", True)]


def test_a_good_request_that_is_refused_is_drift(tmp_path: Path) -> None:
    found = seen(tmp_path, b'{"code":400,"message":"no"}', code=400, body={"prompt": "x"}, path=SUBMIT)
    assert told(found) == [("", "refused", "", True)]


def test_a_field_that_was_sent_and_is_not_known_is_told_and_not_noticeable(tmp_path: Path) -> None:
    found = seen(tmp_path, prediction(URL), body={"prompt": "x", "style": "y"}, path=SUBMIT)
    assert told(found) == [("style", "field", "", False)]
    assert found.exit_code == 0


def test_what_was_not_seen_is_counted_and_no_change(tmp_path: Path) -> None:
    found = seen(tmp_path, prediction(URL))
    assert (found.changes, found.exchanges, found.unknown) == ((), 1, 0)
    assert found.unseen > 11


def test_an_exchange_that_is_not_documented_is_counted(tmp_path: Path) -> None:
    found = seen(tmp_path, b"x", path="/outputs/x.png")
    assert (found.changes, found.exchanges, found.unknown) == ((), 1, 1)
    assert "1 exchanges, 1 of them not documented" in drift.render_table(found)


def test_a_body_that_was_not_kept_is_not_held_against_anybody(tmp_path: Path) -> None:
    assert not seen(tmp_path, b"", size=10**9).changes


def test_a_recording_can_stand_first(tmp_path: Path) -> None:
    seen(tmp_path, prediction(URL, more=1))
    change = drift.compare(str(tmp_path / "seen.jsonl"), "current").changes[0]
    assert (change.before, change.after) == ('"integer"', "")


def test_the_same_change_twice_is_counted(tmp_path: Path) -> None:
    seen(tmp_path, prediction(URL, more=1))
    assert seen(tmp_path, prediction(URL, more=1)).changes[0].after == '"integer" (2 times)'


def test_a_clean_recording_of_the_mock_is_no_drift(
    serve: StartServer, start: StartProxy, tmp_path: Path
) -> None:
    file = tmp_path / "seen.jsonl"
    running = start(upstream=serve("--scenario", "instant").url, record=str(file))
    sdk = wavespeed.Client(api_key="a-secret-key", base_url=running.url)
    for given in (
        {"size": "512*512"},
        {"enable_base64_output": True, "loras": [{"path": "x", "scale": 0.5}]},
    ):
        sdk.run("wavespeed-ai/flux-dev-lora", {"prompt": "x", **given}, poll_interval=0.1)
    sdk.run(
        "wavespeed-ai/flux-dev-lora-trainer", {"images_data_url": "https://e.com/a.zip"}, poll_interval=0.1
    )
    running.stop()
    found = drift.compare("current", str(file))
    assert (found.changes, found.exit_code, found.unknown) == ((), 0, 0)
