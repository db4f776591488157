"""A model of one's own from one YAML file, and what is said about a file that will not do."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import safetensors
import yaml
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from conftest import Client, MakeClient, StartServer
from mock_server.catalog import bundled_directory, load_catalog
from mock_server.cli import main
from mock_server.documents import plain, read
from mock_server.errors import BadConfiguration
from mock_server.schemas import size_pattern

# The numbers of the lines count below.
SIXTH = """\
openapi: 3.0.3
info: {title: Sixth, version: "1"}
paths:
  /api/v3/acme/sixth:
    post:
      x-wavemock: {operation: submit, produces: images}
      requestBody:
        content:
          application/json:
            schema:
              type: object
              required: [prompt]
              properties:
                prompt: {type: string}
      responses:
        "200": {$ref: "common.yaml#/components/responses/Submitted"}
"""
PATH = "/api/v3/acme/sixth"
PROMPT = "prompt: {type: string}"
OURS = "/api/v3/wavespeed-ai/flux-schnell-lora"
README = bundled_directory() / "README.md"


def write(folder: Path, text: str = SIXTH, name: str = "sixth.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def with_fields(*fields: str) -> str:
    """The sixth model with more fields."""
    return SIXTH.replace(PROMPT, "\n                ".join((PROMPT, *fields)))


def finish(client: Client, path: str = PATH, **given: Any) -> dict[str, Any]:
    """The `data` of a prediction that was submitted and has ended."""
    answer = client.post(path, {"prompt": "x", **given}, headers={"X-Mock-Scenario": "instant"})
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = client.get(answer.json()["data"]["urls"]["get"]).json()["data"]
    assert data["status"] == "completed"
    return data


def test_a_sixth_model_is_listed(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(openapi=write(tmp_path).parent)
    assert {PATH, OURS} <= set(client.get("/_mock/health").json()["data"]["editions"]["current"])


def test_a_sixth_model_is_named_when_the_server_starts(serve: StartServer, tmp_path: Path) -> None:
    banner = serve("--openapi", str(write(tmp_path).parent)).banner
    assert any(line.split() == ["acme/sixth", "v3"] for line in banner)


def test_a_sixth_model_is_validated(make_client: MakeClient, tmp_path: Path) -> None:
    answer = make_client(openapi=write(tmp_path).parent).post(PATH, {"prompt": 6})
    assert (answer.status_code, answer.json()["data"]["violations"][0]["pointer"]) == (400, "/prompt")


def test_a_sixth_model_makes_images(make_client: MakeClient, tmp_path: Path) -> None:
    text = with_fields("size: {type: string, default: 64*48, x-dimensions: {minimum: 8, maximum: 64}}")
    client = make_client(openapi=write(tmp_path, text).parent)
    image = Image.open(io.BytesIO(client.get(finish(client)["outputs"][0]).content))
    assert image.size == (64, 48)


def test_a_sixth_model_makes_a_lora(make_client: MakeClient, tmp_path: Path) -> None:
    text = with_fields("lora_rank: {type: integer, default: 3}").replace("images", "lora")
    client = make_client(openapi=write(tmp_path, text).parent)
    content = client.get(finish(client)["outputs"][0]).content
    tensors = dict(safetensors.deserialize(content))  # type: ignore[no-untyped-call] # its stub has no types
    assert {3 in tensor["shape"] for tensor in tensors.values()} == {True}


def test_a_sixth_model_is_in_the_document_that_is_served(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(openapi=write(tmp_path).parent)
    assert {PATH, OURS} <= client.get("/openapi.json").json()["paths"].keys()


def test_a_sixth_model_is_in_the_document_that_is_printed(tmp_path: Path) -> None:
    printed = CliRunner().invoke(main, ["openapi", "--openapi", str(write(tmp_path).parent)])
    assert {PATH, OURS} <= yaml.safe_load(printed.stdout)["paths"].keys()


def test_with_only_there_is_nothing_else(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(openapi=write(tmp_path).parent, only=True)
    assert (finish(client)["model"], client.post(OURS, {"prompt": "x"}).status_code) == ("acme/sixth", 404)


def test_an_edition_of_ones_own_stands_below_its_name(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(openapi=write(tmp_path, name="editions/mine/sixth.yaml").parents[2])
    assert finish(client, f"/editions/mine{PATH}")["model"] == "acme/sixth"
    assert client.post(PATH, {"prompt": "x"}).status_code == 404


def test_an_edition_of_ones_own_can_stand_at_the_root(make_client: MakeClient, tmp_path: Path) -> None:
    write(tmp_path, name="editions/mine/sixth.yaml")
    assert finish(make_client(openapi=tmp_path, edition="mine"))["model"] == "acme/sixth"


def test_an_edition_of_ones_own_can_be_printed(tmp_path: Path) -> None:
    write(tmp_path, name="editions/mine/sixth.yaml")
    flags = ["openapi", "--openapi", str(tmp_path), "--only", "--edition", "mine", "--format", "json"]
    assert PATH in json.loads(CliRunner().invoke(main, flags).stdout)["paths"]


def test_the_files_of_the_edition_current_may_lie_in_its_folder_too(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, SIXTH.replace("sixth", "seventh"), "editions/current/seventh.yaml")
    contracts = load_catalog(directory=tmp_path, only=True)["current"].contracts.values()
    assert {contract.model for contract in contracts} == {"acme/sixth", "acme/seventh"}


def test_a_page_of_ours_may_be_given_again(tmp_path: Path) -> None:
    for path in bundled_directory().glob("*.yaml"):
        write(tmp_path, path.read_text(), path.name)
    again = load_catalog(directory=tmp_path)
    assert again["current"].contracts.keys() == load_catalog()["current"].contracts.keys()


@pytest.mark.parametrize("only", [False, True])
def test_the_example_in_the_readme_is_served(make_client: MakeClient, tmp_path: Path, only: bool) -> None:
    block = re.search(r"```yaml\n(openapi:.*?)```", README.read_text(), re.DOTALL)
    assert block is not None
    write(tmp_path, block[1])
    [contract] = load_catalog(directory=tmp_path, only=True)["current"].contracts.values()
    assert len(finish(make_client(openapi=tmp_path, only=only), contract.path)["outputs"]) == 1


# Field by field, what the simulated backend knows by another kind, and what a client may then send.
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size: {type: string}", "large"),
        ("size: {type: string}", "0*0"),
        ("size: {type: integer}", 64),
        ("num_images: {type: string}", "many"),
        ("num_images: {type: integer, nullable: true}", None),
        ("seed: {type: string}", "lucky"),
        ("seed: {type: integer, nullable: true}", None),
        ("num_inference_steps: {type: string}", "few"),
        ("loras: {type: string}", "a,b"),
        ("loras: {type: array, items: {type: string}}", ["a"]),
        ("loras: {type: array, items: {type: object, properties: {path: {type: string}}}}", [{"path": "a"}]),
        ("loras: {type: array, nullable: true, items: {type: object}}", None),
    ],
)
def test_a_field_of_another_kind_than_the_backend_knows_does_no_harm(
    make_client: MakeClient, tmp_path: Path, field: str, value: Any
) -> None:
    client = make_client(openapi=write(tmp_path, with_fields(field)).parent, only=True)
    data = finish(client, **{field.partition(":")[0]: value})
    assert client.get(data["outputs"][0]).status_code == 200
    assert client.get(f"/_mock/predictions/{data['id']}").status_code == 200


@pytest.mark.parametrize(
    "text", ["yes", "No", "on", "2026-01-01", "017", "0o17", "0x1F", "1_0", "1:30", ".inf"]
)
def test_what_json_would_not_have_stays_text(tmp_path: Path, text: str) -> None:
    assert plain(read(write(tmp_path, f"a: {text}"))) == {"a": text}


@pytest.mark.parametrize("text", ["17", "-1", "0", "1.5", "1e3", "true", "false", "null", '"yes"', "[1, a]"])
def test_what_json_has_is_read_as_json_has_it(tmp_path: Path, text: str) -> None:
    assert json.dumps(plain(read(write(tmp_path, f"a: {text}")))["a"]) == text.replace("a]", '"a"]').replace(
        "1e3", "1000.0"
    )


def test_braces_in_a_description_are_left_alone(make_client: MakeClient, tmp_path: Path) -> None:
    text = SIXTH.replace(PROMPT, "prompt: {type: string, description: '{{ 6*7 }} {% raw %}'}")
    document = make_client(openapi=write(tmp_path, text).parent).get("/openapi.json").json()
    schema = document["paths"][PATH]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["prompt"]["description"] == "{{ 6*7 }} {% raw %}"


def test_dimensions_alone_make_the_pattern(tmp_path: Path) -> None:
    write(tmp_path, with_fields("size: {type: string, x-dimensions: {minimum: 64, maximum: 2048}}"))
    [contract] = load_catalog(directory=tmp_path, only=True)["current"].contracts.values()
    assert contract.schema["properties"]["size"]["pattern"] == size_pattern(64, 2048)


numbers = st.integers(0, 99) | st.integers(0, 20_000) | st.sampled_from([9, 10, 99, 100, 999, 1000, 1001])


@given(
    bounds=st.tuples(numbers, numbers).map(sorted),
    near=st.tuples(st.integers(-2, 2), st.integers(-2, 2)),
    at=numbers,
)
@example(bounds=[512, 1536], near=(0, 0), at=1024)
def test_a_size_fits_its_pattern_just_when_both_sides_are_within(
    bounds: list[int], near: tuple[int, int], at: int
) -> None:
    low, high = bounds
    pattern = size_pattern(low, high)
    validator = jsonschema_rs.Draft4Validator({"pattern": pattern})
    for width, height in [(low + near[0], high + near[1]), (at, low), (high, at), (at, at)]:
        text = f"{width}*{height}"
        fits = low <= width <= high and low <= height <= high
        assert (re.search(pattern, text) is not None, validator.is_valid(text)) == (fits, fits)


@pytest.mark.parametrize(
    "text",
    ["64*64\n", " 64*64", "064*64", "64*064", "64x64", "64*64*64", "٦٤*٦٤", "+64*64", "64*", "64.0*64", ""],
)
def test_nothing_but_two_plain_numbers_fits_a_pattern_of_dimensions(text: str) -> None:
    pattern = size_pattern(1, 2048)
    valid = jsonschema_rs.Draft4Validator({"pattern": pattern}).is_valid(text)
    assert (re.search(pattern, text), valid) == (None, False)


def refusal(folder: Path) -> str:
    with pytest.raises(BadConfiguration) as refused:
        load_catalog(directory=folder)
    message = str(refused.value)
    assert "\n" not in message
    return message


D = "x-dimensions: {minimum: 64, maximum: 128}"
# One more field on line 15, and the words by which its author knows what to mend.
BROKEN_FIELDS = {
    "tab": ("\tn: {type: string}", "is not YAML"),
    "duplicate key": ("prompt: {type: integer}", "'prompt' stands here twice"),
    "key that is no text": ("? [n]\n                : {type: string}", "a key has to be a text"),
    "unknown alias": ("n: *nope", "undefined alias"),
    "date by tag": ("n: {type: string, x-a: !!timestamp 2026-01-01}", "timestamp"),
    "set by tag": ("n: {type: string, x-a: !!set {b}}", "set"),
    "bytes by tag": ("n: {type: string, x-a: !!binary aGk=}", "binary"),
    "object by tag": ("n: {type: string, x-a: !!python/object:os.system {}}", "python/object"),
    "reference to nowhere": ("n: {$ref: '#/components/schemas/Nope'}", "leads nowhere; there is no"),
    "reference to no file": ("n: {$ref: 'nope.yaml#/x'}", "nope.yaml#/x leads to no file"),
    "reference to the network": ("n: {$ref: 'https://example.com/a.yaml#/x'}", "is on the network"),
    "reference to a file by URL": ("n: {$ref: 'file:///etc/passwd'}", "only files are followed"),
    "recursive reference": ("n: {$ref: '#/paths/~1api~1v3~1acme~1sixth'}", "leads back into itself"),
    "no schema": ("n:", "n: None is not valid"),
    "unknown type": ("n: {type: strng}", "'strng' is not one of"),
    "types of OpenAPI 3.1": ("n: {type: [string, 'null']}", "is not valid"),
    "unknown keyword": ("n: {type: integer, minimun: 3}", "minimun"),
    "default of another type": ("n: {type: integer, default: 1.5}", "n: the default breaks the schema: 1.5"),
    "default out of range": ("n: {type: integer, maximum: 4, default: 5}", "n: the default breaks"),
    "default out of dimensions": (f"n: {{type: string, default: 1*1, {D}}}", "n: the default breaks"),
    "example of another type": ("n: {type: integer, example: x}", "n: the example breaks"),
    "example out of dimensions": (f"n: {{type: string, example: 1*1, {D}}}", "n: the example breaks"),
    "nested default": ("n: {type: array, items: {type: integer, default: x}}", "n[]: the default breaks"),
    "minimum above maximum": ("n: {type: integer, minimum: 5, maximum: 4}", "n: minimum 5 is above"),
    "minItems above maxItems": (
        "n: {type: array, items: {}, minItems: 5, maxItems: 4}",
        "n: minItems 5 is above",
    ),
    "minLength above maxLength": ("n: {type: string, minLength: 5, maxLength: 4}", "n: minLength 5 is above"),
    "bad regular expression": ("n: {type: string, pattern: '['}", "not a regular expression"),
    "pattern against dimensions": (f"n: {{type: string, pattern: '^a$', {D}}}", "is not that of its x-"),
    "dimensions upside down": ("n: {type: string, x-dimensions: {minimum: 9, maximum: 8}}", "x-dimensions"),
    "dimensions in words": ("n: {type: string, x-dimensions: {minimum: a, maximum: b}}", "x-dimensions"),
    "dimensions below zero": ("n: {type: string, x-dimensions: {minimum: -5, maximum: 5}}", "x-dimensions"),
    "dimensions in halves": ("n: {type: string, x-dimensions: {minimum: 1.5, maximum: 5}}", "x-dimensions"),
    "dimensions by other names": ("n: {type: string, x-dimensions: {min: 1, max: 2}}", "x-dimensions"),
    "dimensions in a list": ("n: {type: string, x-dimensions: [1, 2]}", "x-dimensions"),
    "dimensions of a number": (f"n: {{type: integer, {D}}}", "x-dimensions"),
}


@pytest.mark.parametrize("name", BROKEN_FIELDS)
def test_a_broken_field_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    field, words = BROKEN_FIELDS[name]
    place, _, what = refusal(write(tmp_path, with_fields(field)).parent).partition(": ")
    assert (place, words in what) == (f"{tmp_path}/sixth.yaml:15", True), what


WAVE = "{operation: submit, produces: images}"
SCHEME = "components:\n  securitySchemes:\n    key: {type: apiKey, in: header, name: X-Key}\n"
NO_BODY = SIXTH[SIXTH.index("      requestBody") : SIXTH.index("      responses")]
POLL = f"""\
  {PATH}/result:
    get:
      operationId: poll
      x-wavemock: {{operation: result}}
      responses: {{"200": {{description: How it stands}}}}
"""
# What is replaced in the sixth model, by what, the line that is named, and the telling words.
BROKEN = {
    "YAML syntax": ("Sixth,", "[Sixth,", 2, "is not YAML"),
    "second document": ("      responses", "---\n      responses", 15, "is not YAML"),
    "swagger 2": ("openapi: 3.0.3", 'swagger: "2.0"', 1, "does not say `openapi: 3.0.3`"),
    "OpenAPI 3.1": ("3.0.3", "3.1.0", 1, "says openapi: 3.1.0; OpenAPI 3.0 is what is served"),
    "no version": ('version: "1"', "x-a: 1", 2, "info: 'version' is a required property"),
    "no x-wavemock": (f"      x-wavemock: {WAVE}\n", "", 6, "nothing says what this operation does"),
    "x-wavemock in one word": (WAVE, "submit", 6, "nothing says what this operation does"),
    "unknown operation": ("operation: submit", "operation: delete", 6, "nothing says what"),
    "operations in a list": ("operation: submit", "operation: [submit]", 6, "nothing says what"),
    "wrong produces": ("images}", "video}", 6, "produces has to be images or lora"),
    "no produces": (", produces: images", "", 6, "produces has to be images or lora"),
    "produces in a list": ("images}", "[images]}", 6, "produces has to be images or lora"),
    "negative seconds": ("images}", "images, seconds: -1}", 6, "seconds has to be a number, 0 or more"),
    "seconds by another name": ("images}", "images, second: 3}", 6, "x-wavemock has no 'second'"),
    "seconds in words": ("images}", "images, seconds: soon}", 6, "seconds has to be a number"),
    "seconds without end": ("images}", "images, seconds: 1e400}", 6, "seconds has to be a number"),
    "seconds that are true": ("images}", "images, seconds: true}", 6, "seconds has to be a number"),
    "documented in words": ("images}", "images, documented: no}", 6, "documented has to be true or false"),
    "no requestBody": (NO_BODY, "", 6, "there is no application/json schema"),
    "no JSON": ("application/json", "text/plain", 7, "there is no application/json schema"),
    "input that is no object": ("type: object", "type: array", 11, "has to be `type: object`"),
    "input of no type": ("type: object", "title: Input", 11, "has to be `type: object`"),
    "default of a required field": (
        PROMPT,
        "prompt: {type: string, default: x}",
        14,
        "required, yet has a default",
    ),
    "example": (
        "    schema:",
        "    example: {prompt: 5}\n            schema:",
        10,
        "the example breaks the schema",
    ),
    "examples": (
        "    schema:",
        "    examples: {a: {value: {}}}\n            schema:",
        10,
        "the example breaks the schema",
    ),
    "security other than bearer": ("paths:", f"{SCHEME}paths:", 5, "security scheme key: only `type: http"),
    "security of no scheme": ("paths:", "security: [{nope: []}]\npaths:", 3, "no security scheme 'nope'"),
    "operation of no scheme": (
        "    post:",
        "    post:\n      security: [{nope: []}]",
        6,
        "no security scheme 'nope'",
    ),
    "path of ours": (PATH, OURS, 6, f"POST {OURS} is described by "),
    "id of a submit of ours": (
        "    post:",
        "    post:\n      operationId: submit-v3-flux-dev-lora",
        6,
        "is taken",
    ),
    "id of a result of ours": ("    post:", "    post:\n      operationId: result-v3", 6, "is taken"),
    "result without an id": ("paths:\n", f"paths:\n{POLL}", 6, "{id}"),
    "path without version": (PATH, "/acme/sixth", 6, "/acme/sixth is not of the form /api/v3/VENDOR/MODEL"),
    "path without vendor": (PATH, "/api/v3/sixth", 6, "is not of the form /api/v3/VENDOR/MODEL"),
    "path with a placeholder": (PATH, "/api/v3/acme/{model}", 6, "is not of the form /api/v3/VENDOR/MODEL"),
    "path without slash": (PATH, PATH[1:], 3, "does not match"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    old, new, line, words = BROKEN[name]
    assert old in SIXTH
    message = refusal(write(tmp_path, SIXTH.replace(old, new, 1)).parent)
    place, _, what = message.partition(": ")
    assert (place, words in what) == (f"{tmp_path}/sixth.yaml:{line}", True), what


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        pytest.param(b"", 1, "is not an OpenAPI document", id="empty"),
        pytest.param(b"# Nothing yet\n", 1, "is not an OpenAPI document", id="comment"),
        pytest.param(b"- openapi: 3.0.3\n", 1, "is not an OpenAPI document", id="list"),
        pytest.param(b"Sixth\n", 1, "is not an OpenAPI document", id="text"),
        pytest.param(SIXTH.encode().replace(b"Sixth", b"\xff"), 2, "is not UTF-8", id="not UTF-8"),
        pytest.param(
            SIXTH.encode().replace(b"Sixth", b"\x01"), 2, "character that YAML", id="control character"
        ),
        pytest.param(SIXTH.encode("utf-16"), 1, "is not UTF-8", id="UTF-16"),
        pytest.param(
            SIXTH.partition("paths:")[0].encode(), 1, "'paths' is a required property", id="no paths"
        ),
    ],
)
def test_a_file_that_is_no_contract_at_all_is_refused(
    tmp_path: Path, content: bytes, line: int, words: str
) -> None:
    file = tmp_path / "sixth.yaml"
    file.write_bytes(content)
    place, _, what = refusal(tmp_path).partition(": ")
    assert (place, words in what) == (f"{file}:{line}", True), what


@pytest.mark.parametrize(
    ("names", "place", "words"),
    [
        (["readme.txt"], "", "has no .yaml file that describes a model"),
        (["common.yaml"], "", "has no .yaml file that describes a model"),
        (["editions/my own/sixth.yaml"], "/editions/my own", "name may have letters, digits and . _ - only"),
    ],
    ids=["empty directory", "common alone", "edition with a space"],
)
def test_a_directory_that_will_not_do_is_refused(
    tmp_path: Path, names: list[str], place: str, words: str
) -> None:
    for name in names:
        write(tmp_path, name=name)
    found, _, what = refusal(tmp_path).partition(": ")
    assert (found, words in what) == (f"{tmp_path}{place}", True), what


@pytest.mark.parametrize("name", ["missing", "sixth.yaml"])
def test_what_is_no_directory_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    assert refusal(tmp_path / name) == f"{tmp_path / name}: is not a directory of OpenAPI files"


def test_a_file_without_a_model_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, SIXTH.partition("  /api")[0].replace("paths:", "paths: {}"))
    place, _, what = refusal(tmp_path).partition(": ")
    assert (place, "describes a model" in what) == (f"{file}:3", True)


def test_one_line_tells_it_on_the_command_line(tmp_path: Path) -> None:
    file = write(tmp_path, with_fields("n: {type: integer, default: x}"))
    told = CliRunner().invoke(main, ["openapi", "--openapi", str(tmp_path)])
    assert (told.exit_code, told.stderr.count("\n")) == (2, 1)
    assert told.stderr.startswith(f"Error: {file}:15: n: the default breaks the schema")


NESTED = {
    "lists": "[" * 100_000 + "]" * 100_000,
    "lists after something": "[a, " * 50_000 + "]" * 50_000,
    "mappings": "{a: " * 50_000 + "}" * 50_000,
    "indented mappings": "".join("\n" + " " * level + "a:" for level in range(1, 1500)),
}


@pytest.mark.parametrize("name", NESTED)
def test_a_file_nested_without_end_is_refused_not_a_crash(tmp_path: Path, name: str) -> None:
    write(tmp_path, f"{SIXTH}x-a: {NESTED[name]}\n")
    # In a process of its own, since a parser written in C can take the whole process with it.
    command = [sys.executable, "-W", "ignore", "-m", "mock_server", "openapi", "--openapi", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (told.returncode, f"{tmp_path}/sixth.yaml:" in told.stderr) == (2, True), told.stderr[-300:]


def test_a_long_line_of_dashes_is_no_nesting(tmp_path: Path) -> None:
    assert plain(read(write(tmp_path, f"# {'-' * 300}\na: {'-' * 300}\n"))) == {"a": "-" * 300}
