"""One training by several processes, a GPU each, through accelerate: each takes a part of every batch."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import FluxTransformer2DModel

from reference_backend import checkpoints
from reference_backend.checkpoints import Pace, State
from reference_backend.job import Cancelled, JobFailed, Report
from reference_backend.training_cache import Item, Prepared, reader
from reference_backend.training_loop import Crew, Plan, run
from reference_backend.training_lora import attached

_PR_SET_PDEATHSIG = 1
_FAREWELL_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What each process is told. `model` is a directory or hub id; `rendezvous` a file yet to be."""

    model: str
    dtype: torch.dtype
    device: str
    items: tuple[Item, ...]
    plan: Plan
    folder: Path
    pace: Pace
    recompute: bool
    processes: int
    threads: int
    rendezvous: str
    parent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    stage: str
    done: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failed:
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stopped:
    pass


_STOP = "stop"


def run_together(
    pipe: Any,
    prepared: Prepared,
    plan: Plan,
    *,
    folder: Path,
    pace: Pace,
    recompute: bool,
    processes: int,
    report: Report,
) -> State:
    """As `training_loop.run`, by processes that load the transformer from where the pipeline came from.

    The pipeline stays where it is: the first GPU holds its transformer twice. When one process is lost, so
    is the training, and this raises RuntimeError; the checkpoints remain.
    """
    device = pipe.transformer.device.type
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with tempfile.TemporaryDirectory() as meeting, contextlib.ExitStack() as ending:
        task = Task(
            model=pipe.name_or_path,
            dtype=pipe.transformer.dtype,
            device=device,
            items=prepared.items,
            plan=plan,
            folder=folder,
            pace=pace,
            recompute=recompute,
            processes=processes,
            threads=max(1, torch.get_num_threads() // processes),
            rendezvous=str(Path(meeting) / "rendezvous"),
            parent=os.getpid(),
        )
        ours, theirs = context.Pipe()
        crew = []
        for rank in range(processes):
            process = context.Process(target=_member, args=(task, rank, theirs if rank == 0 else None))
            ending.callback(_end, process)
            process.start()
            crew.append(process)
        theirs.close()
        _follow(ours, crew, report)
    final = checkpoints.load(folder, plan.digest)
    if final is None or final.step != plan.recipe.steps:
        raise RuntimeError("the processes of a training have ended without its result")
    return final


def _follow(pipe: Connection, crew: Sequence[BaseProcess], report: Report) -> None:
    """Passes on what the first process tells, until it is done. Raises what it failed with."""
    cancelled: Cancelled | None = None
    while True:
        running = [each.sentinel for each in crew if each.exitcode is None]
        ready = wait([pipe, *running], _FAREWELL_SECONDS if cancelled else None)
        if cancelled is not None and not ready:
            raise cancelled
        if pipe not in ready:
            if any(each.exitcode for each in crew):
                raise RuntimeError("a process of a training has died")
            continue
        try:
            message: object = pipe.recv()
        except (EOFError, OSError):
            raise RuntimeError("the first process of a training has died") from None
        match message:
            case _Progress(stage=stage, done=done, of=of) if cancelled is None:
                try:
                    report(stage, done, of)
                except Cancelled as wish:
                    cancelled = wish
                    pipe.send(_STOP)
            case _Failed(code=code, message=text):
                raise JobFailed(code, text)
            case _Stopped():
                raise cancelled or Cancelled
            case None:
                return


def _end(process: BaseProcess) -> None:
    if process.pid is not None:
        process.kill()
        process.join()


def _member(task: Task, rank: int, pipe: Connection | None) -> None:
    """What each of the processes does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != task.parent:
        return
    # Whoever ends the parent ends these; a Ctrl-C meant for all is the parent's to hear.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    last: _Failed | _Stopped | None = None
    try:
        _train(task, rank, _reporting(pipe))
    except JobFailed as failure:
        last = _Failed(code=failure.code, message=failure.message)
    except torch.OutOfMemoryError:
        last = _Failed(code="out_of_memory", message="The training does not fit into this device's memory.")
    except Cancelled:
        last = _Stopped()
    if pipe is not None:
        pipe.send(last)


def _reporting(pipe: Connection | None) -> Report:
    def report(stage: str, done: int, of: int) -> None:
        if pipe is not None:
            pipe.send(_Progress(stage=stage, done=done, of=of))
            if pipe.poll():
                raise Cancelled

    return report


def _train(task: Task, rank: int, report: Report) -> None:
    torch.set_num_threads(task.threads)
    accelerator = _accelerator(task, rank)
    transformer: Any = FluxTransformer2DModel.from_pretrained(
        task.model, subfolder="transformer", dtype=task.dtype, use_safetensors=True, local_files_only=True
    )
    transformer.to(accelerator.device).eval()
    prepared = Prepared(items=task.items, read=reader(task.folder / "prepared"))
    with attached(transformer, task.plan.recipe, task.plan.seed) as learned:
        if task.recompute:
            transformer.enable_gradient_checkpointing()
        run(
            transformer,
            learned,
            prepared,
            task.plan,
            folder=task.folder,
            pace=task.pace,
            report=report,
            crew=Crew(rank=rank, size=task.processes, wrap=accelerator.prepare),
        )
        # Nobody leaves while another still counts on its gradients.
        accelerator.wait_for_everyone()
    # It leaves the group, too.
    accelerator.end_training()


def _accelerator(task: Task, rank: int) -> Accelerator:
    """This process's accelerator, in a group that meets in a file and talks over the loopback alone.

    The usual meeting place is a port that listens to the whole network, without a password.
    """
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(task.processes),
        LOCAL_WORLD_SIZE=str(task.processes),
        GLOO_SOCKET_IFNAME="lo",
        NCCL_SOCKET_IFNAME="lo",
    )
    on_gpu = task.device == "cuda"
    if on_gpu:
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"file://{task.rendezvous}",
        rank=rank,
        world_size=task.processes,
    )
    return Accelerator(cpu=not on_gpu)
