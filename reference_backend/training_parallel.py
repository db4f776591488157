"""One training by several processes, a GPU each, through accelerate: each takes a part of every batch."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import FluxTransformer2DModel

from mock_server.errors import BadConfiguration
from reference_backend import checkpoints
from reference_backend.checkpoints import Pace, State
from reference_backend.job import Cancelled, JobFailed, Report
from reference_backend.memory import within_memory
from reference_backend.training_cache import Item, Prepared, reader
from reference_backend.training_loop import Crew, Plan, run
from reference_backend.training_lora import attached

NO_ROOM = "The training does not fit into this device's memory."
"""What a training fails with as `out_of_memory`, by however many processes."""

_PR_SET_PDEATHSIG = 1
_FAREWELL_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What each process is told.

    `model` is a directory or hub id, `device` that of the first process, and `rendezvous` a file yet to be.
    """

    model: str
    dtype: torch.dtype
    device: torch.device
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trained:
    pass


_Message = _Progress | _Failed | _Stopped | _Trained

_STOP = "stop"


def check_processes(device: torch.device, processes: int) -> None:
    """Raises BadConfiguration unless each process finds a GPU, from `device` on. A CPU they can share."""
    first, count = device.index or 0, torch.cuda.device_count()
    if device.type == "cuda" and first + processes > count:
        raise BadConfiguration(
            f"--processes: {processes} asked for from cuda:{first} on, and torch finds {count} CUDA devices"
        )


def run_together(
    pipe: Any,
    prepared: Prepared,
    plan: Plan,
    *,
    folder: Path,
    meeting: Path,
    pace: Pace,
    recompute: bool,
    processes: int,
    report: Report,
) -> State:
    """As `training_loop.run`, by processes that load the transformer from where the pipeline came from.

    The pipeline stays where it is: the first GPU holds its transformer twice. They meet below `meeting`, a
    folder of this attempt's own. What one of them fails with, the training fails with. Where one dies, this
    process ends by SystemExit, as it would have, had it trained alone; the checkpoints remain.
    """
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with tempfile.TemporaryDirectory(dir=meeting) as place, contextlib.ExitStack() as ending:
        task = Task(
            model=pipe.name_or_path,
            dtype=pipe.transformer.dtype,
            device=pipe.transformer.device,
            items=prepared.items,
            plan=plan,
            folder=folder,
            pace=pace,
            recompute=recompute,
            processes=processes,
            threads=max(1, torch.get_num_threads() // processes),
            rendezvous=str(Path(place).resolve() / "rendezvous"),
            parent=os.getpid(),
        )
        crew: dict[Connection, BaseProcess] = {}
        for rank in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_member, args=(task, rank, theirs))
            ending.enter_context(ours)
            ending.callback(_end, process)
            process.start()
            theirs.close()
            crew[ours] = process
        _follow(crew, report)
    final = checkpoints.load(folder, plan.digest)
    if final is None or final.step != plan.recipe.steps:
        raise RuntimeError("the processes of a training have ended without its result")
    return final


def _follow(crew: Mapping[Connection, BaseProcess], report: Report) -> None:
    """Passes on what the first process tells, until it is done. Raises what any of them ends with."""
    first, *_ = crew
    running = dict(crew)
    cancelled: Cancelled | None = None
    while first in running:
        ready = wait(list(running), _FAREWELL_SECONDS if cancelled else None)
        told = {pipe: _heard(pipe) for pipe in running if pipe in ready}
        if cancelled is not None and not told:
            raise cancelled
        # Before all else: the others may have died of its end.
        for message in told.values():
            if isinstance(message, _Failed):
                raise JobFailed(message.code, message.message)
        for pipe, message in told.items():
            match message:
                case _Progress(stage=stage, done=done, of=of) if cancelled is None:
                    try:
                        report(stage, done, of)
                    except Cancelled as wish:
                        cancelled = wish
                        with contextlib.suppress(OSError):  # it has died, which is heard next
                            first.send(_STOP)
                case _Stopped():
                    raise cancelled or Cancelled
                case _Trained():
                    del running[pipe]
                case None:
                    raise cancelled or SystemExit(_death(crew[pipe]))


def _heard(pipe: Connection) -> _Message | None:
    """What a process tells, None where it has died."""
    try:
        message: _Message = pipe.recv()
    except (EOFError, OSError):
        return None
    return message


def _death(process: BaseProcess) -> str:
    process.join(_FAREWELL_SECONDS)
    code = process.exitcode or 0
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"a process of this training has ended: {how}"


def _end(process: BaseProcess) -> None:
    if process.pid is not None:
        process.kill()
        process.join()


def _member(task: Task, rank: int, pipe: Connection) -> None:
    """What each of the processes does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != task.parent:
        return
    # Whoever ends the parent ends these; a Ctrl-C meant for all is the parent's to hear.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    last: _Message = _Trained()
    try:
        within_memory(lambda: _train(task, rank, _reporting(pipe)), otherwise=NO_ROOM)
    except JobFailed as failure:
        last = _Failed(code=failure.code, message=failure.message)
    except Cancelled:
        last = _Stopped()
    pipe.send(last)


def _reporting(pipe: Connection) -> Report:
    def report(stage: str, done: int, of: int) -> None:
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
    gpu = (task.device.index or 0) + rank
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(gpu),  # which accelerate takes for the number of the GPU
        WORLD_SIZE=str(task.processes),
        LOCAL_WORLD_SIZE=str(task.processes),
        GLOO_SOCKET_IFNAME="lo",
        NCCL_SOCKET_IFNAME="lo",
    )
    on_gpu = task.device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(gpu)
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        # Documented, though its types do not export it. A URL could not name every folder.
        store=torch.distributed.FileStore(task.rendezvous, task.processes),  # type: ignore[attr-defined]
        rank=rank,
        world_size=task.processes,
    )
    return Accelerator(cpu=not on_gpu)
