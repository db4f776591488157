"""The reports as files."""

from __future__ import annotations

import os
from pathlib import Path

from contract_tests.case import Report
from contract_tests.report import html, json_file, junit


def write(report: Report, directory: Path) -> None:
    """Writes report.html, junit.xml and report.json into a directory, which is made where there is none.

    Whoever reads meanwhile finds the old file or the new one, never half of one. Raises OSError.
    """
    files = {
        "report.html": html.render(report),
        "junit.xml": junit.render(report),
        "report.json": json_file.render(report),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        part = directory / f".{name}.{os.getpid()}"
        try:
            part.write_bytes(text.encode())
            part.replace(directory / name)
        finally:
            part.unlink(missing_ok=True)
