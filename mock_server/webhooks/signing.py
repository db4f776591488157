"""How a webhook is signed, and why a signature is not right."""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

ID, TIMESTAMP, SIGNATURE = HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
VERSION = "v3"
PREFIX = "whsec_"
"""Stands in front of a secret, and is no part of the key."""
LONGEST_AGE = 300
"""How many seconds a timestamp may be away from the receiver's clock."""

_MILLISECONDS = 10**11  # as seconds, this is the year 5138
_SEARCHED = 64 * 1024  # bytes of a body up to which every pair of mistakes is tried
_REWRITTEN = 1024 * 1024  # bytes of a body up to which it is tried in other forms at all
_DIGEST = 32
_LAYOUTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("compact", {"separators": (",", ":")}),
    ("spaced", {}),
    ("indented", {"indent": 2}),
    ("indented", {"indent": 4}),
    ("indented", {"indent": "\t"}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a webhook is signed as it should be, and if not, everything that is wrong, a sentence each."""

    ok: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variant:
    """One part of what may have been signed; `mistake` is empty where it is right."""

    value: Any
    mistake: str = ""


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The signature of a body: `v3,` and the hexadecimal HMAC-SHA256 of `id.timestamp.body`.

    The key is what follows `whsec_`, as it stands. `timestamp` is in seconds since the Unix epoch.
    """
    message = f"{webhook_id}.{timestamp}.".encode() + body
    return f"{VERSION},{_mac(_bytes(secret.removeprefix(PREFIX)), message).hex()}"


def headers_of(secret: str, webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers that go with a body."""
    return {
        ID: webhook_id,
        TIMESTAMP: str(timestamp),
        SIGNATURE: sign(secret, webhook_id, timestamp, body),
    }


def explain(secret: str, headers: Mapping[str, str], body: bytes, *, now: int) -> Verdict:
    """Whether a webhook is to be believed at `now`, in seconds since the Unix epoch, and if not, why.

    A header that came more than once is expected as one text with commas, or under names that differ in case.
    """
    reasons = list(_of_headers(headers))
    told = {name.strip().lower(): text.strip() for name, text in headers.items()}
    usable = not reasons
    if not secret.strip().removeprefix(PREFIX):
        reasons.append(f"The secret is empty but for {PREFIX}.")
        usable = False
    if told.get(TIMESTAMP) and not any(TIMESTAMP in reason for reason in reasons):
        reasons.extend(_of_age(told[TIMESTAMP], now))
    if usable:
        mistakes, digest = _read_signature(told[SIGNATURE])
        reasons.extend(mistakes)
        if digest:
            reasons.extend(_of_digest(secret, told[ID], told[TIMESTAMP], body, digest))
    return Verdict(ok=not reasons, reasons=tuple(reasons))


def _bytes(text: str) -> bytes:
    """A text from a command line or a header, which need not have been UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, hashlib.sha256)


def _of_headers(headers: Mapping[str, str]) -> Iterator[str]:
    for name in HEADERS:
        values = [text.strip() for each, text in headers.items() if each.strip().lower() == name]
        commas = sum(text.count(",") for text in values)
        if not any(values):
            yield f"{name} is missing."
        elif len(values) > 1 or commas > (name == SIGNATURE):
            yield f"{name} is there more than once."


def _of_age(text: str, now: int) -> Iterator[str]:
    if not re.fullmatch("[0-9]{1,14}", text):
        yield f"{TIMESTAMP} is {text[:40]!a}, which is no number of seconds since 1970."
        return
    seconds = int(text)
    if seconds >= _MILLISECONDS:
        yield f"{TIMESTAMP} is in milliseconds; it has to be in whole seconds."
        seconds //= 1000
    if now - seconds > LONGEST_AGE:
        yield f"{TIMESTAMP} is {now - seconds} s old; more than {LONGEST_AGE} s is stale."
    elif seconds - now > LONGEST_AGE:
        yield f"{TIMESTAMP} is {seconds - now} s in the future; beyond {LONGEST_AGE} s a clock is wrong."


def _read_signature(text: str) -> tuple[list[str], bytes]:
    """What is wrong with how a signature is written, and the digest that it stands for, empty where none."""
    mistakes = []
    version, comma, written = text.partition(",")
    if not comma:
        mistakes.append(f"{SIGNATURE} has no version in front: it is `{VERSION},` and hexadecimal digits.")
        written = re.sub(r"\A(?:v[0-9]+|sha256)[=:]", "", text)
    elif " " in written.strip():
        return [f"{SIGNATURE} holds several signatures; there is one, and it begins with `{VERSION},`."], b""
    elif version != VERSION:
        mistakes.append(f"{SIGNATURE} has the version {version[:20]!a}; it is `{VERSION}`.")
    written = written.strip()
    if re.fullmatch("[0-9A-Fa-f]{64}", written):
        if written != written.lower():
            mistakes.append(f"{SIGNATURE} has capital hexadecimal digits; they are small.")
        return mistakes, bytes.fromhex(written)
    digest = _base64(written)
    if len(digest) == _DIGEST:
        return [*mistakes, f"{SIGNATURE} is in base64; it has to be in hexadecimal digits."], digest
    found = f"{len(written)} characters" if written else "nothing"
    return [*mistakes, f"{SIGNATURE} holds no SHA-256: {found} instead of 64 hexadecimal digits."], b""


def _base64(text: str) -> bytes:
    with suppress(binascii.Error, ValueError):
        plain = text.rstrip("=").replace("-", "+").replace("_", "/")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    return b""


def _of_digest(secret: str, webhook_id: str, timestamp: str, body: bytes, digest: bytes) -> Iterator[str]:
    """The mistakes with which the signature comes out as `digest`; the fewest that do."""
    choices = product(
        _keys(secret), _orders(), _timestamps(timestamp), [_Variant(value=body), *_rewritten(body)]
    )
    most = 4 if len(body) <= _SEARCHED else 1
    tried = [(sum(bool(each.mistake) for each in choice), choice) for choice in choices]
    for mistakes, (key, order, moment, written) in sorted(tried, key=lambda each: each[0]):
        if mistakes > most:
            break
        message = order.value.format(id=webhook_id, timestamp=moment.value)
        signed = _bytes(message) + written.value
        if hmac.compare_digest(_mac(key.value, signed), digest):
            yield from (each.mistake for each in (key, order, moment, written) if each.mistake)
            return
    yield "The signature fits nothing made of this secret: it is of another secret, id, timestamp or body."


def _keys(secret: str) -> Iterator[_Variant]:
    rest = secret.removeprefix(PREFIX)
    yield _Variant(value=_bytes(rest))
    yield _Variant(
        value=_bytes(PREFIX + rest),
        mistake=f"The signature is made with {PREFIX} in the key; the key is what follows it.",
    )
    if decoded := _base64(rest.strip()):
        yield _Variant(
            value=decoded,
            mistake="The signature is made with the secret decoded from base64, as Standard Webhooks has it; "
            f"the key is the text after {PREFIX} as it stands.",
        )
    if secret != secret.strip():
        yield _Variant(
            value=_bytes(secret.strip().removeprefix(PREFIX)),
            mistake="The secret given here has white space around it.",
        )


def _orders() -> Iterator[_Variant]:
    right = "it is over id.timestamp.body"
    yield _Variant(value="{id}.{timestamp}.")
    for value, what in (
        ("{timestamp}.{id}.", "has timestamp and id in the wrong order"),
        ("{id}.", "leaves the timestamp out"),
        ("{timestamp}.", "leaves the id out"),
        ("", "is over the body alone"),
        ("{id}{timestamp}", "leaves the dots out"),
    ):
        yield _Variant(value=value, mistake=f"The signature {what}; {right}.")


def _timestamps(text: str) -> Iterator[_Variant]:
    yield _Variant(value=text)
    if re.fullmatch("[0-9]{1,14}", text):
        long = int(text) >= _MILLISECONDS
        unit = (
            "seconds, and the header says milliseconds" if long else "milliseconds; it has to be in seconds"
        )
        yield _Variant(
            value=str(int(text) // 1000 if long else int(text) * 1000),
            mistake=f"The signature is made with the timestamp in {unit}.",
        )


def _rewritten(body: bytes) -> Iterator[_Variant]:
    """The body as it may have been passed on: with other line ends, or as JSON that was read and written."""
    if len(body) > _REWRITTEN:
        return
    stripped = body.rstrip(b"\r\n")
    for changed in sorted({stripped, stripped + b"\n", stripped + b"\r\n"} - {body}):
        with_or_without = "without" if len(changed) < len(body) else "with"
        yield _Variant(
            value=changed, mistake=f"The signature is over the body {with_or_without} a line end behind it."
        )
    unix = body.replace(b"\r\n", b"\n")
    for changed in sorted({unix, unix.replace(b"\n", b"\r\n")} - {body}):
        yield _Variant(value=changed, mistake="The signature is over the body with other line ends in it.")
    with suppress(ValueError, RecursionError):
        yield from _as_other_json(json.loads(body))


def _as_other_json(value: Any) -> Iterator[_Variant]:
    for (name, layout), ordered, ascii_only, end in product(
        _LAYOUTS, (False, True), (False, True), (b"", b"\n")
    ):
        text = json.dumps(value, sort_keys=ordered, ensure_ascii=ascii_only, **layout)
        how = f"{name}, keys sorted" if ordered else name
        yield _Variant(
            value=text.encode("utf-8", "surrogatepass") + end,
            mistake=f"The signature is over the body written as other JSON ({how}); "
            "it is over the bytes as they are sent, so keep them as they come, unparsed.",
        )
