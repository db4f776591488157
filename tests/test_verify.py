"""The contract suite against the real mock: it proves what there is to prove, and accuses nobody."""

import hashlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import MakeClient, Server, StartServer
from contract_tests.case import LAYERS, Report
from contract_tests.run import Options, chosen, open_session, verify

ROOT = Path(__file__).parent.parent
EDITIONS = ["current", "flux-lora"]
SMALL = {"only": ("v3/flux-schnell-lora",), "layers": ("boundary", "defaults", "protocol", "lifecycle")}


def complaints(report: Report) -> list[str]:
    return [f"{each.case.id}: {each.message}" for each in report.of("refuted")]


def reasons(report: Report) -> Counter[str]:
    return Counter(each.message for each in report.of("not proven"))


@pytest.fixture(scope="module")
def whole(server: Server) -> Report:
    """A run of everything over HTTP."""
    return verify(Options(url=server.url))


def test_the_mock_keeps_its_contract(whole: Report) -> None:
    assert (complaints(whole), whole.exit_code) == ([], 0)


def test_only_a_wrong_key_cannot_be_proven_on_a_mock_that_takes_any(whole: Report) -> None:
    assert reasons(whole) == {"the target takes any key, as a server for tests may": 2}


def test_every_layer_proves_something(whole: Report) -> None:
    counted = Counter(each.case.layer for each in whole.of("proven"))
    assert min(counted[layer] for layer in LAYERS) >= 9


def test_an_older_edition_keeps_its_own_contract(server: Server) -> None:
    report = verify(Options(url=f"{server.url}/editions/flux-lora", edition="flux-lora"))
    assert (complaints(report), report.exit_code) == ([], 0)


def test_one_edition_is_not_taken_for_another(server: Server) -> None:
    report = verify(Options(url=server.url, edition="flux-lora", layers=("boundary",)))
    refused = "refused with HTTP 400, although the contract allows it"
    assert f"v2/flux-dev-lora the smallest request: {refused}" in complaints(report)
    assert report.exit_code == 1


def test_a_key_that_the_target_knows_is_all_that_is_missing(serve: StartServer) -> None:
    url = serve("--api-key", "sesame").url
    report = verify(
        Options(url=url, key="sesame", layers=("protocol", "generated"), only=("flux-schnell-lora",))
    )
    assert (complaints(report), reasons(report)) == ([], {})


def test_an_application_in_this_process_needs_no_port(make_client: MakeClient) -> None:
    report = verify(Options(app=make_client().app))
    assert complaints(report) == []
    assert set(reasons(report)) == {
        "the target takes any key, as a server for tests may",
        "there is no connection to an application in this process",
    }


@pytest.mark.parametrize("edition", EDITIONS)
def test_every_case_has_a_name_of_its_own_that_can_be_typed(edition: str) -> None:
    session = open_session(Options(edition=edition))
    names = [case.id for case in chosen(session, Options(edition=edition))]
    session.target.close()
    assert len(set(names)) == len(names)
    assert not [name for name in names if not re.fullmatch(r"[\x20-\x7e]{3,90}", name)]


def test_a_bound_has_the_name_that_one_expects(server: Server) -> None:
    report = verify(Options(url=server.url, case=("v3/flux-schnell-lora num_inference_steps max+1",)))
    assert [each.verdict for each in report.findings] == ["proven"]


Receive = Callable[[], Awaitable[dict[str, Any]]]


def recorded(app: Any, sent: list[str]) -> Any:
    """The application, with a digest of every request that comes in."""

    async def record(scope: dict[str, Any], receive: Receive, send: Any) -> None:
        digest = hashlib.sha256(repr((scope["method"], scope["raw_path"], scope["headers"])).encode())

        async def listen() -> dict[str, Any]:
            message = await receive()
            digest.update(message.get("body", b""))
            return message

        await app(scope, listen, send)
        sent.append(digest.hexdigest())

    return record


def requests_of(make_client: MakeClient, seed: int) -> list[str]:
    sent: list[str] = []
    app = recorded(make_client(seed=1).app, sent)
    verify(Options(app=app, seed=seed, only=("v3/flux-schnell-lora", "v3/flux-dev-lora-trainer")))
    return sent


def test_the_same_seed_sends_the_same_requests_byte_for_byte(make_client: MakeClient) -> None:
    once, again = (requests_of(make_client, 5) for _ in range(2))
    assert len(once) > 1000
    assert once == again


def test_another_seed_sends_others(make_client: MakeClient) -> None:
    assert requests_of(make_client, 5) != requests_of(make_client, 6)


def python(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, check=False, **more
    )


def test_the_suite_imports_nothing_of_the_mock() -> None:
    names = ("run", "proxy", "drift", "report.files")
    code = "import sys, " + ", ".join(f"contract_tests.{name}" for name in names)
    told = python("-c", f"{code}\nprint([name for name in sys.modules if name.startswith('mock_server')])")
    assert told.stdout.strip() == "[]", told.stderr


def pytest_told(*flags: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "pytest", "contract_tests", "-q", "-p", "no:cacheprovider", *flags)


def test_plain_pytest_runs_the_suite_against_a_server(server: Server) -> None:
    told = pytest_told("--target", server.url, "--layer", "protocol", "--only", "v3/flux-schnell-lora", "-vv")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "[v3/flux-schnell-lora the page's curl] PASSED" in told.stdout


def test_plain_pytest_runs_it_in_process(tmp_path: Path) -> None:
    (tmp_path / "my_app.py").write_text(
        "from pathlib import Path\nfrom mock_server.app import Settings, create_app\n"
        f"app = create_app(Settings(data=Path({str(tmp_path)!r})))\n"
    )
    env = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    told = python(
        "-m", "pytest", "contract_tests", "-q", "-p", "no:cacheprovider", "--app", "my_app:app",
        "--layer", "defaults", "--only", "v3/flux-schnell-lora", env=env,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr


def test_plain_pytest_is_red_where_the_contract_is_broken(server: Server) -> None:
    told = pytest_told(
        "--target", server.url, "--edition", "flux-lora", "--layer", "boundary", "--only", "v2/flux-dev-lora"
    )
    assert told.returncode == 1
    assert (
        "FAILED contract_tests/test_contract.py::test_the_target_keeps_its_contract[v2/flux-dev-lora"
        in told.stdout
    )


def test_plain_pytest_ends_at_once_where_there_is_no_server() -> None:
    told = pytest_told("--target", "http://127.0.0.1:9", "--layer", "protocol")
    assert told.returncode == 2
    assert "cannot be reached" in told.stdout + told.stderr


def test_a_case_of_the_judges_is_reported_alone_after_what_it_judges(make_client: MakeClient) -> None:
    case = ("v3/predictions law: order",)
    report = verify(Options(app=make_client().app, only=("v3/flux-schnell-lora",), case=case))
    assert [(each.case.id, each.verdict) for each in report.findings] == [(*case, "proven")]
    assert report.sent > 1000
