"""A page in a real browser, on a session of its own; what tests of the page stand on."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import KEY, Server

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect  # noqa: E402

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TABS = ("tasks", "requests", "bench", "webhooks", "audit")
SCHNELL = "/api/v3/wavespeed-ai/flux-schnell-lora"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as started:
        own = Path(started.chromium.executable_path)
        found = next(filter(None, map(shutil.which, NAMES)), own if own.exists() else None)
        if found is None:
            assert not os.environ.get("CI"), "CI has to install a browser"
            pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the PATH, nor one of Playwright's own")
        launched = started.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@dataclass(kw_only=True)
class Bench:
    """A session of its own, and its page in a browser; `complaints` are what must never be."""

    url: str
    page: Page
    complaints: list[str] = field(default_factory=list)

    def open(self, view: str = "tasks") -> None:
        self.page.goto(f"{self.url}/_mock/#{view}")
        expect(self.page.locator("#connection")).to_have_text("Live")

    def submit(self, *, scenario: str = "normal", model: str = SCHNELL, query: str = "", **body: Any) -> str:
        """The id of a new task."""
        headers = {**KEY, "X-Mock-Scenario": scenario}
        address = f"{self.url}{model}{'?' if query else ''}{query}"
        answer = httpx.post(address, json={"prompt": "a lighthouse", **body}, headers=headers)
        return str(answer.json()["data"]["id"])

    def submit_many(self, count: int) -> None:
        """As many new tasks, over one connection."""
        with httpx.Client(headers=KEY) as client:
            for number in range(count):
                client.post(f"{self.url}{SCHNELL}", json={"prompt": f"Picture {number} of a series"})

    def refuse(self) -> None:
        """A request that breaks its contract twice."""
        body = {"prompt": "x", "seed": "y", "num_images": 9}
        httpx.post(f"{self.url}{SCHNELL}", json=body, headers=KEY)

    def poll(self, prediction: str) -> None:
        """Asks how a task stands, as a client does."""
        httpx.get(f"{self.url}/api/v3/predictions/{prediction}/result", headers=KEY)

    def advance(self, prediction: str, to: str) -> None:
        """Moves a task on, as somebody else does."""
        address = f"{self.url}/_mock/predictions/{prediction}/advance"
        httpx.post(address, json={"to": to}).raise_for_status()

    def arm(self, fault: str) -> None:
        """Arms a fault, as somebody else does."""
        httpx.post(f"{self.url}/_mock/faults", json={"fault": fault}).raise_for_status()

    def stand(self, scenario: str) -> None:
        """Sets the scenario of submits that name none, as somebody else does."""
        httpx.post(f"{self.url}/_mock/scenario", json={"scenario": scenario}).raise_for_status()

    def data(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}/_mock/{path}").json()["data"]
        return found

    def clock(self, **change: Any) -> None:
        httpx.post(f"{self.url}/_mock/clock", json=change).raise_for_status()

    def show(self, view: str) -> None:
        self.page.locator(f"#tab-{view}").click()

    def arrives(self, get: Callable[[], Any], wanted: Any) -> None:
        """Waits until the server says what is wanted of it."""
        for _ in range(100):
            if get() == wanted:
                return
            self.page.wait_for_timeout(50)
        assert get() == wanted


def bench_on(context: BrowserContext, url: str) -> Bench:
    bench = Bench(url=url, page=context.new_page())

    def listen(message: ConsoleMessage) -> None:
        # A refusal is an answer that the page knows what to do with; browsers write it down all the same.
        refused = message.text.startswith("Failed to load resource") and "/_mock/page/" not in message.text
        if message.type in {"error", "warning"} and not refused:
            bench.complaints.append(f"console: {message.text}")

    bench.page.on("console", listen)
    bench.page.on("pageerror", lambda error: bench.complaints.append(f"error: {error}"))
    bench.page.on("request", lambda each: _look_at(bench, each.url))
    bench.page.on("response", lambda each: bench.complaints.append(each.url) if each.status >= 500 else None)
    return bench


def _look_at(bench: Bench, url: str) -> None:
    root = bench.url.partition("/_session/")[0]
    if not url.startswith((f"{root}/", f"blob:{root}/")):
        bench.complaints.append(f"outside: {url}")


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 860}, reduced_motion="reduce")
    made.set_default_timeout(15_000)
    yield made
    made.close()


@pytest.fixture
def bench(context: BrowserContext, server: Server) -> Iterator[Bench]:
    """A page on a session that nobody else uses, whose clock stands still."""
    made = bench_on(context, f"{server.url}/_session/page-{next(_numbers)}")
    made.clock(freeze=True)
    yield made
    assert made.complaints == []


def rows(bench: Bench) -> Locator:
    return bench.page.locator("#task-list > li")
