"""Keeps the results of predictions as files, and gives their URLs."""

import base64
import contextlib
import mimetypes
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mock_server.clock import Clock
from mock_server.errors import StoreUnavailable
from mock_server.prediction import Asked, Prediction
from mock_server.store import Store

PATH = "/outputs/"

ADDRESS = re.compile(r"/outputs/(?P<id>[0-9a-f]{32})/(?P<name>[0-9]+\.[a-z]+)")
"""The path of an output."""

_MEDIA_TYPES = {".webp": "image/webp", ".safetensors": "application/octet-stream"}
_MOST_BYTES = 512 * 1024 * 1024
_LONGEST_CHAIN = 4

Make = Callable[[Prediction, Asked, str, Callable[[str, str], bytes | None]], bytes]
"""Makes one output: of which prediction, what was asked, its file name, and how to get at other outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """The outputs of all predictions in a store.

    `directory` holds those that were made, and is made for the first of them. One that is not there is made
    again, which gives the same bytes. `results` holds those that workers have made, which nobody can make
    again.
    """

    directory: Path
    results: Path
    store: Store
    clock: Clock
    make: Make

    def read(self, prediction_id: str, name: str, *, chain: int = 0) -> bytes | None:
        """The bytes of an output, or None where there is no such output, or not yet.

        Raises StoreUnavailable where it can neither be found nor made.
        """
        prediction = self.store.get(prediction_id)
        if prediction is None or name not in prediction.seen_at(self.clock.now())[-1].outputs:
            return None
        path = self.path_of(prediction, name)
        try:
            content = path.read_bytes()
            # Says when it was asked for last, and leaves alone when it was made.
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StoreUnavailable(f"an output cannot be read: {error.strerror}") from error
        else:
            return content
        asked = self.store.asked(prediction_id)
        if asked is None or prediction.job:
            return None

        def fetch(other_id: str, other_name: str) -> bytes | None:
            # An output may build on an output that builds on an output; somewhere that has to end.
            return self.read(other_id, other_name, chain=chain + 1) if chain < _LONGEST_CHAIN else None

        content = self.make(prediction, asked, name, fetch)
        self._keep(path, content)
        return content

    def _keep(self, path: Path, content: bytes) -> None:
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            part.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise StoreUnavailable(f"an output cannot be kept: {error.strerror}") from error
        if path.name[1] == "0":
            # The output has been kept. What cannot be removed now can be the next time.
            with contextlib.suppress(OSError):
                self._prune()

    def _prune(self) -> None:
        """Removes what was not asked for the longest; looked at once in sixteen writes."""
        files = sorted(self._files(), key=lambda each: each[0].st_atime)
        excess = sum(stat.st_size for stat, _ in files) - _MOST_BYTES
        for stat, path in files:
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= stat.st_size

    def _files(self) -> Iterator[tuple[os.stat_result, Path]]:
        for path in self.directory.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another thread has moved or removed it
                yield path.stat(), path

    def clear(self) -> None:
        """Removes every output that was made. Raises StoreUnavailable where one cannot be removed."""
        try:
            for directory in (self.directory, self.results):
                for path in directory.iterdir() if directory.is_dir() else ():
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"an output cannot be removed: {error.strerror}") from error

    def inline(self, prediction: Prediction, base: str, *, data_uri: bool) -> list[str]:
        """The outputs as base64, each as a data URI where that is wanted; the URL of one that is gone."""
        texts = []
        for name in prediction.seen_at(self.clock.now())[-1].outputs:
            content = self.read(prediction.id, name)
            if content is None:
                texts.append(url_of(base, prediction.id, name))
                continue
            text = base64.b64encode(content).decode()
            texts.append(f"data:{media_type(name)};base64,{text}" if data_uri else text)
        return texts

    def path_of(self, prediction: Prediction, name: str) -> Path:
        """Where an output lies that has been read before."""
        if prediction.job:
            return self.results / result_name(prediction.id, prediction.attempt, name)
        return self.directory / f"{prediction.id}-{name}"


def result_name(prediction_id: str, attempt: int, name: str) -> str:
    """What a worker calls the file of an output. Two attempts never share one."""
    return f"{prediction_id}-{attempt}-{name}"


def url_of(base: str, prediction_id: str, name: str) -> str:
    """The address of an output, below the server's own address."""
    return f"{base}{PATH}{prediction_id}/{name}"


def media_type(name: str) -> str:
    """What an output is, from its file name."""
    suffix = name[name.rindex(".") :]
    return _MEDIA_TYPES.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")
