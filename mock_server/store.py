"""What the server remembers: predictions, notes of any kind, a number and the clock."""

from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

import msgspec

from mock_server.clock import ClockShelf
from mock_server.errors import StoreUnavailable
from mock_server.prediction import Asked, Prediction

# The one codec of every store: records go in as JSON bytes and come out as equal records.
encode = msgspec.json.encode
decode_prediction = msgspec.json.Decoder(Prediction).decode
decode_asked = msgspec.json.Decoder(Asked).decode

MOST_SESSIONS = 10_000
"""How many sessions a store keeps, beside the one of whoever names none."""


class StoreFull(StoreUnavailable):
    """Nothing more can be kept before something has finished. The message names the limit to raise."""


class Store(ClockShelf, Protocol):
    """Keeps predictions by id, together with what was asked, notes of other kinds, and the clock's state.

    All of that once per session: a store shows one, and gives the others. Notes are bytes by kind and key;
    how they read is the business of whoever keeps them. One whose key is a prediction's id may go with it.
    Safe to call from several threads at once. Any call can raise StoreUnavailable.
    """

    blocking: ClassVar[bool]
    """Whether a call may wait for a disk or a database, so that an event loop has to call it in a thread."""

    def add(
        self, prediction: Prediction, asked: Asked, *, now: int, beside: Mapping[str, bytes] = {}
    ) -> None:
        """Keeps both, durably once this returns. `now` is the server's time in milliseconds.

        `beside` are notes by kind, kept in the same step under the prediction's id.
        Raises KeyError if there is a prediction of that id already, and StoreFull if there is no room.
        """
        ...

    def get(self, prediction_id: str) -> Prediction | None:
        """The prediction of that id, which can be any text. Costs the same however large the request was."""
        ...

    def asked(self, prediction_id: str) -> Asked | None:
        """The request behind the prediction of that id."""
        ...

    def update(self, prediction_id: str, change: Callable[[Prediction], Prediction]) -> Prediction | None:
        """Replaces a prediction, if there is one, by what `change` makes of it, in one step; returns that."""
        ...

    def drop(self, prediction_id: str) -> bool:
        """Forgets the prediction of that id, which can be any text; whether there was one."""
        ...

    def newest(self, *, limit: int, before: str | None = None) -> list[Prediction]:
        """At most `limit` predictions, those accepted last first.

        With `before`, the ones accepted before the prediction of that id; none if there is no such id.
        """
        ...

    def count(self) -> int:
        """How many predictions are kept."""
        ...

    def next_number(self) -> int:
        """0, 1, 2 and so on: never the same number twice, whichever process asks, until a clear()."""
        ...

    def note(self, kind: str, key: str) -> bytes | None:
        """The note of that kind and key."""
        ...

    def notes(self, kind: str, *, after: str = "", limit: int | None = None) -> list[tuple[str, bytes]]:
        """Keys and values of the notes of a kind whose keys come behind `after`, in the order of the keys."""
        ...

    def change_note(
        self, kind: str, key: str, change: Callable[[bytes | None], bytes | None]
    ) -> bytes | None:
        """Replaces a note by what `change` makes of it, in one step, and returns that; None is no note."""
        ...

    def append(self, kind: str, value: bytes, *, keep: int) -> str:
        """Adds a note whose key is a number of twelve digits, beyond its kind's last; `keep` of them stay."""
        ...

    def session(self, name: str, *, begin: bool = True) -> "Store":
        """The store of that session; the empty name is for whoever names none.

        The session begins now if there is none, unless it is only looked at. Raises StoreFull where there are
        too many.
        """
        ...

    def sessions(self, *noting: str) -> list[str]:
        """The names of the sessions that there are, but for the empty one.

        With kinds of notes, of those that hold one of them; that costs little, however many others there are.
        """
        ...

    def clear(self) -> None:
        """Forgets everything in this session; another than the first then is no more."""
        ...

    def close(self) -> None:
        """Lets go of files and connections. Nothing may be called afterwards."""
        ...
