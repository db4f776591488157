"""Heads and frames: HTTP in other forms, what is not quite HTTP, and what two servers read differently."""

from collections.abc import Iterator

from contract_tests.layers.raw_bytes import (
    CHUNKED,
    GREETING,
    JSON,
    Address,
    Probe,
    chunks,
    framed,
    get,
    post,
    request,
)

_TAKEN = "HTTP/1.1 allows this form, so it is taken like any other"
_ONE_ANSWER = "where it cannot be told where a request ends, it is refused, and nothing behind it is heard"
_ROOM = "HTTP leaves room for taking or refusing it, not for anything else"
_CLOSED = frozenset({400, 411, 413, 422, 501})
_LONG = 70_000
_NO_LENGTHS = {
    "with a plus": b"+14",
    "with a minus": b"-14",
    "in hexadecimal": b"0xe",
    "with a blank in it": b"1 4",
    "with letters behind it": b"14abc",
    "that is empty": b"",
    "of 30 digits": b"9" * 30,
}
_CODINGS = {
    "xchunked": b"xchunked",
    "identity": b"identity",
    "chunked before another": b"chunked, identity",
    "chunked behind a vertical tab": b"\x0bchunked",
    "chunked in quotes": b'"chunked"',
}
_NO_CHUNKS = {
    "with letters for a size": b"xyz\r\n",
    "with a minus": b"-1\r\n",
    "with a prefix": b"0xe\r\n",
    "with a size of 24 digits": b"f" * 24 + b"\r\n",
    "longer than its size": b"2\r\nabc",
    "without a size": b"\r\n",
}


def framing_probes(to: Address) -> Iterator[Probe]:
    """What goes to the server under the application: the refused first, then what may begin tasks."""
    found = [
        *_ambiguous(to),
        *_unfinished(to),
        *_odd_heads(to),
        *_long_heads(to),
        *_hosts(to),
        *_no_http(to),
        *_usual_gets(to),
        *_usual_bodies(to),
    ]
    yield from sorted(found, key=lambda probe: probe.paid)


def _ambiguous(to: Address) -> Iterator[Probe]:
    """Each is followed by a second request, which has to stay without an answer."""
    length = b"Content-Length: %d" % len(to.good)
    empty = b"0\r\n\r\n"
    frames = {
        "a length and chunks": (empty, [b"Content-Length: 5", CHUNKED]),
        "chunks and a length": (empty, [CHUNKED, b"Content-Length: 5"]),
        "a length of nothing and chunks": (empty, [b"Content-Length: 0", CHUNKED]),
        "two lengths": (to.good, [length, b"Content-Length: 5"]),
        "two lengths in one line": (to.good, [length + b", 5"]),
        "a blank before the colon of the coding": (empty, [b"Transfer-Encoding : chunked"]),
        "a blank before the colon of the length": (to.good, [b"Content-Length : %d" % len(to.good)]),
        "chunked twice": (empty, [CHUNKED, CHUNKED]),
    }
    frames |= {
        f"a length {said}": (to.good, [b"Content-Length: " + text]) for said, text in _NO_LENGTHS.items()
    }
    frames |= {
        f"the transfer coding {said}": (empty, [b"Transfer-Encoding: " + text])
        for said, text in _CODINGS.items()
    }
    frames |= {f"a chunk {said}": (text, [CHUNKED]) for said, text in _NO_CHUNKS.items()}
    for label, (body, lines) in frames.items():
        sent = framed(to, body, *lines) + b"\r\n\r\n" + get(to)
        yield Probe(label=label, says=_ONE_ANSWER, statuses=_CLOSED, sent=sent, then="closed", envelope=False)


def _unfinished(to: Address) -> Iterator[Probe]:
    says = "a body that breaks off is never taken for a whole one"
    frames = {
        "a body shorter than its length": (to.good, [b"Content-Length: %d" % (len(to.good) + 10)]),
        "chunks without an end": (chunks(to.good, 99)[:-5], [CHUNKED]),
        "half a chunk": (b"ff\r\n" + to.good, [CHUNKED]),
    }
    for label, (body, lines) in frames.items():
        yield Probe(
            label=label,
            says=says,
            statuses=frozenset({400, 408, 413}),
            sent=framed(to, body, *lines),
            ends=True,
            then="closed",
            envelope=False,
            quiet=True,
        )


def _odd_heads(to: Address) -> Iterator[Probe]:
    statuses = frozenset({GREETING, 400})
    heads = {
        "line feeds alone": get(to, b"Connection: close").replace(b"\r\n", b"\n") + b"\r\n\r\n",
        "a line feed in a header": get(to, b"X: a\nY: b"),
        "a carriage return in a header": get(to, b"X: a\rY: b"),
        "NUL in a header": get(to, b"X: a\x00b"),
        "a folded header": get(to, b"X: a\r\n b"),
        "a header without a colon": get(to, b"X"),
        "a header without a name": get(to, b": x"),
        "a header name beyond ASCII": get(to, b"\xc3\xa9: x"),
        "a path beyond ASCII": get(to, target=to.result.replace(b"/0/", b"/\xc3\xa9/")),
        "a blank in the path": get(to, target=to.result.replace(b"/0/", b"/a b/")),
        "a line before the request": b"\r\n" + get(to),
        "a fragment in the path": get(to, target=to.result + b"#x"),
        "a version to come": get(to).replace(b" HTTP/1.1", b" HTTP/9.9"),
        "a version that is none": get(to).replace(b" HTTP/1.1", b" HTTP/1"),
        "a path that is none": get(to, target=b"*"),
        "a path without a slash": get(to, target=b"api"),
    }
    for label, sent in heads.items():
        room = statuses | {301, 401, 403, 404, 501, 505}
        yield Probe(label=label, says=_ROOM, statuses=room, sent=sent, envelope=False, quiet=True)


def _long_heads(to: Address) -> Iterator[Probe]:
    heads = {
        "a key of 100 kB": request(b"GET", to.result, to.host, b"Authorization: Bearer " + b"k" * 100_000),
        "a header of 70 kB": get(to, b"X: " + b"y" * _LONG),
        "a path of 70 kB": get(to, target=to.result + b"?" + b"a" * _LONG),
        "a method of 70 kB": get(to, method=b"A" * _LONG),
        "1000 headers": get(to, *(b"X-%d: y" % at for at in range(1000))),
    }
    statuses = frozenset({GREETING, 400, 401, 403, 404, 405, 413, 414, 431, 501})
    for label, sent in heads.items():
        says = "what is too long is refused with an answer, and not held for ever"
        yield Probe(label=label, says=says, statuses=statuses, sent=sent, envelope=False)
    trailers = framed(to, b"1\r\n{\r\n0\r\nX: " + b"y" * _LONG + b"\r\n\r\n", CHUNKED)
    refused = frozenset({400, 413, 422, 431})
    yield Probe(label="a trailer of 70 kB", says=_ROOM, statuses=refused, sent=trailers, envelope=False)


def _hosts(to: Address) -> Iterator[Probe]:
    says = "a request of HTTP/1.1 names exactly one host, or is refused"
    for label, lines in {
        "no host": [],
        "two hosts": [to.host, b"Host: elsewhere.example"],
        "a host that is none": [b"Host: a b"],
    }.items():
        sent = request(b"GET", to.result, *lines, to.key)
        yield Probe(label=label, says=says, statuses=frozenset({400, 421}), sent=sent, envelope=False)


def _no_http(to: Address) -> Iterator[Probe]:
    says = "bytes that are not HTTP are refused, or the connection is closed"
    for label, sent in {
        "a hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "bytes of chance": bytes(range(1, 256)),
        "a greeting by mail": b"EHLO localhost",
    }.items():
        yield Probe(
            label=label,
            says=says,
            statuses=frozenset({400, 403, 404, 405, 414, 501, 505}),
            sent=sent + b"\r\n\r\n" + get(to),
            then="closed",
            envelope=False,
            quiet=True,
        )


def _usual_gets(to: Address) -> Iterator[Probe]:
    old = get(to).replace(b" HTTP/1.1", b" HTTP/1.0")
    heads = {
        "HTTP/1.0": old,
        "HTTP/1.0 that stays": old[:-2] + b"Connection: keep-alive\r\n\r\n",
        "the whole address for a path": get(to, target=b"http://" + to.authority + to.result),
        "a query that nobody asked for": get(to, target=to.result + b"?x=%ff&y"),
        "header names in capitals": get(to).replace(b"Host:", b"HOST:").replace(b"Auth", b"AUTH"),
        "no blank behind a colon": get(to).replace(b"Host: ", b"Host:"),
        "blanks around a value": get(to, b"X: \t x \t "),
        "an empty header": get(to, b"X:"),
        "a value beyond ASCII": get(to, b"X: \xd0\xba\xff"),
        "80 headers": get(to, *(b"X-%d: y" % at for at in range(80))),
        "an upgrade to what nobody knows": get(to, b"Connection: Upgrade", b"Upgrade: nothing/1"),
        "the end announced": get(to, b"Connection: close"),
    }
    for label, sent in heads.items():
        yield Probe(label=label, says=_TAKEN, statuses=frozenset({GREETING}), sent=sent)
    says = "requests that do not wait for answers are answered one after the other"
    sent = get(to) * 3
    yield Probe(label="three at once", says=says, statuses=frozenset({GREETING}), sent=sent, answers=3)
    slow = "a request may come byte by byte"
    yield Probe(label="byte by byte", says=slow, statuses=frozenset({GREETING}), sent=get(to), piece=1)
    inside = get(to, b"Content-Length: 2") + b"{}"
    statuses = frozenset({GREETING, 400, 413})
    yield Probe(label="a body that a GET has", says=_ROOM, statuses=statuses, sent=inside)


def _usual_bodies(to: Address) -> Iterator[Probe]:
    good, size = to.good, len(to.good)
    length = b"Content-Length: %d" % size
    frames = {
        "chunked": framed(to, chunks(good, 99), CHUNKED),
        "chunks of one byte": framed(to, chunks(good, 1), CHUNKED),
        "chunked in capitals": framed(to, chunks(good, 5), b"Transfer-Encoding: CHUNKED"),
        "a chunk with an extension": framed(to, chunks(good, 99).replace(b"\r\n", b";a=b\r\n", 1), CHUNKED),
        "a chunk's size with zeros before it": framed(to, b"000" + chunks(good, 99), CHUNKED),
        "trailers": framed(to, chunks(good, 5)[:-2] + b"X: y\r\n\r\n", CHUNKED),
        "the content coding identity": post(to, good, b"Content-Encoding: identity"),
        "white space around the body": post(to, b" \r\n\t" + good + b"\n"),
    }
    for label, sent in frames.items():
        yield Probe(label=label, says=_TAKEN, statuses=frozenset({200}), sent=sent)
    none = framed(to, b"")
    statuses = frozenset({400, 411, 415, 422})
    says = "a submit without a body is refused"
    yield Probe(label="neither a length nor chunks", says=says, statuses=statuses, sent=none)
    empty = framed(to, chunks(b"", 1), CHUNKED)
    yield Probe(label="chunked, and no body", says=says, statuses=statuses, sent=empty)
    zeros = framed(to, good, b"Content-Length: %034d" % size)
    twice = framed(to, good, length, length)
    for label, sent in {"a length with zeros before it": zeros, "the same length twice": twice}.items():
        yield Probe(label=label, says=_ROOM, statuses=frozenset({200, 400}), sent=sent, envelope=False)
    unknown = post(to, good, b"Expect: miracles")
    expecting = frozenset({200, 417})
    yield Probe(label="an expectation that nobody knows", says=_ROOM, statuses=expecting, sent=unknown)
    head = request(b"POST", to.submit, to.host, to.key, JSON, b"Expect: 100-continue", length)
    says = "a body that is held back is asked for, or refused unseen"
    yield Probe(label="a body that is held back", says=says, statuses=expecting, sent=head, held=good)
