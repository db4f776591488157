"""Exchanges in a file, one line of JSON each, without secrets and without pictures."""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote_plus

from contract_tests.exchange import ELIDED, Exchange, Headers, Request, elided, secret
from contract_tests.judges import Remark

_BEARER = f"Bearer {ELIDED}"
_SMALL = 1024
_WORD = r"[^\s\"'?&=/:;,{}]{0,64}"  # bounded, so that a hostile body costs no more than a long one
_KEY = rf"{_WORD}?(?:token|secret|api[-_]?key|signature|password){_WORD}"
_IN_QUERY = re.compile(rf"((?:^|[?&])(?:{_KEY}|key)=)[^&\s\"'#\\]+", re.IGNORECASE)
_SLASH = re.compile(r"(?<!\\)((?:\\\\)*)\\/")
_IN_JSON = re.compile(rf'("{_KEY}"\s*:\s*)"(?:[^"\\]|\\.)*"', re.IGNORECASE)


class BadRecording(Exception):
    """A recording that cannot be read or written; says which line, and what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line to be written. The sizes are in bytes; a body that is shorter than its size was not kept."""

    at: str
    exchange: Exchange
    request_size: int
    answer_size: int
    remarks: tuple[Remark, ...] = ()


def clean_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """The headers with the secret ones blanked."""
    return tuple((name, ELIDED if secret(name) else value) for name, value in headers)


def clean_path(path: str) -> str:
    """A path with the keys in its query blanked."""
    before, mark, query = path.partition("?")
    parts = [part.partition("=") for part in query.split("&")]
    blanked = [
        f"{name}={ELIDED}" if value and _names_a_key(unquote_plus(name)) else name + sign + value
        for name, sign, value in parts
    ]
    return before + mark + "&".join(blanked)


def _names_a_key(name: str) -> bool:
    return secret(name.replace("_", "-")) or name.lower() == "key"


def clean_text(text: str) -> str:
    """A body without base64, and without keys, be they in the query of a URL or in a field named so."""
    hidden = _IN_JSON.sub(rf'\1"{ELIDED}"', _IN_QUERY.sub(rf"\1{ELIDED}", text))
    return elided(_SLASH.sub(r"\1/", hidden))


def open_to_write(path: Path) -> TextIO:
    """The file, ready for more lines; what it holds already stays.

    Raises BadRecording where it cannot be written.
    """
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise BadRecording(f"{path}: cannot be written: {error.strerror}") from error


def write(file: TextIO, entry: Entry) -> None:
    """Adds a line, which is on its way to the disk when this returns. Raises OSError."""
    request, answer = entry.exchange.request, entry.exchange
    headers = clean_headers(request.headers)
    line = {
        "at": entry.at,
        "request": {
            "method": request.method,
            "path": clean_path(request.path),
            "headers": [*headers, ("authorization", _BEARER)] if request.keyed else headers,
            "body": _written(request.body, entry.request_size),
        },
        "answer": {
            "status": answer.status,
            "headers": clean_headers(answer.headers),
            "body": _written(answer.body, entry.answer_size),
            "seconds": round(answer.seconds, 6),
        },
        "remarks": [{**asdict(each), "message": clean_text(each.message)} for each in entry.remarks],
    }
    file.write(json.dumps(line) + "\n")
    file.flush()


def _written(body: bytes | None, size: int) -> Any:
    if body is None or len(body) < size:
        return {"bytes": size} if size else None
    try:
        return clean_text(body.decode())
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()} if len(body) <= _SMALL else {"bytes": size}


def read(path: Path) -> Iterator[Exchange]:
    """The exchanges of a recording. A body that was not kept is empty. Raises BadRecording."""
    return (entry.exchange for entry in entries(path))


def entries(path: Path) -> Iterator[Entry]:
    """The lines of a recording, but for their remarks.

    Raises BadRecording with the number of the line that is not one of a recording.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    entry = _entry(json.loads(line))
                except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                    raise BadRecording(f"{path}:{number}: is no exchange: {_why(error)}") from error
                yield entry
    except OSError as error:
        raise BadRecording(f"{path}: cannot be read: {error.strerror}") from error


def _why(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]


def _entry(line: Any) -> Entry:
    request, answer = line["request"], line["answer"]
    headers = _read_headers(request["headers"])
    keyed = ("authorization", _BEARER) in headers
    exchange = Exchange(
        request=Request(
            method=_text(request["method"]),
            path=_text(request["path"]),
            headers=tuple(each for each in headers if each != ("authorization", _BEARER)),
            body=None if request["body"] is None else _read_body(request["body"]),
            keyed=keyed,
        ),
        status=int(answer["status"]),
        headers=_read_headers(answer["headers"]),
        body=b"" if answer["body"] is None else _read_body(answer["body"]),
        seconds=float(answer["seconds"]),
    )
    return Entry(
        at=_text(line["at"]),
        exchange=exchange,
        request_size=_size(request["body"]),
        answer_size=_size(answer["body"]),
    )


def _size(body: Any) -> int:
    if isinstance(body, dict) and "bytes" in body:
        return int(body["bytes"])
    return 0 if body is None else len(_read_body(body))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a text belongs")
    return value


def _read_headers(value: Any) -> Headers:
    return tuple((_text(name), _text(said)) for name, said in value)


def _read_body(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if "base64" in value:
        try:
            return base64.b64decode(value["base64"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"base64: {error}") from error
    int(value["bytes"])
    return b""
