"""The credit of the account, and the secret that its webhooks are signed with."""

import hashlib
import secrets
from typing import Any

from mock_server.accounts import account
from mock_server.desk import Call, Desk

_NOTE = "webhook-secret"


def balance(desk: Desk, _call: Call) -> dict[str, Any]:
    """What is left."""
    return {"balance": account(desk).balance}


def account_balance(desk: Desk, call: Call) -> dict[str, Any]:
    """The same with its currency."""
    return {**balance(desk, call), "currency": "USD"}


def show_secret(desk: Desk, _call: Call) -> dict[str, Any]:
    """The secret."""
    return {"secret": webhook_secret(desk)}


def webhook_secret(desk: Desk) -> str:
    """What the webhooks of a session are signed with; the same from then on. It follows from a `seed`."""
    note = desk.store.note(_NOTE, "")
    if note is None:
        text = f"{desk.seed}/{desk.session}/webhook".encode()
        drawn = (
            secrets.token_hex(24) if desk.seed is None else hashlib.blake2b(text, digest_size=24).hexdigest()
        )
        note = desk.store.change_note(_NOTE, "", lambda found: found or f"whsec_{drawn}".encode())
    return (note or b"").decode()
