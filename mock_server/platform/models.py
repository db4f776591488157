"""The list of models with the schemas of their inputs, and what a request costs."""

from collections.abc import Mapping
from typing import Any

from mock_server.backend import image_count
from mock_server.catalog import Contract, Edition
from mock_server.desk import Call, Desk
from mock_server.errors import Refusal

_TYPES = {"images": "text-to-image", "lora": "training"}
_NOT_JSON_SCHEMA = {"example", "nullable"}


def listed(edition: Edition) -> list[dict[str, Any]]:
    """The models of an edition, as the platform lists them."""
    about = {tag["name"]: tag["description"] for tag in edition.document["tags"]}
    operations = {
        operation["operationId"]: operation
        for item in edition.document["paths"].values()
        for operation in item.values()
    }
    models: dict[str, list[Contract]] = {}
    for contract in sorted(edition.contracts.values(), key=lambda each: each.version, reverse=True):
        models.setdefault(contract.model, []).append(contract)
    return [
        {
            "model_id": model,
            "name": model,
            "type": _TYPES[contracts[0].produces],
            "description": next(
                (about[tag] for tag in operations[contracts[0].operation_id].get("tags", []) if tag in about),
                "",
            ),
            "base_price": contracts[0].price,
            "sort_order": place,
            "api_schema": {
                "api_schemas": [
                    {"api_path": each.path, "request_schema": _request_schema(each.schema)}
                    for each in contracts
                ]
            },
        }
        for place, (model, contracts) in enumerate(sorted(models.items()))
    ]


def _request_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An input's schema as JSON Schema, without the fields that no page of the model has."""
    fields = {
        name: _json_schema(child)
        for name, child in schema.get("properties", {}).items()
        if child.get("x-platform") is not True
    }
    rest = {name: value for name, value in schema.items() if name not in {"properties", "required"}}
    return {
        **_json_schema(rest),
        "required": list(schema.get("required", [])),
        "properties": fields,
        "x-order-properties": list(fields),
    }


def _json_schema(value: Any, *, names: bool = False) -> Any:
    """A schema without what only OpenAPI knows. `names`: the keys are names of fields, not keywords."""
    if isinstance(value, list):
        return [_json_schema(each) for each in value]
    if not isinstance(value, dict):
        return value
    if names:
        return {name: _json_schema(each) for name, each in value.items()}
    told = {
        key: each if key in {"default", "enum"} else _json_schema(each, names=key == "properties")
        for key, each in value.items()
        if key not in _NOT_JSON_SCHEMA and not key.startswith("x-")
    }
    if value.get("nullable") and isinstance(value.get("type"), str):
        told["type"] = [value["type"], "null"]
    return told


def price(edition: Edition, _desk: Desk, call: Call) -> dict[str, Any]:
    """What a submit of these inputs would take. Raises Refusal 404 for a model that there is not."""
    model = call.given["model_id"]
    found = next((each for each in edition.contracts.values() if each.model == model), None)
    if found is None:
        raise Refusal(404, f"There is no model {model[:80]!r}; GET /api/v3/models lists them.")
    count = image_count(call.given.get("inputs", {})) if found.produces == "images" else 1
    return {"model_id": model, "unit_price": round(found.price * count, 6), "currency": "USD"}
