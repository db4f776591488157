"""What takes its time holds up nobody else, is dated as it was, and ends when time is taken back."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from conftest import Client, MakeClient
from mock_server import desk
from mock_server.addresses import read_allowed
from mock_server.clock import ManualClock
from mock_server.control import review, time
from mock_server.sql_store import SqlStore
from mock_server.webhooks import courier as couriers
from mock_server.webhooks import deliveries
from mock_server.webhooks.courier import Courier, Office, run_due
from mock_server.webhooks.deliveries import Delivery

MODEL = "/api/v3/wavespeed-ai/flux-schnell-lora"
PATIENCE = 20


@pytest.fixture
def on_the_loop(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done with the database on an event loop; nothing should be."""
    found: list[str] = []

    def watched(name: str, original: Any) -> Any:
        @contextmanager
        def call(self: SqlStore) -> Iterator[Any]:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                with original(self) as connection:
                    yield connection
            else:
                found.append(name)
                with original(self) as connection:
                    yield connection

        return call

    for name in ("_reading", "_writing"):
        monkeypatch.setattr(SqlStore, name, watched(name, getattr(SqlStore, name)))
    return found


@pytest.fixture
def stored(make_client: MakeClient, tmp_path: object, on_the_loop: list[str]) -> Client:
    """A client of a server with a database, whose clock runs fast."""
    client = make_client(store=f"sqlite:///{tmp_path}/s.db")
    client.clock(speed=1000)
    on_the_loop.clear()
    return client


def test_a_new_session_is_begun_off_the_loop(stored: Client, on_the_loop: list[str]) -> None:
    stored.get("/_session/a/nothing")
    stored.get("/_session/b/_mock/health")
    stored.post("/_session/c" + MODEL, {"prompt": "x"})
    assert on_the_loop == []


def test_a_slow_answer_reads_the_time_off_the_loop(stored: Client, on_the_loop: list[str]) -> None:
    stored.result(stored.submit(scenario="instant; fault=slow; on=poll; seconds=20"))
    assert on_the_loop == []


def test_an_answer_that_never_comes_reads_the_time_off_the_loop(
    stored: Client, on_the_loop: list[str]
) -> None:
    prediction_id = stored.submit(scenario="instant; fault=hang; on=poll; seconds=20")
    with pytest.raises(ConnectionResetError):
        stored.result(prediction_id)
    assert on_the_loop == []


def test_an_upload_is_served_off_the_loop(stored: Client, on_the_loop: list[str]) -> None:
    sent = stored.request("POST", "/api/v3/media/upload/binary", files={"file": ("a.txt", b"x")})
    assert stored.get(sent.json()["data"]["download_url"]).content == b"x"
    assert on_the_loop == []


def test_a_webhook_that_is_not_sent_after_all_is_given_back_off_the_loop(
    stored: Client, on_the_loop: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    stored.clock(freeze=True)
    prediction_id = stored.post(MODEL + "?webhook=http://127.0.0.1:9/", {"prompt": "x"}).json()["data"]["id"]
    store = SqlStore(f"sqlite:///{tmp_path}/s.db")
    found = deliveries.find(store, prediction_id)
    assert found is not None

    def payload(*_: object) -> bytes:
        return b""

    office = Office(name="", store=store, now=lambda: 0, secret=lambda: "whsec_x", payload=payload)

    async def stopped(*_: object) -> Any:
        raise asyncio.CancelledError

    monkeypatch.setattr(couriers, "send", stopped)
    on_the_loop.clear()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(
            run_due(
                Courier(allowed=read_allowed((), option="--webhook-to", this_machine=True)),
                office,
                until=found.due or 0,
            )
        )
    after: Delivery | None = deliveries.find(store, prediction_id)
    store.close()
    assert (on_the_loop, after is not None and after.taken) == ([], 0)


@pytest.mark.parametrize("fault", ["latency", "slow"])
@pytest.mark.parametrize("settings", [{}, {"store": "sqlite:///{}/s.db"}])
def test_a_reset_ends_a_wait(
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: object,
    fault: str,
    settings: dict[str, str],
) -> None:
    client = make_client(**{name: value.format(tmp_path) for name, value in settings.items()})
    prediction_id = client.submit(scenario=f"instant; fault={fault}; on=poll; seconds=3600")
    client.clock(freeze=True, advance="1d")
    waits = asyncio.Event()
    pace = desk._pace

    def noted(clock: ManualClock) -> tuple[int, float]:
        found = pace(clock)
        client.loop.call_soon_threadsafe(waits.set)
        return found

    monkeypatch.setattr(desk, "_pace", noted)

    async def poll_and_reset() -> None:
        poll = asyncio.ensure_future(client.http.get(f"/api/v3/predictions/{prediction_id}/result"))
        await waits.wait()
        await client.http.post("/_mock/reset")
        await asyncio.wait_for(poll, PATIENCE)

    client.loop.run_until_complete(poll_and_reset())


def test_a_request_ends_when_it_is_answered_however_slowly_it_arrived(client: Client) -> None:
    async def slowly_at_once() -> list[dict[str, Any]]:
        begun, rest = asyncio.Semaphore(0), asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b'{"prompt": '
            begun.release()
            await rest.wait()
            yield b"5}"

        async def send() -> httpx.Response:
            headers = {"Content-Type": "application/json"}
            return await client.http.post(MODEL, content=body(), headers=headers)

        both = [asyncio.ensure_future(send()) for _ in range(2)]
        for _ in both:
            await begun.acquire()
        await client.http.post("/_mock/clock", json={"advance": 5})
        rest.set()
        await asyncio.gather(*both)
        found: list[dict[str, Any]] = (await client.http.get("/_mock/audit")).json()["data"]["findings"]
        return found

    found = client.loop.run_until_complete(slowly_at_once())
    entries = client.get("/_mock/requests").json()["data"]["requests"]
    assert ([each["ended"] > each["at"] for each in entries], found) == ([True, True], [])


@pytest.mark.parametrize(
    ("method", "path", "module"),
    [("GET", "audit", review), ("GET", "ledger", review), ("POST", "clock", time)],
)
def test_what_goes_through_all_predictions_holds_up_nobody(
    client: Client, monkeypatch: pytest.MonkeyPatch, method: str, path: str, module: Any
) -> None:
    seen: list[int] = []

    def noted(_: object) -> list[Any]:
        seen.append(threading.get_ident())
        return []

    monkeypatch.setattr(module, "predictions", noted)
    client.request(method, f"/_mock/{path}", **({"json": {"advance": 1}} if method == "POST" else {}))
    assert seen
    assert threading.get_ident() not in seen


def test_a_list_of_all_webhooks_holds_up_nobody(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def noted(_: object) -> list[Any]:
        seen.append(threading.get_ident())
        return []

    monkeypatch.setattr(deliveries, "all_of", noted)
    client.get("/_mock/webhooks")
    assert seen
    assert threading.get_ident() not in seen
