"""Requests byte for byte: where they go, what they are made of, and what has to become of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from contract_tests.session import smallest
from contract_tests.table import Field, Model
from contract_tests.target import PROBE

GREETING = 0
"""Stands for the status with which the target answers to a result that nobody asked for."""
JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where requests go, as bytes. `host` and `key` are header lines, `good` is a body to be taken."""

    authority: bytes
    prefix: bytes
    host: bytes
    key: bytes
    submit: bytes
    result: bytes
    good: bytes
    required: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A request, and how it may be answered.

    `statuses` are those that are right, with GREETING among them where the request is as good as a greeting.
    `held` follows once the target says 100; `piece` is how many bytes go at once; `ends` closes the sending
    side after them. `answers` is how many answers are due. `then` tells whether the connection has to be
    closed afterwards, or may as well take the next request. `envelope` is whether it is the application that
    answers; `quiet` whether hanging up is an answer, too.
    """

    label: str
    says: str
    statuses: frozenset[int]
    sent: bytes
    field: str = ""
    held: bytes = b""
    piece: int = 1 << 16
    ends: bool = False
    answers: int = 1
    then: Literal["next", "closed"] = "next"
    envelope: bool = True
    quiet: bool = False

    @property
    def paid(self) -> bool:
        """Whether it may begin a task without a mistake of the target's."""
        return 200 in self.statuses and self.sent.startswith(b"POST ")


def address(url: str, key: str, model: Model) -> Address:
    """Where requests for a model of a target go."""
    parts = urlsplit(url)
    authority = parts.netloc.rpartition("@")[2].encode("idna" if not parts.netloc.isascii() else "ascii")
    prefix = parts.path.rstrip("/").encode()
    required = {**smallest(model)}
    if not required and (text := text_field(model)) is not None:
        required[text.name] = "a lighthouse"
    return Address(
        authority=authority,
        prefix=prefix,
        host=b"Host: " + authority,
        key=b"Authorization: Bearer " + key.encode(),
        submit=prefix + model.path.encode(),
        result=prefix + PROBE.path.encode(),
        good=json.dumps(required).encode(),
        required=required,
    )


def text_field(model: Model) -> Field | None:
    """A field of a model that is a text and takes any; a required one where there is one."""
    texts = [
        each
        for each in model.request
        if each.kind == "string" and not each.is_size and not each.is_archive and "[]" not in each.name
    ]
    return min(texts, key=lambda each: not each.required, default=None)


def request(method: bytes, target: bytes, *lines: bytes, body: bytes = b"") -> bytes:
    """A request of exactly these lines."""
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", *lines, b"", body])


def get(to: Address, *lines: bytes, method: bytes = b"GET", target: bytes | None = None) -> bytes:
    """A request without a body, with the key; for a result that nobody asked for unless it says otherwise."""
    return request(method, to.result if target is None else target, to.host, to.key, *lines)


def post(to: Address, body: bytes, *lines: bytes, kind: bytes = JSON) -> bytes:
    """A whole submit of the usual form; `lines` come on top, and `kind` may be left out."""
    length = b"Content-Length: %d" % len(body)
    return request(b"POST", to.submit, to.host, to.key, *([kind] if kind else []), *lines, length, body=body)


def framed(to: Address, body: bytes, *lines: bytes) -> bytes:
    """A submit that leaves it to `lines` to say where the body ends."""
    return request(b"POST", to.submit, to.host, to.key, JSON, *lines, body=body)


def chunks(body: bytes, size: int) -> bytes:
    """The body in chunks of that size."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def with_field(to: Address, name: str, text: bytes) -> bytes:
    """A good body in which one field is exactly this text."""
    others = [(key, json.dumps(value).encode()) for key, value in to.required.items() if key != name]
    pairs = (b'"%s":%s' % (key.encode(), value) for key, value in [*others, (name, text)])
    return b"{" + b",".join(pairs) + b"}"
