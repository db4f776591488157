"""Servers on one SQLite file: what was accepted is there afterwards, whatever happens to them."""

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from conftest import KEY, Server, StartServer, start_server

SUBMIT = "/api/v3/wavespeed-ai/flux-schnell-lora"


def submit(url: str, prompt: str = "x") -> str:
    return str(httpx.post(url + SUBMIT, json={"prompt": prompt}, headers=KEY).json()["data"]["id"])


def status(url: str, prediction_id: str) -> int:
    return httpx.get(f"{url}/api/v3/predictions/{prediction_id}/result", headers=KEY).status_code


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mock.db"


def test_a_prediction_survives_a_restart(serve: StartServer, store: str) -> None:
    first = serve("--store", store)
    prediction_id = submit(first.url)
    first.stop()
    assert status(serve("--store", store).url, prediction_id) == 200


def test_an_output_survives_a_restart_byte_for_byte(serve: StartServer, store: str) -> None:
    flags = ("--store", store, "--scenario", "instant")
    first = serve(*flags)
    prediction_id = submit(first.url)
    path = f"/outputs/{prediction_id}/0.png"
    before = httpx.get(first.url + path).content
    first.stop()
    assert httpx.get(serve(*flags).url + path).content == before


def test_a_clock_that_was_moved_stays_moved(serve: StartServer, store: str) -> None:
    first = serve("--store", store)
    moved = httpx.post(f"{first.url}/_mock/clock", json={"freeze": True, "advance": "1h"}).json()["data"]
    first.stop()
    now = httpx.get(f"{serve('--store', store).url}/_mock/clock").json()["data"]
    assert (now["now"], now["running"]) == (moved["now"], False)


def test_seeded_ids_go_on_after_a_restart(serve: StartServer, store: str) -> None:
    ids = []
    for _ in range(2):
        server = serve("--store", store, "--seed", "1")
        ids += [submit(server.url), submit(server.url)]
        server.stop()
    assert len(set(ids)) == 4


def test_several_processes_serve_one_store(serve: StartServer, store: str) -> None:
    url = serve("--store", store, "--workers", "2", "--seed", "1").url
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda number: submit(url, str(number)), range(60)))
    assert len(set(ids)) == 60
    # Each request is a connection of its own, so both processes are asked.
    assert {status(url, prediction_id) for prediction_id in ids for _ in range(2)} == {200}


def test_all_processes_go_by_one_clock(serve: StartServer, store: str) -> None:
    url = serve("--store", store, "--workers", "2").url
    httpx.post(f"{url}/_mock/clock", json={"freeze": True})
    assert len({httpx.get(f"{url}/_mock/clock").json()["data"]["now"] for _ in range(20)}) == 1


def test_nothing_that_was_acknowledged_is_lost_when_servers_are_killed(store: str) -> None:
    dice = random.Random(1)
    acknowledged: list[str] = []
    for _ in range(8):
        server = start_server("--store", store)
        stop = threading.Event()
        client = threading.Thread(target=hammer, args=(server.url, acknowledged, stop))
        client.start()
        stop.wait(dice.uniform(0.2, 1.0))
        code, _ = server.stop(signal.SIGKILL)
        stop.set()
        client.join()
        assert code == -signal.SIGKILL
    assert len(acknowledged) > 100
    kept = ids_in(store)
    assert not [prediction_id for prediction_id in acknowledged if prediction_id not in kept]


def hammer(url: str, acknowledged: list[str], stop: threading.Event) -> None:
    """Submits one prediction after the other until the server is gone."""
    with httpx.Client(headers=KEY) as http:
        while not stop.is_set():
            try:
                answer = http.post(url + SUBMIT, json={"prompt": "x"})
            except httpx.HTTPError:
                return
            acknowledged.append(answer.json()["data"]["id"])


def ids_in(store: str) -> set[str]:
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {row[0] for row in database.execute("SELECT id FROM predictions")}


def test_a_lock_that_is_held_is_503_and_polls_go_on(serve: StartServer, store: str) -> None:
    server = serve("--store", store)
    prediction_id = submit(server.url)
    blocker = sqlite3.connect(store.removeprefix("sqlite:///"), isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx.post, server.url + SUBMIT, json={"prompt": "x"}, headers=KEY, timeout=60)
        assert status(server.url, prediction_id) == 200
        answer = waiting.result()
    blocker.execute("ROLLBACK")
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (503, 503, "1")
    assert submit(server.url)
    blocker.close()


def limited(store: str) -> Server:
    """A server whose files cannot grow beyond 300 kB, as on a disk that is full."""
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000));"
        "sys.argv = ['wavemock', 'serve', '--port', '0', '--store', sys.argv[1]];"
        "runpy.run_module('mock_server', run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-u", "-c", code, store],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().split(" at ")[1].split()[0]
    return Server(process=process, url=url)


def test_a_full_disk_is_503_and_polls_go_on(store: str) -> None:
    server = limited(store)
    try:
        first = submit(server.url)
        codes = [
            httpx.post(server.url + SUBMIT, json={"prompt": "x" * 20_000}, headers=KEY).status_code
            for _ in range(60)
        ]
        assert set(codes) == {200, 503}
        assert codes[-1] == 503
        assert status(server.url, first) == 200
    finally:
        code, errors = server.stop()
    assert (code, "Traceback" in errors) == (0, False)


def test_a_garbled_file_is_refused_at_start(tmp_path: Path) -> None:
    path = tmp_path / "mock.db"
    path.write_bytes(b"this is no database" * 1000)
    command = [sys.executable, "-m", "mock_server", "serve", "--port", "0", "--store", f"sqlite:///{path}"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (told.returncode, "mock.db" in told.stderr, "Traceback" in told.stderr) == (2, True, False)
