"""What the five pages say, typed by hand from the pages alone, against the contracts that are served."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any

import pytest
from openapi_schema_validator import OAS30Validator, oas30_format_checker
from openapi_spec_validator import OpenAPIV30SpecValidator

from conftest import Client, MakeClient
from mock_server.catalog import Contract, Edition, load_catalog

# The older page has one table for two families: 28 steps of 1 to 50 for dev, 4 of 1 to 8 for the other.
OLDER = """
        prompt                                string   no   ""         -
        image                                 string   no   ""         -
        strength                              float    no   0.6        0.0~1.0
        size                                  string   no   1024*1024  512~1536-per-dimension
        num_inference_steps                   integer  no   {}
        guidance_scale                        float    no   5.0        0.0~10.0
        num_images                            integer  no   1          1~4
        seed                                  integer  no   -1         -1~9999999999
        loras                                 array    no   []         5-items
        loras[].path                          string   yes  -          -
        loras[].scale                         integer  yes  -          0~4
        enable_safety_checker                 boolean  no   true       -
"""
# One block per table of request parameters: field, type, required, default, range. `sample` stands where a
# page prints a sample text as the default of a required field.
REQUEST = {
    "current/flux-dev-lora": """
        prompt                                string   yes  sample     -
        image                                 string   no   -          -
        mask_image                            string   no   -          -
        strength                              number   no   0.8        0.00~1.00
        loras                                 array    no   []         5-items
        loras[].path                          string   yes  -          -
        loras[].scale                         float    yes  -          0.0~4.0
        size                                  string   no   1024*1024  512~1536-per-dimension
        num_inference_steps                   integer  no   28         1~50
        guidance_scale                        number   no   3.5        0.0~10.0
        num_images                            integer  no   1          1~4
        seed                                  integer  no   -1         -1~9999999999
        enable_base64_output                  boolean  no   true       -
        enable_safety_checker                 boolean  no   true       -
    """,
    "current/flux-schnell-lora": """
        prompt                                string   yes  sample     -
        image                                 string   no   -          -
        mask_image                            string   no   -          -
        strength                              number   no   0.8        0.00~1.00
        loras                                 array    no   []         5-items
        loras[].path                          string   yes  -          -
        loras[].scale                         float    yes  -          0.0~4.0
        size                                  string   no   1024*1024  512~1536-per-dimension
        num_inference_steps                   integer  no   4          1~8
        guidance_scale                        number   no   3.5        0.0~10.0
        num_images                            integer  no   1          1~4
        seed                                  integer  no   -1         -1~9999999999
        enable_base64_output                  boolean  no   false      -
        enable_safety_checker                 boolean  no   true       -
    """,
    "current/flux-dev-lora-trainer": """
        images_data_url                       string   yes  -          -
        trigger_word                          string   no   -          -
        create_masks                          boolean  no   true       -
        steps                                 integer  no   1000       1~10000
        is_style                              boolean  no   false      -
        is_input_format_already_preprocessed  boolean  no   false      -
        data_archive_format                   string   no   -          -
    """,
    "current/flux-dev-lora-trainer-turbo": """
        data                                  string   yes  -          -
        trigger_word                          string   no   p3r5on     -
        steps                                 integer  no   1000       1000~10000
        learning_rate                         number   no   0.0004     0.00000~1.00000
        lora_rank                             integer  no   16         1~64
    """,
    "flux-lora/flux-dev-lora": OLDER.format("28 1~50"),
    "flux-lora/flux-schnell-lora": OLDER.format("4 1~8"),
}
# The tables of response parameters, which the four newer pages have in common.
_RESPONSE = """
    code                    integer
    message                 string
    data                    object
    data.id                 string
    data.model              string
    data.outputs            array-of-string
    data.urls               object
    data.urls.get           string
    data.has_nsfw_contents  array-of-boolean
    data.status             string
    data.created_at         string
    data.error              string
"""
RESPONSE = {
    "current": _RESPONSE + "data.timings object\n data.timings.inference integer",
    "flux-lora": _RESPONSE + "data.executionTime integer",
}
# The sample prompts by the first half of their SHA-256, and which version each page's curl posts to.
SAMPLES = {"flux-dev-lora": "ba74c15a5bd235a1", "flux-schnell-lora": "3b0d037c42171930"}
SHOWN = {
    "current/flux-dev-lora": "v2",
    "current/flux-schnell-lora": "v3",
    "current/flux-dev-lora-trainer": "v3",
    "current/flux-dev-lora-trainer-turbo": "v3",
    "flux-lora/flux-dev-lora": "v2",
    "flux-lora/flux-schnell-lora": "v2",
}
# What each page's curl sends, with a prompt in our words, and the field that it lacks.
CURLS = {
    "current/flux-dev-lora": (
        """{"prompt": "A gift box in the snow", "image": "", "strength": 0.8,
            "loras": [{"path": "linoyts/yarn_art_Flux_LoRA", "scale": 1}], "size": "1024*1024",
            "num_inference_steps": 28, "guidance_scale": 3.5, "num_images": 1, "seed": -1,
            "enable_base64_output": true, "enable_safety_checker": true}""",
        "",
    ),
    "current/flux-schnell-lora": (
        """{"prompt": "Somebody in a cafe, 4k  [be4u7y]", "image": "", "strength": 0.8,
            "loras": [{"path": "Octree/flux-schnell-lora", "scale": 1}], "size": "1024*1024",
            "num_inference_steps": 4, "guidance_scale": 3.5, "num_images": 1, "seed": -1,
            "enable_base64_output": false, "enable_safety_checker": true}""",
        "",
    ),
    "current/flux-dev-lora-trainer": (
        """{"create_masks": true, "steps": 1000, "is_style": false,
            "is_input_format_already_preprocessed": false}""",
        "images_data_url",
    ),
    "current/flux-dev-lora-trainer-turbo": (
        """{"trigger_word": "p3r5on", "steps": 1000, "learning_rate": 0.0004, "lora_rank": 16}""",
        "data",
    ),
    "flux-lora/flux-dev-lora": (
        """{"prompt": "A lake between mountains", "image": "https://example.com/input_image.jpg",
            "strength": 0.6, "size": "1024*1024", "num_inference_steps": 28, "guidance_scale": 5.0,
            "num_images": 1, "seed": -1,
            "loras": [{"path": "davanstrien/nasa_concept_art-flux-lora", "scale": 1}],
            "enable_safety_checker": true}""",
        "",
    ),
}
SUBMIT = {"200", "400", "401", "405", "408", "413", "415", "500", "503"}
RESULT = {"200", "401", "404", "405", "500", "503"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One field. `limits` is every promise about it beyond its type, by the name that OpenAPI has for it."""

    field: str
    type: str
    required: bool
    limits: Mapping[str, Any]


def typed(line: str) -> Row:
    """The row that a line of REQUEST means."""
    field, kind, required, default, span = line.split()
    limits: dict[str, Any] = {}
    if default not in {"-", "sample"}:
        limits["default"] = default if default in {"1024*1024", "p3r5on"} else json.loads(default)
    if span.endswith("-items"):
        limits["maxItems"] = int(span.removesuffix("-items"))
    elif span != "-":
        low, high = span.removesuffix("-per-dimension").split("~")
        bounds = {"minimum": json.loads(low), "maximum": json.loads(high)}
        limits |= {"x-dimensions": bounds} if span.endswith("-per-dimension") else bounds
    kind = {"float": "number"}.get(kind, kind)
    return Row(field=field, type=kind, required=required == "yes", limits=limits)


ROWS = {
    f"{page}/{line.split()[0]}": typed(line)
    for page, block in REQUEST.items()
    for line in block.strip().split("\n")
}
ANSWERS = {
    f"{edition}/{line.split()[0]}": line.split()[1]
    for edition, block in RESPONSE.items()
    for line in block.strip().split("\n")
}


@cache
def editions() -> Mapping[str, Edition]:
    return load_catalog()


def contracts(page: str) -> list[Contract]:
    edition, model = page.split("/")
    found = editions()[edition].contracts.values()
    return [contract for contract in found if contract.model == f"wavespeed-ai/{model}"]


def served(schema: Mapping[str, Any], prefix: str = "") -> Iterator[Row]:
    """The fields of an input's schema that are not the platform's."""
    for name, child in schema["properties"].items():
        if child.get("x-platform") is True:
            continue
        known = {"type", "description", "example", "items"}
        # What says once more, for other tools, what the range says already.
        known |= {"pattern"} if "x-dimensions" in child else set()
        known |= {"format"} if child.get("format") == "int64" else set()
        limits = {key: value for key, value in child.items() if key not in known}
        if items := child.get("items"):
            limits |= {key: items[key] for key in items.keys() - {"type", "required", "properties"}}
            yield from served(items, f"{prefix}{name}[].")
        required = name in schema.get("required", [])
        yield Row(field=prefix + name, type=child["type"], required=required, limits=limits)


def told(schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, bool, bool]]:
    """Name, type, whether required and whether the platform's, of every field in an answer's schema."""
    for name, child in schema["properties"].items():
        kind = child["type"] + (f"-of-{child['items']['type']}" if "items" in child else "")
        platform = child.get("x-platform") is True
        yield prefix + name, kind, name in schema["required"], platform
        if "properties" in child and not platform:
            yield from told(child, f"{prefix}{name}.")


def operations(edition: str) -> dict[str, dict[str, Any]]:
    """Every operation of an edition's document by its id, with its path, and with its responses looked up."""
    document = editions()[edition].document
    shared = document["components"].get("responses", {})
    found = {}
    for path, item in document["paths"].items():
        for operation in item.values():
            responses = {
                status: shared[each["$ref"].rpartition("/")[2]] if "$ref" in each else each
                for status, each in operation["responses"].items()
            }
            found[operation["operationId"]] = {**operation, "path": path, "responses": responses}
    return found


def body_schema(operation: Mapping[str, Any], status: int = 200) -> Any:
    return operation["responses"][str(status)]["content"]["application/json"]["schema"]


def submits(edition: str) -> list[dict[str, Any]]:
    return [each for name, each in operations(edition).items() if name.startswith("submit")]


def address(page: str) -> str:
    """Where the page's curl ought to post to."""
    edition, model = page.split("/")
    return f"/editions/{edition}/api/{SHOWN[page]}/wavespeed-ai/{model}"


def pointers(client: Client, path: str, body: Any) -> list[str]:
    """What is wrong with a body."""
    answer = client.post(path, body)
    assert answer.status_code == 400
    return [each["pointer"] for each in answer.json()["data"]["violations"]]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_a_page_is_in_the_contract_exactly_so(name: str) -> None:
    page, _, field = name.rpartition("/")
    found = [row for each in contracts(page) for row in served(each.schema) if row.field == field]
    assert found == [ROWS[name]] * 2


@pytest.mark.parametrize("page", REQUEST)
def test_every_field_of_a_contract_is_a_row_of_its_page(page: str) -> None:
    fields = {f"{page}/{row.field}" for each in contracts(page) for row in served(each.schema)}
    assert fields == {name for name in ROWS if name.startswith(f"{page}/")}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_field_of_an_answer_is_always_there_in_every_operation(name: str) -> None:
    edition, field = name.split("/")
    for operation in operations(edition).values():
        found = [row for row in told(body_schema(operation)) if row[0] == field]
        assert found == [(field, ANSWERS[name], True, False)]


@pytest.mark.parametrize("edition", RESPONSE)
def test_every_field_of_an_answer_is_a_row_or_the_platforms(edition: str) -> None:
    rows = {name for name in ANSWERS if name.startswith(f"{edition}/")}
    for operation in operations(edition).values():
        fields = told(body_schema(operation))
        assert {f"{edition}/{name}" for name, _, _, platform in fields if not platform} == rows


@pytest.mark.parametrize("edition", RESPONSE)
def test_a_status_is_one_of_the_four_that_the_pages_name(edition: str) -> None:
    for operation in operations(edition).values():
        data = body_schema(operation)["properties"]["data"]
        assert data["properties"]["status"]["enum"] == ["created", "processing", "completed", "failed"]


def test_there_is_no_model_without_a_page() -> None:
    models = {
        f"{edition.name}/{each.model.removeprefix('wavespeed-ai/')}"
        for edition in editions().values()
        for each in edition.contracts.values()
    }
    assert models == set(REQUEST)


@pytest.mark.parametrize("page", REQUEST)
def test_a_model_answers_on_both_versions_alike(page: str) -> None:
    old, new = sorted(contracts(page), key=lambda each: each.version)
    assert (old.version, new.version, old.schema) == ("v2", "v3", new.schema)


@pytest.mark.parametrize("page", SHOWN)
def test_the_version_that_the_pages_curl_shows_is_the_documented_one(page: str) -> None:
    assert [each.version for each in contracts(page) if each.documented] == [SHOWN[page]]


@pytest.mark.parametrize("model", SAMPLES)
def test_the_sample_prompt_is_an_example(model: str) -> None:
    for contract in contracts(f"current/{model}"):
        sample = contract.schema["properties"]["prompt"]["example"]
        assert sha256(sample.encode()).hexdigest().startswith(SAMPLES[model])


@pytest.mark.parametrize("page", CURLS)
def test_the_curl_of_a_page_is_accepted_once_it_is_complete(client: Client, page: str) -> None:
    body, lacking = CURLS[page]
    complete = json.loads(body) | ({lacking: "https://example.com/images.zip"} if lacking else {})
    answer = client.post(address(page), complete)
    assert (answer.status_code, "X-Mock-Unknown-Fields" in answer.headers) == (200, False), answer.text


@pytest.mark.parametrize("page", [page for page, (_, lacking) in CURLS.items() if lacking])
def test_the_curl_of_a_trainers_page_is_refused_for_the_archive_it_lacks(client: Client, page: str) -> None:
    body, lacking = CURLS[page]
    assert pointers(client, address(page), json.loads(body)) == [f"/{lacking}"]


def test_the_turbo_curl_is_refused_where_its_page_sends_it_even_when_complete(client: Client) -> None:
    body = json.loads(CURLS["current/flux-dev-lora-trainer-turbo"][0]) | {"data": "https://example.com/a.zip"}
    assert pointers(client, "/api/v3/wavespeed-ai/flux-dev-lora-trainer", body) == ["/images_data_url"]


@pytest.mark.parametrize("edition", RESPONSE)
def test_every_operation_declares_what_it_can_answer(edition: str) -> None:
    for name, operation in operations(edition).items():
        assert set(operation["responses"]) == (SUBMIT if name.startswith("submit") else RESULT), name


@pytest.mark.parametrize(
    ("status", "given"),
    [
        (200, {"json": {"prompt": "x"}}),
        (400, {"json": {}}),
        (401, {"json": {}, "headers": {"Authorization": ""}}),
        (405, {"method": "PUT"}),
        (413, {"json": {"prompt": "x" * 1000}}),
        (415, {"content": b"{}", "headers": {"Content-Type": "text/plain"}}),
        (503, {"json": {"prompt": "x"}}),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_an_answer_is_what_the_operation_declares(
    make_client: MakeClient, status: int, given: dict[str, Any]
) -> None:
    client = make_client(max_body=1000, keep=1)
    if status == 503:
        client.submit(scenario="stuck")
    page = "current/flux-dev-lora"
    answer = client.request(
        **{"method": "POST", "path": address(page).removeprefix("/editions/current"), **given}
    )
    schema = body_schema(operations("current")["submit-v2-flux-dev-lora"], answer.status_code)
    OAS30Validator(schema, format_checker=oas30_format_checker).validate(answer.json())
    assert answer.status_code == status


@pytest.mark.parametrize("edition", RESPONSE)
def test_the_links_of_every_submit_lead_to_all_operations_that_tell_results(edition: str) -> None:
    results = {name: each for name, each in operations(edition).items() if not name.startswith("submit")}
    for links in (each["responses"]["200"]["links"].values() for each in submits(edition)):
        assert {link["operationId"] for link in links} == results.keys()
        for link in links:
            assert link["parameters"] == {"id": "$response.body#/data/id"}
            assert [each["name"] for each in results[link["operationId"]]["parameters"]] == ["id"]


@pytest.mark.parametrize("edition", RESPONSE)
def test_every_link_of_a_submit_can_be_followed(client: Client, edition: str) -> None:
    known = operations(edition)
    for submit in submits(edition):
        body = submit["requestBody"]["content"]["application/json"]["examples"]["shortest"]["value"]
        data = client.post(f"/editions/{edition}{submit['path']}", body).json()["data"]
        for link in submit["responses"]["200"]["links"].values():
            path = known[link["operationId"]]["path"].replace("{id}", data["id"])
            assert client.get(f"/editions/{edition}{path}").json()["data"] == data


@pytest.mark.parametrize("edition", RESPONSE)
def test_the_merged_document_is_openapi_for_others_too(edition: str) -> None:
    OpenAPIV30SpecValidator(dict(editions()[edition].document)).validate()


def samples(node: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every example and default in a document: where, the schema beside it, the value."""
    children = (
        list(enumerate(node))
        if isinstance(node, list)
        else list(node.items())
        if isinstance(node, dict)
        else []
    )
    if isinstance(node, dict) and node.keys() & {"schema", "type"}:
        given = {key: {"value": node[key]} for key in ("example", "default") if key in node}
        for name, each in (given | node.get("examples", {})).items():
            yield f"{at}/{name}", node.get("schema", node), each["value"]
    for key, child in children:
        if key not in {"example", "examples", "default"}:
            yield from samples(child, f"{at}/{key}")


@pytest.mark.parametrize(("edition", "least"), [("current", 100), ("flux-lora", 50)])
def test_every_example_keeps_to_the_schema_beside_it(edition: str, least: int) -> None:
    found = list(samples(editions()[edition].document))
    assert len(found) > least
    for where, schema, value in found:
        assert OAS30Validator(schema, format_checker=oas30_format_checker).is_valid(value), where
