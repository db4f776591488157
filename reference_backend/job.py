"""What a worker is asked to do, what comes of it, and how it fails. Imports nothing heavy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Report = Callable[[str, int, int], None]
"""Tells how far a job is: the stage, what is done of it, and of how much. Raises Cancelled."""


class JobFailed(Exception):
    """The job cannot be done, for a reason that its author can read and mostly mend.

    `code` is a word of small letters, digits and underscores that programs can go by; `message` a sentence
    that says what was wrong and what would be right. Neither tells a path, an address or a stack.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Cancelled(Exception):
    """Nobody wants the job's result any more, or the worker has to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One prediction for a worker to do.

    `given` is the effective input, defaults in place, and `seed` the one that was asked for or drawn. `makes`
    are the file names of its outputs, in order, to be written into `folder`, which is this attempt's own.
    `session` is whose world it belongs to. `created_at` is in milliseconds since the Unix epoch.
    """

    id: str
    session: str
    model: str
    given: Mapping[str, Any]
    seed: int
    makes: tuple[str, ...]
    folder: Path
    attempt: int
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a job has made: one flag of unsafe content per output, and remarks for the request's author."""

    nsfw: tuple[bool, ...]
    remarks: tuple[str, ...] = ()


Runner = Callable[[Job, Report], Done]
"""Does a job: writes its outputs into its folder. Raises JobFailed, and Cancelled as its report does."""
