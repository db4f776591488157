"""The reports as files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from contract_tests.case import Report
from contract_tests.parity import Parity
from contract_tests.report import html, json_file, junit
from contract_tests.report.parity import html as parity_html
from contract_tests.report.parity import json_file as parity_json
from contract_tests.report.parity import junit as parity_junit
from contract_tests.report.parity.words import sides


def write(report: Report, directory: Path) -> None:
    """Writes report.html, junit.xml and report.json into a directory, which is made where there is none.

    Raises OSError.
    """
    files = {
        "report.html": html.render(report),
        "junit.xml": junit.render(report),
        "report.json": json_file.render(report),
    }
    _put(files, directory)


def write_parity(parity: Parity, directory: Path) -> None:
    """Writes parity.html, parity.json and parity.junit.xml, and each side's own reports into A and B.

    Raises OSError.
    """
    for side, report in sides(parity):
        write(report, directory / side)
    files = {
        "parity.html": parity_html.render(parity),
        "parity.json": parity_json.render(parity),
        "parity.junit.xml": parity_junit.render(parity),
    }
    _put(files, directory)


def _put(files: Mapping[str, str], directory: Path) -> None:
    """Whoever reads meanwhile finds the old file or the new one, never half of one."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        part = directory / f".{name}.{os.getpid()}"
        try:
            part.write_bytes(text.encode())
            part.replace(directory / name)
        finally:
            part.unlink(missing_ok=True)
