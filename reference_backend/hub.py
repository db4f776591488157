"""Fetches LoRAs from the public repositories of a model hub, over HTTP as from any host.

The hub's own library would write beside the job's folder, and cannot be stopped or counted.
"""

import contextlib
import hashlib
import io
import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote, urlsplit

from huggingface_hub import constants

from mock_server.addresses import WEB_PORTS
from reference_backend.fetch import Fetcher, download
from reference_backend.job import JobFailed, Report

SUFFIX = ".safetensors"
"""How the names of weights end."""

MOST_KEPT = 16 * 2**30
"""How many bytes of weights are kept for later requests; the latest used stay."""

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_FILE = r"[A-Za-z0-9][A-Za-z0-9._/ -]{0,200}"
_ID = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:/(?P<file>{_FILE}))?")
_URL = re.compile(
    rf"https?://(?:www\.)?huggingface\.co/(?P<repo>{_PART}/{_PART})"
    rf"(?:/(?P<page>tree|blob|resolve)/(?P<revision>{_PART})(?:/(?P<file>{_FILE}))?)?/?(?:\?.*)?",
    re.IGNORECASE,
)
_USUAL_NAME = f"pytorch_lora_weights{SUFFIX}"
_MOST_LISTED = 8 * 2**20
_NOT_PUBLIC = frozenset({401, 403, 404})
_REVISION = re.compile("[0-9a-f]{40,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights on the hub: a file of a repository, the usual one where it is None, at a revision.

    `is_file` says that the text that named them is the URL of the file itself, and not of a page.
    """

    repo: str
    file: str | None = None
    revision: str | None = None
    is_file: bool = False


def read_id(text: str) -> Weights | None:
    """What OWNER/NAME or OWNER/NAME/FILE names; None for any other text."""
    found = _ID.fullmatch(text)
    return None if found is None else Weights(repo=found["repo"], file=found["file"])


def read_url(text: str) -> Weights | None:
    """What a URL of a repository or of a file in it names; None for any other text."""
    found = _URL.fullmatch(unquote(text))
    if found is None:
        return None
    is_file = (found["page"] or "").lower() == "resolve"
    return Weights(repo=found["repo"], file=found["file"], revision=found["revision"], is_file=is_file)


def fetch_weights(
    weights: Weights,
    *,
    fetcher: Fetcher,
    kept: Path,
    to: Path,
    most: int,
    what: str,
    report: Report | None = None,
) -> None:
    """Writes the weights as they are on the hub now into the file `to`, from `kept` if they are there.

    `kept` is a folder for later requests. The hub, and public hosts that it leads to, are allowed beside what
    `fetcher` allows. Nobody's token is used: whoever sends requests would read with it. Raises JobFailed:
    not_found, too_large, download_failed.
    """
    if constants.HF_HUB_OFFLINE:
        raise _failed(what)
    call = _Call(fetcher=_allowing_the_hub(fetcher), what=what, report=report)
    revision, names = _listed(call, weights)
    file = _chosen(names, weights.file, what)
    earlier = kept / (hashlib.sha256(f"{weights.repo} {revision} {file}".encode()).hexdigest() + SUFFIX)
    # A link, since another worker may make room at any time.
    with contextlib.suppress(OSError):
        os.utime(earlier)
        to.hardlink_to(earlier)
        return
    with to.open("xb") as content:
        _get(call, f"/{weights.repo}/resolve/{revision}/{quote(file)}", into=content, most=most)
        content.flush()
        os.fsync(content.fileno())
    _keep(to, earlier)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    fetcher: Fetcher
    what: str
    report: Report | None


def _allowing_the_hub(fetcher: Fetcher) -> Fetcher:
    parts = urlsplit(constants.ENDPOINT)
    place = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    allowed = replace(fetcher.allowed, public=True, ports=WEB_PORTS, places=fetcher.allowed.places | {place})
    return replace(fetcher, allowed=allowed, gone=_NOT_PUBLIC)


def _listed(call: _Call, weights: Weights) -> tuple[str, list[str]]:
    """The revision that a repository is at, and the names of its files."""
    at = "" if weights.revision is None else f"/revision/{weights.revision}"
    held = io.BytesIO()
    _get(call, f"/api/models/{weights.repo}{at}", into=held, most=_MOST_LISTED)
    try:
        about = json.loads(held.getvalue())
        names = [str(each["rfilename"]) for each in about["siblings"]]
        revision = str(about["sha"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _failed(call.what) from error
    if not _REVISION.fullmatch(revision):
        raise _failed(call.what)
    return revision, names


def _get(call: _Call, path: str, *, into: IO[bytes], most: int) -> None:
    try:
        download(
            call.fetcher,
            constants.ENDPOINT + path,
            into=into,
            most=most,
            what=call.what,
            report=call.report,
        )
    except JobFailed as failure:
        if failure.code == "too_large":
            raise
        if failure.code == "not_found":
            raise JobFailed(
                "not_found", f"{call.what} names nothing that is public on the hub; correct it."
            ) from failure
        raise _failed(call.what) from failure


def _failed(what: str) -> JobFailed:
    return JobFailed("download_failed", f"{what} could not be fetched from the hub; try again later.")


def _chosen(names: list[str], file: str | None, what: str) -> str:
    found = sorted(name for name in names if name.endswith(SUFFIX) and ".." not in name)
    if file is not None:
        found = [name for name in found if name == file]
    elif _USUAL_NAME in found:
        found = [_USUAL_NAME]
    if not found:
        raise JobFailed("not_found", f"{what} names a repository without such a {SUFFIX} file; correct it.")
    if len(found) > 1:
        raise JobFailed(
            "not_found",
            f"{what} names a repository of {len(found)} {SUFFIX} files; add / and the name of one.",
        )
    return found[0]


def _keep(path: Path, kept: Path) -> None:
    """Keeps a file for later requests, where the disk knows links, and lets go what was used longest ago."""
    with contextlib.suppress(OSError):
        kept.parent.mkdir(exist_ok=True)
        kept.hardlink_to(path)
        left = MOST_KEPT
        for each in sorted(kept.parent.iterdir(), key=lambda one: one.stat().st_mtime_ns, reverse=True):
            left -= each.stat().st_size
            if left < 0:
                each.unlink(missing_ok=True)
