"""The operations of an edition as one OpenAPI document without references between files."""

from collections.abc import Mapping
from typing import Any

from mock_server.documents import LocatedDict, plain


def merged(
    name: str, operations: Mapping[tuple[str, str], LocatedDict], tags: Mapping[str, str]
) -> dict[str, Any]:
    """The document of an edition: its operations by path and method, and what its tags are about."""
    paths: dict[str, Any] = {}
    responses: dict[str, Any] = {}
    # Polling is by far the most frequent call, and routes are tried in order.
    for (url, method), operation in sorted(operations.items(), key=lambda item: "{id}" not in item[0][0]):
        told = plain(operation)
        told["responses"] = {
            status: _shared(response, responses) for status, response in operation["responses"].items()
        }
        paths.setdefault(url, {})[method] = told
    return {
        "openapi": "3.0.3",
        "info": {
            "title": f"WaveSpeedAI FLUX LoRA API, edition {name}",
            "version": "1",
            "description": "All models of this edition in one document, as wavemock serves them.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag, "description": text} for tag, text in tags.items()],
        "paths": paths,
        "components": {
            "responses": responses,
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`."}
            },
        },
    }


def _shared(response: LocatedDict, responses: dict[str, Any]) -> dict[str, Any]:
    """A reference to the response among the shared ones; the response itself where it has no name of its own.

    Nearly all operations have the same, and a document that repeats them is slow to read for everybody.
    """
    told: dict[str, Any] = plain(response)
    if not response.name or responses.setdefault(response.name, told) != told:
        return told
    return {"$ref": f"#/components/responses/{response.name}"}
