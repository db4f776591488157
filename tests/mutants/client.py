"""A client that looks at one application in this process, without the suite."""

import asyncio
import json
from typing import Any

import httpx
from starlette.types import ASGIApp

URL = "http://127.0.0.1:8080"
MODEL = "v3/flux-schnell-lora"
ARCHIVE = "https://example.com/images.zip"
_REQUIRED = {"flux-dev-lora-trainer": "images_data_url", "flux-dev-lora-trainer-turbo": "data"}
_KEY = {"Authorization": "Bearer key"}
_DAY = 86_400


def path_of(model: str) -> str:
    """Where a model, such as `v3/flux-schnell-lora`, is submitted."""
    version, _, name = model.partition("/")
    return f"/api/{version}/wavespeed-ai/{name}"


class Client:
    """Speaks HTTP to an application. Answers that are no JSON are None."""

    def __init__(self, app: ASGIApp) -> None:
        self._loop = asyncio.new_event_loop()
        self.app = app
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url=URL)

    def close(self) -> None:
        self._loop.run_until_complete(self._http.aclose())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def ask(self, method: str, path: str, *, keyed: bool = True, **more: Any) -> httpx.Response:
        """Sends one request, with a key unless it says otherwise."""
        headers = [*(_KEY.items() if keyed else ()), *more.pop("headers", {}).items()]
        return self._loop.run_until_complete(self._http.request(method, path, headers=headers, **more))

    def post(self, body: Any, model: str = MODEL, **more: Any) -> httpx.Response:
        """Submits a body: bytes as they are, anything else as JSON."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **more.pop("headers", {})}
        return self.ask("POST", path_of(model), content=text, headers=headers, **more)

    def submit(self, model: str = MODEL, /, **given: Any) -> dict[str, Any]:
        """The `data` of a new task, with the required fields filled in."""
        return data(self.post({**smallest(model), **given}, model))

    def status(self, model: str = MODEL, **given: Any) -> int:
        """The HTTP status of a submit, with the required fields filled in."""
        return self.post({**smallest(model), **given}, model).status_code

    def within(self, seconds: float, /, **given: Any) -> str:
        """Whether a submit is answered in time."""

        async def asking() -> str:
            try:
                async with asyncio.timeout(seconds):
                    await self._http.post(path_of(MODEL), json={**smallest(MODEL), **given}, headers=_KEY)
            except TimeoutError:
                return "no answer"
            return "an answer"

        return self._loop.run_until_complete(asking())

    def poll(self, name: str, *, version: str = "v3", short: bool = False) -> dict[str, Any]:
        """The `data` of a task as it stands."""
        return data(self.ask("GET", f"/api/{version}/predictions/{name}{'' if short else '/result'}"))

    def clock(self, **change: Any) -> None:
        """Moves the server's clock."""
        self.ask("POST", "/_mock/clock", json=change)

    def finish(self, model: str = MODEL, /, *, version: str = "v3", **given: Any) -> dict[str, Any]:
        """The `data` of a new task when a day has passed."""
        name = self.submit(model, **given)["id"]
        self.clock(advance=_DAY)
        return self.poll(name, version=version)

    def input(self, model: str = MODEL, /, **given: Any) -> dict[str, Any]:
        """What the server took a request for, the required fields filled in."""
        return self.understood({**smallest(model), **given}, model)

    def understood(self, body: Any, model: str = MODEL) -> dict[str, Any]:
        """What the server took a body for, by its control plane."""
        name = data(self.post(body, model))["id"]
        found: dict[str, Any] = data(self.ask("GET", f"/_mock/predictions/{name}"))["input"]
        return found


def smallest(model: str) -> dict[str, Any]:
    """A body with the required field alone."""
    return {_REQUIRED.get(model.partition("/")[2], "prompt"): ARCHIVE}


def data(answer: httpx.Response) -> dict[str, Any]:
    """The envelope's `data`; empty where there is none."""
    envelope = body(answer)
    found = envelope.get("data") if isinstance(envelope, dict) else None
    return found if isinstance(found, dict) else {}


def body(answer: httpx.Response) -> Any:
    """The JSON of an answer; None where it is none."""
    try:
        return answer.json()
    except ValueError:
        return None
