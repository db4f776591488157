"""What the client did: the ledger and the audit."""

from collections.abc import Iterator
from typing import Any

from mock_server import journal
from mock_server.audit.findings import audit, findings_json
from mock_server.audit.ledger import ledger, ledger_json
from mock_server.catalog import Catalog
from mock_server.desk import Call, Desk
from mock_server.prediction import Prediction
from mock_server.webhooks import deliveries

_PAGE = 1000


def show_audit(desk: Desk, _call: Call) -> dict[str, Any]:
    """The findings about the clients, the gravest first."""
    entries = journal.read(desk.store)
    found = audit(
        entries,
        list(predictions(desk)),
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
        list(predictions(desk)),
        now=desk.clock.now(),
        price=lambda model: prices.get(model, 0.0),
        delivered=delivered(desk),
    )
    return ledger_json(found)


def predictions(desk: Desk) -> Iterator[Prediction]:
    """Every prediction of the session, newest first."""
    before = None
    while page := desk.store.newest(limit=_PAGE, before=before):
        yield from page
        before = page[-1].id


def delivered(desk: Desk) -> set[str]:
    """The predictions whose webhook has arrived."""
    return {each.prediction for each in deliveries.all_of(desk.store) if each.state == "delivered"}
