"""Many tasks and many clients at once: nobody sees what is another's, and nothing accepted is lost."""

import asyncio
import random
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from conftest import KEY, Client, Server

SUBMIT = "/api/v3/wavespeed-ai/flux-schnell-lora"
CLIENTS = 1000
FAULTS = (
    "reset; on=submit; after-commit=true; probability=0.05; seed=1",
    "reset; on=submit; probability=0.05; seed=2",
    "502; on=submit; after-commit=true; probability=0.05; seed=3",
    "truncate; on=submit; probability=0.05; seed=4",
    "429; on=submit; probability=0.05; seed=5",
    "503; on=poll; probability=0.05; seed=6",
    "reset; on=poll; probability=0.05; seed=7",
    "truncate; on=poll; probability=0.05; seed=8",
    "null; on=poll; probability=0.02; seed=9; field=status",
    "slow; on=poll; probability=0.02; seed=10; seconds=5s",
)


@pytest.mark.parametrize("seed", range(5))
def test_fifty_interleaved_tasks_each_see_their_own_sequence(client: Client, seed: int) -> None:
    chance = random.Random(seed)
    left, seen = {}, {}
    for _ in range(50):
        created, processing = chance.randrange(5), chance.randrange(5)
        outcome = chance.choice(["completed", "failed"])
        script = f"progression=polls; created={created}; processing={processing}; outcome={outcome}"
        task = client.submit(scenario=script)
        left[task] = ["created"] * created + ["processing"] * processing + [outcome] * 2
        seen[task] = list[str]()
    order = [task for task, statuses in left.items() for _ in statuses]
    chance.shuffle(order)
    for task in order:
        seen[task].append(client.result(task)["status"])
    assert seen == left


def test_fifty_tasks_on_one_clock_each_go_by_their_own_times(client: Client) -> None:
    chance = random.Random(7)
    spans = {}
    for _ in range(50):
        created, processing = chance.randrange(1, 60), chance.randrange(1, 60)
        spans[client.submit(scenario=f"created={created}s; processing={processing}s")] = (created, processing)
    for now in range(1, 120):
        client.clock(advance="1s")
        for task in chance.sample(sorted(spans), 5):
            created, processing = spans[task]
            due = "created" if now < created else "processing" if now < created + processing else "completed"
            assert client.result(task)["status"] == due


@dataclass(kw_only=True)
class Count:
    """What the clients know between them. `known` are the ids that were answered, `doubted` the prompts."""

    known: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    doubted: set[str] = field(default_factory=set)


async def one_client(http: httpx.AsyncClient, count: Count) -> None:
    """Submits one task and follows it to its end; never submits again after an answer that tells nothing."""
    prompt = uuid.uuid4().hex
    while True:
        try:
            answer = await http.post(SUBMIT, json={"prompt": prompt})
        except httpx.TransportError:
            count.doubted.add(prompt)
            return
        if answer.status_code != 429:
            break
    if answer.status_code != 200:
        count.doubted.add(prompt)
        return
    task = answer.json()["data"]["id"]
    count.known.add(task)
    while True:
        try:
            told = (await http.get(f"/api/v3/predictions/{task}/result")).json()
        except httpx.TransportError:
            continue
        if told.get("data", {}).get("status") == "completed":
            count.ended.add(task)
            return
        await asyncio.sleep(0.05)


async def history(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Every task of the account, with what was asked."""
    found: list[dict[str, Any]] = []
    for page in range(1, 100):
        asked = {"page": page, "page_size": 100, "include_inputs": True}
        items = (await http.post("/api/v3/predictions", json=asked)).json()["data"]["items"]
        if not items:
            break
        found += items
    return found


def test_a_thousand_clients_among_faults_lose_nothing_and_agree_with_the_ledger(server: Server) -> None:
    base = f"{server.url}/_session/crowd"
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)

    async def crowd() -> tuple[Count, list[dict[str, Any]], dict[str, Any]]:
        async with httpx.AsyncClient(
            base_url=base, headers=KEY, limits=limits, timeout=60, trust_env=False
        ) as http:
            await http.post("/_mock/clock", json={"speed": 100})
            for fault in FAULTS:
                assert (await http.post("/_mock/faults", json={"fault": fault})).status_code == 200
            count = Count()
            await asyncio.gather(*(one_client(http, count) for _ in range(CLIENTS)))
            await http.delete("/_mock/faults")
            return count, await history(http), (await http.get("/_mock/ledger")).json()["data"]

    count, listed, ledger = asyncio.run(crowd())
    ids = {item["id"] for item in listed}
    recovered = {item["id"] for item in listed if item["input"]["prompt"] in count.doubted}
    assert len(count.known) + len(count.doubted) == CLIENTS
    assert count.known == count.ended
    assert count.known | recovered == ids
    assert 0 < len(recovered) < len(count.doubted)
    assert {row["prediction"] for row in ledger["tasks"]} == ids
    assert set(ledger["answers_lost"]) == recovered
    assert ledger["duplicates"] == []
