"""What hostile and careless clients send to a server on a real port, and what it answers them."""

import re
from collections.abc import Callable, Iterator
from socket import SHUT_WR

import pytest
from probes import (
    BODIES,
    CHUNKED,
    GOOD,
    HOST,
    JSON,
    KEY,
    RESULT,
    SUBMIT,
    Probe,
    Reply,
    alone,
    check,
    chunks,
    connected,
    framed,
    get,
    post,
    request,
    said,
)

from conftest import Server, start_server

MANY = 50  # requests in a row; more than 100 that wait on one connection are refused
RESET = b"/_mock/reset"
LIMIT = 32 * 1024 * 1024

RIGHT_TYPES = [JSON, JSON.upper(), JSON + b"; charset=utf-8", JSON + b';charset="UTF-8"']
WRONG_TYPES = [
    *(JSON + more for more in b"x|, text/plain|; charset=utf-16|; charset=utf-8; charset=utf-16".split(b"|")),
    *(
        b"Content-Type: " + kind
        for kind in b"text/plain multipart/form-data application/problem+json \xd0\xba".split()
    ),
    *(b"", b"Content-Type:", b"Content-Type: " + b"x" * 60_000),
]

SUBMITS: dict[str, tuple[int, bytes]] = {
    "gzip": (415, post(GOOD, b"Content-Encoding: gzip")),
    "br": (415, post(GOOD, b"Content-Encoding: br")),
    "identity": (200, post(GOOD, b"Content-Encoding: identity")),
    "a wrong body under APPLICATION/JSON": (400, post(b'{"prompt":1}', kind=JSON.upper())),
    "chunked": (200, framed(chunks(GOOD, 99), CHUNKED)),
    "chunks of one byte": (200, framed(chunks(GOOD, 1), CHUNKED)),
    "chunked, and no body": (400, framed(chunks(b"", 1), CHUNKED)),
    "chunked in capitals": (200, framed(chunks(GOOD, 5), CHUNKED.upper())),
    "trailers": (200, framed(chunks(GOOD, 5)[:-2] + b"X: y\r\n\r\n", CHUNKED)),
    "a length with zeros before it": (200, framed(GOOD, b"Content-Length: " + b"0" * 30 + b"14")),
    "an upgrade to HTTP/2": (200, post(GOOD, b"Connection: Upgrade", b"Upgrade: h2c")),
    "an expectation that nobody knows": (200, post(GOOD, b"Expect: miracles")),
    "an unknown scenario": (400, post(GOOD, b"X-Mock-Scenario: nope")),
    "a scenario in capitals": (400, post(GOOD, b"X-Mock-Scenario: NORMAL")),
    "a scenario beyond Latin": (400, post(GOOD, b"X-Mock-Scenario: \xd0\xba\xff")),
    "a scenario of 60 kB": (400, post(GOOD, b"X-Mock-Scenario: " + b"x" * 60_000)),
    "a scenario with blanks around it": (200, post(GOOD, b"X-Mock-Scenario: \t stuck \t")),
    "no key, and a bad body": (401, request(b"POST", SUBMIT, HOST, JSON, b"Content-Length: 1", body=b"{")),
    "no key, and a wrong media type": (401, request(b"POST", SUBMIT, HOST, b"Content-Length: 1", body=b"{")),
    "a slash behind": (404, post(GOOD, target=SUBMIT + b"/")),
    "a slash too many": (404, post(GOOD, target=b"/" + SUBMIT)),
    "a model that there is not": (404, post(GOOD, target=SUBMIT + b"x")),
    "a body that a GET has": (404, get(RESULT, b"Content-Length: 2") + b"{}"),
    "half a form that a GET has": (404, get(RESULT, b"Content-Type: multipart/form-data")),
}

KEYS: dict[str, tuple[int, list[bytes]]] = {
    "no key": (401, []),
    "an empty key": (401, [b"Authorization:"]),
    "Bearer": (401, [b"Authorization: Bearer"]),
    "Bearer and blanks": (401, [b"Authorization: Bearer  "]),
    "Basic": (401, [b"Authorization: Basic azpr"]),
    "a key without a scheme": (401, [b"Authorization: k"]),
    "bearer in lower case": (404, [b"Authorization: bearer k"]),
    "a key of 60 kB": (404, [b"Authorization: Bearer " + b"k" * 60_000]),
    "a key beyond Latin": (404, [b"Authorization: Bearer \xd0\xba\xff"]),
    "two keys": (404, [KEY, b"Authorization: Bearer other"]),
    "Basic before Bearer": (401, [b"Authorization: Basic azpr", KEY]),
}

IDS = [*b".. %2e%2e %2F %0A %00 %20 %3F %zz %FF %C3%A9 %ED%A0%80 a\\b {id} openapi.json".split(), b"a" * 9999]
IN_IDS = {
    "result": b"/api/v3/predictions/%s/result",
    "short": b"/api/v2/predictions/%s",
    "inside": b"/_mock/predictions/%s",
}

PATHS = b"""/ /api//v3/predictions/x //api/v3/predictions/x /api/v3/predictions/x/ /api/v3/predictions//result
/api/v3/./predictions/x /API/v3/predictions/x /editions/none/api/v3/predictions/x /_mock/health/
/docs/nothing.js /docs/../../../etc/passwd /docs/%2e%2e/%2e%2e/etc/passwd /api/v3/predictions/x?x=%ff&y
http://elsewhere.example/api/v3/predictions/x""".split()

METHODS: dict[bytes, set[str]] = {
    SUBMIT: {"POST"},
    RESULT: {"GET", "HEAD"},
    b"/outputs/x": {"GET", "HEAD"},
    b"/_mock/health": {"GET", "HEAD"},
    b"/_mock/predictions": {"GET", "HEAD"},
    b"/_mock/clock": {"GET", "HEAD", "POST"},
    RESET: {"POST"},
}
OTHERS = [b"GET", b"HEAD", b"POST", b"OPTIONS", b"TRACE", b"PUT", b"DELETE", b"PATCH", b"PROPFIND", b"PURGE"]
WRONG = [
    (method, path) for path, right in METHODS.items() for method in OTHERS if method.decode() not in right
]

LISTS = [*b"abc -5 --5 - 0 1001 %C2%B2 %ff 1.0 1e3 +5 5&limit=x 0x5 %00".split(), b"", b"9" * 5000]
SPANS = [*b'-1 null true 1e308 1e400 NaN "nans" "5s\\n" "1_0s" "\xd9\xa3s" "s"'.split(), b"9" * 4300]
CLOCKS = [b"", b"{}", b"[]", b'{"nope":1}', b'{"freeze":false}', b'{"freeze":1}']
ORIGINS = b"null file:// http://evil http://127.0.0.1@evil.example //evil http://[ http://[::1 \xff".split()

PROBES = [
    *(Probe(name=name, status=status, sent=post(body)) for name, (status, body) in BODIES.items()),
    *(Probe(name=repr(kind[:60]), status=200, sent=post(GOOD, kind=kind)) for kind in RIGHT_TYPES),
    *(Probe(name=repr(kind[:60]), status=415, sent=post(GOOD, kind=kind)) for kind in WRONG_TYPES),
    *(Probe(name=name, status=status, sent=sent) for name, (status, sent) in SUBMITS.items()),
    *(
        Probe(name=name, status=status, sent=request(b"GET", RESULT, HOST, *lines))
        for name, (status, lines) in KEYS.items()
    ),
    *(
        Probe(name=f"{where} of {text[:20]!r}", status=404, sent=get(path % text))
        for text in IDS
        for where, path in IN_IDS.items()
    ),
    *(Probe(name=path.decode(), status=404, sent=get(path)) for path in PATHS),
    *(
        Probe(name=f"{method.decode()} {path.decode()}", status=405, sent=get(path, method=method))
        for method, path in WRONG
    ),
    *(
        Probe(name=f"limit={text[:20].decode()}", status=400, sent=get(b"/_mock/predictions?limit=" + text))
        for text in LISTS
    ),
    *(
        Probe(name=f"clock {text[:30]!r}", status=400, sent=post(text, target=b"/_mock/clock"))
        for text in (*CLOCKS, *(b'{"advance":%s}' % span for span in SPANS))
    ),
    *(
        Probe(name=f"reset from {text!r}", status=403, sent=post(b"", b"Origin: " + text, target=RESET))
        for text in ORIGINS
    ),
]

HELLO = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
LONG = b"X: " + b"y" * 70_000
LENGTHS = [b"+14", b"-14", b"0xe", b"1 4", b"14, 14", b"", b"9" * 30]
CODINGS = [b"xchunked", b"identity", b"chunked, identity", b"\x0bchunked", b'"chunked"', b"", b"\r\n chunked"]
SIZES = [b"xyz\r\n", b"-1\r\n", b"0xe\r\n", b"f" * 20 + b"\r\n", b"2\r\nabc", b"e\n" + GOOD, b"e \r\n" + GOOD]

NOT_HTTP: dict[str, tuple[int, bytes]] = {
    "a length and chunks": (400, framed(chunks(GOOD, 5), b"Content-Length: 14", CHUNKED)),
    "chunks and a length": (400, framed(b"0\r\n\r\n" + HELLO, CHUNKED, b"Content-Length: 5")),
    "two lengths": (400, framed(GOOD + HELLO, b"Content-Length: 14", b"Content-Length: 5")),
    "the same length twice": (400, framed(GOOD, b"Content-Length: 14", b"Content-Length: 14")),
    **{f"length {text!r}": (400, framed(GOOD + HELLO, b"Content-Length: " + text)) for text in LENGTHS},
    **{
        f"in {text!r}": (400, framed(b"0\r\n\r\n" + HELLO, b"Transfer-Encoding: " + text)) for text in CODINGS
    },
    **{f"chunk {text[:9]!r}": (400, framed(text + HELLO, CHUNKED)) for text in SIZES},
    "chunked twice": (400, framed(chunks(GOOD, 5) + HELLO, CHUNKED, CHUNKED)),
    "a blank before the colon": (400, framed(chunks(GOOD, 5), b"Transfer-Encoding : chunked")),
    "line feeds alone": (400, get(RESULT).replace(b"\r\n", b"\n")),
    "a line feed alone": (400, get(RESULT).replace(b"k\r\n", b"k\n")),
    "a line feed in a header": (400, get(RESULT, b"X: a\nY: b")),
    "a carriage return in a header": (400, get(RESULT, b"X: a\rY: b")),
    "NUL in a header": (400, get(RESULT, b"X: a\x00b")),
    "a folded header": (400, get(RESULT, b"X: a\r\n b")),
    "a header without a colon": (400, get(RESULT, b"X")),
    "a header without a name": (400, get(RESULT, b": x")),
    "a header name beyond ASCII": (400, get(RESULT, b"\xc3\xa9: x")),
    "a method that nobody knows": (400, get(SUBMIT, method=b"BREW")),
    "a method in lower case": (400, get(SUBMIT, method=b"get")),
    "CONNECT": (400, get(SUBMIT, method=b"CONNECT")),
    "a path beyond ASCII": (400, get(b"/api/v3/predictions/\xc3\xa9")),
    "a blank in a path": (400, get(b"/api/v3/predictions/a b")),
    "no path": (400, get(b"*")),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "a key of 100 kB": (431, get(RESULT, b"Authorization: Bearer " + b"k" * 100_000)),
    "a header of 70 kB": (431, get(RESULT, LONG)),
    "a path of 70 kB": (431, get(b"/" + b"a" * 70_000)),
    "trailers of 140 kB": (431, framed(b"0\r\n" + LONG + b"\r\n" + LONG + b"\r\n\r\n", CHUNKED)),
}


@pytest.fixture(autouse=True)
def a_server_that_lives_and_says_nothing(server: Server) -> Iterator[None]:
    yield
    assert (server.process.poll(), said(server)) == (None, "")


@pytest.fixture(autouse=True, scope="module")
def a_clean_end(server: Server) -> Iterator[None]:
    yield
    assert server.stop() == (0, "wavemock has stopped.\n")


def comparable(reply: Reply) -> tuple[int, dict[str, str], bytes]:
    """What two answers to the same request have in common."""
    headers = {name: value for name, value in reply.headers.items() if name != "date"}
    return reply.status, headers, re.sub(rb'"[0-9a-f]{32}"|[0-9a-f]{32}/|"[0-9T:.-]{23}Z"', b"", reply.body)


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_a_request_is_answered_with_its_status_in_an_envelope(server: Server, probe: Probe) -> None:
    head = probe.sent.startswith(b"HEAD ")
    with connected(server) as connection:
        check(connection.ask(probe.sent), probe.status, bodiless=head)
        # Nothing of it is left over to be taken for a part of the next.
        assert b"There is nothing at /next." in connection.ask(get(b"/next")).body


def test_requests_in_a_row_are_answered_as_each_alone(server: Server) -> None:
    with connected(server) as connection:
        in_a_row = [comparable(connection.ask(probe.sent)) for probe in PROBES]
    each_alone = [comparable(alone(server, probe.sent)) for probe in PROBES]
    assert [p.name for p, a, b in zip(PROBES, in_a_row, each_alone, strict=True) if a != b] == []


@pytest.mark.parametrize("begin", range(0, len(PROBES), MANY))
def test_requests_that_do_not_wait_for_answers_are_answered_in_order(server: Server, begin: int) -> None:
    probes = PROBES[begin : begin + MANY]
    each_alone = [comparable(alone(server, probe.sent)) for probe in probes]
    with connected(server) as connection:
        connection.send(b"".join(probe.sent for probe in probes))
        heads = [probe.sent.startswith(b"HEAD ") for probe in probes]
        in_a_row = [comparable(connection.reply(bodiless=head)) for head in heads]
    assert [p.name for p, a, b in zip(probes, in_a_row, each_alone, strict=True) if a != b] == []


def test_a_request_may_come_byte_by_byte(server: Server) -> None:
    with connected(server) as connection:
        for at in range(len(request_ := framed(chunks(GOOD, 1), CHUNKED))):
            connection.send(request_[at : at + 1])
        check(connection.reply(), 200)


@pytest.mark.parametrize(("status", "sent"), NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_not_quite_http_is_refused_and_nothing_after_it_is_heard(
    server: Server, status: int, sent: bytes
) -> None:
    with connected(server) as connection:
        check(connection.ask(sent + b"\r\n\r\n" + get(RESULT)), status)
        assert connection.rest() == b""


def test_a_body_longer_than_its_length_is_no_part_of_the_request(server: Server) -> None:
    with connected(server) as connection:
        connection.send(framed(GOOD, b"Content-Length: 5"))
        check(connection.reply(), 400)
        check(connection.reply(), 400)
        assert connection.rest() == b""


def predictions(server: Server) -> int:
    return int(check(alone(server, get(b"/_mock/health")), 200)["predictions"])


@pytest.mark.parametrize(
    "sent",
    [framed(GOOD, b"Content-Length: 15"), framed(chunks(GOOD, 5)[:-5], CHUNKED), b"POST / HT"],
    ids=["body", "chunks", "head"],
)
def test_a_request_that_breaks_off_does_nothing(server: Server, sent: bytes) -> None:
    before = predictions(server)
    with connected(server) as connection:
        connection.send(sent)
        connection.socket.shutdown(SHUT_WR)
        assert connection.rest() == b""
    assert predictions(server) == before


def test_a_prompt_of_20_million_bytes_is_taken(server: Server) -> None:
    check(alone(server, post(b'{"prompt":"' + b"x" * 20_000_000 + b'"}')), 200)


def in_chunks(body: bytes) -> bytes:
    return framed(chunks(body, 1 << 16), CHUNKED)


@pytest.mark.parametrize("made", [post, in_chunks])
def test_a_body_that_is_too_large_is_refused_and_the_next_request_heard(
    server: Server, made: Callable[[bytes], bytes]
) -> None:
    with connected(server) as connection:
        check(connection.ask(made(b'{"prompt":"' + b"x" * 33 * 2**20 + b'"}')), 413)
        check(connection.ask(post(GOOD)), 200)


def test_the_largest_body_is_taken(server: Server) -> None:
    check(alone(server, post(GOOD.ljust(LIMIT))), 200)
    check(alone(server, post(GOOD.ljust(LIMIT + 1))), 413)


def test_a_body_that_is_too_large_is_not_asked_for(server: Server) -> None:
    check(alone(server, framed(b"", b"Expect: 100-continue", b"Content-Length: %d" % (LIMIT + 1))), 413)


def test_a_body_that_is_held_back_is_asked_for(server: Server) -> None:
    with connected(server) as connection:
        assert connection.ask(framed(b"", b"Expect: 100-continue", b"Content-Length: 14")).status == 100
        check(connection.ask(GOOD), 200)


@pytest.mark.parametrize("path", [RESULT, b"/_mock/health", b"/nothing"], ids=bytes.decode)
def test_head_is_answered_as_get_without_the_body(server: Server, path: bytes) -> None:
    with_body, without = (comparable(alone(server, get(path, method=m))) for m in (b"GET", b"HEAD"))
    assert without == (*with_body[:2], b"")


@pytest.mark.parametrize("path", METHODS, ids=bytes.decode)
def test_a_wrong_method_is_told_all_the_right_ones(server: Server, path: bytes) -> None:
    assert set(alone(server, get(path, method=b"PUT")).headers["allow"].split(", ")) == METHODS[path]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server that knows one key, and one token for its control plane."""
    started = start_server("--api-key", "sesame", "--control-token", "mellon")
    yield started
    assert started.stop() == (0, "wavemock has stopped.\n")


NO_KEYS = [b"", b"sesam", b"sesamee", b"SESAME", b"sesame x", b"\xd0\xba", b"k" * 60_000]
BEHIND = {
    "a bad body": (SUBMIT, [JSON, b"Content-Length: 1"], b"{"),
    "a body that does not come": (SUBMIT, [JSON, b"Content-Length: 100"], b""),
    "a body that is too large": (SUBMIT, [JSON, b"Content-Length: %d" % (LIMIT + 1)], b""),
    "a media type": (SUBMIT, [b"Content-Length: 1"], b"{"),
    "a scenario": (SUBMIT, [JSON, b"X-Mock-Scenario: nope", b"Content-Length: 14"], GOOD),
    "the clock": (b"/_mock/clock", [JSON, b"Content-Length: 1"], b"{"),
    "a reset": (RESET, [b"Content-Length: 0"], b""),
}


@pytest.mark.parametrize("key", NO_KEYS, ids=lambda key: repr(key[:20]))
@pytest.mark.parametrize("behind", BEHIND)
def test_without_the_key_a_server_says_nothing_but_401(guarded: Server, key: bytes, behind: str) -> None:
    target, lines, body = BEHIND[behind]
    sent = request(b"POST", target, HOST, b"Authorization: Bearer " + key, *lines, body=body)
    check(alone(guarded, sent), 401)


@pytest.mark.parametrize(("key", "api", "control"), [(b"sesame", 404, 401), (b"mellon", 401, 200)])
def test_the_key_opens_the_api_and_the_token_the_control_plane(
    guarded: Server, key: bytes, api: int, control: int
) -> None:
    line = b"Authorization: Bearer " + key
    check(alone(guarded, request(b"GET", RESULT, HOST, line)), api)
    check(alone(guarded, request(b"POST", RESET, HOST, line)), control)
