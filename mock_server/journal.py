"""Every request that a client made, and what became of it."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from mock_server.store import Store

KIND = "request"
_encode = msgspec.json.encode


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request to anything but the control plane.

    `at` and `ended` are when it arrived and when it was dealt with, in milliseconds since the Unix epoch on
    the server's clock. `kind` is one of submit, poll, output, upload, platform and other; `status` the HTTP
    status that was sent, 0 where none was. `key` tells keys apart without telling them; `digest` does so with
    bodies. `prediction` is the id that it was about, `told` the task's status as the answer had it (empty
    where the answer was lost), `committed` whether it began a task, and `charged` what that
    cost in US dollars. `retry_after` is what the answer asked to
    wait, in milliseconds. `received` is the beginning of a body that was refused, and `refusal` why.
    """

    at: int
    ended: int
    kind: str
    method: str
    path: str
    query: str = ""
    key: str = ""
    agent: str = ""
    status: int
    prediction: str = ""
    told: str = ""
    digest: str = ""
    size: int = 0
    scenario: str = ""
    fault: str = ""
    committed: bool = False
    charged: float = 0
    retry_after: int | None = None
    key_in_query: bool = False
    refusal: str = ""
    received: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """An entry and its number in the journal; numbers grow, and are given once."""

    number: int
    entry: Entry


_decode_entry = msgspec.json.Decoder(Entry).decode


def write(store: Store, entry: Entry, *, keep: int) -> None:
    """Puts an entry at the end, and drops the oldest beyond `keep`."""
    store.append(KIND, _encode(entry), keep=keep)


def read(store: Store, *, after: int = 0, limit: int | None = None) -> list[Numbered]:
    """The entries with numbers beyond `after`, oldest first."""
    notes = store.notes(KIND, after=f"{after:012d}" if after else "", limit=limit)
    return [Numbered(number=int(key), entry=_decode_entry(value)) for key, value in notes]


@lru_cache(maxsize=1024)
def fingerprint(key: bytes) -> str:
    """A text that tells one API key from another, and nothing else of it."""
    return hashlib.blake2b(key, digest_size=4).hexdigest() if key else ""


def digest(body: bytes) -> str:
    """A text that is the same for the same bytes."""
    return hashlib.blake2b(body, digest_size=8).hexdigest()


_SECRET = re.compile(r"(?i)(?P<name>[^&=]*(?:key|token|secret|auth)[^&=]*)=[^&]*")


def without_keys(query: str) -> str:
    """A query string with the values of what looks like a key taken out."""
    return _SECRET.sub(r"\g<name>=…", query)


def about(entries: Iterable[Numbered], prediction_id: str) -> list[Numbered]:
    """Those of the entries that are about one prediction."""
    return [each for each in entries if each.entry.prediction == prediction_id]
