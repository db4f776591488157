"""What is sent and what comes back: records, and how they are shown."""

import json
import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

Headers = tuple[tuple[str, str], ...]
"""Names and values of headers."""
ELIDED = "(elided)"
"""Stands where a secret stood."""
_LONG = 400
_SHORTEST_KEY = 6  # a shorter one stands in any text by chance
_BASE64 = re.compile(r'"(?:data:[a-z/+.-]+;base64,)?[A-Za-z0-9+/]{160,}={0,2}"')
_SECRET = re.compile(r"authorization|cookie|token|secret|api[-_]?key|signature", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. `path` stands below the target's address, or with `rooted` at the root of its server.

    `keyed` lets the target add the key; `paid` says that it may begin a task, and needs room in the budget.
    """

    method: str
    path: str
    headers: Headers = ()
    body: bytes | None = None
    keyed: bool = True
    rooted: bool = False
    paid: bool = False


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request and its answer. Header names of the answer are in lower case."""

    request: Request
    status: int
    headers: Headers
    body: bytes
    seconds: float

    def header(self, name: str) -> str:
        """The first value of a header; empty where there is none."""
        return next((value for key, value in self.headers if key == name), "")

    @cached_property
    def parsed(self) -> tuple[Any, str]:
        """The body as JSON to the letter, and why it is none; the reason is empty where it is."""
        try:
            return strict_json(self.body), ""
        except ValueError as error:
            return None, str(error)

    @property
    def json(self) -> Any:
        """The body as JSON to the letter; None where it is none."""
        return self.parsed[0]

    @property
    def data(self) -> dict[str, Any]:
        """The envelope's `data`; empty where there is none."""
        data = self.json.get("data") if isinstance(self.json, dict) else None
        return data if isinstance(data, dict) else {}

    @property
    def accepted(self) -> bool:
        """Whether the target says that all is well: HTTP 200, and `code: 200` in the envelope."""
        return self.status == 200 and isinstance(self.json, dict) and self.json.get("code") == 200


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise ValueError(f"{text} is beyond a double")
    return value


def strict_json(text: bytes) -> Any:
    """The value of a JSON text, without what Python's reader lets pass.

    Raises ValueError for a constant such as NaN, a key that stands twice, a number beyond a double, a byte
    order mark, half a surrogate pair, and for what is nested too deep to be read.
    """
    try:
        value = json.loads(
            text.decode(), parse_constant=_no_constant, object_pairs_hook=_no_twice, parse_float=_finite
        )
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    return value


def elided(text: str) -> str:
    """The text with long base64 texts taken out."""
    return _BASE64.sub(lambda match: f'"({len(match[0]) - 2} characters of base64)"', text)


def secret(name: str) -> bool:
    """Whether a header of this name is nobody's business."""
    return _SECRET.search(name) is not None


def tells_key(text: bytes, key: str) -> bool:
    """Whether a text has the key in it, and not by chance."""
    return len(key) >= _SHORTEST_KEY and key.encode() in text


def without_key(text: str, key: str) -> str:
    """The text with the key taken out wherever it does not stand by chance."""
    return text.replace(key, ELIDED) if len(key) >= _SHORTEST_KEY else text


def shown(text: bytes | None, most: int = _LONG) -> str:
    """A body for a person: what is long is shortened, what is not text is escaped."""
    said = elided((text or b"").decode("utf-8", "backslashreplace"))
    return said if len(said) <= most else f"{said[:most]}… ({len(text or b'')} bytes)"


def origin(url: str) -> str:
    """The server of an address, without the path below which the API stands."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def endpoint(url: str) -> tuple[str, int, bool]:
    """Host and port of an address, and whether TLS is spoken there."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    return parts.hostname or "", parts.port or (443 if secure else 80), secure


def curl(request: Request, url: str) -> str:
    """The command that sends it again, with the key and other secrets taken from the environment.

    A body that is long or no text is left out, and said to be.
    """
    parts = ["curl", "-sS", "-i"]
    if request.method != ("GET" if request.body is None else "POST"):
        parts += ["-X", request.method]
    for name, value in request.headers:
        # Between double quotes, so that a shell fills in what is not shown.
        hidden = f'"{name}: ${re.sub("[^A-Z0-9]", "_", name.upper())}"'
        parts += ["-H", hidden if secret(name) and value else shlex.quote(f"{name}: {value}")]
    command = " ".join(parts)
    if request.keyed:
        command += ' -H "Authorization: Bearer $WAVESPEED_API_KEY"'
    if request.body is not None:
        body = request.body.decode("utf-8", "backslashreplace")
        command += f" --data-raw {shlex.quote(body if len(body) <= 10 * _LONG else shown(request.body))}"
    return f"{command} {shlex.quote((origin(url) if request.rooted else url) + request.path)}"
