"""What holds for every answer, and for all answers about one prediction taken together.

Pages: "Response Parameters" and "Result Response Parameters" of each.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from contract_tests.case import Broken
from contract_tests.exchange import Exchange

ORDER: Mapping[str, int] = {"created": 0, "processing": 1, "completed": 2, "failed": 2}
FINAL = ("completed", "failed")
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_BAD_REQUEST = 400
_WAIT_RAN_OUT = 5004  # of a synchronous submit, which says so in `error`


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A law that an answer breaks: which field, which law, and what was seen."""

    field: str
    rule: str
    message: str


def of_envelope(exchange: Exchange) -> Iterator[Fault]:
    """What is wrong with the envelope of an answer. Rules about errors, of which no page tells, say so."""
    if exchange.request.method == "HEAD":
        return
    bad = exchange.status >= _BAD_REQUEST
    about = "error " if bad else ""
    kind = exchange.header("content-type").partition(";")[0].strip().lower()
    if kind != "application/json":
        said = f"the answer is {kind or 'of no media type'}, not application/json"
        yield Fault(field="", rule=f"{about}media type", message=said)
    envelope = exchange.json
    if not isinstance(envelope, dict):
        yield Fault(field="", rule=f"{about}json", message="the answer is no JSON object")
        return
    code, message = envelope.get("code"), envelope.get("message")
    if type(code) is not int or code != exchange.status:
        said = f"code is {code!r} under HTTP {exchange.status}"
        yield Fault(field="code", rule=f"{about}envelope", message=said)
    if not isinstance(message, str) or (bad and not message):
        yield Fault(field="message", rule=f"{about}envelope", message=f"message is {message!r}")
    for name in sorted(envelope.keys() - {"code", "message", "data"}):
        said = f"the envelope has a field {name[:80]} of its own"
        yield Fault(field=name[:80], rule=f"{about}own fields", message=said)


def of_prediction(data: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with a prediction by itself, beyond its schema."""
    status, outputs, flags = data.get("status"), data.get("outputs"), data.get("has_nsfw_contents")
    if not isinstance(status, str) or status not in ORDER:
        yield Fault(field="data.status", rule="status", message=f"status is {status!r}")
        return
    if not isinstance(outputs, list) or not isinstance(flags, list):
        return
    if status != "completed" and outputs:
        yield Fault(field="data.outputs", rule="count", message=f"{len(outputs)} outputs while {status}")
    if status == "completed" and not outputs:
        yield Fault(field="data.outputs", rule="count", message="completed without outputs")
    if len(flags) != len(outputs):
        said = f"{len(flags)} flags for {len(outputs)} outputs"
        yield Fault(field="data.has_nsfw_contents", rule="count", message=said)
    if (status == "failed") != bool(data.get("error")) and data.get("code") != _WAIT_RAN_OUT:
        said = f"error is {data.get('error')!r} while {status}"
        yield Fault(field="data.error", rule="error", message=said)
    if not _TIMESTAMP.fullmatch(str(data.get("created_at"))):
        said = f"created_at is {data.get('created_at')!r}"
        yield Fault(field="data.created_at", rule="timestamp", message=said)
    urls = data.get("urls")
    url = urls.get("get") if isinstance(urls, dict) else None
    if not re.fullmatch(r"https?://[^/\s]+/\S*", str(url)) or str(data.get("id")) not in str(url):
        yield Fault(field="data.urls.get", rule="url", message=f"urls.get is {url!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of a prediction from the answers so far."""

    model: str
    created_at: str
    url: str
    status: str
    last: Mapping[str, Any]


_STAYS = {"data.model": "model", "data.created_at": "created_at", "data.urls.get": "url"}


def see(before: Seen | None, data: Mapping[str, Any]) -> tuple[Seen, list[Fault]]:
    """What is known with one more answer, and in what it goes against what was known before."""
    urls = data.get("urls")
    url = re.sub(r"/api/v[0-9]+/", "/api/*/", str(urls.get("get") if isinstance(urls, dict) else None))
    now = Seen(
        model=str(data.get("model")),
        created_at=str(data.get("created_at")),
        url=url,
        status=str(data.get("status")),
        last=data,
    )
    if before is None:
        return now, []
    faults = [
        Fault(field=field, rule="stays", message=f"was {old!r}, is {new!r}")
        for field, name in _STAYS.items()
        if (old := getattr(before, name)) != (new := getattr(now, name))
    ]
    if ORDER.get(now.status, 0) < ORDER.get(before.status, 0):
        faults.append(
            Fault(field="data.status", rule="order", message=f"went from {before.status} to {now.status}")
        )
    elif before.status in FINAL and (differing := _differing(before.last, data)):
        said = f"{', '.join(differing)} changed after it was {before.status}"
        faults.append(Fault(field=f"data.{differing[0]}", rule="final", message=said))
    return replace(
        now, status=max(before.status, now.status, key=lambda status: ORDER.get(status, 0))
    ), faults


def hold(before: Seen | None, data: Mapping[str, Any]) -> Seen:
    """What is known with one more answer. Raises Broken for the first law that it breaks."""
    now, faults = see(before, data)
    for fault in [*faults, *of_prediction(data)]:
        raise Broken(f"{fault.field}: {fault.message}")
    return now


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of fields that are not as they were. A URL of an output may be signed anew."""
    return [
        name
        for name in sorted(before.keys() | after.keys())
        if name != "urls" and plain(before.get(name)) != plain(after.get(name))
    ]


def plain(value: Any) -> Any:
    """The value with its URLs as they are before somebody signs them: without a query."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value.partition("?")[0] if isinstance(value, str) and value.startswith("http") else value
