"""What the operations of the control plane do."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mock_server.backend import seed_of
from mock_server.catalog import Catalog, bundled_directory, read_document
from mock_server.documents import Library, plain
from mock_server.errors import Refusal
from mock_server.handlers import Answer, Call, Desk, base_url, result_url, timestamp
from mock_server.middleware import CONTROL_PREFIX, Operation
from mock_server.outputs import url_of
from mock_server.prediction import Event, Prediction
from mock_server.scenarios import SCENARIOS
from mock_server.validation import compile_rules, query_parameters

_LONGEST_LISTED = 200
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def document() -> dict[str, Any]:
    """The control plane's own OpenAPI document, with references resolved."""
    library = Library(fallback=bundled_directory(), files={})
    resolved: dict[str, Any] = plain(read_document(Path(__file__).with_name("control.yaml"), library))
    return resolved


def operations(desk: Desk, catalog: Catalog) -> dict[str, Operation]:
    """Every operation of the document, ready to be checked and carried out."""
    handlers: Mapping[str, Callable[..., Any]] = {
        "health": partial(_health, catalog=catalog),
        "list-predictions": _list,
        "show-prediction": _show,
        "read-clock": _clock,
        "set-clock": _set_clock,
        "reset": _reset,
    }
    found = {}
    for item in document()["paths"].values():
        for operation in item.values():
            parameters = tuple(query_parameters(operation))
            schema = (
                operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            )
            query = {"type": "object", "properties": {each.name: each.schema for each in parameters}}
            found[operation["operationId"]] = Operation(
                handler=partial(_answer, desk, handlers[operation["operationId"]]),
                body=compile_rules(schema) if schema else None,
                parameters=parameters,
                query=compile_rules(query) if parameters else None,
            )
    return found


async def _answer(desk: Desk, handler: Callable[[Desk, Call], Any], call: Call) -> Answer:
    data = await desk.run(handler, desk, call)
    # Not msgspec: a received body may hold integers beyond 64 bits.
    return Answer(body=json.dumps({"code": 200, "message": "success", "data": data}).encode())


def _health(desk: Desk, _call: Call, *, catalog: Catalog) -> dict[str, Any]:
    return {
        "status": "ok",
        "version": version("wavemock"),
        "now": timestamp(desk.clock.now()),
        "running": desk.clock.running(),
        "predictions": desk.store.count(),
        "edition": desk.root_edition,
        "editions": {
            edition.name: sorted(contract.path for contract in edition.contracts.values())
            for edition in catalog.values()
        },
        "scenario": desk.scenario,
        "scenarios": {scenario.name: scenario.advice for scenario in SCENARIOS.values()},
    }


def _list(desk: Desk, call: Call) -> dict[str, Any]:
    found = desk.store.newest(limit=call.query["limit"], before=call.query.get("before"))
    inside = [_inside(desk, call, prediction) for prediction in found]
    return {
        "count": desk.store.count(),
        "predictions": [_without_long_texts(each) for each in inside if each is not None],
    }


def _without_long_texts(value: Any) -> Any:
    """The value with its long texts shortened: a hundred requests with images are too much for a list."""
    if isinstance(value, dict):
        return {key: _without_long_texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_long_texts(item) for item in value]
    if isinstance(value, str) and len(value) > _LONGEST_LISTED:
        return f"{value[:_LONGEST_LISTED]}… ({len(value)} characters)"
    return value


def _show(desk: Desk, call: Call) -> dict[str, Any]:
    prediction_id = call.scope["path_params"]["id"]
    prediction = desk.store.get(prediction_id)
    inside = _inside(desk, call, prediction) if prediction is not None else None
    if inside is None:
        raise Refusal(404, f"There is no prediction {prediction_id[:80]!r}.")
    return inside


def _inside(desk: Desk, call: Call, prediction: Prediction) -> dict[str, Any] | None:
    asked = desk.store.asked(prediction.id)
    if asked is None:
        return None
    base, now, given = base_url(desk, call.scope), desk.clock.now(), asked.input
    return {
        "id": prediction.id,
        "model": prediction.model,
        "edition": prediction.edition,
        "version": prediction.version,
        "scenario": prediction.scenario,
        "created_at": timestamp(prediction.created_at),
        "status": prediction.seen_at(now)[-1].status,
        "urls": {
            "get": result_url(desk, prediction, base),
            "inside": f"{base}{CONTROL_PREFIX}/predictions/{prediction.id}",
        },
        **({"seed": seed_of(prediction, given)} if "seed" in given else {}),
        "received": json.loads(asked.received),
        "input": given,
        "defaulted": [
            name if "/" not in (name := pointer.removeprefix("/")) else pointer for pointer in asked.defaults
        ],
        "warnings": list(asked.warnings),
        "events": [_event(prediction, event, base, now) for event in prediction.events],
    }


def _event(prediction: Prediction, event: Event, base: str, now: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "at": timestamp(event.at),
        "status": event.status,
        "happened": event.at <= now,
    }
    if event.error:
        told["error"] = event.error
    if event.outputs:
        told["outputs"] = [url_of(base, prediction.id, name) for name in event.outputs]
        told["has_nsfw_contents"] = list(event.nsfw)
    return told


def _clock(desk: Desk, _call: Call) -> dict[str, Any]:
    return {
        "now": timestamp(desk.clock.now()),
        "running": desk.clock.running(),
        "ahead": desk.clock.ahead() / 1000,
    }


def _set_clock(desk: Desk, call: Call) -> dict[str, Any]:
    change: dict[str, Any] = call.given
    if "freeze" in change:
        desk.clock.freeze()
    if "advance" in change:
        desk.clock.advance(milliseconds(change["advance"]))
    if "resume" in change:
        desk.clock.resume()
    return _clock(desk, call)


def milliseconds(span: float | str) -> int:
    """A span of time in seconds, or as a text with a unit (ms, s, m, h), in milliseconds."""
    if not isinstance(span, str):
        return round(span * 1000)
    unit = next(each for each in _UNITS if span.endswith(each))
    return round(float(span.removesuffix(unit)) * _UNITS[unit])


def _reset(desk: Desk, _call: Call) -> dict[str, Any]:
    forgotten = desk.store.count()
    desk.store.clear()
    # With --seed the same ids come again, for other requests.
    desk.outputs.clear()
    return {"forgotten": forgotten}
