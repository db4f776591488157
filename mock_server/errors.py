"""What went wrong, as the API says it: an HTTP status and an envelope."""

from collections.abc import Mapping
from typing import Any

import msgspec


def envelope(code: int, message: str, data: Any = None) -> bytes:
    """The JSON body around every answer. Errors carry `data` only when there is more to say."""
    body: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        body["data"] = data
    return msgspec.json.encode(body)


class Refusal(Exception):
    """An answer other than success: its HTTP status, what was wrong, what would be right, and details.

    Raised wherever the reason is found; the server answers with it as an envelope.
    """

    def __init__(
        self, status: int, message: str, *, data: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.data = data
        self.headers = dict(headers or {})


class StoreUnavailable(Exception):
    """The store can neither read nor write at the moment: locked, full, or out of reach."""


class BadConfiguration(Exception):
    """Something that the person who starts the server has to change; one line, no stack trace."""


class NotNow(BadConfiguration):
    """It cannot be as things are at the moment, which may change without anybody's doing."""
