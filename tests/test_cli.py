"""The command line, as its user meets it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from conftest import KEY, StartServer
from mock_server.faults import KINDS
from mock_server.scenarios import SCENARIOS

SCHNELL = "/api/v3/wavespeed-ai/flux-schnell-lora"


def wavemock(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mock_server", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)


def test_the_banner_has_a_curl_line_that_works(serve: StartServer) -> None:
    line = next(line for line in serve().banner if line.startswith("Try:"))
    told = subprocess.run(["sh", "-c", f"{line.removeprefix('Try:')} -s"], capture_output=True, check=True)
    assert json.loads(told.stdout)["data"]["status"] == "created"


def test_the_curl_line_carries_a_key_that_the_server_accepts(serve: StartServer) -> None:
    line = next(line for line in serve("--api-key", "sesame").banner if line.startswith("Try:"))
    assert "Bearer sesame" in line


def test_the_banner_names_the_models_and_the_places_to_look(serve: StartServer) -> None:
    server = serve()
    banner = "\n".join(server.banner)
    for path in ("/_mock/", "/docs"):
        assert f"{server.url}{path}" in banner
        assert httpx.get(server.url + path, follow_redirects=True).status_code == 200
    assert "wavespeed-ai/flux-dev-lora-trainer-turbo  v2 v3*" in banner


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(serve: StartServer, how: signal.Signals) -> None:
    assert serve().stop(how) == (0, "wavemock has stopped.\n")


def test_a_signal_ends_all_its_processes(serve: StartServer, tmp_path: Path) -> None:
    server = serve("--workers", "2", "--store", f"sqlite:///{tmp_path}/mock.db")
    assert server.stop() == (0, "wavemock has stopped.\n")
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_it_leaves_no_files_behind(serve: StartServer, tmp_path: Path) -> None:
    server = serve("--scenario", "instant", env={"TMPDIR": str(tmp_path)})
    data = httpx.post(server.url + SCHNELL, json={"prompt": "x"}, headers=KEY).json()["data"]
    output = httpx.get(data["urls"]["get"], headers=KEY).json()["data"]["outputs"][0]
    assert httpx.get(output).status_code == 200
    assert list(tmp_path.glob("wavemock-*/outputs/*.png"))
    server.stop()
    assert not list(tmp_path.glob("wavemock-*"))


def test_a_request_that_is_held_on_purpose_leaves_no_trace_at_the_end(serve: StartServer) -> None:
    server = serve()
    httpx.post(f"{server.url}/_mock/faults", json={"fault": "hang; on=submit"})
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        body = b'{"prompt": "x"}'
        head = f"POST {SCHNELL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        while httpx.get(f"{server.url}/_mock/faults").json()["data"]["faults"]:
            pass  # until it has struck
        code, errors = server.stop()
    assert (code, "Traceback" in errors) == (0, False), errors


def test_a_held_request_does_not_hold_up_the_end(serve: StartServer) -> None:
    server = serve("--scenario", "stuck")
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        body = b'{"prompt": "x", "enable_sync_mode": true}'
        head = f"POST {SCHNELL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        while not httpx.get(f"{server.url}/_mock/health").json()["data"]["predictions"]:
            time.sleep(0.01)
        code, _ = server.stop()
    assert code == 0


def test_a_port_that_is_taken_is_one_line_and_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = wavemock("serve", "--port", str(taken.getsockname()[1]))
    assert told.returncode == 2
    assert re.fullmatch(r"Error: 127\.0\.0\.1:\d+ cannot be had: .*--port 0 for any\n", told.stderr)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--scenario", "nope"], "--scenario: there is no 'nope'; there are: normal, instant"),
        (["--edition", "nope"], "there is no edition 'nope'; there are: current, flux-lora"),
        (["--openapi", "nowhere"], "nowhere: is not a directory of OpenAPI files"),
        (["--workers", "2"], "--workers: several processes need a store to share"),
        (["--only"], "--only: there is nothing to serve but the built-in files"),
        (["--max-body", "much"], "'much' is no size; try 500000, 64KiB, 32MiB or 1GiB"),
        (["--public-url", "mock.example"], "--public-url: 'mock.example' is no address"),
        (["--api-key", " "], "an empty one would keep everybody out"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: is no address"),
        (["--store", "mysql://x"], "sqlite:///"),
        (["--store", "sqlite:////nowhere/at/all.db"], "/nowhere/at"),
        (["--port", "70000"], "70000 is not in the range"),
        (["--sed", "1"], "No such option"),
    ],
)
def test_a_wrong_flag_is_told_in_words_and_code_2(flags: list[str], told: str) -> None:
    result = wavemock("serve", "--port", "0", *flags)
    assert (result.returncode, told in result.stderr, "Traceback" in result.stderr) == (2, True, False)


def test_a_broken_file_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("openapi: 3.0.3\ninfo: {title: x, version: '1'}\npaths: [\n")
    result = wavemock("serve", "--openapi", str(tmp_path))
    assert result.returncode == 2
    assert re.search(r"^Error: \S+/broken\.yaml:4: is not YAML: .*\n$", result.stderr)


def test_help_lists_every_flag() -> None:
    text = wavemock("serve", "--help").stdout
    assert {"--scenario", "--seed", "--store", "--max-body", "--control-token"} <= set(
        re.findall(r"--[a-z-]+", text)
    )


def test_a_command_lists_every_scenario_and_fault() -> None:
    told = wavemock("scenarios").stdout
    assert [name for name in (*SCENARIOS, *KINDS) if f"\n{name}" not in f"\n{told}"] == []


def test_the_list_can_be_had_as_json() -> None:
    told = json.loads(wavemock("scenarios", "--json").stdout)
    assert [each["name"] for each in told["scenarios"]] == list(SCENARIOS)
    assert [each["kind"] for each in told["faults"]] == list(KINDS)


def test_the_address_is_written_into_a_file_for_whoever_waits_for_it(
    serve: StartServer, tmp_path: Path
) -> None:
    server = serve("--ready-file", str(tmp_path / "ready"))
    assert (tmp_path / "ready").read_text() == f"{server.url}\n"


def test_without_magic_a_server_takes_inputs_as_they_are(serve: StartServer) -> None:
    server = serve("--no-magic")
    answer = httpx.post(server.url + SCHNELL, json={"prompt": "[[mock:rate-limited]]"}, headers=KEY)
    assert answer.status_code == 200


def test_help_needs_none_of_the_servers_libraries() -> None:
    code = "import sys; from mock_server.cli import main; main(['--help'], standalone_mode=False)"
    code += "; sys.exit(bool({'connexion', 'sqlalchemy', 'PIL', 'yaml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_sqlalchemy_is_left_alone_without_a_store() -> None:
    code = "import sys, warnings; warnings.simplefilter('ignore'); import mock_server.app"
    code += "; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_version_is_told() -> None:
    assert re.fullmatch(r"wavemock, version \d+\.\d+\.\d+\n", wavemock("--version").stdout)


@pytest.mark.parametrize("edition", ["current", "flux-lora"])
def test_openapi_prints_the_same_in_both_formats(edition: str) -> None:
    one = wavemock("openapi", "--edition", edition, "--format", "json")
    other = wavemock("openapi", "--edition", edition)
    assert (json.loads(one.stdout), one.stderr) == (yaml.safe_load(other.stdout), "")


def test_openapi_prints_what_is_served(serve: StartServer) -> None:
    printed = json.loads(wavemock("openapi", "--format", "json").stdout)
    served = httpx.get(f"{serve().url}/openapi.json").json()
    assert {p: set(item) for p, item in printed["paths"].items()} == {
        p: set(item) for p, item in served["paths"].items()
    }


def test_openapi_of_an_unknown_edition_is_code_2() -> None:
    result = wavemock("openapi", "--edition", "nope")
    assert (result.returncode, result.stderr) == (
        2,
        "Error: there is no edition 'nope'; there are: current, flux-lora\n",
    )


def test_it_works_from_any_folder(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "mock_server", "openapi"]
    assert subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False).returncode == 0


def test_an_access_log_has_a_line_per_request(serve: StartServer) -> None:
    server = serve("--access-log")
    httpx.get(f"{server.url}/_mock/health")
    server.process.send_signal(signal.SIGINT)
    assert server.process.stdout is not None
    assert '"GET /_mock/health HTTP/1.1" 200' in server.process.stdout.read()


def test_swagger_ui_asks_nobody_else_for_anything(serve: StartServer) -> None:
    url = f"{serve().url}/docs/"
    page = httpx.get(url).text
    config = httpx.get(f"{url}swagger-ui-config.json").json()
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert links
    assert not [link for link in links if "://" in link or link.startswith("//")]
    assert {httpx.get(url + link.removeprefix("./")).status_code for link in links} == {200}
    assert config["validatorUrl"] is None
