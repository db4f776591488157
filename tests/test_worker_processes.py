"""`wavemock worker` as a process: how it starts, how it ends, and what is left when it is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from workplace import Workplace, until, workplace_at

HERE = Path(__file__).parent
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with workplace_at(f"sqlite:///{tmp_path}/store.db", tmp_path) as made:
        yield made


@pytest.fixture
def start(place: Workplace) -> Iterator[Start]:
    """Starts workers that end with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*flags: str, ready: bool = True) -> subprocess.Popen[str]:
        where = ("--store", place.url, "--data", str(place.data), "--runner", "job_runners:make")
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "mock_server", "worker", *where, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent)))},
        )
        started.append(process)
        if ready:
            assert process.stdout is not None
            assert process.stdout.readline() == "wavemock worker one is ready\n", process.communicate()
        return process

    yield lambda *flags, **more: begin("--name", "one", *flags, **more)
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    said, told = process.communicate(timeout=60)
    return process.returncode, said, told


def is_gone(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def child_of(place: Workplace) -> int:
    return int(until(place.begun)[-1][-1])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_ends_in_order_when_told(start: Start, how: signal.Signals) -> None:
    worker = start()
    worker.send_signal(how)
    assert ended(worker) == (0, "", "The worker has stopped.\n")


def test_what_libraries_print_does_not_go_to_standard_output(place: Workplace, start: Start) -> None:
    job = place.submit("print")
    worker = start()
    until(lambda: place.end(job) == "completed")
    worker.terminate()
    code, said, told = ended(worker)
    assert (code, said, "a library that talks" in told) == (0, "", True)


def test_a_second_worker_on_a_file_is_refused_in_one_line(start: Start) -> None:
    first = start()
    code, said, told = ended(start(ready=False))
    assert (code, said) == (os.EX_TEMPFAIL, "")
    assert told.startswith(f"Error: another worker (process {first.pid}) works for this store already")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--store", "sqlite:////no/such/folder/x.db"), "there is no directory"),
        (("--store", "redis://"), "jobs need sqlite"),
        (("--runner", "job_runners:refuse"), "--device auto: there is none"),
        (("--runner", "no_such_module:x"), "the jobs of this worker cannot be done here"),
    ],
)
def test_a_worker_that_cannot_work_says_so_in_one_line(
    start: Start, flags: tuple[str, ...], why: str
) -> None:
    code, said, told = ended(start(*flags, ready=False))
    assert (code, said, told.count("\n")) == (2, "", 1), told
    assert why in told


def test_a_database_that_is_away_may_come_back(start: Start) -> None:
    code, said, told = ended(start("--store", "postgresql://127.0.0.1:1/x", ready=False))
    assert (code, said, told.count("\n")) == (os.EX_TEMPFAIL, "", 1), told
    assert "cannot use" in told


def test_a_worker_is_refused_the_data_folder_of_another_store(start: Start, tmp_path: Path) -> None:
    start().kill()
    code, said, told = ended(start("--data", f"{tmp_path}/typo", ready=False))
    assert (code, said, told.count("\n")) == (2, "", 1), told
    assert "is not the folder of this --store" in told


def test_what_a_killed_worker_was_at_is_begun_again_first(place: Workplace, start: Start) -> None:
    job, later = place.submit(f"wait {place.data}/gate"), place.submit()
    worker = start()
    child_of(place)
    worker.kill()
    worker.wait()
    (place.data / "gate").touch()
    start()
    until(lambda: place.end(later) == "completed")
    assert [line[:2] for line in place.begun()] == [[job, "1"], [job, "2"], [later, "1"]]


def test_the_jobs_process_does_not_outlive_a_killed_worker(place: Workplace, start: Start) -> None:
    place.submit("hang")
    worker = start()
    child = child_of(place)
    worker.kill()
    until(lambda: is_gone(child))


def test_a_short_job_ends_before_the_worker_does(place: Workplace, start: Start) -> None:
    job = place.submit(f"wait {place.data}/gate")
    worker = start("--grace", "60")
    child_of(place)
    worker.terminate()
    (place.data / "gate").touch()
    assert ended(worker)[0] == 0
    assert place.end(job) == "completed"


def test_a_long_job_is_handed_back_when_the_grace_is_over(place: Workplace, start: Start) -> None:
    job = place.submit(f"wait {place.data}/never")
    worker = start("--grace", "0.1")
    child_of(place)
    worker.terminate()
    assert ended(worker)[0] == 0
    assert (place.find(job).spared, place.find(job).worker) == (1, "")


def test_a_second_signal_ends_the_job_at_once(place: Workplace, start: Start) -> None:
    job = place.submit("hang")
    worker = start("--grace", "600")
    child = child_of(place)
    worker.terminate()
    worker.send_signal(signal.SIGINT)
    assert ended(worker)[0] == 0
    assert place.find(job).spared == 1
    assert is_gone(child)


def test_a_worker_that_is_told_to_stop_while_models_load_does_so(place: Workplace, start: Start) -> None:
    worker = start("--runner", "job_runners:load_for_ever", ready=False)
    until((place.data / "loading").exists)
    worker.terminate()
    assert ended(worker) == (0, "", "The worker has stopped.\n")
