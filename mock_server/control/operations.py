"""The control plane: its document, its operations, health and reset."""

import inspect
import shutil
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from mock_server.backend import JobBackend
from mock_server.catalog import Catalog, bundled_directory, read_document
from mock_server.choosing import standing
from mock_server.control import bench, inside, post, review, time
from mock_server.desk import Answer, Call, Desk, Desks, success, timestamp
from mock_server.documents import Library, plain
from mock_server.faulting import armed
from mock_server.faults import text_of
from mock_server.operation import Operation, operation_of
from mock_server.scenarios import SCENARIOS
from mock_server.webhooks.courier import Courier

_LONG = frozenset({"audit", "ledger", "list-webhooks"})
"""What goes through all that a session holds, which can take seconds."""


@cache
def document() -> dict[str, Any]:
    """The control plane's own OpenAPI document, with references resolved."""
    library = Library(fallback=bundled_directory(), files={})
    resolved: dict[str, Any] = plain(read_document(Path(__file__).with_name("control.yaml"), library))
    return resolved


def operations(desks: Desks, catalog: Catalog, courier: Courier) -> dict[str, Operation]:
    """Every operation of the document, ready to be checked and carried out."""
    handlers: Mapping[str, Callable[[Desk, Call], Any]] = {
        "health": partial(_health, catalog, desks),
        "list-predictions": inside.list_newest,
        "show-prediction": inside.show,
        "advance-prediction": inside.advance,
        "read-clock": time.read,
        "set-clock": partial(time.change, courier),
        "list-scenarios": bench.list_scenarios,
        "read-scenario": bench.read_standing,
        "set-scenario": partial(bench.set_standing, catalog),
        "unset-scenario": bench.unset_standing,
        "list-faults": bench.list_faults,
        "arm-fault": bench.arm_fault,
        "disarm-faults": bench.disarm_all,
        "disarm-fault": bench.disarm_one,
        "read-account": bench.read_account,
        "set-account": bench.change_account,
        "list-requests": bench.list_requests,
        "audit": review.show_audit,
        "ledger": partial(review.show_ledger, catalog),
        "list-webhooks": post.list_webhooks,
        "redeliver-webhook": partial(post.redeliver, courier),
        "reset": partial(_reset, desks),
    }
    found = {}
    for item in document()["paths"].values():
        for operation in item.values():
            name = operation["operationId"]
            found[name] = operation_of(operation, partial(_answer, handlers[name], name in _LONG))
    return found


async def _answer(handler: Callable[[Desk, Call], Any], long: bool, desk: Desk, call: Call) -> Answer:
    if inspect.iscoroutinefunction(handler.func if isinstance(handler, partial) else handler):
        # A move of the clock can have a great deal to tell.
        return await run_in_threadpool(success, await handler(desk, call))
    answer: Answer = await (run_in_threadpool if long else desk.run)(lambda: success(handler(desk, call)))
    return answer


def _health(catalog: Catalog, desks: Desks, desk: Desk, _call: Call) -> dict[str, Any]:
    return {
        "status": "ok",
        "version": version("wavemock"),
        "backend": "gpu" if isinstance(desk.backend, JobBackend) else "simulated",
        "session": desk.session,
        "sessions": desks.root.store.sessions(),
        "now": timestamp(desk.clock.now()),
        "running": desk.clock.speed() > 0,
        "armed": [text_of(each.fault) for _, each in armed(desk)],
        "standing": {model or "*": each.scenario for model, each in standing(desk).items()},
        "magic": desk.magic,
        "predictions": desk.store.count(),
        "edition": desk.root_edition,
        "editions": {
            edition.name: sorted(contract.path for contract in edition.contracts.values())
            for edition in catalog.values()
        },
        "scenario": desk.scenario,
        "scenarios": {scenario.name: scenario.advice for scenario in SCENARIOS.values()},
    }


async def _reset(desks: Desks, desk: Desk, _call: Call) -> dict[str, Any]:
    forgotten: int = await desk.run(_forget, desks, desk)
    await run_in_threadpool(_remove_files, desk)
    return {"forgotten": forgotten}


def _forget(desks: Desks, desk: Desk) -> int:
    forgotten = desk.store.count()
    desk.store.clear()
    desks.forget(desk.session)
    return forgotten


def _remove_files(desk: Desk) -> None:
    # With --seed the same ids come again, for other requests.
    desk.outputs.clear()
    desk.uploads.clear()
    if desk.session:
        # Its own folder. One that stays does no harm, now that nothing is in it.
        shutil.rmtree(desk.outputs.directory.parent, ignore_errors=True)
