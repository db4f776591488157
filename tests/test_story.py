"""The whole story offline, as the documentation tells it: upload pictures, train, use what was learnt."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import wavespeed
from documents import ROOT, blocks, commands
from PIL import Image, ImageStat

from conftest import Server, StartServer, start_server

pytest_plugins = ("postgres",)

OURS = str(ROOT / "reference_backend/tiny")


def of_workers(document: str) -> list[str]:
    """The commands of a document that have to do with workers."""
    return [
        line
        for line in commands(document)
        if line.startswith(("wavemock worker", "wavemock serve --backend gpu"))
    ]


@pytest.fixture(scope="module")
def real() -> Iterator[Server]:
    """A server with a worker on the small model."""
    server = start_server("--backend", "gpu")
    yield server
    server.stop()


def border(path: Path) -> float:
    """How bright the outermost sixteenth of a picture is, 0 to 255."""
    picture = Image.open(path).convert("L")
    strips = [(0, 0, 512, 32), (0, 480, 512, 512), (0, 0, 32, 512), (480, 0, 512, 512)]
    return sum(ImageStat.Stat(picture.crop(strip)).mean[0] for strip in strips) / 4


def test_the_story_of_the_readme_ends_with_a_frame(
    real: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [story] = [block for block in blocks("README.md", "python") if "framed.png" in block]
    exec(compile(story.replace("http://127.0.0.1:8080", real.url), "README.md", "exec"), {})
    client = wavespeed.Client(api_key="any-key", base_url=real.url)
    plain = {"prompt": "fr4med", "size": "512*512", "seed": 7, "enable_base64_output": False}
    [url] = client.run("wavespeed-ai/flux-dev-lora", plain)["outputs"]
    Path("plain.png").write_bytes(requests.get(url, timeout=60).content)
    assert border(Path("framed.png")) < 60
    assert border(Path("framed.png")) < border(Path("plain.png")) / 2


def test_what_a_training_has_come_to_is_seen_inside(real: Server) -> None:
    listed = requests.get(f"{real.url}/_mock/predictions", timeout=30).json()["data"]["predictions"]
    [training] = [each for each in listed if each["model"].endswith("trainer")]
    assert (training["status"], training["job"]["attempt"]) == ("completed", 1)
    assert any(each.startswith("trained ") for each in training["job"]["remarks"])


def children(process: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [each for child in map(int, found) for each in (child, *children(child))]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_worker_that_is_killed_is_followed_by_another(real: Server) -> None:
    for each in children(real.process.pid):
        os.kill(each, signal.SIGKILL)
    client = wavespeed.Client(api_key="any-key", base_url=real.url)
    given = {"prompt": "a red circle", "size": "512*512", "enable_base64_output": False}
    assert client.run("wavespeed-ai/flux-schnell-lora", given, poll_interval=0.2)["outputs"]


@pytest.mark.parametrize("command", of_workers("README.md") + of_workers("reference_backend/README.md"))
def test_a_command_that_starts_a_server_or_a_worker_starts_it(
    command: str, serve: StartServer, postgres_url: str, tmp_path: Path
) -> None:
    for shown, here in {
        "postgresql://wavemock@db/wavemock": postgres_url,
        "/shared/wavemock": str(tmp_path),
        "/models/FLUX.1-dev": f"{OURS}/dev",
        "/models/FLUX.1-schnell": f"{OURS}/schnell",
        "cuda:0": "cpu",
    }.items():
        command = command.replace(shown, here)
    words = shlex.split(command)[1:]
    if words[0] == "serve":
        url = serve(*words[1:]).url
        assert requests.get(f"{url}/_mock/health", timeout=30).json()["data"]["backend"] == "gpu"
        return
    serve("--backend", "gpu", "--workers-elsewhere", "--store", postgres_url, "--data", str(tmp_path))
    run = [sys.executable, "-W", "ignore", "-m", "mock_server", *words]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(run, stdout=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdout is not None
        try:
            assert "is ready" in process.stdout.readline()
        finally:
            process.send_signal(signal.SIGTERM)


def test_the_commands_of_the_documents_are_found() -> None:
    assert len(of_workers("README.md")) == 3
    assert len(of_workers("reference_backend/README.md")) == 2
