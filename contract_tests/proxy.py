"""`wavemock proxy`: passes everything on to an upstream, and tells in the end how it kept its contract."""

import asyncio
import contextlib
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import httpx
import uvicorn

from contract_tests import recording
from contract_tests.case import Finding, Report
from contract_tests.document import read_document
from contract_tests.forward import Forwarder
from contract_tests.judges import appoint
from contract_tests.listener import Listener
from contract_tests.target import is_local
from contract_tests.watch import Watch, seen_case

_BACKLOG = 2048
_GRACE_SECONDS = 3
_JUDGING_SECONDS = 10.0
_NAME = re.compile(r"[\w.\-]+|[0-9A-Fa-f:.]+")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class CannotServe(Exception):
    """The proxy cannot be started; says why in one line."""


def serve(
    *,
    upstream: str,
    host: str,
    port: int,
    edition: str,
    ready: Callable[[str], None],
    record: Path | None = None,
    rewrite_urls: bool = True,
    seconds: float = 120.0,
    directory: Path | None = None,
    again: str = "",
) -> Report:
    """Stands before `upstream` until Ctrl-C or SIGTERM, and reports on all that passed.

    `ready` is told the proxy's own address once it is served; port 0 takes any free one. `seconds` is how
    long the upstream may be silent. `directory` adds OpenAPI files of one's own, `again` is the command that
    does the same. Raises CannotServe, BadDocument and BadRecording before anything is served.
    """
    address = _upstream(upstream)
    watch = Watch(judges=appoint(read_document(edition, directory)), brief=True)
    began = time.monotonic()
    with _recorded(record) as file, _listening(host, port) as listening:
        bound = listening.getsockname()[1]
        if is_local(str(address)) and (address.port or 80) == bound:
            raise CannotServe(f"--upstream {upstream}: is the address of the proxy itself")
        listener = Listener(watch=watch, file=file)
        forwarder = Forwarder(upstream=address, listener=listener, rewrite_urls=rewrite_urls, seconds=seconds)
        name = f"[{host}]" if ":" in host else host
        asyncio.run(_run(forwarder, listening, lambda: ready(f"http://{name}:{bound}")))
    return Report(
        url=str(address),
        edition=edition,
        seed=0,
        findings=(*watch.verdicts(), *_uncertain(listener)),
        stopped="",
        sent=listener.sent,
        begun=listener.begun,
        seconds=time.monotonic() - began,
        again=again,
    )


def _upstream(text: str) -> httpx.URL:
    """The address of an upstream. Raises CannotServe where it is none."""
    try:
        url = httpx.URL(text.rstrip("/"))
    except httpx.InvalidURL as error:
        raise CannotServe(f"--upstream {text[:200]!r}: is no address: {error}") from error
    if url.userinfo or url.query or url.fragment:
        raise CannotServe("--upstream: takes no user, no query and no fragment")
    if url.scheme not in {"http", "https"} or not _NAME.fullmatch(url.host):
        raise CannotServe(f"--upstream {text[:200]!r}: has to be http://HOST or https://HOST")
    return url


@contextlib.contextmanager
def _recorded(path: Path | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
        return
    file = recording.open_to_write(path)
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # said already where a line was to be written
            file.close()


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise CannotServe(f"--host {host}: is no address of this machine: {error}") from error
    with socket.socket(family, kind, protocol) as listening:
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except (OSError, OverflowError) as error:
            raise CannotServe(f"{host}:{port} cannot be had: {error}; choose another --port") from error
        yield listening


async def _run(forwarder: Forwarder, listening: socket.socket, ready: Callable[[], None]) -> None:
    server = server_of(forwarder)
    judging = asyncio.create_task(forwarder.listener.listen())
    with _signals(server):
        try:
            ready()
            await server.serve(sockets=[listening])
            await forwarder.listener.finish(_JUDGING_SECONDS)
        finally:
            judging.cancel()
            await forwarder.http.aclose()


class _Quiet(uvicorn.Server):
    """Uvicorn's server, which leaves the signals to its caller: it would raise them again in the end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_of(forwarder: Forwarder) -> uvicorn.Server:
    """The server that a proxy runs under. It says nothing, and adds nothing to answers."""
    return _Quiet(
        uvicorn.Config(
            forwarder,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )


@contextlib.contextmanager
def _signals(server: uvicorn.Server) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, server.handle_exit) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _uncertain(listener: Listener) -> Iterator[Finding]:
    """What passed without being judged, one finding for every reason."""
    for reason, count in sorted(listener.counts.items()):
        yield _unjudged(f"{count} exchange{'s' * (count != 1)} {reason}")
    if listener.lost:
        yield _unjudged(listener.lost)


def _unjudged(message: str) -> Finding:
    case = seen_case("", "", "judged", label=message, says="every exchange is judged")
    return Finding(case=case, verdict="not proven", message=message)
