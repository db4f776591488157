"""Runs the application under uvicorn: sockets, processes, deadlines, and a clean end."""

import socket
from collections.abc import Callable
from functools import partial

import uvicorn
from uvicorn.supervisors import Multiprocess

from mock_server.app import Settings, check, create_app
from mock_server.catalog import Catalog
from mock_server.errors import BadConfiguration
from mock_server.limits import LimitedProtocol

_GRACE_SECONDS = 3


def listen(host: str, port: int) -> socket.socket:
    """A bound and listening socket; port 0 takes any free one.

    Raises BadConfiguration where the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise BadConfiguration(f"--host {host}: is no address of this machine: {error.strerror}") from error
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise BadConfiguration(
            f"{host}:{port} cannot be had: {error.strerror}; choose another --port, or --port 0 for any"
        ) from error
    listening.set_inheritable(True)
    return listening


def run(
    settings: Settings,
    catalog: Catalog,
    listening: socket.socket,
    *,
    workers: int,
    access_log: bool,
    ready: Callable[[], None],
) -> None:
    """Serves until a signal ends it. `ready` is called once requests are answered.

    Raises BadConfiguration where the application cannot be built.
    """
    config = uvicorn.Config(
        # Built here when it is the only one; else by each process for itself, from settings known to be good.
        create_app(settings, catalog) if workers == 1 else partial(create_app, settings),
        factory=workers > 1,
        interface="asgi3",
        http=LimitedProtocol,
        ws="none",
        lifespan="on",
        log_level="info" if access_log else "warning",
        access_log=access_log,
        server_header=False,
        # What a proxy says of its client is not believed; --public-url says where answers point.
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        workers=workers,
    )
    if workers == 1:
        _Server(config, ready).run(sockets=[listening])
    else:
        check(settings, catalog)
        _Workers(config, listening, ready).run()


class _Server(uvicorn.Server):
    """Uvicorn's server, which says when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, then says so."""
        await super().startup(sockets)
        self._ready()


class _Workers(Multiprocess):
    """Uvicorn's processes, which say when all of them are ready."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket, ready: Callable[[], None]) -> None:
        super().__init__(config, sockets=[listening])
        self._ready = ready

    def init_processes(self) -> None:
        """Starts them, then says so."""
        super().init_processes()
        if all(process.wait_until_ready(60, self.should_exit) for process in self.processes):
            self._ready()
