"""What the tests of the stores share, and the programs among them that need processes of their own.

A program runs as `python store_processes.py PROGRAM URL ...` and prints one line per thing that happened.
Except where it says so, it opens a store only in a child, so that a fork carries no connection along.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import count
from typing import TypeVar

from mock_server.errors import StoreUnavailable
from mock_server.prediction import Asked, Event, Prediction, Status
from mock_server.sql_store import SqlStore
from mock_server.store import Store

Answer = TypeVar("Answer")

LINE = 33  # the hexadecimal digits of an id, and a newline


def a_prediction(number: int, *, ends_at: int | None = 2_000) -> Prediction:
    """A prediction whose id is `number`, finished at `ends_at` or never."""
    begin = Event(at=1_000, status=Status.CREATED)
    end = () if ends_at is None else (Event(at=ends_at, status=Status.COMPLETED),)
    return Prediction(
        id=f"{number:032x}",
        model="wavespeed-ai/flux-dev-lora",
        edition="current",
        version="v3",
        scenario="completes",
        created_at=1_000,
        events=(begin, *end),
    )


def a_job(number: int) -> Prediction:
    """A prediction that a worker is to make."""
    return replace(a_prediction(number, ends_at=None), job=True)


def a_request(prompt: str = "a lighthouse at dusk") -> Asked:
    """What somebody asked for."""
    return Asked(received=json.dumps({"prompt": prompt}), defaults={"/num_images": 1}, warnings=("why?",))


def fill(store: Store, *numbers: int) -> None:
    """Adds the predictions of these numbers."""
    for number in numbers:
        store.add(a_prediction(number), a_request(), now=0)


def numbers_of(predictions: list[Prediction]) -> list[int]:
    """The numbers that the predictions were made of."""
    return [int(prediction.id, 16) for prediction in predictions]


def in_eight_threads(work: Callable[[int], Answer]) -> list[Answer]:
    """What `work` returns in each of eight threads, told its number. They take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(before)


def fork(work: Callable[[int], None]) -> tuple[int, int]:
    """Does `work` in a child, which can write to a pipe. Returns its process id and our end of the pipe."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        try:
            work(theirs)
        except BaseException as error:  # noqa: BLE001 - a child says why it failed, whatever it was
            os.write(theirs, f"{error!r}\n".encode())
        os._exit(0)
    os.close(theirs)
    return child, ours


def lines_of(pipe: int) -> list[str]:
    """Everything that a child has left to say, up to its end."""
    with open(pipe, encoding="utf-8") as reader:
        return reader.read().splitlines()


def add_for_ever(url: str, life: int, pipe: int) -> None:
    """Adds predictions, and writes the id of each once it is acknowledged."""
    store = SqlStore(url)
    for number in count(life << 64):
        prediction = a_prediction(number)
        store.add(prediction, a_request(), now=0)
        os.write(pipe, f"{prediction.id}\n".encode())


def kills(url: str, lives: str, seed: str) -> None:
    """Kills `lives` writers, two at a time, soon after their first words. Prints what was acknowledged."""
    moments = random.Random(int(seed))
    for life in range(0, int(lives), 2):
        writers = [fork(partial(add_for_ever, url, life + one)) for one in (0, 1)]
        begun = [os.read(pipe, LINE).decode() for _, pipe in writers]
        for child, _ in writers:
            time.sleep(moments.uniform(0.001, 0.02))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        for first, (_, pipe) in zip(begun, writers, strict=True):
            print(first, *lines_of(pipe), sep="\n")


def open_and_draw(url: str, gate: int, draws: int, pipe: int) -> None:
    """Waits for the gate, opens the store, draws numbers and writes them. Moves the clock once for each."""
    os.read(gate, 1)
    with closing(SqlStore(url)) as store:
        numbers = [store.next_number() for _ in range(draws)]
        for _ in numbers:
            store.change_clock(lambda state: state.advance(1))
    os.write(pipe, "".join(f"{number}\n" for number in numbers).encode())


def draw_together(url: str, draws: str) -> None:
    """Lets two processes open one database at the same moment. Prints what the two drew."""
    gate, bar = os.pipe()

    def draw(pipe: int) -> None:
        os.close(bar)
        open_and_draw(url, gate, int(draws), pipe)

    children = [fork(draw), fork(draw)]
    os.close(bar)
    for child, pipe in children:
        print(*lines_of(pipe), sep="\n")
        os.waitpid(child, 0)
    os.close(gate)


def starts(directory: str, times: str) -> None:
    """Opens as many new files, each by two processes at the same moment. Prints a line for each file."""
    for time_ in range(int(times)):
        draw_together(f"sqlite:///{directory}/{time_}.db", "1")


def change_together(url: str, changes: str) -> None:
    """Lets four processes change the same things, that many times each. Prints what went wrong."""

    def change(_pipe: int) -> None:
        with closing(SqlStore(url)) as store:
            for _ in range(int(changes)):
                store.update(a_prediction(1).id, lambda found: replace(found, polls=found.polls + 1))
                store.change_note("a", "k", lambda found: b"%d" % (int(found or b"0") + 1))
                store.append("b", b"x", keep=5)

    children = [fork(change) for _ in range(4)]
    for child, pipe in children:
        print(*lines_of(pipe), sep="\n", end="")
        os.waitpid(child, 0)


def used_before_a_fork(url: str) -> None:
    """Uses a store here, then in a child as well, even after it was closed here. Prints the numbers kept."""
    store = SqlStore(url)
    fill(store, 0)
    gate, bar = os.pipe()

    def add_before_and_after(pipe: int) -> None:
        os.close(bar)
        fill(store, 1)
        os.write(pipe, b"added\n")
        os.read(gate, 1)
        fill(store, 2)

    child, pipe = fork(add_before_and_after)
    os.read(pipe, len(b"added\n"))
    fill(store, 3)
    store.close()
    os.close(bar)
    os.waitpid(child, 0)
    print(*lines_of(pipe), sep="\n", end="")
    with closing(SqlStore(url)) as afterwards:
        print(*sorted(numbers_of(afterwards.newest(limit=9))), sep="\n")


def connection_after_a_fork(url: str) -> None:
    """Uses a store of PostgreSQL here, in a child, and here again. Prints which connections were used."""
    store = SqlStore(url)

    def tell() -> None:
        with store._reading() as connection:
            print(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar())

    tell()
    child, pipe = fork(lambda _: fill(store, 1))
    print(*lines_of(pipe), sep="\n", end="")
    os.waitpid(child, 0)
    tell()
    store.close()


def full_disk(url: str) -> None:
    """Fills the disk, as far as this process can tell, and makes room again. Prints what it saw, as JSON."""
    store = SqlStore(url)
    store.add(a_prediction(0), a_request(), now=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    seen: dict[str, object] = {}
    acknowledged = 1
    try:
        while acknowledged < 10_000:
            store.add(a_prediction(acknowledged), a_request("x" * 5_000), now=0)
            acknowledged += 1
    except StoreUnavailable as error:
        seen["refusal"] = str(error)
    seen["readable"] = sum(store.get(a_prediction(n).id) is not None for n in range(acknowledged))
    seen["acknowledged"] = acknowledged
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    store.add(a_prediction(acknowledged), a_request(), now=0)
    seen["afterwards"] = store.count()
    store.close()
    print(json.dumps(seen))


def run(program: str, *arguments: object) -> list[str]:
    """The lines that one of the programs prints, in a process of its own."""
    return subprocess.run(
        [sys.executable, __file__, program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=120,
    ).stdout.splitlines()


PROGRAMS: dict[str, Callable[..., None]] = {
    "kills": kills,
    "draw_together": draw_together,
    "starts": starts,
    "change_together": change_together,
    "used_before_a_fork": used_before_a_fork,
    "connection_after_a_fork": connection_after_a_fork,
    "full_disk": full_disk,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
