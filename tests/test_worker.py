"""What becomes of jobs: done, failed, tried again, given up. With a real child process."""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from workplace import Workplace, statuses, until, workplace_at, workplace_for

from mock_server.errors import BadConfiguration, NotNow

pytest_plugins = ("postgres",)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    """On SQLite, for what does not depend on the queue."""
    with workplace_at(f"sqlite:///{tmp_path}/store.db", tmp_path) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def each_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workplace]:
    with workplace_for(request, tmp_path) as made:
        yield made


def test_a_job_is_completed_with_its_outputs(each_place: Workplace) -> None:
    job = each_place.submit(makes=2)
    each_place.work_off()
    found = each_place.find(job)
    assert statuses(found) == ["created", "processing", "completed"]
    assert (found.events[-1].outputs, found.events[-1].nsfw) == (("0.png", "1.png"), (False, False))
    assert (found.attempt, found.worker) == (1, "one")
    assert each_place.results() == [f"{job}-1-0.png", f"{job}-1-1.png"]
    assert each_place.folders().result(job, 1, "1.png").read_text() == f"{job} 8"


def test_nothing_of_a_job_stays_but_its_results(place: Workplace) -> None:
    place.submit("train 3")
    place.work_off()
    kept = place.folders()
    assert place.results()
    assert [*kept.attempts_kept(), *kept.trainings_kept()] == []


def test_jobs_are_done_in_the_order_of_their_acceptance(each_place: Workplace) -> None:
    jobs = [each_place.submit(session=session) for session in ("", "b", "a", "", "b")]
    each_place.work_off()
    assert [line[0] for line in each_place.begun()] == jobs


def test_models_stay_loaded_from_job_to_job(place: Workplace) -> None:
    for prompt in ("make", "fail", "make"):
        place.submit(prompt)
    place.work_off()
    assert len({made for _, _, made, _ in place.begun()}) == 1


def test_a_job_that_cannot_be_done_fails_with_code_and_message(place: Workplace) -> None:
    job = place.submit("fail")
    place.work_off()
    assert place.end(job) == "no_such_thing: There is no such thing; name another."
    assert place.results() == []


def test_what_nobody_foresaw_is_told_to_the_log_alone(
    place: Workplace, caplog: pytest.LogCaptureFixture
) -> None:
    job = place.submit("raise")
    place.work_off()
    assert place.end(job) == "internal_error: The work met with a KeyError; the worker's log says more."
    assert "a secret of the worker" in caplog.text


def test_after_what_nobody_foresaw_the_next_job_has_a_new_process(place: Workplace) -> None:
    jobs = [place.submit("raise"), place.submit()]
    place.work_off()
    assert place.end(jobs[1]) == "completed"
    assert place.find(jobs[1]).attempt == 1
    assert len({process for *_, process in place.begun()}) == 2


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSEGV"])
def test_a_job_whose_process_dies_is_tried_again_at_once(each_place: Workplace, how: str) -> None:
    job, next_one = each_place.submit(f"die 1 {how}"), each_place.submit()
    each_place.work_off()
    assert (each_place.end(job), each_place.find(job).attempt) == ("completed", 2)
    assert each_place.results() == [f"{job}-2-0.png", f"{next_one}-1-0.png"]
    assert [line[0] for line in each_place.begun()] == [job, job, next_one]


def test_a_job_that_ends_its_process_three_times_fails(place: Workplace) -> None:
    job, neighbour = place.submit("die 9"), place.submit()
    place.work_off()
    assert place.end(job).startswith("worker_died: ")
    assert statuses(place.find(job)) == ["created", "processing", "failed"]
    assert place.end(neighbour) == "completed"


def test_what_a_dead_process_leaves_running_does_not_hide_its_death(place: Workplace) -> None:
    place.submit("orphan")
    place.work_off()
    other = int((place.data / "other").read_text())
    until(lambda: not is_running(other))


def is_running(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("prompt", ["forget", "miscount"])
def test_a_job_whose_outputs_are_not_all_there_fails(place: Workplace, prompt: str) -> None:
    job = place.submit(prompt, makes=2)
    place.work_off()
    assert place.end(job).startswith("internal_error: ")
    assert place.results() == []


def test_outputs_that_cannot_be_kept_fail_the_job(place: Workplace) -> None:
    place.folders().results.write_text("in the way")
    job = place.submit()
    place.work_off()
    assert place.end(job) == "storage_failed: The outputs cannot be kept: File exists."


def test_what_the_runner_remarks_is_kept(place: Workplace) -> None:
    job = place.submit("remark")
    place.work_off()
    assert msgspec.json.decode(place.store.note("remarks", job) or b"") == ["one", "two"]


def test_progress_is_told_while_the_job_goes_on(place: Workplace) -> None:
    place.store.change_clock(lambda state: replace(state, frozen_at=5_000))
    gate = place.data / "gate"
    job = place.submit(f"wait {gate}")
    with place.working():
        note = until(lambda: place.store.note("progress", job))
        gate.touch()
    assert msgspec.json.decode(note) == {"stage": "waiting", "done": 0, "of": 1, "at": 5_000}
    assert place.store.note("progress", job) is None


def test_events_carry_the_time_of_their_session(place: Workplace) -> None:
    place.store.session("a").change_clock(lambda state: replace(state, frozen_at=7_000))
    job = place.submit(session="a")
    place.work_off()
    assert [event.at for event in place.find(job, "a").events] == [1_000, 7_000, 7_000]


def test_files_of_a_session_lie_in_its_own_folders(place: Workplace) -> None:
    job = place.submit(session="a")
    place.work_off()
    assert (place.results("a"), place.results()) == ([f"{job}-1-0.png"], [])


def test_a_job_of_a_session_that_is_no_more_does_not_bring_it_back(each_place: Workplace) -> None:
    each_place.submit(session="a")
    each_place.store.session("a").clear()
    each_place.work_off()
    assert each_place.store.sessions() == []
    assert each_place.begun() == []


def test_a_job_that_was_forgotten_is_not_begun(each_place: Workplace) -> None:
    each_place.store.drop(each_place.submit())
    each_place.work_off()
    assert each_place.begun() == []


def test_a_worker_that_cannot_do_jobs_says_why_and_gives_its_ticket_back(each_place: Workplace) -> None:
    job = each_place.submit()
    with pytest.raises(BadConfiguration, match="--device auto: there is none"):
        each_place.work_off(runner="job_runners:refuse")
    assert each_place.find(job).attempt == 0
    each_place.work_off()
    assert each_place.end(job) == "completed"


@pytest.mark.parametrize("runner", ["no_such_module:make", "job_runners:no_such", "nonsense"])
def test_a_runner_that_cannot_be_found_is_told(place: Workplace, runner: str) -> None:
    place.submit()
    with pytest.raises(BadConfiguration, match="the jobs of this worker cannot be done here"):
        place.work_off(runner=runner)


def test_a_process_that_does_not_come_up_is_told(place: Workplace) -> None:
    place.submit()
    with pytest.raises(BadConfiguration, match="SIGABRT"):
        place.work_off(runner="job_runners:abort")


def test_models_that_do_not_load_again_end_the_worker_and_not_the_job(each_place: Workplace) -> None:
    job = each_place.submit("die 1")
    with pytest.raises(NotNow, match="SIGABRT"):
        each_place.work_off(runner="job_runners:make_once")
    assert each_place.end(job) == "processing"
    each_place.work_off()
    assert (each_place.end(job), each_place.find(job).attempt) == ("completed", 2)


def test_two_attempts_of_the_same_number_share_no_names(place: Workplace) -> None:
    job = place.submit()
    # As another worker has it, who was at this id before a reset.
    others = place.folders().work(job, 1)
    others.mkdir(parents=True)
    place.work_off()
    assert (place.end(job), place.find(job).spared) == ("completed", 1)
    assert (place.results(), others.exists()) == ([f"{job}-2-0.png"], True)


def test_jobs_are_told_of_one_line_each(place: Workplace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wavemock.worker")
    job = place.submit()
    place.work_off()
    assert [record.message.partition(" after")[0] for record in caplog.records] == [
        f"{job}: attempt 1 completed"
    ]
    assert os.sep not in caplog.text.partition(".py")[2]
