"""One run: a shape of processes, clients about it, faults in it, and in the end the verdict."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from postgres import Cluster

from mock_server.errors import StoreUnavailable
from mock_server.sql_store import SqlStore
from reference_backend.folders import folders_of
from soak.checker import Left, violations
from soak.clients import Crowd, poll, reports, submit
from soak.history import History
from soak.machines import START_SECONDS, Machine, server, url_of, worker
from soak.runners import POISON

STALE_SECONDS = 2.0
_QUIET_SECONDS = 240
_WAITING = 6
_LONGEST_JOB = 0.4
_LONGEST_STOP = 45.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How much is to happen. `weights` say how often each fault; None: as the shape has it."""

    seed: int
    faults: int
    fenced: bool = True
    weights: Mapping[str, int] | None = None


@dataclass(kw_only=True)
class Shape:
    """Which processes there are, over which store."""

    name: str
    folder: Path
    store: str
    queue: str
    servers: list[Machine]
    workers: list[Machine]
    weights: Mapping[str, int]
    zombie_seconds: float
    cluster: Cluster | None = None


@dataclass(kw_only=True)
class Report:
    """What happened, and what was wrong with it."""

    shape: str
    seconds: float
    faults: Counter[str]
    accepted: int
    ended: Counter[str]
    replies: int
    refused: Counter[str]
    reported: int
    attempts: int
    violations: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        what = ", ".join(f"{number} {name}" for name, number in sorted(self.faults.items()))
        ends = ", ".join(f"{number} {name}" for name, number in sorted(self.ended.items()))
        lines = [
            f"{self.shape}: {sum(self.faults.values())} faults ({what}) in {self.seconds:.0f} s",
            f"  {self.accepted} tasks accepted ({sum(self.refused.values())} submits not): {ends}",
            f"  {self.attempts} attempts, {self.replies} replies to polls, {self.reported} ends reported",
            f"  {len(self.violations)} violations",
            *(f"    {each}" for each in self.violations[:20]),
        ]
        return "\n".join(lines)


def laptop(folder: Path, *, fenced: bool = True) -> Shape:
    """One server and one worker over a SQLite file."""
    folder.mkdir(parents=True, exist_ok=True)
    store = f"sqlite:///{folder}/store.db"
    return Shape(
        name="one machine, SQLite",
        folder=folder,
        store=store,
        queue="SELECT count(*) FROM jobs",
        servers=[server(folder, "a", store)],
        workers=[worker(folder, "one", store, stale=STALE_SECONDS, fenced=fenced)],
        weights={"worker": 5, "jobs process": 4, "server": 3, "stop": 2},
        zombie_seconds=0.5,
    )


def many_machines(folder: Path, cluster: Cluster, *, fenced: bool = True) -> Shape:
    """Two servers and two workers over PostgreSQL."""
    folder.mkdir(parents=True, exist_ok=True)
    store = cluster.new_database()
    return Shape(
        name="two servers, two workers, PostgreSQL",
        folder=folder,
        store=store,
        queue="SELECT count(*) FROM procrastinate_jobs",
        servers=[server(folder, name, store) for name in "ab"],
        workers=[worker(folder, name, store, stale=STALE_SECONDS, fenced=fenced) for name in ("one", "two")],
        weights={"worker": 7, "jobs process": 4, "server": 5, "stop": 3, "database": 2},
        zombie_seconds=STALE_SECONDS + 1,
        cluster=cluster,
    )


def soak(shape: Shape, order: Order) -> Report:
    """Runs it to the end, and judges it."""
    began = time.monotonic()
    history, faults = History(), Counter[str]()
    machines = [*shape.servers, *shape.workers]
    urls = [url_of(each) for each in shape.servers]
    wrong: list[str] = []
    with reports(history) as hook, _running(machines), closing(SqlStore(shape.store)) as store:
        crowd = Crowd(urls, history, hook, seed=order.seed, pollers=2 if len(urls) == 1 else 1)
        with crowd.about(waiting=_WAITING, longest=_LONGEST_JOB):
            _until(lambda: len(history.accepted) >= _WAITING, machines, "no task is accepted")
            with httpx.Client(headers={"Authorization": "Bearer soak"}) as http:
                submit(http, urls[0], history, POISON, hook)
            for kind in _plan(shape, order):
                dice = random.Random(f"{order.seed}/{sum(faults.values())}")
                faults[kind] += _strike(kind, shape, store, dice)
            crowd.enough()
            wrong += _come_to_rest(shape, store, history, machines)
        with httpx.Client(headers={"Authorization": "Bearer soak"}, timeout=30) as http:
            for task in history.accepted:
                for url in urls:
                    poll(http, url, history, task)
        wrong += [trouble for each in machines if (trouble := each.end())]
    left = _left(shape)
    return Report(
        shape=shape.name,
        seconds=time.monotonic() - began,
        faults=faults,
        accepted=len(history.accepted),
        ended=Counter(record.events[-1].status.value for record in left.records.values()),
        replies=len(history.replies),
        refused=history.refused,
        reported=len(history.hooks),
        attempts=sum(record.attempt for record in left.records.values()),
        violations=wrong + violations(history, left),
    )


@contextmanager
def _running(machines: list[Machine]) -> Iterator[None]:
    try:
        for each in machines:
            each.start()
        _until(lambda: all(each.works() for each in machines), machines, "not everything comes up")
        yield
    finally:
        for each in machines:
            each.abandon()


def _plan(shape: Shape, order: Order) -> list[str]:
    """The kinds of faults, each about as often as its weight says, in an order of their own."""
    weights = order.weights or shape.weights
    total = sum(weights.values())
    kinds = [kind for kind, weight in weights.items() for _ in range(-(-order.faults * weight // total))]
    random.Random(order.seed).shuffle(kinds)
    return kinds[: order.faults]


def _strike(kind: str, shape: Shape, store: SqlStore, dice: random.Random) -> int:
    """Lets one fault happen to something that works, and a while pass. 1, for the counting."""
    machines = [*shape.servers, *shape.workers]
    if kind == "database":
        assert shape.cluster is not None
        shape.cluster.kill()
        _pass(dice.uniform(0.1, 0.6), machines)
        shape.cluster.start()
    else:
        among = shape.servers if kind == "server" else shape.workers
        # While one is stopped another takes its job over: that one may be killed, but not be stopped too.
        enough = all if kind == "stop" else any
        _until(lambda: enough(each.works() for each in among), machines, f"no {kind} comes up again")
        target = dice.choice([each for each in among if each.works()])
        if kind == "stop":
            _stop_at_work(target, shape, store)
        elif kind == "jobs process":
            target.kill_children()
        else:
            target.kill()
    _pass(dice.uniform(0.2, 0.8), machines)
    return 1


def _stop_at_work(target: Machine, shape: Shape, store: SqlStore) -> None:
    """Stops a worker in the midst of a job; where there is another one, until that has ended the job."""
    name = target.name.removeprefix("worker-")
    job = None
    for _ in range(200):
        target.freeze()
        if job := _job_of(store, name):
            break
        target.thaw()
        _pass(0.05, [*shape.servers, *shape.workers])

    def has_ended() -> bool:
        if len(shape.workers) == 1 or job is None:
            return True
        with suppress(StoreUnavailable):
            found = store.get(job)
            return found is None or found.events[-1].status.final
        return False

    target.thaw_when(has_ended, at_least=shape.zombie_seconds, at_most=_LONGEST_STOP)


def _job_of(store: SqlStore, name: str) -> str | None:
    """What the worker of that name is at."""
    with suppress(StoreUnavailable):
        for found in store.newest(limit=50):
            if found.worker == name and not found.events[-1].status.final:
                return found.id
    return None


def _pass(seconds: float, machines: list[Machine]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for each in machines:
            each.tend()
        time.sleep(0.02)


def _until(what: Callable[[], Any], machines: list[Machine], trouble: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not what():
        said = "".join(f"\n{each.name}: {each.log[-1000:]}" for each in machines)
        assert time.monotonic() < deadline, trouble + said
        _pass(0.05, machines)


def _come_to_rest(shape: Shape, store: SqlStore, history: History, machines: list[Machine]) -> list[str]:
    """Waits until everything that was accepted has ended and was reported; what is missing in the end."""
    deadline = time.monotonic() + _QUIET_SECONDS

    def is_over() -> bool:
        # Who was stopped may still have something to say.
        if not all(each.works() for each in machines):
            return False
        records = store.newest(limit=1_000_000)
        ended = {each.id for each in records if each.events[-1].status.final}
        return len(ended) == len(records) and ended <= history.hooks.keys() and not _queued(shape)

    while not is_over():
        if time.monotonic() > deadline:
            return [f"not everything has come to rest after {_QUIET_SECONDS} s"]
        _pass(0.2, machines)
    _pass(0.5, machines)
    return []


def _queued(shape: Shape) -> int:
    url = shape.store.replace("postgresql:", "postgresql+psycopg:")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return int(connection.scalar(sa.text(shape.queue)) or 0)


def _left(shape: Shape) -> Left:
    with closing(SqlStore(shape.store)) as store:
        records = {each.id: each for each in store.newest(limit=1_000_000)}
        deliveries = frozenset(key for key, _ in store.notes("delivery"))
    kept = folders_of(shape.folder, "").results_kept()
    results = {(task, attempt, path.name.split("-", 2)[2]): path.read_text() for task, attempt, path in kept}
    return Left(records=records, results=results, deliveries=deliveries, queued=_queued(shape))
