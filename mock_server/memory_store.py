"""The store in this process's memory, which is bounded and ends with it."""

import heapq
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import islice
from typing import ClassVar

from mock_server.clock import ClockState
from mock_server.prediction import Asked, Prediction
from mock_server.store import MOST_SESSIONS, StoreFull, decode_asked, decode_prediction, encode

_FEW_NOTES = 20_000
_MOST_STALE = 1000


class MemoryStore:
    """Keeps at most `keep` predictions and about `keep_bytes` bytes of encoded records, in this process.

    When full, those that finished longest ago make room; one that has yet to finish is never dropped.
    """

    blocking: ClassVar[bool] = False

    def __init__(self, *, keep: int, keep_bytes: int) -> None:
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._name = ""
        self._family: dict[str, MemoryStore] = {"": self}
        self._lock = threading.Lock()
        self.clear()

    def session(self, name: str, *, begin: bool = True) -> "MemoryStore":
        """The store of a session; it keeps as much as this one."""
        found = self._family.get(name)
        if found is None:
            with self._lock:
                if begin and len(self._family) > MOST_SESSIONS:
                    raise StoreFull(f"there are {MOST_SESSIONS} sessions; reset those that are done with")
                found = MemoryStore(keep=self._keep, keep_bytes=self._keep_bytes)
                found._name, found._family = name, self._family
                if begin:
                    found = self._family.setdefault(name, found)
        return found

    def sessions(self, *noting: str) -> list[str]:
        """The names of the others."""
        found = sorted((name, store) for name, store in list(self._family.items()) if name)
        return [name for name, store in found if not noting or any(map(store._notes.get, noting))]

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            if self._name:
                self._family.pop(self._name, None)
            # Only strings, bytes and integers, which the garbage collector need not walk through: however
            # much is kept, its pauses stay short.
            self._records: dict[str, bytes] = {}
            self._requests: dict[str, bytes] = {}
            # When what ends, and between equal dates which was told first.
            self._ends: list[tuple[int, int, str]] = []
            self._ends_told = 0
            self._bytes = 0
            self._numbers = 0
            self._notes: dict[str, dict[str, bytes]] = {}
            self._appended = 0
            self._clock = ClockState()

    def add(
        self, prediction: Prediction, asked: Asked, *, now: int, beside: Mapping[str, bytes] = {}
    ) -> None:
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
                heapq.heappush(self._ends, self._end_of(prediction.id, prediction.ends_at))
            for kind, value in beside.items():
                self._put(kind, prediction.id, value)

    def update(self, prediction_id: str, change: Callable[[Prediction], Prediction]) -> Prediction | None:
        """Replaces a prediction."""
        with self._lock:
            record = self._records.get(prediction_id)
            if record is None:
                return None
            before = decode_prediction(record)
            after = change(before)
            self._records[prediction_id] = changed = encode(after)
            self._bytes += len(changed) - len(record)
            if after.ends_at != before.ends_at:
                self._ends = [end for end in self._ends if end[2] != prediction_id]
                if after.ends_at is not None:
                    self._ends.append(self._end_of(prediction_id, after.ends_at))
                heapq.heapify(self._ends)
            return after

    def _end_of(self, prediction_id: str, ends_at: int) -> tuple[int, int, str]:
        self._ends_told += 1
        return ends_at, self._ends_told, prediction_id

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
            end, _, finished = heapq.heappop(self._ends)
            record = self._records.get(finished)
            # Whatever was dropped has left its end behind, and may even have come back with another.
            if record is not None and decode_prediction(record).ends_at == end:
                self._remove(finished)

    def _remove(self, prediction_id: str) -> None:
        self._bytes -= len(self._records.pop(prediction_id)) + len(self._requests.pop(prediction_id))
        for notes in self._notes.values():
            notes.pop(prediction_id, None)

    def drop(self, prediction_id: str) -> bool:
        """Forgets a prediction. Its end stays behind for a while: going through all ends takes long."""
        with self._lock:
            if prediction_id not in self._records:
                return False
            self._remove(prediction_id)
            if len(self._ends) > 2 * len(self._records) + _MOST_STALE:
                self._ends = [end for end in self._ends if end[2] in self._records]
                heapq.heapify(self._ends)
            return True

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

    def note(self, kind: str, key: str) -> bytes | None:
        """The note of that kind and key."""
        return self._notes.get(kind, {}).get(key)

    def notes(self, kind: str, *, after: str = "", limit: int | None = None) -> list[tuple[str, bytes]]:
        """The notes of a kind, by key."""
        with self._lock:
            found = self._notes.get(kind)
            if not found:
                return []
            keys = sorted(found)
            keys = keys[bisect_right(keys, after) :] if after else keys
            return [(key, found[key]) for key in keys[:limit]]

    def change_note(
        self, kind: str, key: str, change: Callable[[bytes | None], bytes | None]
    ) -> bytes | None:
        """Replaces a note. Beyond as many as predictions are kept, the first of its kind makes room."""
        with self._lock:
            value = change(self._notes.get(kind, {}).get(key))
            self._put(kind, key, value)
            return value

    def _put(self, kind: str, key: str, value: bytes | None) -> None:
        notes = self._notes.setdefault(kind, {})
        # What was changed last is last, and what was not changed the longest makes room.
        notes.pop(key, None)
        if value is not None:
            notes[key] = value
            if len(notes) > max(self._keep, _FEW_NOTES):
                del notes[next(iter(notes))]

    def append(self, kind: str, value: bytes, *, keep: int) -> str:
        """Adds a note at the end."""
        with self._lock:
            self._appended += 1
            key = f"{self._appended:012d}"
            notes = self._notes.setdefault(kind, {})
            notes[key] = value
            while len(notes) > keep:
                del notes[next(iter(notes))]
            return key

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
