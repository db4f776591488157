"""The operations of the platform by their names in openapi/platform/."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool

from mock_server.catalog import Edition
from mock_server.desk import Answer, Call, Desk
from mock_server.faulting import struck, under
from mock_server.faults import PLATFORM, UPLOAD
from mock_server.middleware import Operation
from mock_server.platform import account, history, models, receiving
from mock_server.validation import compile_rules, query_parameters

Work = Callable[[Desk, Call], Any]
"""Finds the `data` of an answer; may wait for the store or take its time."""


def operations(edition: Edition, *, max_upload: int) -> dict[str, Operation]:
    """The platform's operations in an edition's document; uploads may have up to `max_upload` bytes."""
    models_listed = models.listed(edition)
    works: Mapping[str, Work] = {
        "list-models": lambda _desk, _call: models_listed,
        "model-pricing": partial(models.price, edition),
        "balance": account.balance,
        "account-balance": account.account_balance,
        "webhook-secret": account.show_secret,
        "find-predictions": history.find,
        "list-predictions": history.list_all,
        "delete-predictions": history.delete,
        "cancel-prediction": history.cancel,
    }
    handlers = {
        **{name: (PLATFORM, partial(_answer, PLATFORM, work)) for name, work in works.items()},
        "announce-upload": (UPLOAD, partial(_answer, UPLOAD, partial(receiving.announce, max_upload))),
        "upload-form": (UPLOAD, partial(receiving.take_form, max_upload)),
    }
    return {
        operation["operationId"]: _operation(operation, *handlers[name])
        for item in edition.document["paths"].values()
        for operation in item.values()
        if (name := operation["x-wavemock"]["operation"]) not in {"submit", "result"}
    }


def _operation(described: Mapping[str, Any], place: str, handler: Any) -> Operation:
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


async def _answer(place: str, work: Work, desk: Desk, call: Call) -> Answer:
    async def found() -> Answer:
        # In a thread whatever the store is: history may have a hundred thousand predictions to go through.
        data = await run_in_threadpool(work, desk, call)
        # Not msgspec: a received body may hold integers beyond 64 bits.
        return Answer(body=json.dumps({"code": 200, "message": "success", "data": data}).encode())

    fault = await desk.run(struck, desk, place)
    return await under(fault, desk, call, found)
