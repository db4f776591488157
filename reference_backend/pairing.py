"""Which store a data folder belongs to: each bears a mark of the other, so that a wrong flag is found out."""

import os
import secrets
import time
from pathlib import Path

from mock_server.errors import BadConfiguration
from mock_server.store import Store
from reference_backend.folders import folders_of, sessions_in

_FILE = "store-id"
_NOTES = "data-folder"
_APART = "/"
"""A session that no request can name, so that no reset reaches what is noted there."""
_LOOKS = 20
_PAUSE_SECONDS = 0.05


def pair(store: Store, data: Path) -> None:
    """Makes sure that the two belong together; a folder and a store that are both new do so from now on.

    A folder with results in it is not new. Any number of processes may start at once. Raises
    BadConfiguration, and StoreUnavailable.
    """
    shelf = store.session(_APART, begin=False)
    # In this order: whoever has noted that there is a folder has marked it before.
    noted = shelf.note(_NOTES, "marked") is not None
    own = shelf.change_note(_NOTES, "id", lambda found: found or secrets.token_hex(16).encode())
    mark = (own or b"").decode()
    try:
        found = _read(data)
        if found is None and not (noted or _has_results(data)):
            _write(data, mark)
            found = _read(data)
    except OSError as error:
        raise BadConfiguration(f"--data {data}: cannot be used: {error.strerror}") from error
    if found != mark:
        raise BadConfiguration(
            f"--data {data} is not the folder of this --store: name the two that belong together, "
            f"or, to join these, write {mark} into {data / _FILE}"
        )
    if not noted:
        shelf.change_note(_NOTES, "marked", lambda _: b"")


def are_paired(store: Store, data: Path) -> bool:
    """Whether the two belong together. Raises StoreUnavailable."""
    own = store.session(_APART, begin=False).note(_NOTES, "id")
    try:
        return own is not None and _read(data) == own.decode()
    except OSError:
        return False


def _has_results(data: Path) -> bool:
    return any(folders_of(data, session).results.exists() for session in sessions_in(data))


def _read(data: Path) -> str | None:
    """The mark of a folder; None where it has none. An empty one was left by a power cut."""
    text = ""
    for _ in range(_LOOKS):
        try:
            text = (data / _FILE).read_text(errors="replace").strip()
        except FileNotFoundError:
            return None
        if text:
            break
        time.sleep(_PAUSE_SECONDS)  # somebody is just about to write it
    return text


def _write(data: Path, mark: str) -> None:
    """Marks a folder that has no mark; the first of several to do so has done it."""
    data.mkdir(parents=True, exist_ok=True)
    try:
        with (data / _FILE).open("x") as file:
            file.write(f"{mark}\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return
