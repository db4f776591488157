"""Removes what jobs leave behind: outdated results, those kept long enough, folders of nobody."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mock_server.clock import ManualClock, SystemClock
from mock_server.errors import StoreUnavailable
from mock_server.prediction import Prediction, Status
from mock_server.store import Store
from reference_backend.folders import Folders, folders_of, remove_folder, sessions_in
from reference_backend.pairing import are_paired

_PAUSE_SECONDS = 600.0
_UNKNOWN_SECONDS = 3600
"""So old is what belongs to no prediction before it goes: one may have been reset while it was worked on."""

_log = logging.getLogger("wavemock.worker")


@contextmanager
def sweeping(store: Store, data: Path, *, retention_days: float) -> Iterator[None]:
    """Sweeps now and then, beside the jobs."""
    ended = threading.Event()

    def keep_sweeping() -> None:
        while True:
            try:
                sweep(store, data, retention_days=retention_days)
            except StoreUnavailable as error:
                _log.warning("what is left over stays for now: %s", error)
            if ended.wait(_PAUSE_SECONDS):
                return

    thread = threading.Thread(target=keep_sweeping, name="sweeping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(1)


def sweep(store: Store, data: Path, *, retention_days: float) -> None:
    """Removes what is outdated in every session, and nothing where folder and store are not a pair.

    Raises StoreUnavailable, and has then not removed all.
    """
    if not are_paired(store, data):
        _log.warning("nothing is swept away: %s does not belong to the store", data)
        return
    known = {"", *store.sessions()}
    for session in sessions_in(data):
        folders = folders_of(data, session)
        shelf = store.session(session, begin=False) if session in known else None
        _sweep_results(shelf, folders, retention_days)
        for prediction_id, attempt, path in folders.attempts_kept():
            found = _find(shelf, prediction_id)
            if _is_unknown(found, path) or (found and (_ended(found) or found.attempt != attempt)):
                remove_folder(path)
        for prediction_id, path in folders.trainings_kept():
            found = _find(shelf, prediction_id)
            if _is_unknown(found, path) or (found and _ended(found)):
                remove_folder(path)


def _sweep_results(shelf: Store | None, folders: Folders, retention_days: float) -> None:
    too_old = 0
    for prediction_id, attempt, path in folders.results_kept():
        found = _find(shelf, prediction_id)
        if shelf is not None and not too_old:
            now = ManualClock(real=SystemClock(), shelf=shelf).now()
            too_old = now - round(retention_days * 86_400_000)
        if _is_unknown(found, path) or (found and not _is_wanted(found, attempt, too_old)):
            path.unlink(missing_ok=True)


def _is_wanted(prediction: Prediction, attempt: int, too_old: int) -> bool:
    last = prediction.events[-1]
    if not last.status.final:
        return attempt >= prediction.attempt
    return last.status is Status.COMPLETED and attempt == prediction.attempt and last.at > too_old


def _is_unknown(found: Prediction | None, path: Path) -> bool:
    try:
        return found is None and path.stat().st_mtime < time.time() - _UNKNOWN_SECONDS
    except FileNotFoundError:
        return False  # another worker sweeps as well


def _ended(prediction: Prediction) -> bool:
    return prediction.events[-1].status.final


def _find(shelf: Store | None, prediction_id: str) -> Prediction | None:
    return None if shelf is None else shelf.get(prediction_id)
