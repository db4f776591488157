"""The contract suite on the reference backend at its work, and beside a server that simulates."""

from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from conftest import Server, StartServer, start_server
from contract_tests import cli
from contract_tests.run import Options, verify

SCHNELL, TRAINER = "v3/flux-schnell-lora", "v3/flux-dev-lora-trainer"


@pytest.fixture(scope="module")
def at_work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose worker makes pictures with the offline model."""
    server = start_server("--backend", "gpu", "--data", str(tmp_path_factory.mktemp("data")))
    yield server
    server.stop()


@pytest.mark.parametrize("layer", ["protocol", "boundary", "raw"])
def test_the_reference_backend_keeps_the_contract_of_a_model(at_work: Server, layer: str) -> None:
    report = verify(Options(url=at_work.url, only=(SCHNELL,), layers=(layer,)))
    assert [each.message for each in report.findings if each.verdict == "refuted"] == []
    assert report.stopped == ""
    assert any(each.verdict == "proven" for each in report.findings)


def test_the_reference_backend_keeps_the_bounds_of_a_trainer(at_work: Server) -> None:
    report = verify(Options(url=at_work.url, only=(TRAINER,), layers=("boundary",)))
    assert [each.message for each in report.findings if each.verdict == "refuted"] == []
    assert any(each.verdict == "proven" for each in report.findings)


def test_its_tasks_live_as_those_of_a_server_that_simulates(at_work: Server, serve: StartServer) -> None:
    flags = ["--only", SCHNELL, "--layer", "lifecycle", "--layer", "defaults"]
    told = CliRunner().invoke(cli.verify, ["--parity", serve().url, at_work.url, *flags])
    assert told.exit_code == 0, told.output
