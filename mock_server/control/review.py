"""What the client did: the ledger and the audit."""

from typing import Any

from mock_server import journal
from mock_server.audit.findings import audit, findings_json
from mock_server.audit.ledger import ledger, ledger_json
from mock_server.catalog import Catalog
from mock_server.desk import Call, Desk
from mock_server.prediction import Prediction
from mock_server.webhooks import deliveries

_ALL = 1 << 40


def show_audit(desk: Desk, _call: Call) -> dict[str, Any]:
    """The findings about the clients, the gravest first."""
    entries = journal.read(desk.store)
    found = audit(
        entries,
        predictions(desk),
        now=desk.clock.now(),
        root_edition=desk.root_edition,
        delivered=delivered(desk),
    )
    return {"findings": findings_json(found), "requests": len(entries)}


def show_ledger(catalog: Catalog, desk: Desk, _call: Call) -> dict[str, Any]:
    """The tasks that were accepted, and what they cost."""
    prices = {
        contract.model: contract.price
        for edition in catalog.values()
        for contract in edition.contracts.values()
    }
    found = ledger(
        journal.read(desk.store),
        predictions(desk),
        now=desk.clock.now(),
        price=lambda model: prices.get(model, 0.0),
        delivered=delivered(desk),
    )
    return ledger_json(found)


def predictions(desk: Desk) -> list[Prediction]:
    """Every prediction of the session, newest first."""
    # At once: what a page ended with may be gone when the next one is asked for.
    return desk.store.newest(limit=_ALL)


def delivered(desk: Desk) -> set[str]:
    """The predictions whose webhook has arrived, whatever became of further copies of it."""
    return {
        each.prediction
        for each in deliveries.all_of(desk.store)
        if any(200 <= attempt.status < 300 for attempt in each.attempts)
    }
