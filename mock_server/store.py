"""What the server remembers while it runs: predictions, a running number and the clock. Here: in memory."""

import heapq
import threading
from collections.abc import Callable
from itertools import islice
from typing import ClassVar, Protocol

import msgspec

from mock_server.clock import ClockShelf, ClockState
from mock_server.errors import StoreUnavailable
from mock_server.prediction import Asked, Prediction

# The one codec of every store: records go in as JSON bytes and come out as equal records.
encode = msgspec.json.encode
decode_prediction = msgspec.json.Decoder(Prediction).decode
decode_asked = msgspec.json.Decoder(Asked).decode


class StoreFull(StoreUnavailable):
    """Nothing more can be kept before something has finished. The message names the limit to raise."""


class Store(ClockShelf, Protocol):
    """Keeps predictions by id, together with what was asked, and the clock's state.

    Safe to call from several threads at once. Any call can raise StoreUnavailable.
    """

    blocking: ClassVar[bool]
    """Whether a call may wait for a disk or a database, so that an event loop has to call it in a thread."""

    def add(self, prediction: Prediction, asked: Asked, *, now: int) -> None:
        """Keeps both, durably once this returns. `now` is the server's time in milliseconds.

        Raises KeyError if there is a prediction of that id already, and StoreFull if there is no room.
        """
        ...

    def get(self, prediction_id: str) -> Prediction | None:
        """The prediction of that id, which can be any text. Costs the same however large the request was."""
        ...

    def asked(self, prediction_id: str) -> Asked | None:
        """The request behind the prediction of that id."""
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

    def clear(self) -> None:
        """Forgets the predictions, the running number and the clock's state."""
        ...

    def close(self) -> None:
        """Lets go of files and connections. Nothing may be called afterwards."""
        ...


class MemoryStore:
    """Keeps at most `keep` predictions and about `keep_bytes` bytes of encoded records, in this process.

    When full, those that finished longest ago make room; one that has yet to finish is never dropped.
    """

    blocking: ClassVar[bool] = False

    def __init__(self, *, keep: int, keep_bytes: int) -> None:
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            # Only strings, bytes and integers, which the garbage collector need not walk through: however
            # much is kept, its pauses stay short.
            self._records: dict[str, bytes] = {}
            self._requests: dict[str, bytes] = {}
            self._ends: list[tuple[int, str]] = []
            self._bytes = 0
            self._numbers = 0
            self._clock = ClockState()

    def add(self, prediction: Prediction, asked: Asked, *, now: int) -> None:
        """Keeps both, dropping what has finished by `now` if there is no room otherwise."""
        record, request = encode(prediction), encode(asked)
        with self._lock:
            if prediction.id in self._records:
                raise KeyError(prediction.id)
            self._make_room(len(record) + len(request), now)
            self._records[prediction.id] = record
            self._requests[prediction.id] = request
            self._bytes += len(record) + len(request)
            if prediction.ends_at is not None:
                heapq.heappush(self._ends, (prediction.ends_at, prediction.id))

    def _make_room(self, size: int, now: int) -> None:
        if size > self._keep_bytes:
            raise StoreFull(
                f"the request takes {size} bytes, and the store keeps {self._keep_bytes}; raise --keep-bytes"
            )
        while (crowded := len(self._records) >= self._keep) or self._bytes + size > self._keep_bytes:
            if not self._ends or self._ends[0][0] > now:
                limit = f"{self._keep} predictions" if crowded else f"{self._keep_bytes} bytes"
                flag = "--keep" if crowded else "--keep-bytes"
                raise StoreFull(
                    f"the store is full: it keeps {limit}, and nothing that it keeps has finished; "
                    f"raise {flag}, or wait until a prediction has finished"
                )
            _, finished = heapq.heappop(self._ends)
            self._bytes -= len(self._records.pop(finished)) + len(self._requests.pop(finished))

    def get(self, prediction_id: str) -> Prediction | None:
        """The prediction of that id."""
        record = self._records.get(prediction_id)
        return None if record is None else decode_prediction(record)

    def asked(self, prediction_id: str) -> Asked | None:
        """The request behind the prediction of that id."""
        request = self._requests.get(prediction_id)
        return None if request is None else decode_asked(request)

    def newest(self, *, limit: int, before: str | None = None) -> list[Prediction]:
        """The predictions accepted last, newest first. Takes time in proportion to how far back it goes."""
        with self._lock:
            ids = reversed(self._records)
            # Asking an iterator for a member moves it to just behind that member.
            if before is not None and before not in ids:
                return []
            records = [self._records[prediction_id] for prediction_id in islice(ids, limit)]
        return [decode_prediction(record) for record in records]

    def count(self) -> int:
        """How many predictions are kept."""
        return len(self._records)

    def next_number(self) -> int:
        """The next number, from 0."""
        with self._lock:
            self._numbers += 1
            return self._numbers - 1

    def clock_state(self) -> ClockState:
        """The clock's state as it stands."""
        return self._clock

    def change_clock(self, change: Callable[[ClockState], ClockState]) -> ClockState:
        """Replaces the clock's state by what `change` makes of it."""
        with self._lock:
            self._clock = change(self._clock)
            return self._clock

    def close(self) -> None:
        """There is nothing to let go of."""
