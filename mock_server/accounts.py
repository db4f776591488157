"""What an account may do: the documented levels, its credit, and what it has used of both."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from mock_server.desk import Desk
from mock_server.errors import Refusal
from mock_server.prediction import Prediction

_NOTE = "account"
_USE = "use"
_WINDOW = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How many images an account may ask for in a minute, and how many tasks may run at once."""

    images: int
    running: int


LEVELS: Mapping[str, Level] = {
    "bronze": Level(images=2, running=2),
    "silver": Level(images=500, running=300),
    "gold": Level(images=3000, running=3000),
    "ultra": Level(images=5000, running=10_000),
}
"""As the provider documents them. A submit over the first number gets 429; a task over the second waits."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The account of a session: its level (empty: no limits) and its credit in US dollars."""

    level: str = ""
    balance: float = 1_000_000.0


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted submit: when, how many images, and until when it runs (None: no end in sight)."""

    at: int
    images: int
    until: int | None


_decode_account = msgspec.json.Decoder(Account).decode
_decode_uses = msgspec.json.Decoder(tuple[Use, ...]).decode
_encode = msgspec.json.encode


def account(desk: Desk) -> Account:
    """The account as it stands."""
    note = desk.store.note(_NOTE, "")
    return Account() if note is None else _decode_account(note)


def set_account(desk: Desk, *, level: str | None = None, balance: float | None = None) -> Account:
    """Changes the level, the credit, or both."""

    def change(note: bytes | None) -> bytes:
        found = Account() if note is None else _decode_account(note)
        return _encode(
            Account(
                level=found.level if level is None else level,
                balance=found.balance if balance is None else balance,
            )
        )

    changed = desk.store.change_note(_NOTE, "", change)
    return Account() if changed is None else _decode_account(changed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What a new task may do: begin to run at `free_at` (0: at once; None: not in sight).

    `counted` says that it counts towards the limits of a level.
    """

    free_at: int | None
    counted: bool


def admit(desk: Desk, *, images: int, price: float, now: int) -> Admission:
    """Takes the price of a task.

    Raises Refusal 429 with Retry-After where a minute's images are used up, and 400 where the credit is.
    """
    free_at: int | None = 0
    limited = False

    def pay(note: bytes | None) -> bytes:
        nonlocal free_at, limited
        found = Account() if note is None else _decode_account(note)
        if level := LEVELS.get(found.level):
            limited = True
            free_at = _free_at(level, _uses(desk), images=images, now=now)
        if found.balance < price:
            raise Refusal(400, "Insufficient credits. Please top up your account to continue.")
        return _encode(Account(level=found.level, balance=round(found.balance - price, 6)))

    desk.store.change_note(_NOTE, "", pay)
    return Admission(free_at=free_at, counted=limited)


def _free_at(level: Level, uses: tuple[Use, ...], *, images: int, now: int) -> int | None:
    recent = [use for use in uses if use.at > now - _WINDOW]
    if sum(use.images for use in recent) + images > level.images and recent:
        left, wait = sum(use.images for use in recent), 0
        for use in recent:
            left, wait = left - use.images, use.at + _WINDOW - now
            if left + images <= level.images:
                break
        seconds = max(1, math.ceil(wait / 1000))
        raise Refusal(
            429,
            f"This account's level gives {level.images} images a minute; try again in {seconds} s.",
            headers={"Retry-After": str(seconds)},
        )
    running = [use.until for use in uses if use.until is None or use.until > now]
    excess = len(running) - level.running
    if excess < 0:
        return 0
    ends = sorted(until for until in running if until is not None)
    return ends[excess] if excess < len(ends) else None


def note_use(desk: Desk, prediction: Prediction, *, now: int) -> None:
    """Remembers a task that was accepted, and how long it will run."""
    use = Use(at=now, images=len(prediction.makes), until=prediction.ends_at)

    def add(note: bytes | None) -> bytes:
        uses = () if note is None else _decode_uses(note)
        kept = [each for each in uses if each.at > now - _WINDOW or each.until is None or each.until > now]
        return _encode((*kept, use))

    desk.store.change_note(_USE, "", add)


def refills(desk: Desk, *, after: int, until: int) -> list[tuple[int, int]]:
    """When images become available again in a span of time, and how many each time."""
    return [(use.at + _WINDOW, use.images) for use in _uses(desk) if after < use.at + _WINDOW <= until]


def _uses(desk: Desk) -> tuple[Use, ...]:
    note = desk.store.note(_USE, "")
    return () if note is None else _decode_uses(note)
