"""What the two judges and the laws had against everything that was sent before: the last layer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from contract_tests.case import Broken, Case, Source, Unproven
from contract_tests.judges import CORE, RS, Remark, is_reading
from contract_tests.laws import ORDER
from contract_tests.session import Session
from contract_tests.table import Field
from contract_tests.watch import ELSEWHERE

_ENVELOPE = {
    "media type": "every answer is JSON, and says so",
    "json": "every answer is one JSON object, to the letter",
    "envelope": "code is the HTTP status, message a text",
}
_OWN = {"own fields": "an envelope has code, message and data, and nothing else"}
_ERRORS = {f"error {law}": f"{says}, errors too" for law, says in {**_ENVELOPE, **_OWN}.items()}
_TASKS = {
    "status": f"status is {', '.join(ORDER)} and nothing else",
    "count": "outputs are empty until completed, and there are as many flags as outputs",
    "error": "error is empty unless the task failed",
    "timestamp": "created_at is an ISO timestamp",
    "url": "urls.get is an absolute URL with the id in it",
}
_REPEATED = {
    "stays": "model, created_at and urls.get of a task stay what they were",
    "order": "a status never goes back",
    "final": "what has ended stays as it is",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is judged: an operation, by the name that the judges give it."""

    name: str
    documented: bool
    response: tuple[Field, ...]
    submits: bool


def cases(session: Session) -> Iterator[Case]:
    """A case for each judge, field and law of each operation."""
    for subject in _subjects(session):
        yield from _of_judges(subject)
        for field in subject.response:
            says = (
                f"{field.name} is {field.kind}{f' of {field.items}' if field.items else ''}, in every answer"
            )
            check = partial(_field_kept, subject, field)
            yield _case(subject, "in every answer", "answer", says, check, field=field.name)
        laws = {**_ENVELOPE, **_TASKS, **({} if subject.submits else _REPEATED)}
        for law, says in laws.items():
            yield _case(subject, f"law: {law}", law, says, partial(_law_kept, subject.name, law))
        for law, says in _ERRORS.items():
            yield _case(
                subject, f"law: {law}", law, says, partial(_law_kept, subject.name, law), source="reading"
            )
    elsewhere = Subject(name=ELSEWHERE, documented=False, response=(), submits=False)
    for law, says in _ERRORS.items():
        yield _case(elsewhere, f"law: {law}", law, says, partial(_law_kept, ELSEWHERE, law))


def _subjects(session: Session) -> Iterator[Subject]:
    for model in session.models:
        yield Subject(name=str(model), documented=model.documented, response=model.response, submits=True)
    for version in sorted({model.version for model in session.models}):
        shown = any(model.documented for model in session.models if model.version == version)
        yield Subject(
            name=f"{version}/predictions", documented=shown, response=session.results, submits=False
        )


def _of_judges(subject: Subject) -> Iterator[Case]:
    for judge in (RS, CORE):
        if subject.submits:
            says = "what the page allows is accepted, and nothing else"
            check = partial(_no_remarks, judge, subject.name, "request")
            yield _case(subject, f"requests, judged by {judge}", "judged", says, check)
        says = "every answer keeps its schema"
        check = partial(_no_remarks, judge, subject.name, "answer")
        yield _case(subject, f"answers, judged by {judge}", "answer", says, check)
        check = partial(_no_remarks, judge, subject.name, "error")
        says = "errors, and all else that the pages leave open, are as the contract has them"
        yield _case(subject, f"beyond the pages, judged by {judge}", "error", says, check, source="reading")


def _case(
    subject: Subject,
    label: str,
    rule: str,
    says: str,
    check: Callable[[Session], None],
    *,
    field: str = "",
    source: Source = "page",
) -> Case:
    return Case(
        layer="judges",
        model=subject.name,
        field=field,
        rule=rule,
        label=label,
        source=source if subject.documented else "reading",
        says=says,
        check=check,
    )


def _judged(session: Session, name: str) -> int:
    """How many exchanges were judged. Raises Unproven where there were none."""
    count = session.watch.judged.get(name, 0)
    if count == 0:
        raise Unproven("no exchange was seen to judge")
    return count


def _kind(remark: Remark) -> str:
    return "error" if is_reading(remark.rule) else remark.rule.partition(" ")[0]


def _seen(session: Session, operation: str, kind: str) -> None:
    """Raises Unproven where nothing was seen that could have broken a rule of this kind."""
    judged = _judged(session, operation)
    accepted = session.watch.accepted[operation]
    if kind == "error" and judged == accepted:
        raise Unproven("nothing was refused")
    if kind != "error" and not accepted:
        raise Unproven("no good answer was seen")


def _no_remarks(judge: str, operation: str, kind: str, session: Session) -> None:
    found = {
        remark: exchange
        for remark, exchange in session.watch.remarks.items()
        if (remark.judge, remark.operation, _kind(remark)) == (judge, operation, kind)
    }
    if found:
        remark, exchange = next(iter(found.items()))
        where = f"{remark.field}: " if remark.field else ""
        more = f" (and {len(found) - 1} more remarks)" if len(found) > 1 else ""
        raise Broken(f"{where}{remark.message}{more}", exchange)
    _seen(session, operation, kind)


def _field_kept(subject: Subject, field: Field, session: Session) -> None:
    _seen(session, subject.name, "answer")
    for remark, exchange in session.watch.remarks.items():
        if (
            remark.operation == subject.name
            and _kind(remark) == "answer"
            and (remark.field == field.name or remark.field.startswith(f"{field.name}[]"))
        ):
            raise Broken(remark.message, exchange)


def _again(session: Session, operation: str, law: str) -> int:
    """How many answers there were that could break a law about what was said before."""
    again = session.watch.again
    return again[operation, True] + (again[operation, False] if law != "final" else 0)


def _law_kept(operation: str, law: str, session: Session) -> None:
    for (name, fault), exchange in session.watch.faults.items():
        if (name, fault.rule) == (operation, law):
            raise Broken(f"{fault.field or 'the answer'}: {fault.message}", exchange)
    _seen(session, operation, "error" if law in _ERRORS else "answer")
    if law in _REPEATED and not _again(session, operation, law):
        raise Unproven("no task was seen twice" if law != "final" else "no task was seen after its end")
