"""A client of the mock with a session of its own: the official SDK, raw requests, and the control plane."""

import uuid
from dataclasses import dataclass, field
from typing import Any

import requests
import wavespeed

SCHNELL = "wavespeed-ai/flux-schnell-lora"
DEV = "wavespeed-ai/flux-dev-lora"
TRAINER = "wavespeed-ai/flux-dev-lora-trainer-turbo"
PROMPT = {"prompt": "A lighthouse in a storm"}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a test of one situation works with. Its session's clock runs `speed` times as fast."""

    server: str
    key: str = "test-key"
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def url(self) -> str:
        return f"{self.server}/_session/{self.name}"

    @property
    def sdk(self) -> wavespeed.Client:
        return wavespeed.Client(api_key=self.key, base_url=self.url, retry_interval=0.01)

    def run(self, **given: Any) -> list[str]:
        """The outputs of a run by the SDK."""
        done = self.sdk.run(SCHNELL, {**PROMPT, **given}, poll_interval=0.02)
        outputs: list[str] = done["outputs"]
        return outputs

    def submit(self, **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.key}", **more.pop("headers", {})}
        model = more.pop("model", SCHNELL)
        url = f"{self.url}/api/v3/{model}{more.pop('query', '')}"
        return requests.post(url, json={**PROMPT, **more}, headers=headers, timeout=30)

    def accepted(self, **more: Any) -> str:
        """The id of a new task."""
        answer = self.submit(**more)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["id"])

    def poll(self, prediction_id: str) -> requests.Response:
        url = f"{self.url}/api/v3/predictions/{prediction_id}/result"
        return requests.get(url, headers={"Authorization": f"Bearer {self.key}"}, timeout=30)

    def status(self, prediction_id: str) -> str:
        return str(self.poll(prediction_id).json()["data"]["status"])

    def control(self, path: str, json: Any = None, method: str | None = None) -> Any:
        """The `data` of the control plane's answer."""
        verb = method or ("GET" if json is None else "POST")
        answer = requests.request(verb, f"{self.url}/_mock/{path}", json=json, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def journal(self, kind: str = "") -> list[dict[str, Any]]:
        """The requests that came in, of one kind or all."""
        found = self.control("requests")["requests"]
        return [each for each in found if kind in {"", each["kind"]}]

    def tasks(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.control("predictions")["predictions"]
        return found
