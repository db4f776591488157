"""The suite's table of what the five pages say, typed by hand from them, against the contracts served."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from hashlib import sha256
from typing import Any

import pytest
from openapi_schema_validator import OAS30Validator, oas30_format_checker
from openapi_spec_validator import OpenAPIV30SpecValidator

from conftest import Client, MakeClient
from contract_tests.layers.protocol import curls
from contract_tests.table import Field, read_models, read_results
from mock_server.catalog import Contract, Edition, load_catalog

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
SUBMIT = {"200", "400", "401", "405", "408", "413", "415", "500", "503"}
RESULT = {"200", "401", "404", "405", "500", "503"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One field. `limits` is every promise about it beyond its type, by the name that OpenAPI has for it."""

    field: str
    type: str
    required: bool
    limits: Mapping[str, Any]


def number(printed: Decimal) -> int | float:
    return int(printed) if printed == printed.to_integral() else float(printed)


def as_row(field: Field) -> Row:
    """The row that a field of the table means."""
    limits: dict[str, Any] = {}
    if field.default is not None:
        limits["default"] = field.default
    if field.max_items is not None:
        limits["maxItems"] = field.max_items
    if field.minimum is not None and field.maximum is not None:
        bounds = {"minimum": number(field.minimum), "maximum": number(field.maximum)}
        limits |= {"x-dimensions": bounds} if field.is_size else bounds
    return Row(field=field.name, type=field.kind, required=field.required, limits=limits)


PAGES = {
    f"{model.edition}/{model.name}": model
    for edition in ("current", "flux-lora")
    for model in read_models(edition)
    if model.documented
}
ROWS = {f"{page}/{each.name}": as_row(each) for page, model in PAGES.items() for each in model.request}
ANSWERS = {
    f"{model.edition}/{each.name}": each.kind + (f"-of-{each.items}" if each.items else "")
    for model in PAGES.values()
    for each in (*model.response, *read_results(model.edition))
}
EDITIONS = ["current", "flux-lora"]


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
            if operation["x-wavemock"]["operation"] not in {"submit", "result"}:
                continue  # the platform's, which no page of a model is about
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


@pytest.mark.parametrize("page", PAGES)
def test_every_field_of_a_contract_is_a_row_of_its_page(page: str) -> None:
    fields = {f"{page}/{row.field}" for each in contracts(page) for row in served(each.schema)}
    assert fields == {name for name in ROWS if name.startswith(f"{page}/")}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_field_of_an_answer_is_always_there_in_every_operation(name: str) -> None:
    edition, field = name.split("/")
    for operation in operations(edition).values():
        found = [row for row in told(body_schema(operation)) if row[0] == field]
        assert found == [(field, ANSWERS[name], True, False)]


@pytest.mark.parametrize("edition", EDITIONS)
def test_every_field_of_an_answer_is_a_row_or_the_platforms(edition: str) -> None:
    rows = {name for name in ANSWERS if name.startswith(f"{edition}/")}
    for operation in operations(edition).values():
        fields = told(body_schema(operation))
        assert {f"{edition}/{name}" for name, _, _, platform in fields if not platform} == rows


@pytest.mark.parametrize("edition", EDITIONS)
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
    assert models == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
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


@pytest.mark.parametrize("page", curls())
def test_the_curl_of_a_page_is_accepted_once_it_is_complete(client: Client, page: str) -> None:
    curl = curls()[page]
    complete = {**curl["body"], **dict.fromkeys(curl["lacks"], "https://example.com/images.zip")}
    answer = client.post(address(page), complete)
    assert (answer.status_code, "X-Mock-Unknown-Fields" in answer.headers) == (200, False), answer.text


@pytest.mark.parametrize("page", [page for page, curl in curls().items() if curl["lacks"]])
def test_the_curl_of_a_trainers_page_is_refused_for_the_archive_it_lacks(client: Client, page: str) -> None:
    curl = curls()[page]
    assert pointers(client, address(page), curl["body"]) == [f"/{name}" for name in curl["lacks"]]


def test_the_turbo_curl_is_refused_where_its_page_sends_it_even_when_complete(client: Client) -> None:
    body = curls()["current/flux-dev-lora-trainer-turbo"]["body"] | {"data": "https://example.com/a.zip"}
    assert pointers(client, "/api/v3/wavespeed-ai/flux-dev-lora-trainer", body) == ["/images_data_url"]


@pytest.mark.parametrize("edition", EDITIONS)
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


@pytest.mark.parametrize("edition", EDITIONS)
def test_the_links_of_every_submit_lead_to_all_operations_that_tell_results(edition: str) -> None:
    results = {name: each for name, each in operations(edition).items() if not name.startswith("submit")}
    for links in (each["responses"]["200"]["links"].values() for each in submits(edition)):
        assert {link["operationId"] for link in links} == results.keys()
        for link in links:
            assert link["parameters"] == {"id": "$response.body#/data/id"}
            assert [each["name"] for each in results[link["operationId"]]["parameters"]] == ["id"]


@pytest.mark.parametrize("edition", EDITIONS)
def test_every_link_of_a_submit_can_be_followed(client: Client, edition: str) -> None:
    known = operations(edition)
    for submit in submits(edition):
        body = submit["requestBody"]["content"]["application/json"]["examples"]["shortest"]["value"]
        data = client.post(f"/editions/{edition}{submit['path']}", body).json()["data"]
        for link in submit["responses"]["200"]["links"].values():
            path = known[link["operationId"]]["path"].replace("{id}", data["id"])
            assert client.get(f"/editions/{edition}{path}").json()["data"] == data


@pytest.mark.parametrize("edition", EDITIONS)
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
