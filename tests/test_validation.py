"""What is wrong with a request, and what is filled in where nothing was said."""

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_schema_validator import OAS30Validator, oas30_format_checker

from conftest import Client, MakeClient
from mock_server.catalog import Edition, load_catalog
from mock_server.errors import Refusal
from mock_server.prediction import Asked
from mock_server.validation import Rules, ask, compile_rules

DEV = "/api/v3/wavespeed-ai/flux-dev-lora"
PAGES = [
    "current/flux-dev-lora",
    "current/flux-schnell-lora",
    "current/flux-dev-lora-trainer",
    "current/flux-dev-lora-trainer-turbo",
    "flux-lora/flux-dev-lora",
    "flux-lora/flux-schnell-lora",
]
BASE64 = "iVBORw0KGgoAAAANSUhEUgAA" * 500


@cache
def catalog(closed: bool) -> Mapping[str, Edition]:
    return load_catalog(closed=closed)


def schema_of(page: str = PAGES[0], *, closed: bool = False) -> Mapping[str, Any]:
    """The input of a model of ours."""
    edition, model = page.split("/")
    return catalog(closed)[edition].contracts[f"submit-v3-{model}"].schema


def rules(**properties: Any) -> Rules:
    """The rules of a model with these fields."""
    return compile_rules({"type": "object", "properties": properties})


def taken(rules: Rules, body: Any) -> tuple[dict[str, Any], Asked]:
    return ask(rules, json.dumps(body).encode())


def wrong(rules: Rules, body: Any) -> list[Mapping[str, Any]]:
    """The violations for which a body is refused; none where it is accepted."""
    try:
        taken(rules, body)
    except Refusal as refusal:
        return list(refusal.data["violations"])
    return []


def pointers(violations: list[Mapping[str, Any]]) -> list[str]:
    return [each["pointer"] for each in violations]


@pytest.mark.parametrize(
    ("given", "pointer", "rule", "nearest"),
    [
        ({"size": "1024x1024"}, "/size", "pattern", "1024*1024"),
        ({"size": "1024 X 768"}, "/size", "pattern", "1024*768"),
        ({"size": "2048*100"}, "/size", "pattern", "1536*512"),
        ({"size": "large"}, "/size", "pattern", None),
        ({"size": 1024}, "/size", "type", None),
        ({"num_images": "2"}, "/num_images", "type", 2),
        ({"num_images": "20"}, "/num_images", "type", 4),
        ({"num_images": 1.0}, "/num_images", "type", 1),
        ({"num_images": True}, "/num_images", "type", None),
        ({"num_images": None}, "/num_images", "type", None),
        ({"num_images": 0}, "/num_images", "minimum", 1),
        ({"num_inference_steps": 51}, "/num_inference_steps", "maximum", 50),
        ({"seed": 10**400}, "/seed", "maximum", 9999999999),
        ({"strength": "0.5"}, "/strength", "type", 0.5),
        ({"guidance_scale": -1e300}, "/guidance_scale", "minimum", 0),
        ({"enable_base64_output": "False"}, "/enable_base64_output", "type", False),
        ({"loras": [{"path": "a"}]}, "/loras/0/scale", "required", None),
        ({"loras": [{"path": "a", "scale": 1}, {"path": "a", "scale": 5}]}, "/loras/1/scale", "maximum", 4),
        ({"loras": [{"path": "a", "scale": 1}] * 6}, "/loras", "maxItems", None),
        ({"loras": "a"}, "/loras", "type", None),
        ({"prompt": 5}, "/prompt", "type", None),
    ],
)
def test_a_violation_says_where_which_rule_and_what_would_pass(
    given: dict[str, Any], pointer: str, rule: str, nearest: Any
) -> None:
    [found] = wrong(compile_rules(schema_of()), {"prompt": "x", **given})
    assert (found["pointer"], found["rule"], found.get("nearest", None)) == (pointer, rule, nearest)


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({"size": "1*1"}, "W*H, each 512 to 1536"),
        ({"num_images": "x"}, "an integer, at least 1, at most 4"),
        ({"num_images": 9}, "at most 4"),
        ({"loras": [1, 2, 3, 4, 5, 6]}, "at most 5 items"),
        ({"image": 5}, "a string"),
    ],
)
def test_a_violation_says_what_is_allowed(given: dict[str, Any], allowed: str) -> None:
    assert allowed in [
        each["allowed"] for each in wrong(compile_rules(schema_of()), {"prompt": "x", **given})
    ]


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        ({"type": "string", "enum": ["png", "jpeg"]}, "pgn", 'nearest is "png"'),
        ({"type": "string", "format": "date-time"}, "soon", "date-time"),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, [], "a string or an integer"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, [], "a string or an integer"),
        ({"allOf": [{"type": "string"}, {"minLength": 3}]}, "a", "at least 3 characters"),
        ({"type": "integer", "multipleOf": 8}, 7, "a multiple of 8"),
        ({"type": "number", "minimum": 0, "exclusiveMinimum": True}, 0, "more than 0"),
        ({"type": "array", "items": {}, "uniqueItems": True}, [1, 1], "unique"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": "b"}, "/n/a must be"),
        ({"type": "object", "additionalProperties": False}, {"a": 1}, "not a field"),
    ],
)  # fmt: skip
def test_the_rules_of_a_model_of_ones_own_explain_themselves_too(schema: Any, value: Any, words: str) -> None:
    with pytest.raises(Refusal) as refused:
        taken(rules(n=schema), {"n": value})
    assert words in refused.value.message


def test_everything_that_is_wrong_is_told_at_once() -> None:
    body = {"size": "1x1", "seed": -2, "loras": [{"path": 5, "scale": 9}], "num_images": "1"}
    assert sorted(pointers(wrong(compile_rules(schema_of()), body))) == [
        "/loras/0/path", "/loras/0/scale", "/num_images", "/prompt", "/seed", "/size",
    ]  # fmt: skip


def test_a_thousand_violations_are_enough() -> None:
    many = rules(n={"type": "array", "items": {"type": "string"}})
    assert len(wrong(many, {"n": [1] * 5000})) == 1000


@pytest.mark.parametrize("body", [[], "x", 5, None, True])
def test_a_body_that_is_no_object_is_told_so(body: Any) -> None:
    [found] = wrong(compile_rules(schema_of()), body)
    assert (found["pointer"], found["rule"], found["allowed"]) == ("", "type", "an object")


@pytest.mark.parametrize(
    "given",
    [
        {"size": BASE64},
        {"seed": BASE64},
        {"image": [BASE64]},
        {"mask_image": {"base64": BASE64}},
        {"loras": BASE64},
        {"loras": [BASE64]},
        {"loras": [{"path": BASE64, "scale": BASE64}]},
        {BASE64: 1},
        {"enable_safety_checker": BASE64},
    ],
)
def test_an_image_in_the_wrong_place_is_not_sent_back(given: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        taken(compile_rules(schema_of(closed=True)), {"prompt": "x", **given})
    assert len(refused.value.message + json.dumps(refused.value.data)) < 2000


@pytest.mark.parametrize(
    ("name", "pointer"), [("a/b", "/a~1b"), ("c~d", "/c~0d"), ("e\nf", "/e\nf"), ("~1", "/~01")]
)
def test_a_hostile_name_is_escaped_in_a_pointer(name: str, pointer: str) -> None:
    strict = compile_rules({"type": "object", "additionalProperties": False, "properties": {"n": {}}})
    needed = compile_rules({"type": "object", "required": [name]})
    found = [
        wrong(rules(**{name: {"type": "string"}}), {name: 5}),
        wrong(strict, {name: 5}),
        wrong(needed, {}),
    ]
    assert [pointers(each) for each in found] == [[pointer]] * 3


def required(schema: Mapping[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(schema.get("required", []), "x")


@pytest.mark.parametrize("page", PAGES)
def test_every_default_of_a_contract_is_filled_in(page: str) -> None:
    schema = schema_of(page)
    defaults = {key: each["default"] for key, each in schema["properties"].items() if "default" in each}
    value, asked = taken(compile_rules(schema), required(schema))
    assert (value, asked.defaults) == (
        {**required(schema), **defaults},
        {f"/{key}": each for key, each in defaults.items()},
    )


NESTED = rules(
    **{
        "a/b": {"type": "object", "properties": {"c~d": {"type": "integer", "default": 1}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"e": {"default": [2]}}}},
        "f": {"nullable": True, "type": "string", "default": "g"},
    }
)


def test_nested_defaults_are_filled_in_wherever_their_object_is() -> None:
    value, asked = taken(NESTED, {"a/b": {}, "list": [{}, {"e": 5}, {}]})
    assert value == {"a/b": {"c~d": 1}, "list": [{"e": [2]}, {"e": 5}, {"e": [2]}], "f": "g"}
    assert asked.defaults == {"/a~1b/c~0d": 1, "/list/0/e": [2], "/list/2/e": [2], "/f": "g"}


def test_objects_that_are_not_there_are_not_made_up_for_the_sake_of_their_defaults() -> None:
    assert taken(NESTED, {"list": []})[0] == {"list": [], "f": "g"}


def test_null_is_a_value_where_it_is_allowed() -> None:
    assert taken(NESTED, {"f": None})[0] == {"f": None}


@pytest.mark.parametrize("page", PAGES)
def test_no_falsy_value_is_taken_for_a_missing_one(page: str) -> None:
    schema = schema_of(page)
    falsy = {"boolean": False, "string": "", "array": [], "integer": 0, "number": 0}
    body = required(schema) | {key: falsy[each["type"]] for key, each in schema["properties"].items()}
    body = {key: each for key, each in body.items() if fits(schema["properties"][key], each)}
    value, asked = taken(compile_rules(schema), required(schema) | body)
    assert {key: value[key] for key in body} == body
    assert not {f"/{key}" for key in body} & asked.defaults.keys()


def test_what_was_received_stays_as_it_was_sent() -> None:
    text = '{ "seed" : 7,\n  "prompt": "\\u00e4", "guidance_scale": 1.50 }'
    assert ask(compile_rules(schema_of()), text.encode())[1].received == text


UNKNOWN = {"prompt": "x", "sise": "1", "loras": [{"path": "a", "scale": 1, "wait/": 1}]}


def test_unknown_fields_are_accepted_and_listed(client: Client) -> None:
    answer = client.post(DEV, UNKNOWN)
    inside = client.inside(answer.json()["data"]["id"])
    assert (answer.status_code, answer.headers["X-Mock-Unknown-Fields"]) == (200, "/sise, /loras/0/wait~1")
    assert inside["warnings"] == ["unknown field /sise", "unknown field /loras/0/wait~1"]


def test_unknown_fields_are_refused_on_demand_with_what_was_meant(make_client: MakeClient) -> None:
    answer = make_client(unknown_fields="reject").post(DEV, UNKNOWN)
    violations = answer.json()["data"]["violations"]
    assert {each["pointer"]: each.get("nearest") for each in violations} == {
        "/sise": "size",
        "/loras/0/wait~1": None,
    }
    assert "did you mean size?" in answer.json()["message"]


@pytest.mark.parametrize("page", PAGES)
def test_a_field_of_the_platform_is_known_to_every_model(page: str) -> None:
    schema = schema_of(page, closed=True)
    assert taken(compile_rules(schema), {**required(schema), "enable_sync_mode": True})[1].warnings == ()


def fits(schema: Mapping[str, Any], value: Any) -> bool:
    """What a validator that is not ours says."""
    return bool(OAS30Validator(schema, format_checker=oas30_format_checker).is_valid(value))


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=20)
anything = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=5), scalars, max_size=3)


def edges(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Values at, just within and just beyond what a schema allows."""
    yield from (schema[key] for key in ("default", "example", "minimum", "maximum") if key in schema)
    for limit in (schema[key] for key in ("minimum", "maximum") if key in schema):
        yield from (limit - 1, limit + 1, limit + 0.5, float(limit), str(limit), 10**30 * limit)
    for side in ("511", "512", "1536", "1537", "0512") if "x-dimensions" in schema else ():
        yield from (f"{side}*1024", f"1024*{side}", f"{side}x600", f"1024*{side}\n")


def values(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values for a field, many of which fit."""
    if "items" in schema:
        return st.lists(values(schema["items"]), max_size=6) | anything
    if "properties" in schema:
        fields = {name: values(each) for name, each in schema["properties"].items()}
        return st.fixed_dictionaries(fields, optional={"n/a": anything}) | anything
    return st.sampled_from([*edges(schema), "", True]) | anything


@st.composite
def bodies(draw: st.DrawFn, schema: Mapping[str, Any]) -> Any:
    """Mostly objects with so few fields that many are without fault."""
    if draw(st.integers(0, 9)) == 9:
        return draw(anything)
    # A synchronous submit would be held for as long as the task takes.
    fields = {name: each for name, each in schema["properties"].items() if name != "enable_sync_mode"}
    names = draw(st.lists(st.sampled_from([*fields, "si/se"]), max_size=3, unique=True))
    start = {} if draw(st.integers(0, 4)) == 4 else required(schema)
    return start | {name: draw(values(fields.get(name, {}))) for name in names}


def at(body: Any, pointer: str) -> Any:
    """The value that a pointer leads to."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        body = body[int(key)] if isinstance(body, list) else body[key]
    return body


def is_there(body: Any, violation: Mapping[str, Any]) -> bool:
    """Whether a violation is about a value of the body, or about one that its object lacks."""
    pointer = violation["pointer"]
    if violation["rule"] == "required":
        parent, _, name = pointer.rpartition("/")
        return name not in at(body, parent)
    return at(body, pointer) is not NotImplemented


SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("unknown_fields", ["report", "reject"])
@pytest.mark.parametrize("page", PAGES)
def test_a_body_is_accepted_just_when_another_validator_accepts_it(
    make_client: MakeClient, page: str, unknown_fields: str
) -> None:
    client = make_client(unknown_fields=unknown_fields)
    edition, model = page.split("/")
    base, path = f"/editions/{edition}", f"/api/v3/wavespeed-ai/{model}"
    operation = client.get(f"{base}/openapi.json").json()["paths"][path]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]

    @SETTINGS
    @given(body=bodies(schema))
    def answers_agree(body: Any) -> None:
        answer = client.post(
            base + path, content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == (200 if fits(schema, body) else 400), answer.text
        data = answer.json()["data"]
        assert all(is_there(body, each) for each in data.get("violations", ()))

    answers_agree()


@pytest.mark.parametrize("page", PAGES)
@given(data=st.data())
def test_an_accepted_body_loses_nothing_and_gains_defaults_alone(page: str, data: st.DataObject) -> None:
    schema = schema_of(page)
    body = data.draw(bodies(schema).filter(lambda body: fits(schema, body)))
    value, asked = taken(compile_rules(schema), body)
    assert (json.loads(asked.received), asked.input) == (body, value)
    assert value == body | {pointer[1:]: default for pointer, default in asked.defaults.items()}
    assert not body.keys() & {pointer[1:] for pointer in asked.defaults}


@pytest.mark.parametrize("page", PAGES)
@given(data=st.data())
def test_the_nearest_value_would_have_passed(page: str, data: st.DataObject) -> None:
    schema = schema_of(page)
    body = data.draw(bodies(schema).filter(lambda body: isinstance(body, dict) and not fits(schema, body)))
    for each in wrong(compile_rules(schema), body):
        if "nearest" in each:
            mended = deepcopy(body)
            parent, _, name = each["pointer"].rpartition("/")
            at(mended, parent)[name] = each["nearest"]
            assert each["pointer"] not in pointers(wrong(compile_rules(schema), mended))


# All in which the server is stricter than a validator of the value that `json.loads` gives.
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"prompt": "x", "prompt": "x"}', id="a key twice"),
        pytest.param(
            b'{"prompt": "x", "loras": [{"path": "", "path": "", "scale": 1}]}', id="a key twice inside"
        ),
        pytest.param(b'{"prompt": "x", "n": NaN}', id="NaN"),
        pytest.param(b'{"prompt": "x", "n": -Infinity}', id="Infinity"),
        pytest.param(b'{"prompt": "x", "n": 1e400}', id="beyond a double"),
        pytest.param(b'{"prompt": "\\ud800"}', id="half a surrogate pair"),
        pytest.param(b'{"prompt": "x", "n": ' + b"[" * 100 + b"]" * 100 + b"}", id="101 levels"),
        pytest.param(b'\xef\xbb\xbf{"prompt": "x"}', id="byte order mark"),
        pytest.param('{"prompt": "x"}'.encode("utf-16"), id="UTF-16"),
    ],
)
def test_the_server_is_stricter_about_json_alone(body: bytes) -> None:
    assert fits(schema_of(), json.loads(body))
    with pytest.raises(Refusal) as refused:
        ask(compile_rules(schema_of()), body)
    assert [each["rule"] for each in refused.value.data["violations"]] == ["json"]
