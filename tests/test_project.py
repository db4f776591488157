"""The project around the code: its arrows, its documents, and every command in them."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import requests
import wavespeed

from conftest import Server, StartServer, start_server

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", "openapi/README.md"]
INSTALL = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/wavemock serve"
TEST = "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox"


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[str]:
    """Every command in a document, without the remark behind it."""
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
    return [re.sub(r"\s+#.*", "", line) for line in lines if line.strip()]


@pytest.fixture(scope="module")
def on_8080() -> Iterator[Server]:
    server = start_server()
    yield server
    server.stop()


def test_the_arrows_between_the_modules_hold() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert "2 kept, 0 broken" in told.stdout, told.stdout + told.stderr


def test_ci_runs_exactly_the_readmes_test_command() -> None:
    script = [
        line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert script == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', TEST]


def test_the_readme_has_the_two_commands() -> None:
    assert {INSTALL, TEST} <= set(commands("README.md"))


def test_every_command_of_the_documents_is_run_by_a_test() -> None:
    known = {INSTALL, TEST, *CURLS, *SERVES, *TOX}
    found = {command for document in DOCUMENTS for command in commands(document)}
    assert not found - known


def test_the_install_command_gives_a_light_mock_that_serves(tmp_path: Path) -> None:
    tree = tmp_path / "clone"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", ".tox", "__pycache__", ".*_cache", ".hypothesis", "build"
    )
    shutil.copytree(ROOT, tree, ignore=ignored)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to(Path(sys.base_prefix, "bin", "python3"))
    env = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
    }
    install = INSTALL.replace(" && .venv/bin/wavemock", " >&2 && exec .venv/bin/wavemock")
    process = subprocess.Popen(
        ["sh", "-c", f"{install} --port 0"],
        cwd=tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = re.search(r"http://\S+:[0-9]+", process.stdout.readline())
        assert url is not None
        assert httpx.get(f"{url[0]}/_mock/health").json()["data"]["status"] == "ok"
        listed = subprocess.run(
            [tree / ".venv/bin/pip", "list", "--format=json"], capture_output=True, check=True
        ).stdout
    finally:
        process.terminate()
        process.communicate(timeout=60)
    heavy = {"torch", "numpy", "diffusers", "peft", "schemathesis", "hypothesis", "pytest"}
    assert not heavy & {each["name"].lower() for each in json.loads(listed)}


CURLS = [command for command in commands("README.md") if command.startswith("curl ")]


@pytest.mark.parametrize("command", CURLS)
def test_a_curl_command_of_the_readme_is_answered(on_8080: Server, command: str) -> None:
    here = command.replace("http://127.0.0.1:8080", on_8080.url).replace("curl ", "curl -sS ", 1)
    told = subprocess.run(["sh", "-c", here], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout)["code"] == 200


def test_the_curl_commands_of_the_readme_are_found() -> None:
    assert len(CURLS) == 5


def test_the_python_example_of_the_readme_runs(on_8080: Server, capsys: pytest.CaptureFixture[str]) -> None:
    example = blocks("README.md", "python")[0].replace("http://127.0.0.1:8080", on_8080.url)
    exec(compile(example, "README.md", "exec"), {"wavespeed": wavespeed})
    assert requests.get(capsys.readouterr().out.strip(), timeout=30).headers["Content-Type"] == "image/png"


SERVES = [command for command in commands("README.md") if command.startswith("wavemock ")]


def test_the_wavemock_commands_of_the_readme_run(
    serve: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my-models").mkdir()
    (tmp_path / "my-models/model.yaml").write_text(blocks("openapi/README.md", "yaml")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert len(SERVES) == 3
    for command in SERVES:
        flags = command.split()[1:]
        if flags[0] == "serve":
            assert httpx.get(f"{serve(*flags[1:]).url}/_mock/health").status_code == 200
        else:
            subprocess.run([sys.executable, "-m", "mock_server", *flags], capture_output=True, check=True)


def test_the_violations_that_the_readme_shows_are_what_is_answered(on_8080: Server) -> None:
    body = {"prompt": "x", "num_inference_steps": 51, "size": "1024x1024"}
    answer = requests.post(
        f"{on_8080.url}/api/v3/wavespeed-ai/flux-schnell-lora",
        json=body,
        headers={"Authorization": "Bearer k"},
        timeout=30,
    )
    assert answer.json() == json.loads(blocks("README.md", "json")[0])


TOX = [command for command in commands("CONTRIBUTING.md") if command.split()[0] == "tox"]


def test_the_tox_commands_of_the_documents_name_environments_that_exist() -> None:
    text = (ROOT / "tox.ini").read_text()
    environments = set(re.findall(r"^\[testenv:(\w+)\]", text, re.MULTILINE))
    named = {match[1] for command in TOX if (match := re.search(r"-e (\w+)", command))}
    assert named == environments


def test_the_scenarios_of_the_readme_are_those_that_there_are(on_8080: Server) -> None:
    named = re.findall(r"^\| `(\w+)` \| ", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert named == list(httpx.get(f"{on_8080.url}/_mock/health").json()["data"]["scenarios"])


def test_every_link_between_the_documents_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text()):
            assert "://" in link or (ROOT / document).parent.joinpath(link).exists(), (document, link)


def test_every_dependency_has_its_reason_in_contributing() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {re.split(r"[^a-z-]", each)[0] for each in project["dependencies"]}
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert not [name for name in named if name not in text]


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    modules = {path.stem for path in (ROOT / "mock_server").glob("*.py")} - {"__init__", "__main__"}
    assert not [name for name in modules if f"`{name}`" not in text]


def test_no_file_has_grown_too_long() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "mock_server").rglob("*.py")}
    assert not {name: length for name, length in lengths.items() if length > 320}
