"""What a run came to, handed over: printed, and written as files where that is asked for."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rich.console import Console

from contract_tests.case import Report
from contract_tests.parity import Parity
from contract_tests.report.files import write, write_parity
from contract_tests.report.parity.terminal import show as show_parity
from contract_tests.report.terminal import show


def deliver(outcome: Report | Parity, directory: Path | None) -> None:
    """Prints it, and writes its files; it is printed even where they cannot be written. Raises OSError."""
    try:
        if directory is not None:
            if isinstance(outcome, Report):
                write(outcome, directory)
            else:
                write_parity(outcome, directory)
    finally:
        # Where nobody reads on, Rich ends the program with 1; the exit code is still that of the verdict.
        with contextlib.suppress(SystemExit):
            if isinstance(outcome, Report):
                show(outcome, Console(), directory)
            else:
                show_parity(outcome, Console(), directory)
