"""Time that passes only where a client sleeps: here and on the server, in step."""

from datetime import UTC, datetime, timedelta

from mock_server.errors import Refusal
from mock_server.grammar import span
from mock_server.testing.control import WavemockError
from mock_server.testing.fakes import HOMES, replacements
from mock_server.testing.moving import SleepKeeper
from mock_server.testing.patching import Patches, put_in, take_out
from mock_server.testing.records import ClockEvent, moment
from mock_server.testing.session import Wavemock

_SECOND = 1_000_000_000
_MILLISECOND = 1_000_000
_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)


class VirtualTime:
    """Time for the client in this process and for the session's clock on the server, moved in step.

    It stands still, but for sleeps: `time.sleep` and `asyncio.sleep` take no real time and move it by exactly
    what was asked. Of several that sleep at once, whoever wakes first moves it first, and the next one not
    before that one sleeps again, ends, or waits for others; so they do not add up.

    `time.time`, `monotonic` and `perf_counter` tell it, and those with `_ns`; modules that hold one of them
    under a name of their own are seen to. Not seen: what is kept in default arguments and objects,
    `datetime.now()`, the time limits of `asyncio.timeout`, `Event.wait`, `queue.get` and sockets, and other
    processes. Those go by real time, as do pytest and the standard library.
    """

    def __init__(self, wavemock: Wavemock) -> None:
        self._wavemock = wavemock
        self._keeper = SleepKeeper(self._move_server)
        self._events: list[ClockEvent] = []
        self._moved = 0
        self._patches: Patches | None = None
        wavemock.freeze()
        self._began = (moment(wavemock.read_clock()) - _EPOCH) // _MICROSECOND * 1000

    def __repr__(self) -> str:
        return f"VirtualTime(now={self.now.isoformat()}, slept={self.slept:g})"

    @property
    def now(self) -> datetime:
        """The virtual moment, in UTC: that of the server's clock, too."""
        return _EPOCH + _MICROSECOND * ((self._began + self._keeper.slept()) // 1000)

    @property
    def slept(self) -> float:
        """How many seconds of virtual time have passed."""
        return self._keeper.slept() / _SECOND

    def advance(self, by: float | str) -> tuple[ClockEvent, ...]:
        """Moves time ahead by seconds, or by `30s`, `5m`, `1h`; tells what that made happen on the server.

        It is a sleep of the calling thread: those who wake earlier do so on the way. In a coroutine, write
        `await asyncio.sleep(seconds)` instead; this would hold up its loop.
        """
        known = len(self._events)
        self._keeper.sleep(_seconds(by))
        return tuple(self._events[known:])

    def start(self) -> None:
        """Puts virtual time in the place of real time."""
        self._keeper.start()
        self._wavemock.mover = self
        self._patches = put_in(replacements(self._keeper, wall=self._began), homes=HOMES)

    def stop(self) -> None:
        """Puts real time back. Whoever sleeps is woken; the server's clock stays where it is."""
        if self._patches is not None:
            take_out(self._patches, homes=HOMES)
        self._wavemock.mover = None
        self._keeper.stop()

    def _move_server(self, slept: int) -> None:
        # The server counts in milliseconds. What is below one is not lost: it adds up until it is one.
        by = slept // _MILLISECOND - self._moved
        if by > 0:
            self._events += self._wavemock.move_clock(by / 1000)
            self._moved += by


def _seconds(by: float | str) -> float:
    try:
        seconds = span(by, what="advance") / 1000 if isinstance(by, str) else by
    except Refusal as error:
        raise WavemockError(str(error)) from error
    if seconds < 0:
        raise WavemockError(f"advance: time can only be moved ahead, not by {by!r}.")
    return seconds
