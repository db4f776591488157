"""Puts the parts together; the only place that constructs."""

import gc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from connexion.middleware.lifespan import LifespanMiddleware
from connexion.middleware.main import ConnexionMiddleware
from connexion.options import SwaggerUIOptions
from connexion.resolver import Resolver
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from mock_server.backend import SimulatedBackend
from mock_server.catalog import CURRENT, Catalog, Edition, edition_of, load_catalog
from mock_server.clock import ManualClock, SystemClock
from mock_server.control import operations as control
from mock_server.errors import BadConfiguration
from mock_server.handlers import Desk, result, submit
from mock_server.middleware import (
    CONTROL_PREFIX,
    ErrorMiddleware,
    FrontMiddleware,
    Operation,
    OperationsMiddleware,
    endpoint,
)
from mock_server.outputs import Outputs
from mock_server.outputs import serve as serve_output
from mock_server.scenarios import SCENARIOS
from mock_server.store import MemoryStore, Store
from mock_server.validation import compile_rules

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set about a server. Each is a flag of `wavemock serve`, explained there."""

    data: Path
    edition: str = CURRENT
    openapi: Path | None = None
    only: bool = False
    scenario: str = "normal"
    seed: int | None = None
    api_keys: tuple[str, ...] = ()
    unknown_fields: str = "report"
    max_body: int = 32 * 1024 * 1024
    store: str | None = None
    keep: int = 100_000
    keep_bytes: int = 1024 * 1024 * 1024
    public_url: str | None = None
    control_token: str | None = None
    sync_seconds: float = 90
    image_format: str = "png"
    base64: str = "raw"


def read_contracts(settings: Settings) -> Catalog:
    """The contracts that a server with these settings keeps.

    Raises BadConfiguration with file, line and what is wrong.
    """
    return load_catalog(
        directory=settings.openapi, only=settings.only, closed=settings.unknown_fields == "reject"
    )


def create_app(settings: Settings, catalog: Catalog | None = None) -> ASGIApp:
    """The whole server as one ASGI application; `catalog` spares it reading the contracts.

    Raises BadConfiguration where the settings, the contracts or the store will not do.
    """
    catalog = catalog or read_contracts(settings)
    _check_names(settings, catalog)
    store = _open_store(settings)
    clock = ManualClock(real=SystemClock(), shelf=store)
    backend = SimulatedBackend(image_format=settings.image_format)
    outputs = Outputs(directory=settings.data, store=store, clock=clock, make=backend.make)
    desk = Desk(
        store=store,
        clock=clock,
        backend=backend,
        outputs=outputs,
        run=run_in_threadpool if store.blocking else _at_once,
        root_edition=settings.edition,
        scenario=settings.scenario,
        seed=settings.seed,
        public_url=settings.public_url.rstrip("/") if settings.public_url else None,
        sync_seconds=settings.sync_seconds,
        data_uri=settings.base64 == "data-uri",
    )
    return _connexion(settings, catalog, edition_of(catalog, settings.edition), desk)


def check(settings: Settings, catalog: Catalog) -> None:
    """Raises BadConfiguration where `create_app` would; leaves nothing open."""
    _check_names(settings, catalog)
    _open_store(settings).close()


def _check_names(settings: Settings, catalog: Catalog) -> None:
    edition_of(catalog, settings.edition)
    if settings.scenario not in SCENARIOS:
        known = ", ".join(SCENARIOS)
        raise BadConfiguration(f"there is no scenario {settings.scenario!r}; there are: {known}")


def _open_store(settings: Settings) -> Store:
    if settings.store is None:
        return MemoryStore(keep=settings.keep, keep_bytes=settings.keep_bytes)
    # SQLAlchemy is a third of the time that a start takes, so it is left out where it is not needed.
    from mock_server.sql_store import SqlStore  # noqa: PLC0415

    return SqlStore(settings.store)


async def _at_once(function: Callable[..., T], *args: Any) -> T:
    return function(*args)


def _connexion(settings: Settings, catalog: Catalog, root: Edition, desk: Desk) -> ConnexionMiddleware:
    known = [contract.path for contract in root.contracts.values()]
    behind = endpoint(known, output_files=partial(serve_output, desk.outputs))
    # Connexion annotates these as applications; they are what makes one.
    middlewares: list[Any] = [
        ErrorMiddleware,
        partial(FrontMiddleware, control_token=settings.control_token),
        OperationsMiddleware,
        LifespanMiddleware,
    ]
    app = ConnexionMiddleware(
        behind,
        import_name=__name__,
        lifespan=partial(_lifespan, desk.store),
        middlewares=middlewares,
        resolver=Resolver(lambda _operation_id: behind),
        swagger_ui_options=SwaggerUIOptions(
            swagger_ui_path="/docs",
            spec_path="/openapi.json",
            # Without this, Swagger UI asks a validator on the network about the document.
            swagger_ui_config={"validatorUrl": None},
        ),
    )
    keys = tuple(key.encode() for key in settings.api_keys)
    add = partial(_add_api, app, keys=keys, max_body=settings.max_body)
    for edition in catalog.values():
        add(edition.document, f"/editions/{edition.name}", _operations(edition, desk))
    add(root.document, "", _operations(root, desk))
    add(control.document(), CONTROL_PREFIX, control.operations(desk, catalog))
    return app


def _add_api(
    app: ConnexionMiddleware,
    document: Mapping[str, Any],
    base_path: str,
    operations: Mapping[str, Operation],
    *,
    keys: tuple[bytes, ...],
    max_body: int,
) -> None:
    app.add_api(dict(document), base_path=base_path, served=operations, keys=keys, max_body=max_body)


def _operations(edition: Edition, desk: Desk) -> dict[str, Operation]:
    """What the operations of an edition do: its contracts submit, the others tell results."""
    listed = {
        operation["operationId"]: Operation(handler=partial(result, desk))
        for item in edition.document["paths"].values()
        for operation in item.values()
    }
    submits = {
        name: Operation(handler=partial(submit, desk, contract), body=compile_rules(contract.schema))
        for name, contract in edition.contracts.items()
    }
    return listed | submits


@asynccontextmanager
async def _lifespan(store: Store, _app: Any) -> AsyncIterator[None]:
    # What was built at start stays; the garbage collector need not look through it again and again.
    gc.collect()
    gc.freeze()
    yield
    store.close()
