"""A training by several processes: whatever ends one of them ends it, at once and in the right words."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from mock_server.errors import BadConfiguration
from reference_backend import child, training_parallel, training_steps
from reference_backend import train as training
from reference_backend.checkpoints import Pace
from reference_backend.dataset import Example
from reference_backend.job import Done, Job, JobFailed, Report
from reference_backend.pipelines import Flux
from reference_backend.recipes import TURBO
from reference_backend.train import train
from reference_backend.training_parallel import check_processes

pytest_plugins = ("reference",)

EXAMPLE = Example(
    name="red", picture=Image.new("RGB", (256, 256), "red"), caption="red", mask=None, digest="red"
)

forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="starts its processes by fork")


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that need not import everything again, and in which what a test has replaced is replaced."""
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)


def together(flux: Flux, folder: Path, *, steps: int = 3, report: Report = lambda *_: None) -> None:
    """Trains by two processes, with a checkpoint after every step."""
    train(
        flux.pipe,
        (EXAMPLE,),
        replace(TURBO, steps=steps, rank=1),
        seed=1,
        checkpoints=folder / "checkpoints",
        to=folder / "out.safetensors",
        base="tiny",
        report=report,
        processes=2,
        pace=Pace(seconds=0, share=float("inf")),
    )


def in_the_last_step(rank: int, end: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the process of that rank meet its end in its third step."""
    real, steps = training_steps.loss_of, []

    def loss_of(*given: Any, **named: Any) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 3 and os.environ["RANK"] == str(rank):
            end()
        return real(*given, **named)

    monkeypatch.setattr("reference_backend.training_loop.loss_of", loss_of)


def run_out_of_memory() -> None:
    raise torch.OutOfMemoryError


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@forking
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("rank", [0, 1])
def test_what_one_process_fails_with_the_training_fails_with(
    rank: int, tiny_dev: Flux, tmp_path: Path, forked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_last_step(rank, run_out_of_memory, monkeypatch)
    with pytest.raises(JobFailed, match="out_of_memory"):
        together(tiny_dev, tmp_path)


@forking
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_takes_the_attempt_along_and_the_next_goes_on_from_the_checkpoint(
    rank: int, tiny_dev: Flux, tmp_path: Path, forked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as once:
        in_the_last_step(rank, be_killed, once)
        with pytest.raises(SystemExit, match="a process of this training has ended"):
            together(tiny_dev, tmp_path)
    steps: list[int] = []
    together(
        tiny_dev, tmp_path, report=lambda stage, done, _: steps.append(done) if "train" in stage else None
    )
    assert steps in ([2, 3], [3])
    assert (tmp_path / "out.safetensors").exists()


@forking
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_processes_meet_in_the_folder_of_their_attempt(
    tiny_dev: Flux, tmp_path: Path, forked: None
) -> None:
    seen: set[str] = set()
    together(
        tiny_dev, tmp_path, steps=1, report=lambda *_: seen.update(each.name for each in tmp_path.iterdir())
    )
    left = {each.name for each in tmp_path.iterdir()}
    assert len(seen - left) == 1
    assert left == {"checkpoints", "out.safetensors"}


def test_the_processes_take_the_gpus_from_the_workers_own_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(training_parallel, "Accelerator", lambda **_: None)
    monkeypatch.setattr(os, "environ", {})
    task: Any = SimpleNamespace(device=torch.device("cuda:2"), processes=2, rendezvous=str(tmp_path / "here"))
    training_parallel._accelerator(task, rank=1)
    assert taken == [3]
    assert os.environ["LOCAL_RANK"] == "3"


@pytest.mark.parametrize(("device", "processes"), [("cuda", 3), ("cuda:1", 2), ("cuda:1", 64)])
def test_more_processes_than_gpus_are_refused(
    device: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(BadConfiguration, match=f"--processes: {processes} .* finds 2 CUDA devices"):
        check_processes(torch.device(device), processes)


@pytest.mark.parametrize(("device", "processes"), [("cuda", 2), ("cuda:1", 1), ("cpu", 3)])
def test_as_many_processes_as_there_are_gpus_are_fine(
    device: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_processes(torch.device(device), processes)


def test_such_an_end_ends_the_process_that_does_the_jobs_too(tmp_path: Path) -> None:
    """Which is what makes its worker begin the job again."""

    def run(_job: Job, _report: Report) -> Done:
        raise SystemExit("a process of this training has ended: SIGKILL")

    job: Any = None
    with pytest.raises(SystemExit):
        child._done(run, job, multiprocessing.Pipe()[0])


@pytest.mark.parametrize(("processes", "recompute"), [(1, False), (2, True)])
def test_memory_that_this_process_keeps_for_later_is_not_counted_for_others(
    processes: int, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_fused_attention", lambda _: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10 << 30, 140 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 100 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 40 << 30)
    flux: Any = SimpleNamespace(
        device=torch.device("cuda:0"),
        dtype=torch.bfloat16,
        config=SimpleNamespace(
            num_layers=19, num_single_layers=38, num_attention_heads=24, attention_head_dim=128
        ),
        get_memory_footprint=lambda: 0,
    )
    prepared: Any = SimpleNamespace(
        items=[SimpleNamespace(latents={(512, 512): ""}, text="")],
        read=lambda _: {"embeds": torch.zeros(1, 512, 1)},
    )
    plan: Any = SimpleNamespace(pixel_step=16, recipe=replace(TURBO, batch=processes))
    pipe = SimpleNamespace(transformer=flux)
    assert training._recompute(pipe, prepared, plan, processes) is recompute
