"""What clients saw, reply by reply. The checker has nothing else to go by but what is kept in the end."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer about a task: when it was asked for and came (monotonic seconds), and what it said.

    `told` is everything about a task that must not change once it has ended.
    """

    task: str
    began: float
    ended: float
    code: int
    status: str = ""
    told: tuple[object, ...] = ()


@dataclass(kw_only=True)
class History:
    """Written by the threads of all clients."""

    accepted: dict[str, str] = field(default_factory=dict)
    """Prompts by task."""
    replies: list[Reply] = field(default_factory=list)
    files: list[tuple[str, str, int, str]] = field(default_factory=list)
    """Of each output that was fetched: task, name, code of the answer, content."""
    hooks: Counter[str] = field(default_factory=Counter)
    """How often each task's end was reported."""
    refused: Counter[str] = field(default_factory=Counter)
    """Why submits were not accepted, and how often; the client knows that they may have been all the same."""
    _open: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def accept(self, task: str, prompt: str) -> None:
        with self._lock:
            self.accepted[task] = prompt
            self._open.add(task)

    def see(self, reply: Reply) -> None:
        with self._lock:
            self.replies.append(reply)
            if reply.status in {"completed", "failed"}:
                self._open.discard(reply.task)

    def fetched(self, task: str, name: str, code: int, content: str) -> None:
        with self._lock:
            self.files.append((task, name, code, content))

    def hooked(self, task: str) -> None:
        with self._lock:
            self.hooks[task] += 1

    def refuse(self, why: str) -> None:
        with self._lock:
            self.refused[why] += 1

    def open(self) -> list[str]:
        """The tasks that nobody has seen the end of."""
        with self._lock:
            return sorted(self._open)

    def ended(self) -> list[str]:
        with self._lock:
            return sorted(self.accepted.keys() - self._open)


def now() -> float:
    """The time that replies are compared by."""
    return time.monotonic()
