"""The operations of the platform by their names in openapi/platform/."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool

from mock_server.catalog import Edition
from mock_server.desk import Answer, Call, Desk, success
from mock_server.faulting import struck, under
from mock_server.faults import PLATFORM, UPLOAD
from mock_server.operation import Operation, operation_of
from mock_server.platform import account, history, models, receiving

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
        operation["operationId"]: operation_of(operation, handlers[name][1], place=handlers[name][0])
        for item in edition.document["paths"].values()
        for operation in item.values()
        if (name := operation["x-wavemock"]["operation"]) not in {"submit", "result"}
    }


async def _answer(place: str, work: Work, desk: Desk, call: Call) -> Answer:
    async def found() -> Answer:
        # In a thread whatever the store is: history may have a hundred thousand predictions to go through.
        return success(await run_in_threadpool(work, desk, call))

    fault = await desk.run(struck, desk, place)
    return await under(fault, desk, call, found)
