"""Finds what a request names: uploads and results of this server on its disk, else where that is allowed."""

import base64
import binascii
import io
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes

from mock_server.backend import OWN_OUTPUT, OWN_UPLOAD
from reference_backend.fetch import Fetcher, download
from reference_backend.folders import folders_of
from reference_backend.hub import SUFFIX, Weights, fetch_weights, read_id, read_url
from reference_backend.job import JobFailed, Report

_MIB = 1024 * 1024
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_SPACE = str.maketrans("", "", " \t\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large an input may be, in bytes."""

    image: int = 64 * _MIB
    archive: int = 512 * _MIB
    lora: int = 2048 * _MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where inputs may come from.

    `data` is the folder of uploads. `results` gives the file of an output of this server by session,
    prediction id and name. `loras` is the operator's own folder of LoRAs, and `hub` says whether they may
    come from a model hub.
    """

    data: Path
    results: Callable[[str, str, str], Path | None]
    fetcher: Fetcher = field(default_factory=Fetcher)
    loras: Path | None = None
    hub: bool = False
    limits: Limits = field(default_factory=Limits)


def fetch_image(
    sources: Sources, text: str, *, session: str, what: str, report: Report | None = None
) -> bytes | None:
    """The bytes of an image: an upload or output of this server, a URL, a data URI or bare base64.

    None where nothing is named. `session` is whose request it is, and `what` the field to name in an error.
    Raises JobFailed: not_found, too_large, url_not_allowed, download_failed, image_unreadable.
    """
    if not text:
        return None
    most = sources.limits.image
    own = _own(sources, text, session=session, what=what)
    if own is not None:
        _check_size(own.stat().st_size, most, what)
        return own.read_bytes()
    if _is_address(text):
        held = io.BytesIO()
        download(sources.fetcher, text, into=held, most=most, what=what, report=report)
        return held.getvalue()
    return _from_base64(text, most=most, what=what, code="image_unreadable")


def fetch_archive(
    sources: Sources, text: str, *, session: str, what: str, folder: Path, report: Report | None = None
) -> Path | bytes:
    """An archive: an upload or output of this server, a data URI, or a URL, which is fetched into `folder`.

    Raises JobFailed as `fetch_image` does, with archive_unreadable for what is no base64.
    """
    most = sources.limits.archive
    own = _own(sources, text, session=session, what=what)
    if own is not None:
        _check_size(own.stat().st_size, most, what)
        return own
    if _is_data(text):
        return _from_base64(text, most=most, what=what, code="archive_unreadable")
    return _fetched(sources, text, most=most, what=what, folder=folder, report=report)


def fetch_lora(
    sources: Sources, text: str, *, session: str, what: str, folder: Path, report: Report | None = None
) -> Path | None:
    """A file of LoRA weights: an output of this server, a name in the operator's folder, a hub id, or a URL.

    None where nothing is named. What is fetched goes into `folder`; nobody has looked into it yet. Raises
    JobFailed: not_found, too_large, url_not_allowed, download_failed.
    """
    if not text:
        return None
    most = sources.limits.lora
    found = _own(sources, text, session=session, what=what)
    if found is None and _is_address(text):
        on_hub = read_url(text)
        if on_hub is None or (on_hub.is_file and not sources.hub):
            return _fetched(sources, text, most=most, what=what, folder=folder, report=report)
        return _from_hub(sources, on_hub, what=what, folder=folder, report=report)
    if found is None and sources.loras is not None:
        found = _in_folder(sources.loras, text)
    if found is None and sources.hub and (on_hub := read_id(text)) is not None:
        return _from_hub(sources, on_hub, what=what, folder=folder, report=report)
    if found is None:
        raise JobFailed(
            "not_found",
            f"{what} names no LoRA that is here; give the URL of a trained one, or a name that the operator"
            " of this server keeps.",
        )
    _check_size(found.stat().st_size, most, what)
    return found


def _is_address(text: str) -> bool:
    return _SCHEME.match(text) is not None and not _is_data(text)


def _is_data(text: str) -> bool:
    return text[:5].lower() == "data:"


def _own(sources: Sources, text: str, *, session: str, what: str) -> Path | None:
    """The file behind a URL of this server, whatever host it names; None for any other text."""
    own = OWN_OUTPUT.fullmatch(text) or OWN_UPLOAD.fullmatch(text)
    if own is None:
        return None
    found: Path | None = None
    # One session cannot see into another.
    if (own["session"] or "") == session:
        if own.re is OWN_OUTPUT:
            found = sources.results(session, own["id"], own["name"])
        else:
            uploads = folders_of(sources.data, session).root / "uploads"
            found = uploads / f"{own['id']}.{own['suffix']}"
    if found is None or not found.is_file():
        raise JobFailed(
            "not_found", f"{what} is not on this server, or not any more; upload or make it again."
        )
    return found


def _check_size(size: int, most: int, what: str) -> None:
    if size > most:
        raise JobFailed("too_large", f"{what} is larger than {most // _MIB} MiB; send something smaller.")


def _fetched(
    sources: Sources, url: str, *, most: int, what: str, folder: Path, report: Report | None
) -> Path:
    path = _new_file(folder)
    with path.open("xb") as file:
        download(sources.fetcher, url, into=file, most=most, what=what, report=report)
    return path


def _new_file(folder: Path) -> Path:
    return folder / f"fetched-{secrets.token_hex(4)}"


def _from_base64(text: str, *, most: int, what: str, code: str) -> bytes:
    """What is in base64, with spaces or without, of either alphabet, filled up at its end or not."""
    prefix = _DATA_URI.match(text)
    _check_size(len(text) // 2, most, what)
    body = text[prefix.end() :] if prefix else text
    try:
        plain = body.translate(_SPACE).encode("ascii")
        if prefix and b"%" in plain:
            plain = unquote_to_bytes(plain)
        plain = plain.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        content = base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise JobFailed(code, f"{what} is neither a URL nor base64; send one of them.") from error
    _check_size(len(content), most, what)
    return content


def _in_folder(folder: Path, name: str) -> Path | None:
    """The file of that name in the operator's folder, or below it, with or without its ending."""
    parts = name.split("/")
    if len(name) > 300 or any(
        not part.isprintable() or part[:1] in {"", "."} or "\\" in part for part in parts
    ):
        return None
    home = folder.resolve()
    for tried in (name, name + SUFFIX):
        try:
            found = (home / tried).resolve(strict=True)
        except (OSError, RuntimeError):  # it is too long, or links to itself
            continue
        if found.is_relative_to(home) and found.is_file() and found.suffix == SUFFIX:
            return found
    return None


def _from_hub(sources: Sources, weights: Weights, *, what: str, folder: Path, report: Report | None) -> Path:
    if not sources.hub:
        raise JobFailed(
            "url_not_allowed",
            f"{what} is on the hub, which this server does not ask; upload it to this server, or have its"
            " operator start it with --hub.",
        )
    path = _new_file(folder)
    fetch_weights(
        weights,
        fetcher=sources.fetcher,
        kept=sources.data / "hub",
        to=path,
        most=sources.limits.lora,
        what=what,
        report=report,
    )
    return path
