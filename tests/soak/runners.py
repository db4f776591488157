"""The jobs of the kill tests: short, in small steps, and written down when they begin and end."""

import os
import signal
import time

from reference_backend.job import Done, Job, Report, Runner
from reference_backend.settings import WorkerSettings

POISON = "poison"
_STEP_SECONDS = 0.02


def make(settings: WorkerSettings) -> Runner:
    """Prompts are POISON, or a number of seconds."""

    def run(job: Job, report: Report) -> Done:
        prompt = str(job.given["prompt"])
        if prompt == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        steps = round(float(prompt) / _STEP_SECONDS)
        for step in range(steps):
            report("soaking", step, steps)
            time.sleep(_STEP_SECONDS)
        for name in job.makes:
            (job.folder / name).write_text(content(job.id, name))
        with (settings.data / "runs").open("a") as runs:
            runs.write(f"{job.id} {job.attempt}\n")
        return Done(nsfw=(False,) * len(job.makes))

    return run


def content(prediction: str, name: str) -> str:
    """What an output of a prediction says."""
    return f"{prediction}/{name}"
