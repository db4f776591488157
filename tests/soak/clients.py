"""Clients in threads: they submit, poll without a break, fetch what was made, and write everything down."""

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import msgspec

from soak.history import History, Reply, now

_KEY = {"Authorization": "Bearer soak"}
_SUBMIT = "/api/v3/wavespeed-ai/flux-schnell-lora"
_PAUSE = 0.01
_TIMEOUT = 15.0


def submit(http: httpx.Client, url: str, history: History, prompt: str, hook: str) -> None:
    """Submits a task, which may be accepted without anybody hearing of it."""
    body = {"prompt": prompt, "num_images": 2}
    try:
        answer = http.post(f"{url}{_SUBMIT}", params={"webhook": hook}, json=body)
    except httpx.HTTPError as error:
        history.refuse(type(error).__name__)
        return
    if answer.status_code == 200:
        history.accept(answer.json()["data"]["id"], prompt)
    else:
        history.refuse(str(answer.status_code))


def poll(http: httpx.Client, url: str, history: History, task: str) -> None:
    """Polls a task, and fetches what it has made once it is completed."""
    began = now()
    try:
        answer = http.get(f"{url}/api/v3/predictions/{task}/result")
        ended = now()
        if answer.status_code != 200:
            history.see(Reply(task=task, began=began, ended=ended, code=answer.status_code))
            return
        data = answer.json()["data"]
        # The servers' addresses differ; the paths may not.
        outputs = tuple(httpx.URL(output).path for output in data["outputs"])
        told = (data["status"], outputs, data["error"], data["executionTime"])
        history.see(Reply(task=task, began=began, ended=ended, code=200, status=data["status"], told=told))
        for output in outputs:
            found = http.get(f"{url}{output}")
            name = output.rpartition("/")[2]
            history.fetched(task, name, found.status_code, found.text)
    except httpx.HTTPError:
        return  # the server is down, which says nothing of the task


class Crowd:
    """`pollers` clients per server and one that submits, for as long as it is entered."""

    def __init__(self, urls: Sequence[str], history: History, hook: str, *, seed: int, pollers: int) -> None:
        self._urls = urls
        self._history = history
        self._hook = hook
        self._seed = seed
        self._pollers = pollers
        self._enough = threading.Event()
        self._over = threading.Event()

    def enough(self) -> None:
        """Nothing more is submitted."""
        self._enough.set()

    @contextmanager
    def about(self, *, waiting: int, longest: float) -> Iterator[None]:
        """Keeps about so many tasks waiting, of 0.1 to `longest` seconds each."""
        threads = [
            threading.Thread(target=self._poll_on, args=(url, number))
            for url in self._urls
            for number in range(self._pollers)
        ]
        threads.append(threading.Thread(target=self._submit_on, args=(waiting, longest)))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._enough.set()
            self._over.set()
            for thread in threads:
                thread.join()

    def _submit_on(self, waiting: int, longest: float) -> None:
        dice = random.Random(self._seed)
        with httpx.Client(headers=_KEY, timeout=_TIMEOUT) as http:
            while not self._enough.wait(_PAUSE):
                if len(self._history.open()) < waiting:
                    prompt = f"{dice.uniform(0.1, longest):.2f}"
                    submit(http, dice.choice(self._urls), self._history, prompt, self._hook)

    def _poll_on(self, url: str, number: int) -> None:
        dice = random.Random(f"{self._seed}/{url}/{number}")
        with httpx.Client(headers=_KEY, timeout=_TIMEOUT) as http:
            while not self._over.wait(_PAUSE):
                tasks = self._history.open()
                if not tasks or dice.random() < 0.2:
                    tasks = self._history.ended()
                if tasks:
                    poll(http, url, self._history, dice.choice(tasks))


@contextmanager
def reports(history: History) -> Iterator[str]:
    """Takes in webhooks; the address to send them to."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            history.hooked(msgspec.json.decode(body)["id"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}/hook"
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
