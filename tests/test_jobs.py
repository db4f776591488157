"""The server's side of tasks that a worker does; the store is told what such a one would tell."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from receiver import receiving
from sqlalchemy import create_engine, text
from workplace import until

from conftest import Client, MakeClient, StartServer
from mock_server import attempts
from mock_server.app import Settings, check, read_contracts
from mock_server.errors import BadConfiguration
from mock_server.outputs import result_name
from mock_server.prediction import Event, Status
from mock_server.sql_store import SqlStore
from mock_server.webhooks import awaiting, deliveries
from reference_backend.pairing import pair

PROMPT: dict[str, Any] = {"size": "512*512", "seed": 7}


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A server that leaves its work to workers, and what such a one would do."""

    client: Client
    store: SqlStore
    url: str
    results: Path

    def jobs(self) -> list[str]:
        engine = create_engine(self.url)
        with engine.connect() as connection:
            found = [row.prediction for row in connection.execute(text("select prediction from jobs"))]
        engine.dispose()
        return found

    def begin(self, prediction_id: str, worker: str = "one") -> int:
        begun = self.store.update(prediction_id, partial(attempts.begin, now=0, worker=worker))
        assert begun is not None
        return begun.attempt

    def complete(self, prediction_id: str, attempt: int, content: bytes = b"picture") -> None:
        self.results.mkdir(exist_ok=True)
        (self.results / result_name(prediction_id, attempt, "0.png")).write_bytes(content)
        event = Event(at=0, status=Status.COMPLETED, outputs=("0.png",), nsfw=(False,))
        self.store.update(prediction_id, partial(attempts.finish, attempt=attempt, worker="one", event=event))


@pytest.fixture
def shop(make_client: MakeClient, tmp_path: Path) -> Iterator[Shop]:
    url = f"sqlite:///{tmp_path}/store.db"
    client = make_client(backend="gpu", store=url)
    with closing(SqlStore(url)) as store:
        yield Shop(client=client, store=store, url=url, results=tmp_path / "outputs-0/results")


def test_a_submit_waits_for_a_worker(shop: Shop) -> None:
    prediction_id = shop.client.submit(**PROMPT)
    shop.client.clock(advance=3600)
    assert shop.client.result(prediction_id)["status"] == "created"
    assert shop.jobs() == [prediction_id]


def test_a_submit_that_asks_for_a_story_is_told_one(shop: Shop) -> None:
    prediction_id = shop.client.submit(scenario="failed", **PROMPT)
    shop.client.clock(advance=3600)
    assert (shop.client.result(prediction_id)["status"], shop.jobs()) == ("failed", [])


def test_what_a_worker_tells_is_seen_whatever_its_clock_says(shop: Shop) -> None:
    prediction_id = shop.client.submit(**PROMPT)
    shop.store.update(prediction_id, partial(attempts.begin, now=1 << 42, worker="one"))
    assert shop.client.result(prediction_id)["status"] == "processing"


def test_the_result_is_the_file_of_the_attempt_that_counts(shop: Shop) -> None:
    prediction_id = shop.client.submit(**PROMPT)
    shop.begin(prediction_id)
    second = shop.begin(prediction_id)
    (shop.results).mkdir()
    (shop.results / result_name(prediction_id, 1, "0.png")).write_bytes(b"of the first")
    shop.complete(prediction_id, second, b"of the second")
    [url] = shop.client.result(prediction_id)["outputs"]
    assert shop.client.get(url).content == b"of the second"


def test_a_result_that_is_gone_is_not_made_up(shop: Shop) -> None:
    prediction_id = shop.client.submit(**PROMPT)
    shop.complete(prediction_id, shop.begin(prediction_id))
    [url] = shop.client.result(prediction_id)["outputs"]
    (shop.results / result_name(prediction_id, 1, "0.png")).unlink()
    assert shop.client.get(url).status_code == 404


def test_base64_of_a_result_that_is_gone_is_its_url(shop: Shop) -> None:
    prediction_id = shop.client.submit(**PROMPT, enable_base64_output=True)
    shop.complete(prediction_id, shop.begin(prediction_id))
    assert shop.client.result(prediction_id)["outputs"] == ["cGljdHVyZQ=="]
    (shop.results / result_name(prediction_id, 1, "0.png")).unlink()
    assert shop.client.result(prediction_id)["outputs"][0].endswith(f"/outputs/{prediction_id}/0.png")


def test_the_inside_of_a_job_shows_attempt_worker_and_progress(shop: Shop) -> None:
    prediction_id = shop.client.submit(**PROMPT)
    shop.begin(prediction_id, worker="gpu-3")
    progress = {"stage": "denoising", "done": 3, "of": 28, "at": 0}
    shop.store.change_note("progress", prediction_id, lambda _: json.dumps(progress).encode())
    assert shop.client.inside(prediction_id)["job"] == {
        "attempt": 1,
        "worker": "gpu-3",
        "remarks": [],
        "progress": {**progress, "at": "1970-01-01T00:00:00.000Z"},
    }


def test_the_health_says_who_does_the_work(shop: Shop) -> None:
    assert shop.client.get("/_mock/health").json()["data"]["backend"] == "gpu"


def test_a_job_that_was_cancelled_takes_no_more_from_its_worker(shop: Shop) -> None:
    prediction_id = shop.client.submit(**PROMPT)
    attempt = shop.begin(prediction_id)
    shop.client.post(f"/api/v3/predictions/{prediction_id}/cancel")
    with pytest.raises(attempts.Outdated):
        shop.complete(prediction_id, attempt)
    assert shop.client.result(prediction_id)["status"] == "failed"


def test_a_job_ends_after_it_began_though_the_clock_of_its_worker_was_ahead(shop: Shop) -> None:
    prediction_id = shop.client.submit(**PROMPT)
    shop.store.update(prediction_id, partial(attempts.begin, now=1 << 42, worker="one"))
    answer = shop.client.post(f"/api/v3/predictions/{prediction_id}/cancel")
    assert answer.json()["data"]["executionTime"] == 0
    assert all(event["happened"] for event in shop.client.inside(prediction_id)["events"])


def test_only_a_worker_completes_a_job(shop: Shop) -> None:
    prediction_id = shop.client.submit(**PROMPT)
    path = f"/_mock/predictions/{prediction_id}/advance"
    refused = shop.client.post(path, {"to": "completed"})
    assert (refused.status_code, "Only a worker can complete it" in refused.json()["message"]) == (409, True)
    assert [shop.client.post(path, {"to": to}).status_code for to in ("processing", "failed")] == [200, 200]


def test_the_end_of_a_job_by_hand_is_left_to_those_who_wait_for_it(shop: Shop) -> None:
    path = "/api/v3/wavespeed-ai/flux-schnell-lora?webhook=http://127.0.0.1:9/"
    prediction_id = shop.client.post(path, {"prompt": "x"}).json()["data"]["id"]
    shop.client.post(f"/api/v3/predictions/{prediction_id}/cancel")
    assert (deliveries.all_of(shop.store), awaiting.all_of(shop.store)) == ([], [prediction_id])


def test_a_server_does_not_take_the_folder_of_another_store(tmp_path: Path) -> None:
    with closing(SqlStore(f"sqlite:///{tmp_path}/right.db")) as store:
        pair(store, tmp_path)
    wrong = Settings(data=tmp_path, backend="gpu", store=f"sqlite:///{tmp_path}/wrong.db")
    with pytest.raises(BadConfiguration, match="is not the folder of this --store"):
        check(wrong, read_contracts(wrong))


def test_a_model_that_no_worker_knows_is_simulated_and_says_so(
    make_client: MakeClient, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    bundled = Path(__file__).parent.parent / "openapi/flux-schnell-lora.yaml"
    own = bundled.read_text().replace("wavespeed-ai/", "me/").replace("submit-", "submit-me-")
    (tmp_path / "models/mine.yaml").write_text(own)
    client = make_client(backend="gpu", store=f"sqlite:///{tmp_path}/store.db", openapi=tmp_path / "models")
    answer = client.post("/api/v3/me/flux-schnell-lora", {"prompt": "x"})
    inside = client.inside(answer.json()["data"]["id"])
    assert "job" not in inside
    assert inside["warnings"] == ["no worker knows me/flux-schnell-lora: simulated"]


def test_the_end_of_a_job_is_reported_once_though_two_servers_watch(
    serve: StartServer, tmp_path: Path
) -> None:
    flags = ["--backend", "gpu", "--workers-elsewhere", "--store", f"sqlite:///{tmp_path}/store.db"]
    one, _ = (serve(*flags, "--data", str(tmp_path)) for _ in range(2))
    with receiving() as receiver, closing(SqlStore(f"sqlite:///{tmp_path}/store.db")) as store:
        answer = requests.post(
            f"{one.url}/api/v3/wavespeed-ai/flux-schnell-lora?webhook={receiver.url}",
            json={"prompt": "x"}, headers={"Authorization": "Bearer k"}, timeout=30,
        )  # fmt: skip
        prediction_id = answer.json()["data"]["id"]
        store.update(prediction_id, partial(attempts.begin, now=0, worker="one"))
        failed = Event(at=0, status=Status.FAILED, error="out_of_memory: too large")
        store.update(prediction_id, partial(attempts.finish, attempt=1, worker="one", event=failed))
        until(lambda: bool(store.notes(deliveries.KIND)) and not awaiting.all_of(store))
        until(lambda: deliveries.all_of(store)[0].state == "delivered")
        assert [got.task["error"] for got in receiver.got] == ["out_of_memory: too large"]


def test_a_job_that_was_deleted_is_waited_for_no_more(serve: StartServer, tmp_path: Path) -> None:
    flags = ["--backend", "gpu", "--workers-elsewhere", "--store", f"sqlite:///{tmp_path}/store.db"]
    server = serve(*flags, "--data", str(tmp_path))
    with closing(SqlStore(f"sqlite:///{tmp_path}/store.db")) as store:
        answer = requests.post(
            f"{server.url}/api/v3/wavespeed-ai/flux-schnell-lora?webhook=http://127.0.0.1:9/",
            json={"prompt": "x"}, headers={"Authorization": "Bearer k"}, timeout=30,
        )  # fmt: skip
        assert awaiting.all_of(store) == [answer.json()["data"]["id"]]
        store.drop(answer.json()["data"]["id"])
        until(lambda: not awaiting.all_of(store))
        assert deliveries.all_of(store) == []
