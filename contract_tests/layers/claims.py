"""Cases that are the same for every model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from contract_tests.case import Case, Source
from contract_tests.session import Session
from contract_tests.table import Model

Check = Callable[[Model, Session], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A case before it is about any model: `check` gets the model first."""

    label: str
    rule: str
    says: str
    check: Check
    source: Source = "page"


def case_of(claim: Claim, model: Model, *, layer: str, subject: str = "") -> Case:
    """The claim about a model, or by way of it about another subject."""
    return Case(
        layer=layer,
        model=subject or str(model),
        field="",
        rule=claim.rule,
        label=claim.label,
        source=claim.source if model.documented else "reading",
        says=claim.says,
        check=partial(claim.check, model),
    )
