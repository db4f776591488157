"""The examples and the Dockerfile: what can be run of them without GitHub and without Docker is run."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from conftest import StartServer
from mock_server.cli import main

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
LOCK = json.loads((EXAMPLES / "javascript/package-lock.json").read_text())
WORKFLOW: dict[Any, Any] = yaml.safe_load((EXAMPLES / "github-actions/wavemock.yml").read_text())
STEPS = [(name, step) for name, job in WORKFLOW["jobs"].items() for step in job["steps"]]
IN_JAVASCRIPT = "cd examples/javascript && npm ci && wavemock run -- npm test"
WITH_PYTEST = "wavemock run -- pytest"
UNREACHED = {
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "EHOSTUNREACH",
    "ENETUNREACH",
    "ENOTFOUND",
    "ERR_SOCKET_TIMEOUT",
    "ETIMEDOUT",
}
"""What npm says where it is no fault of an example's."""
CLIENT_TEST = """
import os

import wavespeed


def test_a_picture_is_made() -> None:
    client = wavespeed.Client(base_url=os.environ["WAVEMOCK_URL"])
    given = {"prompt": "a lighthouse [[mock:instant]]"}
    assert client.run("wavespeed-ai/flux-schnell-lora", given)["outputs"]
"""


def commands() -> set[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", (EXAMPLES / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return {line for block in blocks for line in block.splitlines()}


def environment(**more: str) -> dict[str, str]:
    """Where `wavemock` and `pytest` are those of this Python, and no mock runs already."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WAVEMOCK", "PYTEST"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **more}


def shell(line: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs a line as a step of GitHub Actions does. What it leaves running holds none of its pipes."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", line],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the examples, the JavaScript one installed."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} here")
    major = int(subprocess.check_output(["node", "--version"], text=True)[1:].partition(".")[0])
    if major < 20:
        pytest.skip(f"node {major} is too old; the example is for 20 and later")
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(EXAMPLES, folder / "examples", ignore=shutil.ignore_patterns("node_modules"))
    done = shell("npm ci --fetch-retries=1", folder / "examples/javascript")
    code = re.search(r"^npm (?:error|ERR!) code (\S+)", done.stderr, re.MULTILINE)
    if done.returncode and code and code[1] in UNREACHED:
        pytest.skip(f"npm cannot reach its registry: {code[1]}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a test of a client in Python."""
    (tmp_path / "test_client.py").write_text(CLIENT_TEST)
    return tmp_path


def test_the_commands_of_the_readme_are_those_that_are_run_here() -> None:
    steps = {line for _, step in STEPS for line in step.get("run", "").splitlines()}
    assert commands() - steps == {IN_JAVASCRIPT, WITH_PYTEST, *docker_lines()}


def test_the_command_for_javascript_runs_all_tests_of_the_example(installed: Path) -> None:
    done = shell(IN_JAVASCRIPT, installed)
    assert done.returncode == 0, done.stdout + done.stderr
    source = (EXAMPLES / "javascript/client.test.mjs").read_text()
    assert re.search(
        rf"^. pass {len(re.findall('^test[(]', source, re.MULTILINE))}$", done.stdout, re.MULTILINE
    )
    assert re.search(r"^nothing found in \d+ requests$", done.stderr, re.MULTILINE)


def test_a_client_that_submits_again_turns_the_example_red(installed: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(installed / "examples/javascript", tmp_path / "javascript"))
    client = (copy / "client.mjs").read_text()
    careless = client.replace('!error.message.includes("submission failed: HTTP 429")', "false")
    assert careless != client
    (copy / "client.mjs").write_text(careless)
    done = shell("wavemock run --no-audit -- npm test", copy)
    assert done.returncode == 1
    red = re.findall(r"^not ok \d+ - (.*)$|^✖ (.*) \(.*ms\)$", done.stdout, re.MULTILINE)
    assert {"".join(each) for each in red} >= {"a submit whose answer is lost is not sent again"}


def test_the_javascript_example_says_what_it_needs(installed: Path) -> None:
    done = shell("npm test", installed / "examples/javascript")
    assert (done.returncode, "Start with: wavemock run -- npm test" in done.stdout) == (1, True)


def test_the_javascript_example_needs_the_official_sdk_and_nothing_else() -> None:
    assert {name: each.get("version") for name, each in LOCK["packages"].items() if name} == {
        "node_modules/wavespeed": "0.3.2"
    }
    package = json.loads((EXAMPLES / "javascript/package.json").read_text())
    assert package["devDependencies"] == {"wavespeed": "0.3.2"}
    assert "dependencies" not in package


def test_the_lock_file_names_no_host() -> None:
    assert not re.search(r"https?://|resolved", json.dumps(LOCK))


def test_the_command_for_pytest_runs(project: Path) -> None:
    done = shell(WITH_PYTEST, project)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout + done.stderr
    assert "tasks accepted: 1, charged" in done.stderr


def test_the_workflow_is_one() -> None:
    # `on` is a truth value to YAML 1.1, as which GitHub does not read it.
    assert set(WORKFLOW) == {"name", True, "permissions", "env", "jobs"}
    assert WORKFLOW[True] == ["push", "pull_request"]
    assert WORKFLOW["permissions"] == {"contents": "read"}
    for job in WORKFLOW["jobs"].values():
        assert set(job) == {"runs-on", "timeout-minutes", "steps"}
    for _, step in STEPS:
        assert ("uses" in step) != ("run" in step)
        assert set(step) <= {"uses", "run", "name", "if", "with"}
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/checkout@v4"))


@pytest.mark.parametrize(
    "line",
    sorted(
        {
            line.strip()
            for _, step in STEPS
            for line in step.get("run", "").splitlines()
            if line.startswith("wavemock ")
        }
    ),
)
def test_the_flags_of_the_workflow_exist(line: str) -> None:
    words = shlex.split(line)
    known = {flag for each in main.commands[words[1]].params for flag in (*each.opts, *each.secondary_opts)}
    given = words[2 : words.index("--")] if "--" in words else words[2:]
    assert {word for word in given if word.startswith("--")} <= known


@pytest.mark.parametrize("job", list(WORKFLOW["jobs"]))
def test_a_job_of_the_workflow_passes(job: str, project: Path, request: pytest.FixtureRequest) -> None:
    if job == "javascript":
        folder: Path = request.getfixturevalue("installed")
        project = Path(shutil.copytree(folder / "examples/javascript", project / "javascript"))
    exported = project / "exported"
    exported.touch()
    groups = project / "groups"
    with leftovers_ended(groups):
        for _, step in (each for each in STEPS if each[0] == job):
            if "run" in step and not step["run"].startswith(("pip install", "npm ci")):
                known = dict(line.split("=", 1) for line in exported.read_text().splitlines())
                done = shell(
                    f"echo $$ >> {groups}\n{step['run']}", project, **known, GITHUB_ENV=str(exported)
                )
                assert done.returncode == 0, done.stdout + done.stderr
        uploaded = [step["with"]["path"] for _, step in STEPS if "upload" in step.get("uses", "")]
        assert {"audit.xml"} <= {name for path in uploaded for name in path.split()}
        assert "<testsuites>" in (project / "audit.xml").read_text()


@contextlib.contextmanager
def leftovers_ended(groups: Path) -> Iterator[None]:
    """Ends what steps left running, as the end of a job does; the file has a line for each step's group."""
    try:
        yield
    finally:
        for line in groups.read_text().splitlines():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(line), signal.SIGTERM)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each on one line."""
    lines = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [
        (word, rest)
        for line in lines.replace("\\\n", "").splitlines()
        if line.strip()
        for word, _, rest in [line.partition(" ")]
    ]


def docker_lines() -> set[str]:
    return set(re.findall(r"^# (docker .*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))


def only(word: str) -> str:
    (rest,) = [rest for each, rest in instructions() if each == word]
    return rest


def copied() -> set[str]:
    """What the Dockerfile copies from the project."""
    found = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    return {name for names in found for name in names}


def test_the_image_is_made_of_what_is_there_and_of_nothing_else() -> None:
    assert all((ROOT / name).exists() for name in copied())
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == copied()


def test_the_image_has_all_that_the_package_is_built_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel.get("force-include", {}), "pyproject.toml"}
    assert needed | {project["project"]["readme"], *project["project"]["license-files"]} == copied()


def test_the_image_is_made_in_two_stages_and_runs_as_an_ordinary_user() -> None:
    assert [rest for word, rest in instructions() if word == "FROM"] == [
        "python:3.13-slim AS build",
        "python:3.13-slim",
    ]
    assert ("COPY", "--from=build /opt/wavemock /opt/wavemock") in instructions()
    assert int(only("USER")) >= 1000


def test_the_image_serves_and_knows_whether_it_does(serve: StartServer) -> None:
    command = json.loads(only("CMD"))
    assert (json.loads(only("ENTRYPOINT")), command[0]) == (["wavemock"], "serve")
    port = only("EXPOSE")
    server = serve(*command[1:])
    check = [sys.executable, *json.loads(only("HEALTHCHECK").partition("CMD ")[2])[1:]]
    here = [word.replace(f"'127.0.0.1', {port}", f"'127.0.0.1', {server.port}") for word in check]
    assert here != check
    env = environment(http_proxy="http://127.0.0.1:1")
    assert subprocess.run(here, env=env, check=False).returncode == 0
    server.stop()
    assert subprocess.run(here, env=env, capture_output=True, check=False).returncode == 1


def test_the_port_of_the_image_is_that_of_serve() -> None:
    (default,) = [each.default for each in main.commands["serve"].params if each.name == "port"]
    assert only("EXPOSE") == str(default)
    assert all(f":{default}:{default} " in line for line in docker_lines() if "docker run" in line)


def test_the_flags_of_the_docker_run_line_open_the_control_plane_and_are_healthy(serve: StartServer) -> None:
    (line,) = [line for line in docker_lines() if "--control-token" in line]
    server = serve(*line.partition(" wavemock serve ")[2].split())
    health = f"{server.url}/_mock/health".replace("0.0.0.0", "127.0.0.1")
    codes = [
        httpx.get(health, headers=headers).status_code for headers in ({}, {"Authorization": "Bearer TOKEN"})
    ]
    assert codes == [401, 200]
    check = json.loads(only("HEALTHCHECK").partition("CMD ")[2])[1:]
    here = [word.replace(only("EXPOSE"), str(server.port)) for word in check]
    assert subprocess.run([sys.executable, *here], check=False).returncode == 0
