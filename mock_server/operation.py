"""What an operation of a document does, and what its requests have to keep to."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mock_server.desk import Answer, Call, Desk
from mock_server.validation import Parameter, Rules, compile_rules, query_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What an operation of a document does, and what its requests have to keep to.

    `body` are the rules of its JSON body, None where it takes none. `place` is where it stands among those
    that faults and the journal tell apart.
    """

    handler: Callable[[Desk, Call], Awaitable[Answer]]
    place: str = "other"
    body: Rules | None = None
    parameters: tuple[Parameter, ...] = ()
    query: Rules | None = None


def operation_of(
    described: Mapping[str, Any], handler: Callable[[Desk, Call], Awaitable[Answer]], *, place: str = "other"
) -> Operation:
    """What carries out an operation as a document describes it: its JSON body and its query are checked."""
    schema = described.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    parameters = tuple(query_parameters(described))
    query = {"type": "object", "properties": {each.name: each.schema for each in parameters}}
    return Operation(
        handler=handler,
        place=place,
        body=compile_rules(schema) if schema else None,
        parameters=parameters,
        query=compile_rules(query) if parameters else None,
    )
