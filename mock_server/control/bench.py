"""Scenarios, faults, the account, and the journal, from the outside."""

from typing import Any

from mock_server import accounts, journal
from mock_server.catalog import Catalog
from mock_server.choosing import HEADER, QUERY, stand, stand_down, standing
from mock_server.desk import Call, Desk, timestamp
from mock_server.errors import Refusal
from mock_server.faulting import arm, armed, disarm
from mock_server.faults import KINDS, read_fault, text_of
from mock_server.grammar import choice
from mock_server.scenarios import SCENARIOS


def list_scenarios(desk: Desk, _call: Call) -> dict[str, Any]:
    """Every named scenario and every kind of fault."""
    return {
        "ways": [f"header {HEADER}", f"query {QUERY}", "API key mk_SCENARIO", "POST /_mock/scenario"],
        "magic": desk.magic,
        "scenarios": [
            {
                "name": each.name,
                "what": each.what,
                "advice": each.advice,
                **({"seed": each.magic} if each.magic is not None else {}),
            }
            for each in SCENARIOS.values()
        ],
        "faults": [
            {
                "kind": kind.name,
                "on": list(kind.places),
                "keys": [*kind.keys, *(["after-commit"] if kind.late else [])],
                "what": kind.what,
                "advice": kind.advice,
            }
            for kind in KINDS.values()
        ],
    }


def read_standing(desk: Desk, _call: Call) -> dict[str, Any]:
    """What submits get that name no scenario."""
    return {
        "default": desk.scenario,
        "standing": [
            {
                "model": model,
                "scenario": each.scenario,
                **({} if each.times is None else {"times": each.times}),
            }
            for model, each in standing(desk).items()
        ],
    }


def set_standing(catalog: Catalog, desk: Desk, call: Call) -> dict[str, Any]:
    """Sets it, for all models or for one. Raises Refusal 400 for a model that there is not."""
    given = call.given
    models = {each.model: each for edition in catalog.values() for each in edition.contracts.values()}
    if model := given.get("model"):
        choice(model, models, what="model")
    stand(desk, scenario=given["scenario"], model=given.get("model", ""), times=given.get("times"))
    return read_standing(desk, call)


def unset_standing(desk: Desk, call: Call) -> dict[str, Any]:
    """Takes it back."""
    stand_down(desk)
    return read_standing(desk, call)


def list_faults(desk: Desk, _call: Call) -> dict[str, Any]:
    """The faults that are armed."""
    return {
        "faults": [
            {
                "id": fault_id,
                "fault": text_of(each.fault),
                "kind": each.fault.kind,
                "on": each.fault.on,
                "armed_at": timestamp(each.at),
                "chances": each.draws,
                "strikes": each.strikes,
            }
            for fault_id, each in armed(desk)
        ]
    }


def arm_fault(desk: Desk, call: Call) -> dict[str, Any]:
    """Arms one."""
    fault = read_fault(call.given["fault"], what="fault")
    return {"id": arm(desk, fault), "fault": text_of(fault)}


def disarm_all(desk: Desk, _call: Call) -> dict[str, Any]:
    """Disarms all."""
    return {"disarmed": disarm(desk)}


def disarm_one(desk: Desk, call: Call) -> dict[str, Any]:
    """Disarms one."""
    fault_id = call.scope["path_params"]["id"]
    if not disarm(desk, fault_id):
        raise Refusal(404, f"There is no armed fault {fault_id[:80]!r}.")
    return {"disarmed": 1}


def read_account(desk: Desk, _call: Call) -> dict[str, Any]:
    """The level and the credit of the account."""
    found = accounts.account(desk)
    return {
        "level": found.level,
        "balance": found.balance,
        "levels": {
            name: {"images": level.images, "running": level.running}
            for name, level in accounts.LEVELS.items()
        },
    }


def change_account(desk: Desk, call: Call) -> dict[str, Any]:
    """Changes them."""
    accounts.set_account(desk, level=call.given.get("level"), balance=call.given.get("balance"))
    return read_account(desk, call)


def list_requests(desk: Desk, call: Call) -> dict[str, Any]:
    """The journal, oldest first."""
    found = journal.read(desk.store, after=call.query["after"], limit=call.query["limit"])
    return {
        "requests": [_request(each) for each in found],
        "last": found[-1].number if found else call.query["after"],
    }


def _request(each: journal.Numbered) -> dict[str, Any]:
    entry = each.entry
    return {
        "number": each.number,
        "at": timestamp(entry.at),
        "ended": timestamp(entry.ended),
        "kind": entry.kind,
        "method": entry.method,
        "path": entry.path,
        "query": entry.query,
        "key": entry.key,
        "agent": entry.agent,
        "status": entry.status,
        "prediction": entry.prediction,
        "told": entry.told,
        "size": entry.size,
        "scenario": entry.scenario,
        "fault": entry.fault,
        "committed": entry.committed,
        "refusal": entry.refusal,
        "received": entry.received,
        **({} if entry.retry_after is None else {"retry_after": entry.retry_after / 1000}),
    }
