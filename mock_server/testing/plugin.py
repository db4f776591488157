"""The pytest plugin: its options, its marker and its fixtures.

Every pytest run on a machine with wavemock imports this, so it imports nothing but pytest before a fixture is
asked for.
"""

import os
import shlex
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mock_server.testing.inbox import WebhookInbox
    from mock_server.testing.session import Wavemock
    from mock_server.testing.starting import WavemockServer
    from mock_server.testing.virtual import VirtualTime

_MARK = "wavemock"
_MARK_KEYS = ("balance", "fault", "frozen", "level", "scenario")
_SESSION = pytest.StashKey["Wavemock"]()
_SHOWN = 30


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds where the server is, and how to start one."""
    parser.getgroup("wavemock", "wavemock, a mock of the WaveSpeedAI FLUX LoRA API").addoption(
        "--wavemock-url",
        metavar="URL",
        help="Use the wavemock server that runs at URL (also: WAVEMOCK_URL, or wavemock_url in the ini file) "
        "and start none. With WAVEMOCK_CONTROL_TOKEN where it wants a token.",
    )
    parser.addini("wavemock_url", "URL of a running wavemock server to use.", default="")
    parser.addini("wavemock_args", "Flags for the `wavemock serve` that is started.", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker."""
    config.addinivalue_line(
        "markers",
        f"{_MARK}(scenario=..., fault=..., frozen=True, level=..., balance=...): how the fixture `wavemock` "
        "begins; a fault may be a list of faults.",
    )


# The old kind of wrapper: a newer one would keep every pytest before 8 from starting at all.
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Shows beside a failure what the client sent."""
    report: pytest.TestReport = (yield).get_result()
    session = item.stash.get(_SESSION, None)
    if session is not None and call.when == "call" and report.failed:
        # A server that has gone is another test's news; this one's failure stands as it is.
        with suppress(Exception):
            requests = session.requests
            lines = [f"({len(requests)} requests; the last {_SHOWN})"] if len(requests) > _SHOWN else []
            report.sections.append(
                ("wavemock requests", "\n".join([*lines, *map(str, requests[-_SHOWN:])]) or "(none)")
            )


@pytest.fixture(scope="session")
def wavemock_server(pytestconfig: pytest.Config) -> "Iterator[WavemockServer]":
    """A wavemock server for the whole run: `url`.

    One is started on a free port of this machine and stopped at the end, one per worker under xdist; flags
    for it stand in the ini file as `wavemock_args`. With --wavemock-url URL, WAVEMOCK_URL, or `wavemock_url`
    in the ini file, the server that runs there is used and left running, and all workers share it.
    """
    from mock_server.testing.control import WavemockError  # noqa: PLC0415
    from mock_server.testing.starting import find_server, started_server  # noqa: PLC0415

    url = (
        pytestconfig.getoption("wavemock_url")
        or os.environ.get("WAVEMOCK_URL")
        or pytestconfig.getini("wavemock_url")
    )
    try:
        if url:
            yield find_server(url, token=os.environ.get("WAVEMOCK_CONTROL_TOKEN"))
            return
        flags = shlex.split(pytestconfig.getini("wavemock_args"))
        with started_server(flags, directory=pytestconfig.rootpath) as server:
            yield server
    except WavemockError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def wavemock(request: pytest.FixtureRequest, wavemock_server: "WavemockServer") -> "Iterator[Wavemock]":
    """A session of this test's own on the server: no other test sees its tasks, requests, faults and clock.

    Give the client `wavemock.url` as its base URL, or `wavemock.key` as its API key. Choose what happens with
    `scenario("failed")`, `fault("503; on=poll")` and `advance("30s")`; see it in `requests`, `predictions`,
    `ledger` and `audit`; check it with `assert_called()`, `assert_charged(times=1)`, `assert_good_citizen()`.
    `@pytest.mark.wavemock(scenario="slow", fault="429", frozen=True, level="bronze")` says how it begins.
    """
    from mock_server.testing.session import Wavemock, session_name  # noqa: PLC0415

    session = Wavemock(wavemock_server, session_name(request.node.name))
    try:
        _begin(session, _marked(request.node))
        request.node.stash[_SESSION] = session
        yield session
    finally:
        session.close()


@pytest.fixture
def virtual_time(wavemock: "Wavemock") -> "Iterator[VirtualTime]":
    """Lets the client's sleeps in this process take no time, and moves the session's clock by as much.

    A client that polls every five seconds for ten minutes does so in a moment, and unchanged: `time.sleep`,
    `asyncio.sleep`, `time.time`, `time.monotonic` and `time.perf_counter` go by virtual time, which stands
    still but for sleeps. `virtual_time.slept` is what has passed, in seconds; `advance("30s")` lets more
    pass. Not moved: `datetime.now()`, time limits of sockets, events and queues, other processes.
    """
    from mock_server.testing.virtual import VirtualTime  # noqa: PLC0415

    time = VirtualTime(wavemock)
    time.start()
    try:
        yield time
    finally:
        time.stop()


@pytest.fixture
def webhook_inbox(wavemock: "Wavemock") -> "Iterator[WebhookInbox]":
    """An address on this machine that takes webhooks: `url`, `wait("completed")`, `events`.

    What comes says whether its signature is right (`verified`, `reason`). `respond(500, times=2)` makes the
    next two fail, so that they come again.
    """
    from mock_server.testing.inbox import WebhookInbox  # noqa: PLC0415

    inbox = WebhookInbox(wavemock)
    try:
        yield inbox
    finally:
        inbox.close()


def _marked(node: pytest.Item) -> dict[str, Any]:
    """What the marks of a test say together; the nearest one wins."""
    found: dict[str, Any] = {}
    for mark in reversed(list(node.iter_markers(_MARK))):
        wrong = [*map(repr, mark.args), *(name for name in mark.kwargs if name not in _MARK_KEYS)]
        if wrong:
            pytest.fail(
                f"@pytest.mark.wavemock takes {', '.join(_MARK_KEYS)} by name, not {', '.join(wrong)}.",
                pytrace=False,
            )
        found |= mark.kwargs
    return found


def _begin(session: "Wavemock", marked: Mapping[str, Any]) -> None:
    from mock_server.testing.control import WavemockError  # noqa: PLC0415

    try:
        if marked.get("frozen"):
            session.freeze()
        if "level" in marked or "balance" in marked:
            session.account(level=marked.get("level"), balance=marked.get("balance"))
        if "scenario" in marked:
            session.scenario(marked["scenario"])
        faults = marked.get("fault", ())
        for fault in [faults] if isinstance(faults, str) else faults:
            session.fault(fault)
    except WavemockError as error:
        pytest.fail(f"@pytest.mark.wavemock: {error}", pytrace=False)
