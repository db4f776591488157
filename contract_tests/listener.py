"""Hears of every exchange that passed the proxy, and has it judged and recorded when nobody waits for it."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TextIO

from contract_tests import recording
from contract_tests.exchange import Exchange, Request
from contract_tests.judges import Remark
from contract_tests.rewriting import decoded
from contract_tests.watch import Watch

LARGEST = 64 * 1024 * 1024
_MOST_WAITING = 2000
_MOST_WAITING_BYTES = 4 * LARGEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """An exchange that passed by. `ended` is in seconds of the monotonic clock, `at` is when that was.

    The sizes are in bytes; a body that is shorter than its size was too long to be kept.
    """

    exchange: Exchange
    ended: float
    at: datetime
    request_size: int
    answer_size: int

    @property
    def whole(self) -> bool:
        """Whether both bodies were kept."""
        kept = len(self.exchange.request.body or b""), len(self.exchange.body)
        return kept == (self.request_size, self.answer_size)


@dataclass(kw_only=True)
class Listener:
    """Looks at flows one after the other, in a thread.

    `sent` is how many came, `begun` how many tasks they began, `counts` why some were not judged. `file` is
    where they are recorded, if anywhere; `lost` says why that could not go on.
    """

    watch: Watch
    file: TextIO | None = None
    sent: int = 0
    begun: int = 0
    lost: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    _waiting: asyncio.Queue[Flow] = field(default_factory=asyncio.Queue)
    _bytes: int = 0

    def documents(self, method: str, path: str) -> bool:
        """Whether the contract says anything about such a request."""
        return self.watch.judges.operation(Request(method=method, path=path)) is not None

    def put(self, flow: Flow) -> None:
        """Takes a flow in, to be looked at later. Never waits."""
        self.sent += 1
        size = len(flow.exchange.request.body or b"") + len(flow.exchange.body)
        if self._waiting.qsize() >= _MOST_WAITING or self._bytes + size > _MOST_WAITING_BYTES:
            self.counts["came faster than they could be judged"] += 1
            return
        self._bytes += size
        self._waiting.put_nowait(flow)

    async def listen(self) -> None:
        """Looks at what comes, until it is cancelled."""
        while True:
            flow = await self._waiting.get()
            try:
                await asyncio.to_thread(self.look_at, flow)
            finally:
                self._bytes -= len(flow.exchange.request.body or b"") + len(flow.exchange.body)
                self._waiting.task_done()

    async def finish(self, seconds: float) -> None:
        """Waits until all has been looked at, but no longer than that many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._waiting.join()
        except TimeoutError:
            self.counts["were still to be judged at the end"] += self._waiting.qsize()

    def look_at(self, flow: Flow) -> None:
        """Judges and records one flow. Raises nothing."""
        try:
            remarks = self._judged(flow)
        except Exception as error:  # noqa: BLE001 - what a stranger answers must not end the listening
            self.counts[f"made a judge fail with {type(error).__name__}"] += 1
            remarks = ()
        if self.file is not None and not self.lost:
            try:
                recording.write(self.file, _entry(flow, remarks))
            except OSError as error:
                self.lost = f"the recording ended early: {error.strerror}"

    def _judged(self, flow: Flow) -> tuple[Remark, ...]:
        exchange = flow.exchange
        if not self.documents(exchange.request.method, exchange.request.path):
            self.counts["were not documented"] += 1
            return ()
        if not flow.whole:
            self.counts["had bodies that are too large to be judged"] += 1
            return ()
        encoding = exchange.header("content-encoding")
        body = decoded(exchange.body, encoding, LARGEST)
        if body is None:
            self.counts[f"were answered in the content coding {encoding[:20]!r}, which is not read here"] += 1
            return ()
        exchange = replace(exchange, body=body)
        self.begun += exchange.accepted and exchange.request.method == "POST"
        return self.watch.look_at(exchange, ended=flow.ended)


def _entry(flow: Flow, remarks: tuple[Remark, ...]) -> recording.Entry:
    exchange, size = flow.exchange, flow.answer_size
    body = decoded(exchange.body, exchange.header("content-encoding"), LARGEST) if flow.whole else None
    if body is not None:
        exchange, size = replace(exchange, body=body), len(body)
    return recording.Entry(
        at=flow.at.astimezone(UTC).isoformat(),
        exchange=exchange,
        request_size=flow.request_size,
        answer_size=size,
        remarks=remarks,
    )
