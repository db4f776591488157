"""A state machine that submits, polls and waits in any order, and holds each answer against all before."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule, run_state_machine_as_test

from contract_tests import laws
from contract_tests.case import Broken, Case, Stopped, Unproven
from contract_tests.layers.values import values
from contract_tests.session import Session, smallest
from contract_tests.table import Model

_SETTINGS = settings(
    max_examples=8,
    stateful_step_count=16,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    verbosity=Verbosity.quiet,
    suppress_health_check=list(HealthCheck),
)
_COUNT = "num_images"
ALL = "all models"


def cases(session: Session) -> Iterator[Case]:
    """A machine for each model, and one that mixes all."""
    groups: dict[str, tuple[Model, ...]] = {str(model): (model,) for model in session.models}
    if len(groups) > 1:
        groups[ALL] = session.models
    for name, models in groups.items():
        yield Case(
            layer="machine",
            model=name,
            field="",
            rule="life",
            label="tasks in any order",
            source="page" if name != ALL and models[0].documented else "reading",
            says="whatever is asked in between, a status never goes back, and what was said stays true",
            check=partial(_check, name, models),
        )


def _check(name: str, models: tuple[Model, ...], session: Session) -> None:
    for model in models:
        session.require(model)
    if session.target.manners.budget is not None and not session.has_clock:
        raise Unproven("it would begin many tasks and wait for them")
    ended: list[Exception] = []

    class Machine(Tasks):
        def __init__(self) -> None:
            super().__init__(session=session, models=models, mixed=name == ALL, ended=ended)

    number = session.random(f"machine {name}").getrandbits(64)
    try:
        run_state_machine_as_test(seed(number)(Machine), settings=_SETTINGS)
    except (Broken, Unproven, Stopped, Flaky, ExceptionGroup):
        if not ended:
            raise
    if ended:
        raise ended[0]


class Tasks(RuleBasedStateMachine):
    """Tasks on one target, and what is known of each. The first failure ends it: no other run is like it."""

    names = Bundle("names")

    def __init__(
        self, *, session: Session, models: tuple[Model, ...], mixed: bool, ended: list[Exception]
    ) -> None:
        super().__init__()
        self.session = session
        self.models = models
        self.mixed = mixed
        self.ended = ended
        self.known: dict[str, laws.Seen] = {}
        self.wanted: dict[str, int] = {}
        self.versions: dict[str, str] = {}

    def _guarded(self, step: Any) -> Any:
        if self.ended:
            return None
        try:
            return step()
        except (Broken, Unproven, Stopped) as error:
            self.ended.append(error)
            raise

    @rule(target=names, data=st.data())
    def submit(self, data: st.DataObject) -> str:
        """Begins a task."""
        model = data.draw(st.sampled_from(self.models))
        body = data.draw(bodies(model))
        return str(self._guarded(partial(self._submit, model, body)))

    def _submit(self, model: Model, body: dict[str, Any]) -> str:
        data = self.session.submit(model, **body)
        name = str(data.get("id"))
        if name in self.known:
            raise Broken(f"data.id: {name!r} was given before")
        self.known[name] = laws.hold(self.known.get(name), data)
        self.versions[name] = model.version
        self.wanted[name] = int(body.get(_COUNT, default)) if (default := _count(model)) else 1
        return name

    @rule(name=names, version=st.sampled_from(["v2", "v3"]), short=st.booleans())
    def poll(self, name: str, version: str, short: bool) -> None:
        """Looks at a task where its page says, or if models are mixed at any of its addresses."""
        self._guarded(partial(self._poll, name, version, short))

    def _poll(self, name: str, version: str, short: bool) -> None:
        data = self.session.poll(
            name, version=version if self.mixed else self.versions[name], short=short and self.mixed
        )
        if data.get("id") != name:
            raise Broken(f"data.id: {data.get('id')!r} is answered for {name!r}")
        self.known[name] = laws.hold(self.known.get(name), data)
        outputs = data.get("outputs")
        if (
            data.get("status") == "completed"
            and isinstance(outputs, list)
            and len(outputs) != self.wanted[name]
        ):
            raise Broken(f"data.outputs: {len(outputs)} instead of {self.wanted[name]}")

    @rule(seconds=st.sampled_from([0.1, 0.5, 1, 5, 60, 3600]))
    def wait(self, seconds: float) -> None:
        """Lets time pass, where it can be moved."""
        if self.session.has_clock:
            self._guarded(partial(self.session.let_pass, seconds))

    @rule(number=st.integers(0, 2**128 - 1))
    def ask_for_nobody(self, number: int) -> None:
        """Asks for an id that nobody was given."""
        self._guarded(partial(self._ask_for_nobody, f"{number:032x}"))

    def _ask_for_nobody(self, name: str) -> None:
        if name not in self.known and self.session.get(self.models[0].result.format(id=name)).accepted:
            raise Broken(f"data.id: {name!r}, which nobody was given, has a result")

    @rule(data=st.data())
    def be_refused(self, data: st.DataObject) -> None:
        """Submits what the contract does not allow."""
        model = data.draw(st.sampled_from(self.models))
        bad = [
            {field.name: value.value}
            for field in model.request
            if "[]" not in field.name
            for value in values(field)
            if not value.accepted and value.source == "page"
        ]
        body = {**smallest(model), **data.draw(st.sampled_from(bad))}
        self._guarded(partial(self._be_refused, model, body))

    def _be_refused(self, model: Model, body: dict[str, Any]) -> None:
        if self.session.post(model, body, accepted=False).accepted:
            raise Broken(f"accepted, although the contract does not allow it: {json.dumps(body)[:200]}")


def _count(model: Model) -> int | None:
    field = model.field(_COUNT)
    return None if field is None else int(field.default)


@st.composite
def bodies(draw: st.DrawFn, model: Model) -> dict[str, Any]:
    """Good bodies: any of the fields, with any of the values that the table allows."""
    body = smallest(model)
    for field in model.request:
        if "[]" in field.name or not draw(st.booleans()):
            continue
        good = [value.value for value in values(field) if value.accepted and value.source == "page"]
        if good and field.kind != "array":
            body[field.name] = draw(st.sampled_from(good))
    return body
