"""What the tests of the worker work with: a store with a queue, a data folder, and workers to let loose."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mock_server.prediction import Asked, Event, Prediction, Status
from mock_server.sql_store import SqlStore
from mock_server.store import Store
from reference_backend.child import Child
from reference_backend.doing import Worker
from reference_backend.folders import Folders, folders_of
from reference_backend.queue import Claims, Engine, Ticket, engine_for
from reference_backend.settings import WorkerSettings
from reference_backend.stopping import Stop
from reference_backend.worker import work

WAIT_SECONDS = 30


@dataclass(kw_only=True)
class Workplace:
    """What the servers and the workers share."""

    url: str
    data: Path
    engine: Engine
    store: SqlStore
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def submit(self, prompt: str = "make", *, session: str = "", makes: int = 1, seed: int = 7) -> str:
        """The id of a new job, whose prompt says what happens in it."""
        number = next(self.numbers)
        prediction = Prediction(
            id=f"{number:032x}",
            model="wavespeed-ai/flux-dev-lora",
            edition="current",
            version="v3",
            scenario="normal",
            created_at=1_000,
            makes=tuple(f"{index}.png" for index in range(makes)),
            events=(Event(at=1_000, status=Status.CREATED),),
            job=True,
        )
        asked = Asked(received=json.dumps({"prompt": prompt, "seed": seed}))
        self.store.session(session).add(prediction, asked, now=1_000)
        return prediction.id

    def find(self, prediction_id: str, session: str = "") -> Prediction:
        found = self.store.session(session).get(prediction_id)
        assert found is not None
        return found

    def end(self, prediction_id: str, session: str = "") -> str:
        """How it has ended: its error, or its last status."""
        last = self.find(prediction_id, session).events[-1]
        return last.error or last.status

    def folders(self, session: str = "") -> Folders:
        return folders_of(self.data, session)

    def results(self, session: str = "") -> list[str]:
        folder = self.folders(session).results
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def begun(self) -> list[list[str]]:
        """Of each attempt that a child was given: prediction, attempt, which runner, which process."""
        path = self.data / "begun"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    @contextmanager
    def worker(self, *, runner: str = "job_runners:make", name: str = "one", **more: Any) -> Iterator[Worker]:
        """A worker whose child is running from its first job on. `store` and `grace` may be given."""
        settings = WorkerSettings(store=self.url, data=self.data)
        stop = Stop(grace=more.pop("grace", 0))
        store: Store = more.pop("store", self.store)
        with closing(Child(runner, settings)) as child:
            yield Worker(name=name, store=store, data=self.data, child=child, stop=stop, **more)

    def work_off(self, worker: Worker | None = None, **more: Any) -> None:
        """Lets a worker do all that waits."""
        if worker is None:
            with self.worker(**more) as made:
                self.work_off(made)
            return
        with self.engine.claims(stale=60) as claims:
            work(worker, UntilEmpty(claims=claims, stop=worker.stop))

    @contextmanager
    def working(self, **more: Any) -> Iterator[Worker]:
        """Lets a worker do all that waits, in a thread; the test goes on meanwhile, and then waits for it."""
        with self.worker(**more) as worker:
            thread = threading.Thread(target=self.work_off, args=(worker,))
            thread.start()
            try:
                yield worker
            finally:
                thread.join(WAIT_SECONDS)
                assert not thread.is_alive()


@dataclass(kw_only=True)
class UntilEmpty:
    """Claims of a worker that stops when nothing waits any more."""

    claims: Claims
    stop: Stop

    def take(self, patience: float) -> Ticket | None:  # noqa: ARG002 - nothing more will come
        ticket = self.claims.take(0)
        if ticket is None:
            self.stop.ask()
        return ticket

    def holds(self, ticket: Ticket) -> bool:
        return self.claims.holds(ticket)

    def done(self, ticket: Ticket) -> None:
        self.claims.done(ticket)

    def back(self, ticket: Ticket) -> None:
        self.claims.back(ticket)


def statuses(prediction: Prediction) -> list[str]:
    """What it has been through."""
    return [event.status.value for event in prediction.events]


def finished_by_hand(place: Workplace, prediction_id: str) -> None:
    """Ends it past all workers, as the control plane can."""
    event = Event(at=0, status=Status.FAILED, error="somebody said so")
    place.store.update(prediction_id, lambda found: replace(found, events=(*found.events, event)))


def until(what: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """Waits until it is so, and returns it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


@contextmanager
def workplace_at(url: str, data: Path) -> Iterator[Workplace]:
    """A store at the URL, with a queue in it."""
    engine = engine_for(url)
    with closing(SqlStore(url, enqueue=engine.enqueue)) as store:
        engine.prepare()
        yield Workplace(url=url, data=data, engine=engine, store=store)


@contextmanager
def workplace_for(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workplace]:
    """One of the kind that the parameter of a fixture names. PostgreSQL's needs the plugin `postgres`."""
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/store.db" if sqlite else request.getfixturevalue("postgres_url")
    with workplace_at(url, tmp_path) as made:
        yield made
