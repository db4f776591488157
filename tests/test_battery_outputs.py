"""What a server lets out: the addresses and the names that it repeats, and the files that it serves."""

import json
import re
import time
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

import pytest
from probes import (
    GOOD,
    HOST,
    JSON,
    KEY,
    RESULT,
    SUBMIT,
    Reply,
    alone,
    check,
    connected,
    field,
    get,
    post,
    request,
    said,
)

from conftest import Server

AT_ONCE = 2  # seconds


@pytest.fixture(autouse=True)
def a_server_that_lives_and_says_nothing(server: Server) -> Iterator[None]:
    yield
    assert (server.process.poll(), said(server)) == (None, "")


@pytest.fixture(autouse=True, scope="module")
def a_clean_end(server: Server) -> Iterator[None]:
    yield
    assert server.stop() == (0, "wavemock has stopped.\n")


def address(server: Server, *lines: bytes, version: bytes = b"1.1") -> str:
    """Where a submit with these lines says that its result is."""
    sent = request(b"POST", SUBMIT, KEY, JSON, b"Content-Length: 14", *lines, body=GOOD)
    told = check(alone(server, sent.replace(b"HTTP/1.1", b"HTTP/" + version, 1)), 200)
    return str(told["urls"]["get"]).partition("/api/")[0]


GOOD_HOSTS = [b"h", b"h.example:8080", b"LOCALHOST", b"[::1]", b"[::1]:80", b"192.0.2.1:1", b"a" * 255]


@pytest.mark.parametrize("host", GOOD_HOSTS, ids=lambda host: repr(host[:20]))
def test_results_are_at_the_host_that_was_asked(server: Server, host: bytes) -> None:
    assert address(server, b"Host: " + host) == "http://" + host.decode()


ODD = [
    *b"h'x u!h h,i h;i .. h%0d%0aX : h: h:99999 [:::]".split(),
    *(b"", b"  ", b"a" * 256, b"a" * 9999),
]
NO_HOSTS = [
    *b"""h"x <h> h/x h?x h#x u@h h\\x {{h}} \xd0\xba http://h""".split(),
    *b"javascript:alert(1) [::1 [evil] ::1 h:1:2 h:x h:-1".split(),
    *(b"h x", b"h\tx"),
]


@pytest.mark.parametrize("host", ODD, ids=lambda host: repr(host[:20]))
def test_an_odd_host_is_not_repeated(server: Server, host: bytes) -> None:
    assert address(server, b"Host: " + host) == server.url


@pytest.mark.parametrize("host", NO_HOSTS, ids=lambda host: repr(host[:20]))
def test_what_is_no_host_is_refused(server: Server, host: bytes) -> None:
    check(alone(server, request(b"GET", RESULT, KEY, b"Host: " + host)), 400)


@pytest.mark.parametrize("lines", [[], [HOST, HOST], [HOST, b"Host: other"]], ids=["none", "twice", "two"])
def test_a_request_names_exactly_one_host(server: Server, lines: list[bytes]) -> None:
    check(alone(server, request(b"GET", RESULT, KEY, *lines)), 400)


def test_without_a_host_results_are_where_the_server_is(server: Server) -> None:
    assert address(server, version=b"1.0") == server.url


@pytest.mark.parametrize("scheme", [b"ws", b"wss", b"javascript", b"\xff"])
def test_results_are_at_no_scheme_but_http(server: Server, scheme: bytes) -> None:
    assert urlsplit(address(server, HOST, b"X-Forwarded-Proto: " + scheme)).scheme in {"http", "https"}


NAMES = {
    "a line break": ["a\r\nX-Evil: 1"],
    "beyond Latin": ["ключ", "\N{GRINNING FACE}"],
    "10 kB": ["k" * 10_000],
    "NUL": ["\0"],
    "empty": [""],
    "a comma": ["a, /b"],
    "an escape": ["%0d%0a"],
    "a pointer": ["a/b~c"],
    "5000": [f"field-{number:04}." for number in range(5000)],
    "5000 beyond Latin": [f"é{number:04}é" for number in range(5000)],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_unknown_fields_are_told_in_one_line_that_names_nothing_else(
    server: Server, names: list[str]
) -> None:
    reply = alone(server, post(json.dumps({"prompt": "x", **dict.fromkeys(names, 1)}).encode()))
    check(reply, 200)
    pointers = {"/" + name.replace("~", "~0").replace("/", "~1") for name in names}
    line = reply.headers["x-mock-unknown-fields"]
    assert 0 < len(line) < 4000
    told = [unquote(each, errors="strict") for each in line.split(", ")]
    assert all(each in pointers or "… (10000 characters)" in each for each in told)


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_a_forbidden_field_is_named_by_its_pointer(server: Server, names: list[str]) -> None:
    body = json.dumps(dict.fromkeys(names, 1)).encode()
    told = check(alone(server, post(body, target=b"/_mock/clock")), 400)["violations"]
    pointers = {"/" + name.replace("~", "~0").replace("/", "~1") for name in names}
    assert all(each["pointer"] in pointers or "…" in each["pointer"] for each in told)


def in_seconds(server: Server, sent: bytes, status: int) -> float:
    """How long the answer takes from the moment that the whole request is with the server."""
    with connected(server) as connection:
        connection.send(sent)
        begun = time.monotonic()
        check(connection.reply(), status)
        return time.monotonic() - begun


def test_a_long_list_of_mistakes_is_told_at_once(server: Server) -> None:
    seconds = in_seconds(server, post(field(b'"loras":[' + b"1," * 300_000 + b"1]")), 400)
    assert seconds < AT_ONCE


def test_a_forbidden_field_with_a_long_name_is_told_at_once(server: Server) -> None:
    body = b'{"' + b"abcdefgh" * 3_700_000 + b'":1}'
    seconds = in_seconds(server, post(body, target=b"/_mock/clock"), 400)
    assert seconds < AT_ONCE


def test_an_object_of_a_million_keys_is_taken(server: Server) -> None:
    keys = b",".join(b'"%d":1' % number for number in range(1_000_000))
    check(alone(server, post(field(keys))), 200)


def submitted(server: Server, scenario: bytes) -> bytes:
    """The id of a new prediction of two small images."""
    body = field(b'"size":"512*512","num_images":2,"seed":1')
    return str(check(alone(server, post(body, b"X-Mock-Scenario: " + scenario)), 200)["id"]).encode()


@pytest.fixture(scope="module")
def done(server: Server) -> bytes:
    """The id of a prediction that has completed."""
    return submitted(server, b"instant")


@pytest.fixture(scope="module")
def image(done: bytes) -> bytes:
    """Where the first output of that prediction is."""
    return b"/outputs/%s/0.png" % done


@pytest.fixture(scope="module")
def whole(server: Server, image: bytes) -> Reply:
    """That output."""
    return alone(server, get(image))


def fetched(server: Server, path: bytes, *lines: bytes, method: bytes = b"GET") -> Reply:
    """The answer; the connection goes on with the next, so it was neither too long nor too short."""
    with connected(server) as connection:
        reply = connection.ask(request(method, path, HOST, *lines))
        assert b"There is nothing at /next." in connection.ask(get(b"/next")).body
        return reply


def test_an_output_is_there_for_all_with_its_type_and_length(whole: Reply) -> None:
    assert (whole.status, whole.headers["content-type"]) == (200, "image/png")
    assert whole.body.startswith(b"\x89PNG")
    assert whole.body.endswith(b"IEND\xaeB`\x82")
    assert int(whole.headers["content-length"]) == len(whole.body)


ELSEWHERE = b"""%s/2.png %s/-1.png %s/00.png %s/0.PNG %s/0 %s %s/ %s/0.png/ %s-0.png %s/0.jpeg %s/0.webp
%s/0.safetensors %s/0.png%00 %s/0.png%0a %s/%D9%A0.png %s\\0.png %s/../%s/0.png %s/..%2f%s/0.png
./%s/0.png /%s/0.png ../%s-0.png .%s-0.png ../ .. %2e%2e/%2e%2e/etc/passwd %252e%252e/etc/passwd
/etc/passwd ..%5cetc C:%5cx CON file:///etc/passwd 00000000000000000000000000000000/0.png""".split()


@pytest.mark.parametrize("path", ELSEWHERE, ids=bytes.decode)
def test_there_is_nothing_else_below_outputs(server: Server, done: bytes, path: bytes) -> None:
    check(fetched(server, b"/outputs/" + path.replace(b"%s", done)), 404)


@pytest.mark.parametrize("scenario", [b"stuck", b"slow", b"failed"], ids=bytes.decode)
def test_there_is_no_output_before_completion(server: Server, scenario: bytes) -> None:
    check(fetched(server, b"/outputs/%s/0.png" % submitted(server, scenario)), 404)


def test_head_tells_of_an_output_without_giving_it(server: Server, image: bytes, whole: Reply) -> None:
    head = fetched(server, image, method=b"HEAD")
    told = ("content-length", "content-type", "etag", "accept-ranges")
    assert [head.headers[name] for name in told] == [whole.headers[name] for name in told]


RANGES = {
    b"0-9": slice(0, 10),
    b"5-": slice(5, None),
    b"-5": slice(-5, None),
    b"0-0": slice(0, 1),
    b"0-99999999999999999999999": slice(0, None),
    b"-99999999999999999999999": slice(0, None),
    b",0-5,": slice(0, 6),
    b"0-5,3-8": slice(0, 9),
    b"0-0,99999999-": slice(0, 1),
}


@pytest.mark.parametrize("text", RANGES, ids=bytes.decode)
def test_a_range_is_exactly_that(server: Server, image: bytes, whole: Reply, text: bytes) -> None:
    part = fetched(server, image, b"Range: bytes=" + text)
    begin, end, _ = RANGES[text].indices(len(whole.body))
    assert part.headers["content-range"] == f"bytes {begin}-{end - 1}/{len(whole.body)}"
    assert (part.status, part.body) == (206, whole.body[begin:end])


def test_several_ranges_come_in_parts(server: Server, image: bytes, whole: Reply) -> None:
    reply = fetched(server, image, b"Range: bytes=0-3,8-9,-1")
    kind, _, boundary = reply.headers["content-type"].partition("; boundary=")
    parts = reply.body.split(b"--" + boundary.encode())[1:-1]
    last = len(whole.body) - 1
    assert (reply.status, kind) == (206, "multipart/byteranges")
    assert [part.partition(b"\r\n\r\n")[2][:-2] for part in parts] == [
        whole.body[:4],
        whole.body[8:10],
        whole.body[-1:],
    ]
    assert [re.findall(rb"(?i)content-range: bytes ([0-9-]+)/", part) for part in parts] == [
        [b"0-3"],
        [b"8-9"],
        [b"%d-%d" % (last, last)],
    ]


@pytest.mark.parametrize("text", [b"99999999-", b"-0", b"99999999999999999999999-"], ids=bytes.decode)
def test_a_range_beyond_the_end_is_answered_416(
    server: Server, image: bytes, whole: Reply, text: bytes
) -> None:
    reply = fetched(server, image, b"Range: bytes=" + text)
    assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{len(whole.body)}")


NO_RANGES = [
    *(b"", b"bytes", b"bytes=", b"items=0-5", b"bytes=\xd9\xa0-5"),
    *(b"bytes=" + text for text in b"0-0;x 0x1-5 1_0-2_0 - --5 +0-5 5-2 a-b 0-0-0 0-0,5-2 0-5/10".split()),
    *(b"bytes=" + b"0-," * 5000, b"bytes=" + b",".join(b"%d-%d" % (n, n) for n in range(0, 4000, 2))),
]


@pytest.mark.parametrize("text", NO_RANGES, ids=lambda text: repr(text[:20]))
def test_what_is_no_range_or_far_too_many_is_not_heard(
    server: Server, image: bytes, whole: Reply, text: bytes
) -> None:
    reply = fetched(server, image, b"Range: " + text)
    assert (reply.status, reply.body) == (200, whole.body)


@pytest.mark.parametrize("form", [b"%s", b"W/%s", b'"x", %s', b" %s ", b"*", b'*, "x"', b'"x",W/%s,"y"'])
def test_an_output_that_is_known_already_is_not_sent_again(
    server: Server, image: bytes, whole: Reply, form: bytes
) -> None:
    known = form.replace(b"%s", whole.headers["etag"].encode())
    reply = fetched(server, image, b"If-None-Match: " + known, b"Range: bytes=0-9")
    assert (reply.status, reply.headers["etag"], reply.body) == (304, whole.headers["etag"], b"")


@pytest.mark.parametrize("known", [b"", b'"x"', b"x", b'"x,y"', b'"x",' * 10_000, b"\xd0\xba"], ids=repr)
def test_an_output_that_is_not_known_is_sent(
    server: Server, image: bytes, whole: Reply, known: bytes
) -> None:
    assert fetched(server, image, b"If-None-Match: " + known).body == whole.body


@pytest.mark.parametrize(("form", "status"), [(b"%s", 206), (b"W/%s", 200), (b'"x"', 200), (b"x", 200)])
def test_a_range_is_of_the_output_that_was_meant_or_the_whole(
    server: Server, image: bytes, whole: Reply, form: bytes, status: int
) -> None:
    meant = form.replace(b"%s", whole.headers["etag"].encode())
    reply = fetched(server, image, b"Range: bytes=0-9", b"If-Range: " + meant)
    assert (reply.status, reply.body) == (status, whole.body[:10] if status == 206 else whole.body)


def test_an_output_does_not_change_by_being_read(server: Server, image: bytes, whole: Reply) -> None:
    time.sleep(1.1)  # the times that HTTP tells have no fractions
    told = ("etag", "last-modified", "content-length")
    again = fetched(server, image)
    assert [again.headers.get(name) for name in told] == [whole.headers.get(name) for name in told]


def test_each_output_has_an_etag_of_its_own(server: Server, done: bytes, whole: Reply) -> None:
    assert fetched(server, b"/outputs/%s/1.png" % done).headers["etag"] != whole.headers["etag"]
