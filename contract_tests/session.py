"""One run against one target: what is known of it, and the few ways of speaking to it that cases share."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote

from contract_tests import laws
from contract_tests.archive import pictures, upload
from contract_tests.case import Broken, Stopped, Unproven
from contract_tests.exchange import Exchange, Headers, Request, origin
from contract_tests.table import Field, Model
from contract_tests.target import Target
from contract_tests.watch import Watch

JSON = ("Content-Type", "application/json")
NOBODYS_KEY = ("Authorization", "Bearer a-key-that-nobody-was-given")
_ARCHIVE = "https://example.com/images.zip"
_END = {"to": "failed", "error": "ended by wavemock verify: it is not waited for"}
_STEPS = ("steps", "num_inference_steps")
_DAY = 86_400
_STEP = 2
_PAUSE = 0.25


@dataclass(kw_only=True)
class Session:
    """What cases have in hand. `exchanges` are those of the case that is running.

    `patience` is how many seconds a task may take where the target's clock cannot be moved.
    """

    target: Target
    models: tuple[Model, ...]
    watch: Watch
    document: Mapping[str, Any]
    results: tuple[Field, ...] = ()
    seed: int = 0
    patience: float = 120.0
    exchanges: list[Exchange] = field(default_factory=list)
    served: dict[str, bool] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict)

    def random(self, name: str) -> Random:
        """Chance of its own for every case, the same for the same seed."""
        return Random(f"{self.seed} {name}")  # noqa: S311 - reproducible on purpose

    def send(self, request: Request) -> Exchange:
        """The answer, which the judges and the laws have looked at."""
        exchange = self.target.send(request)
        self.exchanges.append(exchange)
        if not request.path.startswith("/_mock/"):
            self.watch.look_at(exchange)
        return exchange

    def get(self, path: str, **more: Any) -> Exchange:
        """Reads something."""
        return self.send(Request(method="GET", path=path, **more))

    def follow(self, url: str) -> Exchange:
        """Reads what an address in an answer leads to. Raises Unproven where that is not on the target."""
        target = self.target.url
        if url.startswith(f"{target}/"):
            return self.get(url.removeprefix(target))
        server = origin(target)
        if not url.startswith(f"{server}/"):
            raise Unproven(f"{url[:200]} is not on the target")
        return self.get(url.removeprefix(server), rooted=True)

    def post(self, model: Model, body: Any, *, accepted: bool, headers: Headers = ()) -> Exchange:
        """Submits a body. `accepted` is whether it ought to be, and so may begin a task."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = (JSON, *headers)
        return self.send(Request(method="POST", path=model.path, headers=headers, body=text, paid=accepted))

    def submit(self, model: Model, headers: Headers = (), /, **given: Any) -> dict[str, Any]:
        """The `data` of a new task, with the required fields filled in. `headers` come on top.

        Raises Unproven where it is not accepted, or the budget does not allow it.
        """
        self.require(model)
        exchange = self.post(model, {**smallest(model), **given}, accepted=True, headers=headers)
        if not exchange.accepted:
            raise Unproven(f"a good request was refused with HTTP {exchange.status}")
        return exchange.data

    def submit_to_finish(self, model: Model, about: Field | None = None, /, **given: Any) -> dict[str, Any]:
        """The `data` of a new task that is to be waited for, and so ought to end well, and soon.

        Where the work is real, a trainer gets an archive that it can fetch, and every model as little to do
        as its page allows, but for the field that the case is about. Raises as `submit` does.
        """
        if self.works_for_real:
            self.require(model)
            little = {
                each.name: self.archive if each.is_archive else _least(each)
                for each in model.request
                if each is not about and (each.is_archive or each.is_size or each.name in _STEPS)
            }
            given = {**little, **given}
        return self.submit(model, **given)

    @property
    def archive(self) -> str:
        """The address of a few pictures, uploaded once; the pages' example where the target takes none."""
        if "archive" not in self.memo:
            self.memo["archive"] = _ARCHIVE
            with contextlib.suppress(Broken, Unproven):
                answer = self.target.send(upload(pictures()))
                url = answer.data.get("download_url")
                if answer.accepted and isinstance(url, str):
                    self.memo["archive"] = url
        return str(self.memo["archive"])

    def poll(self, name: str, *, version: str = "v3", short: bool = False) -> dict[str, Any]:
        """The `data` of a task as it stands."""
        exchange = self.get(f"/api/{version}/predictions/{name}{'' if short else '/result'}")
        if not exchange.accepted:
            raise Broken(f"a task that was accepted is answered with HTTP {exchange.status}")
        return exchange.data

    def finish(self, name: str, *, version: str = "v3") -> dict[str, Any]:
        """The `data` of a task when it has ended.

        Raises Broken where it does not end within a day of the target's own clock, and Unproven where it has
        no such clock and does not end in time.
        """
        passed, step = 0.0, _STEP
        while (data := self.poll(name, version=version)).get("status") not in laws.FINAL:
            if str(data.get("status")) not in laws.ORDER:
                raise Broken(f"status is {data.get('status')!r}")
            limit = _DAY if self.has_clock else self.patience
            if passed >= limit:
                said = f"it is still {data.get('status')} after {passed:.0f} s"
                if self.has_clock:
                    raise Broken(said)
                raise Unproven(f"{said}, and --patience {limit:g} allows no more")
            step = min(step * 2, _DAY) if self.has_clock else step
            # Slow answers take of the patience too.
            passed += 0.0 if self.has_clock else self.exchanges[-1].seconds
            passed += self.let_pass(step if self.has_clock else _PAUSE)
        return data

    def let_pass(self, seconds: float) -> float:
        """Lets the target's time pass: by moving its clock where it can be moved. Gives how much passed."""
        if self.has_clock:
            self.control("/clock", {"advance": seconds})
        else:
            self.target.sleep(seconds)
        return seconds

    def end_tasks(self) -> None:
        """Ends what the case that ran began and left, so that later ones need not wait behind it.

        Only on a target that works for real and says so itself; what it does not let be ended is left.
        """
        left = dict.fromkeys(_left(self.exchanges))
        if left and "ends tasks" not in self.memo:
            self.memo["ends tasks"] = False  # a target that does not answer is not asked again
            with contextlib.suppress(Broken, Unproven, Stopped):
                self.memo["ends tasks"] = self.works_for_real
        if left and self.memo["ends tasks"]:
            with contextlib.suppress(Broken, Unproven, Stopped):
                for name in left:
                    self.control(f"/predictions/{quote(name, safe='')}/advance", _END)

    def control(self, path: str, body: Any = None) -> dict[str, Any]:
        """The `data` that the target's control plane answers; empty where it has none."""
        text = None if body is None else json.dumps(body).encode()
        headers = () if body is None else (JSON,)
        method = "GET" if body is None else "POST"
        request = Request(method=method, path=f"/_mock{path}", headers=headers, body=text, rooted=True)
        return self.send(request).data

    @property
    def has_control(self) -> bool:
        """Whether the target lets one look inside."""
        return self._health.get("status") == "ok"

    @property
    def _health(self) -> dict[str, Any]:
        if "health" not in self.memo:
            self.memo["health"] = self.control("/health")
        health: dict[str, Any] = self.memo["health"]
        return health

    @property
    def has_clock(self) -> bool:
        """Whether the target's time can be moved, and its tasks with it."""
        return self.has_control and self._health.get("backend", "simulated") == "simulated"

    @property
    def works_for_real(self) -> bool:
        """Whether the target lets one look inside, and its tasks take the time that their work takes."""
        return self.has_control and not self.has_clock

    @property
    def takes_any_key(self) -> bool:
        """Whether a key that nobody was given opens the results."""
        if "any key" not in self.memo:
            path = self.models[0].result.format(id=0)
            found = self.get(path, keyed=False, headers=(NOBODYS_KEY,))
            self.memo["any key"] = found.status not in {401, 403}
        return bool(self.memo["any key"])

    def serves(self, model: Model) -> bool:
        """Whether the target answers at all where this model is submitted."""
        if model.path not in self.served:
            self.served[model.path] = self.post(model, b"[]", accepted=False).status not in {404, 405}
        return self.served[model.path]

    def require(self, model: Model) -> None:
        """Raises Broken where a model is not served that its page shows, Unproven on other versions."""
        if not self.serves(model):
            if model.documented:
                raise Broken("there is nothing at this path")
            raise Unproven(f"the target does not answer on {model.version}, which the page does not show")


def smallest(model: Model) -> dict[str, Any]:
    """A body with the required fields alone."""
    fill = {"string": "a lighthouse", "integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}
    return {
        each.name: _ARCHIVE if each.is_archive else fill[each.kind]
        for each in model.request
        if each.required and "[]" not in each.name
    }


def _least(field: Field) -> Any:
    """The value that makes the least work, of a field of which there may be more or less."""
    least = int(field.minimum or 1)
    return f"{least}*{least}" if field.is_size else least


def _left(exchanges: list[Exchange]) -> Iterator[str]:
    """The ids of tasks that were begun, and not seen to end, in the order of their submits."""
    ended = {each.data.get("id") for each in exchanges if each.data.get("status") in laws.FINAL}
    for each in exchanges:
        name = each.data.get("id")
        if each.request.method == "POST" and each.accepted and isinstance(name, str) and name not in ended:
            yield name
