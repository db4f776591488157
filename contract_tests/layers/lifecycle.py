"""The life of tasks, as scripts: from their submit to their end, one and many, failed and completed."""

import hashlib
from collections.abc import Iterator

from contract_tests import laws
from contract_tests.case import Broken, Case, Unproven
from contract_tests.layers.claims import Claim, case_of
from contract_tests.layers.outputs import completed, fetch, outputs_of
from contract_tests.session import Session
from contract_tests.table import Model

_TASKS = 12
_LATER = 3600
_STEP = 0.25
_STEPS = 200


def cases(session: Session) -> Iterator[Case]:
    """Every script for every model."""
    for model in session.models:
        for script in _SCRIPTS:
            if script.rule != "seed" or model.field("seed") is not None:
                yield case_of(script, model, layer="lifecycle")


def _polled(session: Session, seen: laws.Seen | None, name: str, version: str) -> laws.Seen:
    """One more look at a task. Raises Broken for whatever law it breaks."""
    data = session.poll(name, version=version)
    now = laws.hold(seen, data)
    if data.get("id") != name:
        raise Broken(f"data.id: {data.get('id')!r} is answered for {name!r}")
    return now


def _whole_life(model: Model, session: Session) -> None:
    trains = any(each.is_archive for each in model.request)
    # A picture is made here as large and as good as the page has it, and in no other script.
    first = session.submit_to_finish(model) if trains else session.submit(model)
    name = str(first.get("id"))
    seen, _ = laws.see(None, first)
    step, passed = _STEP, 0.0
    for _ in range(_STEPS):
        seen = _polled(session, seen, name, model.version)
        waited = passed >= session.patience and not session.has_clock
        if seen.status in laws.FINAL or waited:
            break
        passed += session.let_pass(step)
        step = step * 1.1 if session.has_clock else step
    completed(session, name, model.version)
    for _ in range(3):
        seen = _polled(session, seen, name, model.version)


def _stays_for_long(model: Model, session: Session) -> None:
    if not session.has_clock:
        raise Unproven("the target's time cannot be moved")
    name = str(session.submit_to_finish(model).get("id"))
    before = session.finish(name, version=model.version)
    session.let_pass(_LATER)
    for fault in laws.see(laws.see(None, before)[0], session.poll(name, version=model.version))[1]:
        raise Broken(f"an hour later {fault.field}: {fault.message}")


def _never_lost(model: Model, session: Session) -> None:
    names = []
    for _ in range(_TASKS):
        names.append(str(session.submit(model).get("id")))
        session.poll(names[-1], version=model.version)
    if len(set(names)) != len(names):
        raise Broken(f"data.id: {len(names)} tasks were given {len(set(names))} different ids")
    for later in (_STEP, _LATER) if session.has_clock else (_STEP,):
        session.let_pass(later)
        for name in names:
            if (found := session.poll(name, version=model.version).get("id")) != name:
                raise Broken(f"data.id: {found!r} is answered for {name!r}")


def _each_its_own(model: Model, session: Session) -> None:
    field = model.field("num_images")
    most = 1 if field is None or field.maximum is None else int(field.maximum)
    wanted = {}
    for count in range(1, most + 1):
        given = {} if field is None else {field.name: count}
        for _ in range(2):
            wanted[str(session.submit_to_finish(model, **given).get("id"))] = count
    for name, count in reversed(wanted.items()):
        if (found := len(outputs_of(session, name, model.version))) != count:
            raise Broken(f"data.outputs: {found} instead of {count}")


def _in_order(model: Model, session: Session) -> None:
    dates = []
    for _ in range(3):
        dates.append(str(session.submit(model).get("created_at")))
        session.let_pass(1)
    if sorted(dates) != dates:
        raise Broken(f"data.created_at: later tasks have earlier dates: {dates}")


def _fails(model: Model, session: Session) -> None:
    scenarios = session.control("/health").get("scenarios") if session.has_control else None
    if not isinstance(scenarios, dict) or "failed" not in scenarios:
        raise Unproven("the target cannot be told to let a task fail")
    name = str(session.submit(model, (("X-Mock-Scenario", "failed"),)).get("id"))
    data = session.finish(name, version=model.version)
    seen = laws.hold(None, data)
    if data.get("status") != "failed":
        raise Broken(f"data.status: {data.get('status')!r} instead of 'failed'")
    _polled(session, seen, name, model.version)


def _digest(model: Model, session: Session, seed: int | None) -> str:
    given = {} if seed is None else {"seed": seed}
    name = str(session.submit_to_finish(model, **given).get("id"))
    output = outputs_of(session, name, model.version)[0]
    return hashlib.sha256(fetch(session, output)).hexdigest()


def _seeds(model: Model, session: Session) -> None:
    seven = _digest(model, session, 7)
    if _digest(model, session, 7) != seven:
        raise Broken("seed: the same one gave another output")
    if _digest(model, session, 8) == seven:
        raise Broken("seed: another one gave the same output")
    if _digest(model, session, None) == _digest(model, session, None):
        raise Broken("seed: two tasks without one gave the same output")


def _outputs_there(model: Model, session: Session) -> None:
    name = str(session.submit_to_finish(model).get("id"))
    for output in outputs_of(session, name, model.version):
        if not fetch(session, output):
            raise Broken("data.outputs: an output is empty")


_SCRIPTS = (
    Claim(
        label="from its submit to its end",
        rule="life",
        says="a task goes from created to completed, and never back",
        check=_whole_life,
    ),
    Claim(
        label="an hour after its end",
        rule="final",
        says="what has ended stays as it is",
        check=_stays_for_long,
    ),
    Claim(
        label=f"{_TASKS} tasks in a row",
        rule="lost",
        says="every task that was accepted is found from then on",
        check=_never_lost,
    ),
    Claim(
        label="tasks at the same time",
        rule="count",
        says="each task has the outputs that were asked of it",
        check=_each_its_own,
    ),
    Claim(
        label="dates",
        rule="timestamp",
        says="created_at is when the task was created",
        check=_in_order,
    ),
    Claim(
        label="a failure",
        rule="failed",
        says="a failed task has a reason and no outputs",
        check=_fails,
    ),
    Claim(
        label="its outputs",
        rule="outputs",
        says="the outputs of a completed task are there",
        check=_outputs_there,
    ),
    Claim(
        label="its seed",
        rule="seed",
        says="the same seed gives the same output, and no seed another each time",
        check=_seeds,
        source="reading",
    ),
)
