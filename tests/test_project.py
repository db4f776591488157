"""The project around the code: its arrows, its documents, and every command in them."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import requests
import wavespeed
import yaml
from documents import ROOT, blocks, commands

from conftest import Server, StartServer, start_server
from mock_server.audit.rules import rules_table
from mock_server.faults import KINDS
from mock_server.scenarios import SCENARIOS

BENCH = "mock_server/README.md"
PACKAGES = ("mock_server", "contract_tests", "reference_backend")
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", "openapi/README.md", BENCH]
DOCUMENTS += [f"reference_backend/{each}" for each in ("README.md", "TRAINING.md", "tiny/README.md")]
INSTALL = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/wavemock serve"
OF_WORKERS = r"wavemock (serve --backend gpu|worker )|pip install '[a-z.]+\[reference\]'"
TEST = "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox"


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
    assert "6 kept, 0 broken" in told.stdout, told.stdout + told.stderr


def test_ci_runs_exactly_the_readmes_test_command() -> None:
    script = [
        line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert script == [
        "set -euo pipefail",
        'cd "$(dirname "$0")/.."',
        (
            "if command -v apt-get >/dev/null && ! { command -v chromium && "
            "ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1; then"
        ),
        "  apt-get update && apt-get install -y --no-install-recommends chromium postgresql",
        "fi",
        TEST,
    ]


def test_the_readme_has_the_two_commands() -> None:
    assert {INSTALL, TEST} <= set(commands("README.md"))


def test_every_command_of_the_documents_is_run_by_a_test() -> None:
    # Those of workers are run by test_story.py, and what they need is installed by tox for all tests.
    known = {command for command in found_in_all() if re.match(OF_WORKERS, command)}
    known |= {INSTALL, TEST, *CURLS, *SERVES, *TOX, *IN_CI, *PYTEST, *BESIDE, *PARITY, *OF_THE_BENCH}
    assert not found_in_all() - known


def found_in_all() -> set[str]:
    return {command for document in DOCUMENTS for command in commands(document)}


def copied(tree: Path) -> Path:
    """The project without what is made from it."""
    ignored = shutil.ignore_patterns(
        ".git", ".venv", ".tox", "__pycache__", ".*_cache", ".hypothesis", "build", "node_modules"
    )
    return Path(shutil.copytree(ROOT, tree, ignore=ignored))


def test_the_install_command_gives_a_light_mock_that_serves(tmp_path: Path) -> None:
    tree = copied(tmp_path / "clone")
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


CURLS = [
    command for name in ("README.md", BENCH) for command in commands(name) if command.startswith("curl ")
]
OF_THE_BENCH = [command for command in commands(BENCH) if command.startswith("wavemock ")]


@pytest.mark.parametrize("command", CURLS)
def test_a_curl_command_of_the_readme_is_answered(on_8080: Server, command: str) -> None:
    here = command.replace("http://127.0.0.1:8080", on_8080.url).replace("curl ", "curl -sS ", 1)
    told = subprocess.run(["sh", "-c", here], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout)["code"] == 200


def test_the_curl_commands_of_the_readme_are_found() -> None:
    assert len(CURLS) == 28


def test_the_python_example_of_the_readme_runs(on_8080: Server, capsys: pytest.CaptureFixture[str]) -> None:
    example = blocks("README.md", "python")[0].replace("http://127.0.0.1:8080", on_8080.url)
    exec(compile(example, "README.md", "exec"), {"wavespeed": wavespeed})
    assert requests.get(capsys.readouterr().out.strip(), timeout=30).headers["Content-Type"] == "image/png"


IN_CI = ["pip install '.[verify]'", "wavemock serve &"]
IN_CI += ["wavemock verify http://127.0.0.1:8080 --wait 30 --report verify-report"]
PYTEST = [command for command in commands("README.md") if command.startswith("pytest ")]
BESIDE = [command for command in commands("README.md") if re.match("wavemock (proxy|drift) ", command)]
PARITY = [command for command in commands("README.md") if command.startswith("wavemock verify --parity")]
SERVES = [
    command
    for command in commands("README.md")
    if command.startswith("wavemock ")
    and command not in {*IN_CI, *BESIDE, *PARITY}
    and not re.match(OF_WORKERS, command)
]


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


@pytest.fixture(scope="module")
def extra(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose PATH begins with a fresh installation with the extra."""
    folder = tmp_path_factory.mktemp("extra")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    bin_ = folder / "venv/bin"
    subprocess.run(["sh", "-c", f"{bin_}/{IN_CI[0]}"], cwd=copied(folder / "clone"), check=True)
    return {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def in_ci(lines: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs lines of a shell, on another port and with little to verify; what they leave behind is ended."""
    port = free_port()
    lines = lines.replace("wavemock serve", f"wavemock serve --port {port}").replace("8080", str(port))
    lines = lines.replace("--wait", "--layer protocol --only v3/flux-schnell-lora --wait")
    script = f"trap 'kill $(jobs -p)' EXIT\n{lines}\n"
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def test_three_lines_verify_in_a_shell(extra: dict[str, str], tmp_path: Path) -> None:
    assert set(IN_CI) <= set(commands("README.md"))
    told = in_ci("\n".join(IN_CI[1:]), tmp_path, extra)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "kept: " in told.stdout
    assert {each.name for each in (tmp_path / "verify-report").iterdir()} == {
        "report.html",
        "junit.xml",
        "report.json",
    }


def test_the_steps_for_github_actions_verify_too(extra: dict[str, str], tmp_path: Path) -> None:
    steps = yaml.safe_load(blocks("README.md", "yaml")[0])
    assert steps[0]["run"] == IN_CI[0]
    assert in_ci(steps[1]["run"], tmp_path, extra).returncode == 0
    assert (tmp_path / steps[2]["with"]["path"]).is_dir()


def test_the_pytest_commands_of_the_readme_run(on_8080: Server, tmp_path: Path) -> None:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/my_module.py").write_text(
        "from pathlib import Path\nfrom mock_server.app import Settings, create_app\n"
        f"app = create_app(Settings(data=Path({str(tmp_path)!r})))\n"
    )
    assert len(PYTEST) == 2
    for command in PYTEST:
        flags = shlex.split(command.replace("http://127.0.0.1:8080", on_8080.url))[1:]
        told = subprocess.run(
            [sys.executable, "-m", "pytest", *flags, "--layer", "protocol", "-p", "no:cacheprovider"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 0, told.stdout + told.stderr


def test_the_parity_command_of_the_readme_runs(on_8080: Server, serve: StartServer, tmp_path: Path) -> None:
    [command] = PARITY
    words = command.replace("http://127.0.0.1:8080", on_8080.url).split()[1:]
    words[-1] = serve().url
    run = [sys.executable, "-W", "ignore", "-m", "mock_server", *words, "--layer", "protocol"]
    run += ["--only", "v3/flux-schnell-lora"]
    assert subprocess.run(run, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_the_proxy_and_drift_commands_of_the_readme_run(on_8080: Server, tmp_path: Path) -> None:
    proxy, editions, recording = (shlex.split(command)[1:] for command in BESIDE)
    run = [sys.executable, "-W", "ignore", "-m", "mock_server"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    proxy = [on_8080.url if part.startswith("http") else part for part in proxy]
    process = subprocess.Popen(
        [*run, *proxy, "--port", "0"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    url = re.search(r"http://\S+:[0-9]+", process.stdout.readline())
    assert url is not None
    key = {"Authorization": "Bearer k"}
    answer = httpx.post(f"{url[0]}/api/v3/wavespeed-ai/flux-schnell-lora", json={"prompt": "x"}, headers=key)
    assert answer.status_code == 200
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert (process.returncode, "kept: " in told) == (0, True), told
    codes = [
        subprocess.run([*run, *flags], cwd=tmp_path, env=env, capture_output=True, check=False).returncode
        for flags in (editions, recording)
    ]
    assert codes == [1, 0]


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


@pytest.mark.parametrize("command", OF_THE_BENCH)
def test_a_wavemock_command_of_the_bench_runs(on_8080: Server, command: str) -> None:
    words = shlex.split(command.replace("http://127.0.0.1:8080", on_8080.url))
    done = subprocess.run([sys.executable, "-m", "mock_server", *words[1:]], capture_output=True, check=False)
    # What the commands above did to the server may be worth a finding.
    assert done.returncode in ({0, 1} if words[1:2] == ["audit"] else {0}), done


def tables(document: str) -> dict[str, list[str]]:
    """The rows of every table of a document, by the first word of its head."""
    found = re.findall(
        r"^\| (\w+).*\|\n\|[-|]+\|\n((?:^\|.*\n?)+)", (ROOT / document).read_text(), re.MULTILINE
    )
    return {name: text.splitlines() for name, text in found}


def test_every_scenario_has_its_row_in_the_documentation() -> None:
    assert tables(BENCH)["scenario"] == [
        f"| `{each.name}` | {each.magic or ''} | {each.what} | {each.advice} |" for each in SCENARIOS.values()
    ]


def test_every_fault_has_its_row_in_the_documentation() -> None:
    assert tables(BENCH)["fault"] == [
        f"| `{each.name}` | {', '.join(each.places)} | "
        f"{', '.join(f'`{key}`' for key in (*each.keys, *(['after-commit'] if each.late else [])))} | "
        f"{each.what} | {each.advice} |"
        for each in KINDS.values()
    ]


def test_every_rule_of_the_audit_has_its_row_in_the_documentation() -> None:
    assert tables(BENCH)["rule"] == rules_table().strip().splitlines()[2:]


def test_the_scenarios_of_the_readme_are_some_of_those_that_there_are() -> None:
    named = {line.split("`")[1] for line in tables("README.md")["scenario"]}
    assert named < set(SCENARIOS)


@pytest.mark.parametrize("example", [blocks("README.md", "python")[1], *blocks(BENCH, "python")])
def test_a_test_in_the_documentation_passes(tmp_path: Path, example: str) -> None:
    (tmp_path / "test_mine.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout


def test_every_link_between_the_documents_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text()):
            assert "://" in link or (ROOT / document).parent.joinpath(link).exists(), (document, link)


def test_every_dependency_has_its_reason_in_contributing() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    every = [*project["dependencies"], *(each for extra in extras for each in extra)]
    named = {re.split(r"[^a-z0-9-]", each)[0] for each in every}
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert not [name for name in named if name not in text]


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    packages = [ROOT / "mock_server", ROOT / "contract_tests", ROOT / "contract_tests/layers"]
    packages += [ROOT / "reference_backend"]
    modules = {path.stem for package in packages for path in package.glob("*.py")}
    modules |= {f"{path.parent.name}/" for path in (ROOT / "mock_server").glob("*/__init__.py")}
    modules -= {"__init__", "__main__", "test_contract"}
    raw = {name for name in modules if name.startswith("raw") or name == "probes"}
    assert not [name for name in modules - raw if f"`{name}`" not in text]


def test_no_file_has_grown_too_long() -> None:
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    lengths = {path.name: len(path.read_text().splitlines()) for path in files}
    assert not {name: length for name, length in lengths.items() if length > 320}
