"""What an account may do: the documented levels, its credit, and what it has used of both."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from mock_server.desk import Desk
from mock_server.errors import Refusal

_NOTE = "account"
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


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted submit: when, how many images, and which prediction."""

    at: int
    images: int
    prediction: str


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The account of a session: its level (empty: no limits), its credit in US dollars, and what it uses."""

    level: str = ""
    balance: float = 1_000_000.0
    uses: tuple[Use, ...] = ()


_decode = msgspec.json.Decoder(Account).decode
_encode = msgspec.json.encode


def account(desk: Desk) -> Account:
    """The account as it stands."""
    note = desk.store.note(_NOTE, "")
    return Account() if note is None else _decode(note)


def set_account(desk: Desk, *, level: str | None = None, balance: float | None = None) -> None:
    """Changes the level, the credit, or both."""

    def change(found: Account) -> Account:
        found = found if level is None else replace(found, level=level)
        return found if balance is None else replace(found, balance=balance)

    _change(desk, change)


def admit(desk: Desk, prediction_id: str, *, images: int, price: float, now: int) -> int | None:
    """Takes the price of a task, and tells when it may begin to run: 0 at once, None not in sight.

    Raises Refusal 429 with Retry-After where a minute's images are used up, and 400 where the credit is.
    """
    free_at: int | None = 0

    def pay(found: Account) -> Account:
        nonlocal free_at
        uses = found.uses
        if level := LEVELS.get(found.level):
            running = [(use, _ends_at(desk, use, now)) for use in uses]
            free_at = _free_at(level, uses, [end for _, end in running if end != 0], images=images, now=now)
            kept = tuple(use for use, end in running if end != 0 or use.at > now - _WINDOW)
            uses = (*kept, Use(at=now, images=images, prediction=prediction_id))
        if found.balance < price:
            raise Refusal(400, "Insufficient credits. Please top up your account to continue.")
        return Account(level=found.level, balance=round(found.balance - price, 6), uses=uses)

    _change(desk, pay)
    return free_at


def dismiss(desk: Desk, prediction_id: str, *, price: float) -> None:
    """Gives back what a task took that was not kept after all."""

    def give_back(found: Account) -> Account:
        uses = tuple(use for use in found.uses if use.prediction != prediction_id)
        return Account(level=found.level, balance=round(found.balance + price, 6), uses=uses)

    _change(desk, give_back)


def _change(desk: Desk, change: Callable[[Account], Account]) -> None:
    desk.store.change_note(
        _NOTE, "", lambda note: _encode(change(Account() if note is None else _decode(note)))
    )


def _ends_at(desk: Desk, use: Use, now: int) -> int | None:
    """When what was accepted ends: 0 where it has, or is no more; None where no end is in sight."""
    prediction = desk.store.get(use.prediction)
    if prediction is None:
        return 0
    end = prediction.ends_at
    return 0 if end is not None and end <= now else end


def _free_at(
    level: Level, uses: tuple[Use, ...], running: list[int | None], *, images: int, now: int
) -> int | None:
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
    excess = len(running) - level.running
    if excess < 0:
        return 0
    ends = sorted(until for until in running if until is not None)
    return ends[excess] if excess < len(ends) else None


def refills(desk: Desk, *, after: int, until: int) -> list[tuple[int, int]]:
    """When images become available again in a span of time, and how many each time."""
    return [(use.at + _WINDOW, use.images) for use in account(desk).uses if after < use.at + _WINDOW <= until]
