"""Puts the parts together; the only place that constructs."""

import asyncio
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

from mock_server.addresses import read_allowed
from mock_server.backend import JobBackend, SimulatedBackend
from mock_server.catalog import CURRENT, Catalog, Edition, edition_of, load_catalog
from mock_server.clock import ManualClock, SystemClock
from mock_server.control import operations as control
from mock_server.control.page import PATH as PAGE_PATH
from mock_server.control.page import is_page, serve_page
from mock_server.desk import Desk, Desks
from mock_server.downloads import serve_output
from mock_server.errors import BadConfiguration, Refusal, StoreUnavailable
from mock_server.faults import POLL, SUBMIT
from mock_server.handlers import result, submit
from mock_server.memory_store import MemoryStore
from mock_server.middleware import (
    CONTROL_PREFIX,
    ErrorMiddleware,
    FrontMiddleware,
    OperationsMiddleware,
    endpoint,
)
from mock_server.operation import Operation
from mock_server.outputs import PATH as OUTPUTS_PATH
from mock_server.outputs import Outputs
from mock_server.platform import operations as platform
from mock_server.platform.receiving import serve_upload
from mock_server.reporting import offices, watch_jobs
from mock_server.scripts import read_scenario
from mock_server.sessions import SessionMiddleware
from mock_server.store import Store
from mock_server.uploads import PATH as UPLOADS_PATH
from mock_server.uploads import Uploads
from mock_server.validation import compile_rules
from mock_server.webhooks.courier import Courier
from mock_server.webhooks.service import Bell, serve_forever

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
    max_upload: int = 300 * 1024 * 1024
    store: str | None = None
    keep: int = 100_000
    keep_bytes: int = 1024 * 1024 * 1024
    public_url: str | None = None
    control_token: str | None = None
    sync_seconds: float = 90
    magic: bool = True
    webhook_to: tuple[str, ...] = ()
    journal: int = 10_000
    retention_days: float = 7
    image_format: str = "png"
    base64: str = "raw"
    backend: str = "simulated"


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
    bell = Bell()
    jobs = _known_to_workers() if settings.backend == "gpu" else None
    desks = Desks(partial(_desk, settings, store, bell, jobs))
    courier = Courier(
        allowed=read_allowed(settings.webhook_to, option="--webhook-to", this_machine=True),
        run=desks.root.run,
    )
    return _connexion(settings, catalog, desks, courier, bell)


def _known_to_workers() -> frozenset[str]:
    from reference_backend.models import MODELS  # noqa: PLC0415 - only a server with workers needs it

    return frozenset(MODELS)


def _desk(
    settings: Settings,
    root: Store,
    bell: Bell,
    jobs: frozenset[str] | None,
    session: str,
    *,
    begin: bool = True,
) -> Desk:
    store = root.session(session, begin=begin)
    clock = ManualClock(real=SystemClock(), shelf=store)
    directory = settings.data / "sessions" / session if session else settings.data
    retention = round(settings.retention_days * 86_400_000)
    uploads = Uploads(
        directory=directory / "uploads",
        store=store,
        clock=clock,
        session=session,
        retention=retention,
        seed=settings.seed,
    )
    simulated = SimulatedBackend(image_format=settings.image_format, uploaded=uploads.image)
    outputs = Outputs(
        directory=directory / "outputs",
        results=directory / "results",
        store=store,
        clock=clock,
        make=simulated.make,
    )
    return Desk(
        session=session,
        store=store,
        clock=clock,
        backend=simulated if jobs is None else JobBackend(simulated=simulated, models=jobs),
        outputs=outputs,
        uploads=uploads,
        run=run_in_threadpool if store.blocking else _at_once,
        root_edition=settings.edition,
        scenario=settings.scenario,
        seed=settings.seed,
        public_url=settings.public_url.rstrip("/") if settings.public_url else None,
        sync_seconds=settings.sync_seconds,
        data_uri=settings.base64 == "data-uri",
        magic=settings.magic,
        journal=settings.journal,
        retention=retention,
        changed=bell.wake,
    )


def check(settings: Settings, catalog: Catalog) -> None:
    """Raises BadConfiguration where `create_app` would; leaves nothing open."""
    _check_names(settings, catalog)
    _open_store(settings).close()


def _check_names(settings: Settings, catalog: Catalog) -> None:
    edition_of(catalog, settings.edition)
    try:
        read_scenario(settings.scenario, what="--scenario")
    except Refusal as refusal:
        raise BadConfiguration(refusal.message) from refusal


def _open_store(settings: Settings) -> Store:
    if settings.store is None:
        return MemoryStore(keep=settings.keep, keep_bytes=settings.keep_bytes)
    # SQLAlchemy is a third of the time that a start takes, so it is left out where it is not needed.
    from mock_server.sql_store import SqlStore  # noqa: PLC0415

    if settings.backend != "gpu":
        return SqlStore(settings.store)
    from reference_backend.pairing import pair  # noqa: PLC0415 - as above
    from reference_backend.queue import engine_for  # noqa: PLC0415

    engine = engine_for(settings.store)
    store = SqlStore(settings.store, enqueue=engine.enqueue)
    try:
        engine.prepare()
        pair(store, settings.data)
    except (BadConfiguration, StoreUnavailable) as error:
        store.close()
        raise BadConfiguration(str(error)) from error
    return store


async def _at_once(function: Callable[..., T], *args: Any, **more: Any) -> T:
    return function(*args, **more)


def _connexion(
    settings: Settings, catalog: Catalog, desks: Desks, courier: Courier, bell: Bell
) -> ConnexionMiddleware:
    root = edition_of(catalog, settings.edition)
    known = [contract.path for contract in root.contracts.values()]
    files = {
        OUTPUTS_PATH: partial(serve_output, desks),
        UPLOADS_PATH: partial(serve_upload, desks),
        PAGE_PATH: partial(serve_page, desks),
    }
    behind = endpoint(known, files=files)
    # Connexion annotates these as applications; they are what makes one.
    middlewares: list[Any] = [
        partial(SessionMiddleware, desks=desks, control_prefix=CONTROL_PREFIX),
        ErrorMiddleware,
        partial(FrontMiddleware, control_token=settings.control_token, public=is_page),
        OperationsMiddleware,
        LifespanMiddleware,
    ]
    app = ConnexionMiddleware(
        behind,
        import_name=__name__,
        lifespan=partial(_lifespan, desks, courier, bell),
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
    add = partial(_add_api, app, desks=desks, keys=keys, max_body=settings.max_body)
    for edition in catalog.values():
        add(edition.document, f"/editions/{edition.name}", _operations(edition, settings.max_upload))
    add(root.document, "", _operations(root, settings.max_upload))
    add(control.document(), CONTROL_PREFIX, control.operations(desks, catalog, courier))
    return app


def _add_api(
    app: ConnexionMiddleware,
    document: Mapping[str, Any],
    base_path: str,
    operations: Mapping[str, Operation],
    *,
    desks: Desks,
    keys: tuple[bytes, ...],
    max_body: int,
) -> None:
    app.add_api(
        dict(document), base_path=base_path, served=operations, desks=desks, keys=keys, max_body=max_body
    )


def _operations(edition: Edition, max_upload: int) -> dict[str, Operation]:
    """What an edition's operations do: contracts submit, the platform has its own, others tell results."""
    listed = {
        operation["operationId"]: Operation(handler=result, place=POLL)
        for item in edition.document["paths"].values()
        for operation in item.values()
    }
    submits = {
        name: Operation(handler=partial(submit, contract), place=SUBMIT, body=compile_rules(contract.schema))
        for name, contract in edition.contracts.items()
    }
    return listed | submits | platform.operations(edition, max_upload=max_upload)


@asynccontextmanager
async def _lifespan(desks: Desks, courier: Courier, bell: Bell, _app: Any) -> AsyncIterator[None]:
    # What was built at start stays; the garbage collector need not look through it again and again.
    gc.collect()
    gc.freeze()
    tasks = [asyncio.create_task(serve_forever(courier, partial(offices, desks), bell))]
    if isinstance(desks.root.backend, JobBackend):
        tasks.append(asyncio.create_task(watch_jobs(desks)))
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    desks.root.store.close()
