"""`pytest contract_tests --target URL`: the suite as plain tests."""

import importlib
from collections.abc import Iterator

import pytest

from contract_tests.case import LAYERS, Case
from contract_tests.document import BadDocument
from contract_tests.run import BadOptions, Options, chosen, open_session
from contract_tests.session import Session
from contract_tests.table import BadTable

_SESSION = pytest.StashKey[Session]()
_CASES = pytest.StashKey[list[Case]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The flags of `wavemock verify`, as far as pytest has none of its own."""
    group = parser.getgroup("contract", "wavemock's contract suite")
    group.addoption("--target", metavar="URL", default="http://127.0.0.1:8080", help="server under test")
    group.addoption(
        "--app", metavar="MODULE:NAME", help="ASGI application in this process, instead of a server"
    )
    group.addoption("--api-key", metavar="KEY", default="wavemock-verify", help="key to send")
    group.addoption("--edition", default="current", help="published revision that it has to keep")
    group.addoption("--only", action="append", default=[], metavar="MODEL", help="look at this model only")
    group.addoption("--layer", action="append", default=[], choices=LAYERS, help="run this layer only")
    group.addoption("--seed", type=int, default=0, help="the same seed sends the same requests")
    group.addoption("--budget", type=int, help="begin at most so many tasks")
    group.addoption("--pages-only", action="store_true", help="leave out our readings where pages are silent")


def _options(config: pytest.Config) -> Options:
    return Options(
        url=config.getoption("--target"),
        app=_application(config.getoption("--app")),
        key=config.getoption("--api-key"),
        edition=config.getoption("--edition"),
        only=tuple(config.getoption("--only")),
        layers=tuple(config.getoption("--layer")),
        seed=config.getoption("--seed"),
        budget=config.getoption("--budget"),
        pages_only=config.getoption("--pages-only"),
    )


def _application(name: str | None) -> object:
    if name is None:
        return None
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise pytest.UsageError(f"--app {name}: is no application: {error}") from error


def pytest_configure(config: pytest.Config) -> None:
    """Chooses the cases; nothing is sent yet."""
    try:
        options = _options(config)
        session = open_session(options)
        config.stash[_SESSION], config.stash[_CASES] = session, chosen(session, options)
    except (BadOptions, BadTable, BadDocument) as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each case, under its own name."""
    if "case" in metafunc.fixturenames:
        cases = metafunc.config.stash[_CASES]
        metafunc.parametrize("case", cases, ids=[case.id for case in cases])


@pytest.fixture(scope="session")
def target_session(pytestconfig: pytest.Config) -> Iterator[Session]:
    """The one session that all cases share."""
    session = pytestconfig.stash[_SESSION]
    yield session
    session.target.close()
