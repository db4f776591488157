"""What tests of the mock stand on: the application in this process, and servers on real ports."""

import asyncio
import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from connexion.spec import OpenAPISpecification
from starlette.types import ASGIApp

from mock_server.app import Settings, create_app, read_contracts
from mock_server.catalog import Catalog
from mock_server.memory_store import MemoryStore
from mock_server.sql_store import SqlStore
from mock_server.store import Store

KEY = {"Authorization": "Bearer test-key"}
START_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Client:
    """Speaks HTTP to an application in this process. Every request carries a key unless it says otherwise."""

    app: ASGIApp
    loop: asyncio.AbstractEventLoop
    http: httpx.AsyncClient

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.loop.run_until_complete(self.http.request(method, path, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, json: Any = None, **more: Any) -> httpx.Response:
        return self.request("POST", path, **({"json": json} if json is not None else {}), **more)

    def submit(self, model: str = "flux-schnell-lora", *, scenario: str = "normal", **given: Any) -> str:
        """The id of a new prediction; the required fields are filled in."""
        required = {"flux-dev-lora-trainer": "images_data_url", "flux-dev-lora-trainer-turbo": "data"}
        body = {required.get(model, "prompt"): "https://example.com/x.zip", **given}
        answer = self.post(f"/api/v3/wavespeed-ai/{model}", body, headers={"X-Mock-Scenario": scenario})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["id"])

    def result(self, prediction_id: str) -> dict[str, Any]:
        """The `data` of the prediction as it stands."""
        data: dict[str, Any] = self.get(f"/api/v3/predictions/{prediction_id}/result").json()["data"]
        return data

    def inside(self, prediction_id: str) -> dict[str, Any]:
        """The prediction as the control plane shows it."""
        data: dict[str, Any] = self.get(f"/_mock/predictions/{prediction_id}").json()["data"]
        return data

    def clock(self, **change: Any) -> dict[str, Any]:
        """Moves the server's clock."""
        data: dict[str, Any] = self.post("/_mock/clock", change).json()["data"]
        return data


MakeClient = Callable[..., Client]

LONGEST = (
    "test_verify.py",
    "test_mutants.py",
    "test_soak.py",
    "test_project.py",
    "test_train.py",
    "test_durability.py",
    "test_story.py",
    "test_verify_fairness.py",
    "test_page.py",
    "test_page_access.py",
    "test_schemathesis.py",
    "test_schemathesis_seeds.py",
    "test_sdk.py",
)
"""A file of tests stays on one worker, so that a long one which comes last is waited for by all others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def _each_document_is_checked_once() -> Iterator[None]:
    """Connexion checks every document of every application, which is most of what making one takes."""
    known = set()
    check: Any = OpenAPISpecification._validate_spec

    def once(document: Any) -> None:
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()
        if digest not in known:
            check(document)
            known.add(digest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenAPISpecification, "_validate_spec", staticmethod(once))
        yield


@functools.cache
def _contracts(unknown_fields: str) -> Catalog:
    return read_contracts(Settings(data=Path(), unknown_fields=unknown_fields))


@pytest.fixture
def make_client(tmp_path: Path) -> Iterator[MakeClient]:
    """Makes a client of a new application from settings."""
    loop = asyncio.new_event_loop()
    clients: list[httpx.AsyncClient] = []

    def make(**settings: Any) -> Client:
        data = tmp_path / f"outputs-{len(clients)}"
        data.mkdir()
        made = Settings(data=data, **settings)
        app = create_app(made, None if made.openapi else _contracts(made.unknown_fields))
        transport = httpx.ASGITransport(app)
        http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080", headers=KEY)
        clients.append(http)
        return Client(app=app, loop=loop, http=http)

    yield make
    for http in clients:
        loop.run_until_complete(http.aclose())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def client(make_client: MakeClient) -> Client:
    """A client of a server with no flags, whose clock stands still."""
    made = make_client()
    made.clock(freeze=True)
    return made


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of each kind. A module that uses it has the plugin `postgres`."""
    made: Store
    if request.param == "memory":
        made = MemoryStore(keep=1_000, keep_bytes=1 << 30)
    elif request.param == "sqlite":
        made = SqlStore(f"sqlite:///{tmp_path}/store.db")
    else:
        made = SqlStore(request.getfixturevalue("postgres_url"))
    with closing(made):
        yield made


@dataclass(kw_only=True)
class Server:
    """A `wavemock serve` of its own, on a port of its own."""

    process: subprocess.Popen[str]
    url: str
    banner: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def stop(self, how: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """Ends it; the exit code, and what it said on standard error."""
        self.process.send_signal(how)
        _, errors = self.process.communicate(timeout=START_SECONDS)
        return self.process.returncode, errors


StartServer = Callable[..., Server]


def start_server(*flags: str, env: dict[str, str] | None = None) -> Server:
    """Starts `wavemock serve` with the flags, and waits until it says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "mock_server", "serve", "--port", "0", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
    )
    assert process.stdout is not None
    banner: list[str] = []
    for line in process.stdout:
        banner.append(line.rstrip("\n"))
        if line.startswith("Docs:"):
            break
    found = re.search(r"http://\S+:[0-9]+", banner[0]) if banner else None
    if found is None:
        _, errors = process.communicate(timeout=START_SECONDS)
        raise RuntimeError(f"the server did not start: {errors}")
    return Server(process=process, url=found[0], banner=banner)


@pytest.fixture
def serve() -> Iterator[StartServer]:
    """Starts servers that end with the test."""
    started: list[Server] = []

    def start(*flags: str, env: dict[str, str] | None = None) -> Server:
        started.append(start_server(*flags, env=env))
        return started[-1]

    yield start
    for server in started:
        _end(server)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server with no flags for all tests of a file."""
    started = start_server()
    yield started
    _end(started)


def _end(server: Server) -> None:
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGINT)
    try:
        server.process.communicate(timeout=START_SECONDS)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.communicate()
