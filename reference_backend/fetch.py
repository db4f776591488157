"""Fetches files from hosts that the operator allows, over connections to addresses that were judged first."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from socket import SOCK_STREAM, getaddrinfo
from typing import IO
from urllib.parse import urljoin

import httpx

from mock_server.addresses import WEB_PORTS, Allowed, Lookup, NotAllowed, Pinned, read_allowed, resolve
from reference_backend.job import JobFailed, Report

_OPTION = "--fetch-from"
_NOBODY = Allowed(option=_OPTION, ports=WEB_PORTS)
_PUBLIC = "public"
_LOCALHOST = "localhost"
_MOST_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LOOK_SECONDS = 0.2
_GONE = frozenset({404, 410})


@cache
def _trust() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


async def look_up(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system knows them; can be given up, which the loop's own cannot."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def settle(found: list[str] | OSError | UnicodeError) -> None:
        if answer.done():
            return
        if isinstance(found, list):
            answer.set_result(found)
        else:
            answer.set_exception(found)

    def ask() -> None:
        found: list[str] | OSError | UnicodeError
        try:
            found = [str(each[4][0]) for each in getaddrinfo(host, port, type=SOCK_STREAM)]
        except (OSError, UnicodeError) as error:
            found = error
        with contextlib.suppress(RuntimeError):  # nobody waits any more, and the loop is closed
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=ask, daemon=True).start()
    return await answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """How files are fetched: from which hosts, how names become addresses, and within how many seconds.

    `trust` gives the certificates that hosts are checked by, and `gone` are the statuses that tell that there
    is no such file. Made by `fetcher_for`.
    """

    allowed: Allowed = _NOBODY
    lookup: Lookup = look_up
    seconds: float = 300
    trust: Callable[[], ssl.SSLContext] = _trust
    gone: frozenset[int] = _GONE


def fetcher_for(texts: Iterable[str], *, seconds: float = 300) -> Fetcher:
    """A fetcher for what an operator allows: `public`, host names, addresses, networks such as 10.0.0.0/8.

    `public` and a host name allow public addresses only, at the ports 80 and 443; another port is allowed as
    HOST:PORT. `localhost` allows this machine, and other private addresses need their network: these at any
    port. Raises BadConfiguration for what is none of these.
    """
    words = [text.strip().lower() for text in texts]
    allowed = read_allowed(
        (word for word in words if word not in {_PUBLIC, _LOCALHOST}),
        option=_OPTION,
        public=_PUBLIC in words,
        this_machine=_LOCALHOST in words,
        ports=WEB_PORTS,
    )
    return Fetcher(allowed=allowed, seconds=seconds)


def download(
    fetcher: Fetcher, url: str, *, into: IO[bytes], most: int, what: str, report: Report | None = None
) -> None:
    """Writes what is at a URL into a file, if it is no more than `most` bytes.

    `what` is what to call it in an error. `report` is told about how many bytes have come, of the most that
    may, and ends everything by raising. Raises JobFailed: url_not_allowed, not_found, too_large,
    download_failed. None of them tells an address.
    """
    errand = _Errand(fetcher=fetcher, into=into, most=most, what=what, report=report)
    asyncio.run(_watched(errand, url))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errand:
    fetcher: Fetcher
    into: IO[bytes]
    most: int
    what: str
    report: Report | None


async def _watched(errand: _Errand, url: str) -> None:
    task = asyncio.create_task(_follow(errand, url))
    try:
        while not (await asyncio.wait({task}, timeout=_LOOK_SECONDS))[0]:
            if errand.report is not None:
                errand.report("fetching", errand.into.tell(), errand.most)
        task.result()
    finally:
        if task.cancel():
            await asyncio.wait({task})


async def _follow(errand: _Errand, url: str) -> None:
    secure = False
    try:
        async with asyncio.timeout(errand.fetcher.seconds):
            for _ in range(1 + _MOST_REDIRECTS):
                pinned = await _pin(errand, url)
                if secure and not pinned.tls:
                    raise _failed(errand, "leads from https to http")
                secure = pinned.tls
                location = await _get(errand, pinned)
                if location is None:
                    return
                url = urljoin(url, location)
            raise _failed(errand, f"is behind more than {_MOST_REDIRECTS} redirects")
    except (TimeoutError, httpx.TimeoutException) as error:
        raise _failed(errand, "took too long to arrive") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        # What these say may tell an address.
        raise _failed(errand, "could not be fetched whole") from error


def _failed(errand: _Errand, why: str) -> JobFailed:
    return JobFailed("download_failed", f"{errand.what} {why}; upload it to this server, or correct the URL.")


async def _pin(errand: _Errand, url: str) -> Pinned:
    """Where a request has to go. There is one refusal, so that it says nothing about the network here."""
    allowed = errand.fetcher.allowed

    async def lookup(host: str, port: int) -> Iterable[str]:
        named = host in allowed.hosts or (host, port) in allowed.places
        if not (allowed.public or allowed.this_machine or allowed.networks or named):
            raise NotAllowed("a name that would be refused is not even looked up")
        return await errand.fetcher.lookup(host, port)

    try:
        return await resolve(url, allowed, lookup=lookup)
    except (NotAllowed, OSError, UnicodeError) as error:
        raise JobFailed(
            "url_not_allowed",
            f"{errand.what} is at no known host that this server may fetch from; upload it to this server, or"
            " have its operator allow the host with --fetch-from.",
        ) from error


async def _get(errand: _Errand, pinned: Pinned) -> str | None:
    """Where the answer leads to; None where it was the file itself."""
    *others, last = pinned.addresses
    for address in others:
        with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
            return await _get_from(address, errand, pinned)
    return await _get_from(last, errand, pinned)


async def _get_from(address: str, errand: _Errand, pinned: Pinned) -> str | None:
    place = f"[{address}]" if ":" in address else address
    request = httpx.Request(
        "GET",
        f"{'https' if pinned.tls else 'http'}://{place}:{pinned.port}{pinned.target}",
        headers={"Host": pinned.host, "User-Agent": "wavemock", "Accept-Encoding": "identity"},
        extensions={"sni_hostname": pinned.sni} if pinned.sni else {},
    )
    client = httpx.AsyncClient(
        verify=errand.fetcher.trust(),
        trust_env=False,
        follow_redirects=False,
        # All together has its limit, but when that cuts a handshake off, nobody closes the socket.
        timeout=httpx.Timeout(None, connect=errand.fetcher.seconds / 3),
    )
    async with client:
        response = await client.send(request, stream=True)
        try:
            return await _read(errand, response)
        finally:
            await response.aclose()


async def _read(errand: _Errand, response: httpx.Response) -> str | None:
    if response.status_code in _REDIRECTS and "Location" in response.headers:
        return str(response.headers["Location"])
    if response.status_code in errand.fetcher.gone:
        raise JobFailed(
            "not_found", f"{errand.what} is not at its URL any more, or never was; correct the URL."
        )
    if response.status_code != 200:
        raise _failed(errand, f"was answered with status {response.status_code}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _failed(errand, "came compressed, which was not asked for")
    announced = response.headers.get("Content-Length", "0")
    _check_size(errand, int(announced) if announced.isdecimal() and len(announced) < 20 else 0)
    done = 0
    async for piece in response.aiter_raw():
        done += len(piece)
        _check_size(errand, done)
        errand.into.write(piece)
    return None


def _check_size(errand: _Errand, size: int) -> None:
    if size > errand.most:
        raise JobFailed(
            "too_large", f"{errand.what} is larger than {errand.most // 2**20} MiB; send something smaller."
        )
