"""The raw layer: requests byte for byte over plain connections, and answers read without leniency."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from contract_tests import laws
from contract_tests.case import Broken, Case, Unproven
from contract_tests.exchange import Exchange, tells_key, without_key
from contract_tests.layers.probes import probes
from contract_tests.layers.raw_bytes import GREETING, Address, Probe, address, get
from contract_tests.layers.raw_framing import framing_probes
from contract_tests.layers.raw_replay import RawExchange, told
from contract_tests.layers.raw_wire import HungUp, NoAnswer, NotHttp, Reply, Wire, connected
from contract_tests.session import Session
from contract_tests.table import Model
from contract_tests.target import is_busy

_LEAK = re.compile(
    rb"Traceback|goroutine \d+ \[|File \\?\"|site-packages|node_modules|root:[x*]?:0:0"
    rb"|/[\w.-]+\.(?:py|go|rb|java|rs)\b|\bat [\w.$<> ]+\([^()\s]+:\d+"
)
_BUSY = (429, 503)
_INTERIM = (100, 102, 103)
_MOVED = (301, 307, 308)
_NEEDED = {401: "www-authenticate", 405: "allow"}


def cases(session: Session) -> Iterator[Case]:
    """Every probe as a case, on the first image model that a page shows, or else on the first model."""
    model = _model(session)
    if model is None:
        return
    to = address(session.target.url, session.target.key, model)
    for probe in (*probes(to, model), *framing_probes(to)):
        yield Case(
            layer="raw",
            model=str(model),
            field=probe.field,
            rule="raw",
            label=f"raw: {probe.label}",
            source="reading",
            says=probe.says,
            check=partial(_check, probe=probe, to=to),
        )


def _model(session: Session) -> Model | None:
    """The model with the most kinds of fields to try things on; the first of those that a page shows."""
    shown = [each for each in session.models if each.documented] or list(session.models)
    return max(shown, key=_kinds, default=None)


def _kinds(model: Model) -> int:
    return sum(
        (any(each.is_size for each in model.request), any(each.kind == "number" for each in model.request))
    )


def _check(session: Session, *, probe: Probe, to: Address) -> None:
    """Sends a probe, and sees to what comes back."""
    target = session.target
    if target.app is not None:
        raise Unproven("there is no connection to an application in this process")
    if probe.ends and target.url.startswith("https:"):
        raise Unproven("over TLS, one cannot stop sending and still listen")
    session.target.hold_back(replace(told(probe.sent, to.prefix), paid=probe.paid))
    greeting = _greeting(session)
    _count(session)
    began = time.perf_counter()
    reply = None
    try:
        with connected(target.url, seconds=target.manners.seconds) as wire:
            reply = _answer(wire, probe)
            exchange = _record(session, probe, to, reply, time.perf_counter() - began)
            _judge(session, probe, exchange, greeting)
            _afterwards(session, wire, probe, reply, greeting=greeting, to=to)
    except (NoAnswer, NotHttp) as error:
        if reply is None:
            _record(session, probe, to, None, time.perf_counter() - began)
        if isinstance(error, NoAnswer):
            target.greet()  # raises Stopped where not this answer is missing but the target is gone
        if reply is None and probe.quiet and isinstance(error, HungUp):
            return
        raise Broken(without_key(str(error), target.key), session.exchanges[-1]) from error


def _greeting(session: Session) -> int:
    """The status with which the target answers to a result that nobody asked for."""
    if "raw greeting" not in session.memo:
        session.memo["raw greeting"] = session.target.greet().status
    return int(session.memo["raw greeting"])


def _count(session: Session) -> None:
    """Counts a request that is about to be sent, after the time that lies between two of them."""
    target = session.target
    if target.manners.rate is not None:
        target.sleep(1 / target.manners.rate)
    target.sent += 1


def _answer(wire: Wire, probe: Probe) -> Reply:
    """The final answer to a probe."""
    wire.send(probe.sent, piece=probe.piece)
    if probe.ends:
        wire.end()
    bodiless, held = probe.sent.startswith(b"HEAD "), probe.held
    while (reply := wire.reply(bodiless=bodiless)).status in _INTERIM:
        wire.send(held)
        held = b""
    return reply


def _record(session: Session, probe: Probe, to: Address, reply: Reply | None, seconds: float) -> RawExchange:
    exchange = RawExchange(
        request=told(probe.sent, to.prefix),
        status=reply.status if reply else 0,
        headers=reply.headers if reply else (),
        body=reply.body if reply else b"",
        seconds=seconds,
        sent=probe.sent + probe.held,
    )
    session.exchanges.append(exchange)
    session.target.count(exchange)
    return exchange


def _judge(session: Session, probe: Probe, exchange: Exchange, greeting: int) -> None:
    """Raises Broken where an answer is not one of those that are right, or says what it should not."""
    status = exchange.status
    if tells_key(exchange.body, session.target.key):
        raise Broken("the answer tells the key", exchange)
    if status != 200 and (leak := _LEAK.search(exchange.body)):
        raise Broken(f"the answer tells of the program behind it: {leak[0].decode('latin-1')}", exchange)
    right = {greeting if each == GREETING else each for each in probe.statuses}
    if status not in right:
        if is_busy(exchange):
            raise Unproven(f"the target is too busy: HTTP {status}")
        wanted = " or ".join(map(str, sorted(right)))
        raise Broken(f"answered with HTTP {status} instead of {wanted}", exchange)
    if probe.envelope and status not in _MOVED:
        for fault in laws.of_envelope(exchange):
            raise Broken(fault.message, exchange)
    if status in _NEEDED and not exchange.header(_NEEDED[status]):
        raise Broken(f"HTTP {status} without {_NEEDED[status]}", exchange)


def _afterwards(
    session: Session, wire: Wire, probe: Probe, reply: Reply, *, greeting: int, to: Address
) -> None:
    """Sees that there was one answer and no more, and that the connection is closed or goes on."""
    try:
        for _ in range(1, probe.answers):
            if not reply.closes:
                reply = _like_greeting(wire.reply(), greeting)
        if probe.then == "next" and not reply.closes:
            if probe.held and reply.status != 200:
                return  # refused unseen: what comes next may be taken for the body
            _count(session)
            wire.send(get(to, b"Connection: close"))
            _like_greeting(wire.reply(), greeting)
    except HungUp:
        return
    if more := wire.rest():
        raise NotHttp(f"{len(more)} bytes came after the last answer, beginning with {more[:30]!r}")


def _like_greeting(reply: Reply, greeting: int) -> Reply:
    if reply.status not in {greeting, *_BUSY}:
        raise NotHttp(
            f"the next request on the connection is answered with HTTP {reply.status}, not {greeting}"
        )
    return reply
