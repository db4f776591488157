"""Two judges of every exchange that know nothing of each other: openapi-core and jsonschema-rs.

Each says of a request whether the contract allows it, and of an answer whether it keeps its schema; both are
compared with what the target did.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import jsonschema_rs
from openapi_core import OpenAPI
from openapi_core.datatypes import RequestParameters
from openapi_core.exceptions import OpenAPIError
from openapi_core.validation.request.exceptions import SecurityValidationError
from werkzeug.datastructures import Headers, ImmutableMultiDict

from contract_tests.document import METHODS
from contract_tests.exchange import Exchange, Request, strict_json

CORE, RS = "openapi-core", "jsonschema-rs"
_TEMPLATE = re.compile(r"\{[^}]+\}")
_REFUSALS = (400, 413, 415, 422)
_BAD_REQUEST = 400
_SILENT = ("additionalProperties", "own fields")
_SILENT_OF_REQUESTS = ("media type", "json", "refused", "RequestBodyValidationError")
_DEEPEST = 100
_LONG = 300
_HOST = "http://target"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What a judge has against an exchange: about which operation and field, which rule, in words."""

    judge: str
    operation: str
    field: str
    rule: str
    message: str


def is_reading(rule: str) -> bool:
    """Whether no page makes this rule: about errors, fields that are not shown, and how a body is written."""
    kind, _, name = rule.partition(" ")
    return kind == "error" or rule.endswith(_SILENT) or (kind == "request" and name in _SILENT_OF_REQUESTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of the document, compiled."""

    name: str
    path: str
    body: jsonschema_rs.Draft4Validator | None
    answers: Mapping[int, jsonschema_rs.Draft4Validator]


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Both judges of one edition's document."""

    operations: tuple[tuple[str, re.Pattern[str], Operation], ...]
    core: OpenAPI

    def operation(self, request: Request) -> Operation | None:
        """Which operation a request is for; None where the document has none."""
        path = request.path.partition("?")[0]
        for method, pattern, operation in self.operations:
            if method == request.method and pattern.fullmatch(path):
                return operation
        return None

    def judge(self, exchange: Exchange) -> Iterator[Remark]:
        """All that both have against an exchange."""
        operation = self.operation(exchange.request)
        if operation is None:
            return
        verdicts = {
            RS: _wrong_by_schema(operation, exchange.request),
            CORE: _wrong_by_core(self.core, operation, exchange.request),
        }
        for judge, wrong in verdicts.items():
            if wrong is not None:
                yield from _said(judge, operation, "request", _compared(operation, exchange, wrong))
        about = "error" if exchange.status >= _BAD_REQUEST else "answer"
        yield from _said(RS, operation, about, _answer_by_schema(operation, exchange))
        yield from _said(CORE, operation, about, _answer_by_core(self.core, exchange))


def appoint(document: Mapping[str, Any]) -> Judges:
    """Makes judges of a document without references."""
    found = []
    for path, item in document["paths"].items():
        pattern = re.compile(_TEMPLATE.sub("[^/]+", re.sub(r"[.*+?|()\[\]]", r"\\\g<0>", path)))
        for method, operation in item.items():
            if method not in METHODS:
                continue
            found.append((method.upper(), pattern, _operation(path, operation)))
    # A path without a template goes before one with.
    found.sort(key=lambda each: "{" in each[2].path)
    return Judges(operations=tuple(found), core=OpenAPI.from_dict(dict(document)))


def _operation(path: str, operation: Mapping[str, Any]) -> Operation:
    body = operation.get("requestBody")
    schemas = {
        int(status): answer["content"]["application/json"]["schema"]
        for status, answer in operation["responses"].items()
        if str(status).isdigit() and "application/json" in answer.get("content", {})
    }
    version, *_, last = path.removeprefix("/api/").split("/")
    return Operation(
        name=f"{version}/{'predictions' if '{' in path else last}",
        path=path,
        body=_compiled(body["content"]["application/json"]["schema"]) if body else None,
        answers={status: _compiled(schema) for status, schema in schemas.items()},
    )


def _compiled(schema: Any) -> jsonschema_rs.Draft4Validator:
    return jsonschema_rs.Draft4Validator(schema, validate_formats=True)


def field_of(path: list[str | int], name: str = "") -> str:
    """A place in a body as the table writes it: `loras[].scale`."""
    said = ""
    for part in [*path, *([name] if name else [])]:
        said += "[]" if isinstance(part, int) else f".{part}" if said else part
    return said


Wrong = list[tuple[str, str, str]]
"""Field, rule, and what is wrong in words."""


def _said(judge: str, operation: Operation, about: str, wrong: Wrong) -> Iterator[Remark]:
    for name, rule, message in wrong:
        yield Remark(
            judge=judge, operation=operation.name, field=name, rule=f"{about} {rule}", message=message
        )


def _reasons(validator: jsonschema_rs.Draft4Validator, value: Any) -> Wrong:
    try:
        errors = list(validator.iter_errors(value))
    except ValueError as error:  # deeper than it looks
        return [("", "depth", str(error))]
    return [
        (
            field_of(error.instance_path, getattr(error.kind, "property", "") if rule == "required" else ""),
            rule,
            error.message[:_LONG],
        )
        for error in errors
        for rule in [str(error.schema_path[-1])]
    ]


def _media_type(request: Request) -> str:
    given = [value for name, value in request.headers if name.lower() == "content-type"]
    return given[-1] if given else ""


def _wrong_by_schema(operation: Operation, request: Request) -> Wrong:
    if not request.keyed and not _has_key(request):
        return [("", "key", "there is no key")]
    if operation.body is None:
        return []
    if wrong := _wrong_media_type(request):
        return [("", "media type", wrong)]
    try:
        value = strict_json(request.body or b"")
    except ValueError as error:
        return [("", "json", str(error)[:_LONG])]
    return _reasons(operation.body, value)


def _wrong_media_type(request: Request) -> str:
    """What is wrong with how the body is said to be written; empty where nothing is."""
    kind, _, parameters = _media_type(request).partition(";")
    if kind.strip().lower() != "application/json":
        return f"{kind or 'none'} is not application/json"
    if "charset" in parameters.lower() and "utf-8" not in parameters.lower():
        return f"{parameters.strip()} is not UTF-8"
    if any(name.lower() == "content-encoding" and value != "identity" for name, value in request.headers):
        return "the body is encoded"
    return ""


@dataclass(kw_only=True)  # not frozen: its protocol asks for attributes that can be set
class _CoreRequest:
    """A request as openapi-core wants to see it."""

    method: str
    path: str
    content_type: str
    body: bytes | None
    parameters: RequestParameters
    host_url: str = _HOST


@dataclass(kw_only=True)
class _CoreResponse:
    """An answer as openapi-core wants to see it."""

    data: bytes
    status_code: int
    content_type: str
    headers: Headers = field(default_factory=Headers)


def _for_core(request: Request) -> _CoreRequest:
    headers = Headers(list(request.headers))
    if request.keyed:
        headers["Authorization"] = "Bearer key"
    return _CoreRequest(
        method=request.method.lower(),
        path=unquote(request.path.partition("?")[0]),
        content_type=_media_type(request),
        body=request.body,
        parameters=RequestParameters(query=ImmutableMultiDict(), header=headers, cookie=ImmutableMultiDict()),
    )


def _wrong_by_core(core: OpenAPI, operation: Operation, request: Request) -> Wrong | None:
    """What is wrong with a request; None where openapi-core can have no opinion."""
    if operation.body is None or not _is_plain(request):
        return None
    try:
        core.validate_request(_for_core(request))
    except SecurityValidationError:
        return None
    except OpenAPIError as error:
        return _from_core(error)
    return []


def _is_plain(request: Request) -> bool:
    """Whether openapi-core's opinion counts: it reads JSON leniently, and recurses on what is deep."""
    try:
        strict_json(request.body or b"")
    except ValueError:
        return False
    body = request.body or b""
    return max(body.count(b"["), body.count(b"{")) < _DEEPEST


def _from_core(error: OpenAPIError) -> Wrong:
    causes = getattr(error.__cause__, "schema_errors", None) or ()
    found: Wrong = [
        (
            field_of(list(cause.absolute_path), _missing(cause) if cause.validator == "required" else ""),
            str(cause.validator),
            str(cause.message)[:_LONG],
        )
        for cause in causes
    ]
    return found or [("", type(error).__name__, f"{CORE} says {type(error).__name__}")]


def _missing(cause: Any) -> str:
    return next((name for name in cause.validator_value if name not in cause.instance), "")


def _compared(operation: Operation, exchange: Exchange, wrong: Wrong) -> Wrong:
    """What the target did with a request against what a judge would have done."""
    if exchange.accepted:
        return [(name, rule, f"accepted, although {message}") for name, rule, message in wrong]
    if not wrong and operation.body and exchange.status in _REFUSALS:
        return [("", "refused", f"refused with HTTP {exchange.status}, although nothing is wrong with it")]
    return []


def _has_key(request: Request) -> bool:
    return any(name.lower() == "authorization" for name, _ in request.headers)


def _answer_by_schema(operation: Operation, exchange: Exchange) -> Wrong:
    validator = operation.answers.get(exchange.status)
    if validator is None:
        return [("", "status", f"HTTP {exchange.status} is not among {sorted(operation.answers)}")]
    value, why = exchange.parsed
    return [("", "json", f"the answer is no JSON: {why}"[:_LONG])] if why else _reasons(validator, value)


def _answer_by_core(core: OpenAPI, exchange: Exchange) -> Wrong:
    answer = _CoreResponse(
        data=exchange.body,
        status_code=exchange.status,
        content_type=exchange.header("content-type"),
        headers=Headers(list(exchange.headers)),
    )
    try:
        core.validate_response(_for_core(exchange.request), answer)
    except OpenAPIError as error:
        return _from_core(error)
    except UnicodeDecodeError:
        return [("", "json", "the answer is not UTF-8")]
    return []
