"""Sends what is due: one request to an address that was judged first, and what became of it."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx

from mock_server.addresses import Allowed, Lookup, NotAllowed, Pinned, look_up, resolve
from mock_server.errors import StoreUnavailable
from mock_server.prediction import Prediction
from mock_server.store import Store
from mock_server.webhooks import deliveries, signing
from mock_server.webhooks.deliveries import Attempt, Delivery

Payload = Callable[[Prediction, Delivery], bytes]
"""Makes the body: the task as JSON, without an envelope. Called in a thread."""

_LARGEST_ANSWER = 64 * 1024
_QUOTED = 200
_SPARE_SECONDS = 30
_PAUSE = 0.05


@cache
def _trust() -> ssl.SSLContext:
    """The certificates that receivers are checked by; reading them takes longer than a request."""
    return httpx.create_ssl_context(trust_env=False)


async def _in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Courier:
    """How requests are sent.

    `allowed` is what may be called, `lookup` how names become addresses, `seconds` how long an attempt may
    take in all. `run` calls what may wait for the store. `trust` gives the certificates, and `real` the
    machine's time in milliseconds.
    """

    allowed: Allowed
    lookup: Lookup = look_up
    seconds: float = 10
    run: Callable[..., Awaitable[Any]] = _in_thread
    trust: Callable[[], ssl.SSLContext] = _trust
    real: Callable[[], int] = lambda: time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """One session as a courier sees it: `now` is the server's time in milliseconds, `secret` what signs."""

    name: str
    store: Store
    now: Callable[[], int]
    secret: Callable[[], str]
    payload: Payload


async def run_due(courier: Courier, office: Office, *, until: int) -> list[Delivery]:
    """Sends all that is due by `until`, retries included, in the order of the dates, one after the other.

    Returns each delivery as an attempt left it; that attempt is its last. Waits for what another is sending.
    """
    sent: list[Delivery] = []
    while (waiting := await courier.run(deliveries.due, office.store, until)) is not None:
        prediction = await courier.run(_ended, office.store, waiting)
        if prediction is None:
            continue
        now = courier.real()
        lease = now + round(1000 * (courier.seconds + _SPARE_SECONDS))
        taken = await courier.run(_take, office.store, waiting, now, lease)
        if taken is None:
            await asyncio.sleep(_PAUSE)
            continue
        try:
            attempt = await send(courier, office, taken, prediction)
        except BaseException:
            with contextlib.suppress(StoreUnavailable):
                await courier.run(deliveries.give_back, office.store, taken.prediction)
            raise
        settled = await courier.run(deliveries.settle, office.store, taken, attempt)
        if settled is not None:
            sent.append(settled)
    return sent


def _take(store: Store, delivery: Delivery, now: int, until: int) -> Delivery | None:
    return deliveries.take(store, delivery, now=now, until=until)


def _ended(store: Store, delivery: Delivery) -> Prediction | None:
    """The prediction, if it has ended when the delivery is due; if not, the delivery is moved, or goes."""
    prediction = store.get(delivery.prediction)
    again = deliveries.rescheduled(delivery, prediction) if prediction else None
    if again is None or delivery.due is None:
        deliveries.forget(store, delivery.prediction)
        return None
    if again.ended_at > delivery.due:
        deliveries.forget(store, delivery.prediction)
        deliveries.keep(store, again)
        return None
    return prediction


async def send(courier: Courier, office: Office, delivery: Delivery, prediction: Prediction) -> Attempt:
    """One request, dated when the delivery is due. Whatever goes wrong is told in the attempt."""
    at: int = await courier.run(office.now) if delivery.due is None else delivery.due
    timestamp = deliveries.timestamp_of(delivery, at)
    secret = deliveries.key_of(delivery, await courier.run(office.secret))
    headers: dict[str, str] = {}
    status, refused = 0, False
    try:
        body = await _made(office.payload, prediction, delivery)
        async with asyncio.timeout(courier.seconds):
            pinned = await resolve(delivery.url, courier.allowed, lookup=courier.lookup)
            headers = signing.headers_of(secret, delivery.webhook_id, timestamp, body)
            status, note = await _post(courier, pinned, headers, body)
    except NotAllowed as barred:
        refused, note = True, barred.reason
    except _Unmade as unmade:
        note = f"The body could not be made: {unmade}."
    except TimeoutError:
        note = f"There was no whole answer within {courier.seconds:g} s."
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        note = f"There was no whole answer: {_plainly(error)}."
    return Attempt(
        at=at,
        status=status,
        note=note,
        webhook_id=delivery.webhook_id,
        timestamp=timestamp,
        signature=headers.get(signing.SIGNATURE, ""),
        fault=delivery.fault,
        refused=refused,
    )


class _Unmade(Exception):
    """There is no body to send."""


async def _made(payload: Payload, prediction: Prediction, delivery: Delivery) -> bytes:
    try:
        return await asyncio.to_thread(payload, prediction, delivery)
    except Exception as error:  # it reads a store and draws pictures; one body that fails stops no other
        raise _Unmade(_plainly(error)) from error


def _plainly(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_QUOTED].rstrip(": .")


async def _post(courier: Courier, pinned: Pinned, headers: dict[str, str], body: bytes) -> tuple[int, str]:
    """Status and remark of the first of the addresses that can be connected to."""
    *others, last = pinned.addresses
    for address in others:
        try:
            return await _post_to(address, courier, pinned, headers, body)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            continue  # localhost has two addresses, and most receivers listen on one
    return await _post_to(last, courier, pinned, headers, body)


async def _post_to(
    address: str, courier: Courier, pinned: Pinned, headers: dict[str, str], body: bytes
) -> tuple[int, str]:
    place = f"[{address}]" if ":" in address else address
    request = httpx.Request(
        "POST",
        f"{'https' if pinned.tls else 'http'}://{place}:{pinned.port}{pinned.target}",
        content=body,
        headers={
            "Host": pinned.host,
            "User-Agent": "wavemock",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            **headers,
        },
        extensions={"sni_hostname": pinned.sni} if pinned.sni else {},
    )
    client = httpx.AsyncClient(
        verify=courier.trust(),
        trust_env=False,
        follow_redirects=False,
        # The attempt as a whole has its limit, but when that cuts a handshake off, nobody closes the socket.
        timeout=httpx.Timeout(None, connect=courier.seconds / 3),
    )
    async with client:
        response = await client.send(request, stream=True)
        try:
            return response.status_code, await _remark(response)
        finally:
            await response.aclose()


async def _remark(response: httpx.Response) -> str:
    """Why an answer will not do. What the receiver says is read to a limit, and quoted to a smaller one."""
    read = b""
    async for piece in response.aiter_raw():
        read += piece
        if len(read) >= _LARGEST_ANSWER:
            break
    if response.is_success:
        return ""
    if response.is_redirect or 300 <= response.status_code < 400:
        return f"The receiver answered {response.status_code}; redirects are not followed."
    said = "".join(each if each.isprintable() else " " for each in read[:_QUOTED].decode("utf-8", "replace"))
    return f"The receiver answered {response.status_code}" + (f": {said.strip()}" if said.strip() else ".")
