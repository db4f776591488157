import asyncio
import gc
import hashlib
import inspect
import json
import logging
import resource
import socket
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mock_server.limits import Limits, protocol_class

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

LIMITS = Limits(header_seconds=0.5, body_seconds=0.5, header_bytes=2000, pipelined=5, linger_seconds=0.2)
GENEROUS = 10  # seconds after which a connection counts as left open

HELLO = b"GET /hello HTTP/1.1\r\nHost: mock\r\n\r\n"
GOODBYE = b"GET /goodbye HTTP/1.1\r\nHost: mock\r\nConnection: close\r\n\r\n"
SIZED = b"POST / HTTP/1.1\r\nHost: mock\r\nContent-Length: 1000000\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: mock\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextmanager
def serving(app: App, *, limits: Limits = LIMITS, keep_alive: int = 1) -> Iterator[int]:
    """Serves `app` from a thread, on the port that it yields."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(
        app,
        http=protocol_class(limits),
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=GENEROUS,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


async def answer(send: Send, status: int, text: str) -> None:
    length = str(len(text)).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": text.encode()})


async def tell(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answers with what was asked and the length of the body."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message["body"]), message["more_body"]
    await answer(send, 200, f"{scope['method']} {scope['path']}?{scope['query_string'].decode()} {length}")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(tell) as port:
        yield port


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=GENEROUS)


def exchange(port: int, request: bytes, *, then: bytes = b"") -> bytes:
    """Sends `request`, then `then` over and over; everything that comes back until the server closes."""
    received, deadline = b"", time.monotonic() + GENEROUS
    with connect(port) as client:
        client.sendall(request)
        client.settimeout(0.05 if then else GENEROUS)
        while time.monotonic() < deadline:
            with suppress(TimeoutError):
                data = client.recv(1 << 16)
                if not data:
                    return received
                received += data
            with suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(then)
    raise TimeoutError(f"still open after {received!r}")


def reply(client: socket.socket) -> bytes:
    """One answer from a connection that stays open."""
    received, missing = b"", 1
    while missing > 0:
        data = client.recv(1 << 16)
        assert data, received
        received += data
        head, end, body = received.partition(b"\r\n\r\n")
        missing = int(head.lower().split(b"content-length: ")[1].split()[0]) - len(body) if end else 1
    return received


def statuses(received: bytes) -> list[int]:
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


def refusal(received: bytes) -> int:
    """The status of the last answer, which has to be an envelope that says it will close."""
    head, _, body = received[received.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    assert b"connection: close" in head
    assert f"content-length: {len(body)}".encode() in head
    code = json.loads(body)["code"]
    assert statuses(head) == [code]
    assert isinstance(code, int)
    return code


# What comes too slowly


SLOW = {
    "request line": (b"GET /", b"a"),
    "headers": (b"GET / HTTP/1.1\r\nA: ", b"a"),
    "body": (SIZED, b"a"),
    "chunk": (CHUNKED + b"ffff\r\n", b"a"),
    "chunks": (CHUNKED, b"1\r\na\r\n"),
    "chunk extension": (CHUNKED + b"1;", b"a"),
    "trailer": (CHUNKED + b"1\r\na\r\n0\r\nT: ", b"a"),
}


@pytest.mark.parametrize("slow", SLOW.values(), ids=SLOW.keys())
def test_what_drips_in_is_answered_408(port: int, slow: tuple[bytes, bytes]) -> None:
    start, drop = slow
    assert refusal(exchange(port, start, then=drop)) == 408


@pytest.mark.parametrize("start", [b"GET", SIZED], ids=["headers", "body"])
def test_what_stops_halfway_is_answered_408(port: int, start: bytes) -> None:
    assert refusal(exchange(port, start)) == 408


@pytest.mark.parametrize("start", [b"GET /", SIZED], ids=["headers", "body"])
def test_what_drips_in_behind_other_requests_is_answered_408(port: int, start: bytes) -> None:
    assert statuses(exchange(port, HELLO + HELLO + start, then=b"a")) == [200, 200, 408]


def test_what_drips_in_on_a_kept_connection_is_answered_408(port: int) -> None:
    with connect(port) as client:
        for _ in range(2):
            client.sendall(HELLO)
            assert reply(client).startswith(b"HTTP/1.1 200")
        client.sendall(SIZED)
        assert refusal(reply(client)) == 408
        assert client.recv(1) == b""


def test_a_time_out_that_is_shorter_than_the_one_before_is_kept_too() -> None:
    limits = Limits(header_seconds=0.3, body_seconds=GENEROUS)
    with serving(tell, limits=limits, keep_alive=GENEROUS) as port, connect(port) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: mock\r\nContent-Length: 1\r\n\r\n")
        time.sleep(0.4)
        client.sendall(b"a")
        assert reply(client).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /")
        client.settimeout(GENEROUS / 2)
        assert refusal(reply(client)) == 408


def test_a_client_that_goes_on_after_the_answer_is_cut_off(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    def go_on(client: socket.socket) -> None:
        for _ in range(GENEROUS * 20):
            client.sendall(b"a")
            time.sleep(0.05)

    with connect(port) as client:
        client.sendall(b"garbage")
        with pytest.raises(ConnectionError):
            go_on(client)
    assert not problems(caplog)


def test_the_answer_ends_at_once_also_when_there_is_time_to_read_it() -> None:
    with serving(tell, limits=Limits(linger_seconds=2 * GENEROUS)) as port:
        assert refusal(exchange(port, b"garbage")) == 400


def test_a_client_that_left_halfway_is_not_refused(port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with connect(port) as client:
        client.sendall(b"GET /")
    time.sleep(2 * LIMITS.header_seconds)
    assert "refused" not in caplog.text


def test_a_connection_on_which_nothing_is_sent_is_closed_without_a_word(port: int) -> None:
    assert exchange(port, b"") == b""


def test_a_connection_on_which_only_blank_lines_are_sent_is_closed_without_a_word(port: int) -> None:
    assert exchange(port, b"", then=b"\r\n") == b""


def test_blank_lines_do_not_keep_an_idle_connection_open(port: int) -> None:
    assert statuses(exchange(port, HELLO, then=b"\r\n")) == [200]


async def refuse(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await answer(send, 401, "no")


@pytest.mark.parametrize("start", [SIZED, CHUNKED + b"ffff\r\n"], ids=["sized", "chunked"])
def test_a_slow_body_that_nobody_reads_ends_without_a_second_answer(start: bytes) -> None:
    with serving(refuse) as port:
        assert statuses(exchange(port, start, then=b"a")) == [401]


def test_a_connection_is_idle_when_the_body_has_come_after_the_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with serving(refuse) as port, connect(port) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: mock\r\nContent-Length: 2\r\n\r\na")
        assert reply(client).startswith(b"HTTP/1.1 401")
        client.sendall(b"b")
        assert client.recv(1) == b""
    assert "refused" not in caplog.text


def test_an_idle_connection_is_kept_as_long_as_uvicorn_says() -> None:
    with serving(tell, keep_alive=2) as port, connect(port) as client:
        for pause in (0, 1):  # longer than the time-out for headers
            time.sleep(pause)
            client.sendall(HELLO)
            assert reply(client).startswith(b"HTTP/1.1 200")


async def work(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await asyncio.sleep(1.2)
    await tell(scope, receive, send)


def test_no_time_out_runs_while_the_application_works() -> None:
    with serving(work) as port, connect(port) as client:
        for _ in range(2):
            client.sendall(HELLO)
            assert reply(client).endswith(b"GET /hello? 0")


def test_half_a_request_has_its_time_from_the_answer_to_the_one_before() -> None:
    with serving(work, keep_alive=GENEROUS) as port, connect(port) as client:
        client.sendall(HELLO + HELLO[:9])
        assert reply(client).endswith(b"GET /hello? 0")
        time.sleep(0.4)
        client.sendall(HELLO[9:] + HELLO[:9])
        assert reply(client).endswith(b"GET /hello? 0")
        assert refusal(reply(client)) == 408


def test_a_slow_body_ends_also_when_the_application_reads_none_of_it() -> None:
    heard = []

    async def deaf(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await asyncio.sleep(1)
        heard.append((await receive())["type"])

    with serving(deaf) as port:
        assert refusal(exchange(port, SIZED.replace(b"1000000", b"9000000") + b"a" * 8_000_000)) == 408
    assert heard == ["http.disconnect"]


def test_an_answer_that_has_begun_is_not_followed_by_a_408() -> None:
    heard = []

    async def stream(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        heard.append((await receive())["type"])

    with serving(stream) as port:
        assert exchange(port, SIZED).endswith(b"\r\n\r\n5\r\nbegun\r\n")
    assert heard == ["http.disconnect"]


@pytest.mark.parametrize("head", [SIZED, SIZED.replace(b"Host", b"Expect: 100-continue\r\nHost")])
def test_the_application_hears_that_a_late_client_is_gone(
    head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    heard, done = [], threading.Event()

    async def listen(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.6)
        heard.append((await receive())["type"])
        done.set()

    with serving(listen) as port, connect(port) as client:
        client.sendall(head)
        assert refusal(reply(client)) == 408
        done.wait(GENEROUS)
    assert heard == ["http.disconnect"]
    assert not problems(caplog)


def test_a_request_hears_that_the_client_is_gone_also_when_others_wait_behind_it() -> None:
    heard, begun = [], threading.Event()

    async def listen(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        begun.set()
        heard.append((await receive())["type"])

    with serving(listen) as port, connect(port) as client:
        client.sendall(HELLO + HELLO)
        begun.wait(GENEROUS)
    assert heard == ["http.disconnect"]


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for both ends of 800 connections, which live in this one process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def still_open(client: socket.socket) -> bool:
    """Sends one byte more and looks for the end."""
    try:
        client.send(b"a")
        return client.recv(1 << 16) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@pytest.mark.usefixtures("many_files")
def test_800_slow_clients_are_closed_and_keep_nobody_else_waiting() -> None:
    limits = Limits(header_seconds=1, body_seconds=1)
    with serving(tell, limits=limits) as port, ExitStack() as crowd:
        clients = []
        for start in [b"GET / HTTP/1.1\r\nA: "] * 500 + [SIZED] * 300:
            clients.append(crowd.enter_context(connect(port)))
            clients[-1].sendall(start)
            clients[-1].setblocking(False)
        deadline = time.monotonic() + GENEROUS
        while clients and time.monotonic() < deadline:
            clients = [client for client in clients if still_open(client)]
            assert statuses(exchange(port, GOODBYE)) == [200]
        assert not clients


# What is too large


LARGE = {
    "request line": b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\n\r\n",
    "header": b"GET / HTTP/1.1\r\nA: " + b"a" * 2000 + b"\r\n\r\n",
    "header name": b"GET / HTTP/1.1\r\n" + b"a" * 2000 + b": a\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"A:a\r\n" * 400 + b"\r\n",
    "no end": b"GET / HTTP/1.1\r\nA: " + b"a" * 2000,
    "chunk extension": CHUNKED + b"1;" + b"a" * 4000,
    "trailer": CHUNKED + b"1\r\na\r\n0\r\nT: " + b"a" * 4000,
    "megabytes": b"GET / HTTP/1.1\r\nA: " + b"a" * 3_000_000,
    "blank lines": b"\r\n" * 2000,
}


@pytest.mark.parametrize("request_", LARGE.values(), ids=LARGE.keys())
def test_more_than_the_limit_is_answered_431(port: int, request_: bytes) -> None:
    assert refusal(exchange(port, request_)) == 431


def test_more_than_the_limit_bit_by_bit_is_answered_431(port: int) -> None:
    assert refusal(exchange(port, b"GET / HTTP/1.1\r\nA: ", then=b"a" * 999)) == 431


def test_the_limit_itself_is_allowed(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: mock\r\nConnection: close\r\nContent-Length: 1\r\nA: \r\n\r\n"
    head = head.replace(b"A: ", b"A: " + b"a" * (LIMITS.header_bytes - len(head)))
    assert statuses(exchange(port, head + b"b")) == [200]
    assert refusal(exchange(port, head.replace(b"A: ", b"A: a") + b"b")) == 431


def test_every_request_has_the_limit_for_itself(port: int) -> None:
    trailers = b"1\r\na\r\n0\r\nT: " + b"a" * 3000 + b"\r\n\r\n"
    assert statuses(exchange(port, CHUNKED + trailers + GOODBYE.replace(b"mock", b"m" * 1500))) == [200, 200]


# To look at every object there is wakes one of torch's, where another test has imported that.
@pytest.mark.filterwarnings("ignore:`torch.distributed.reduce_op` is deprecated:FutureWarning")
def test_requests_that_are_answered_are_forgotten(port: int) -> None:
    with connect(port) as client:
        for _ in range(20):
            client.sendall(HELLO * 4)
            received = b""
            while len(statuses(received)) < 4:
                received += client.recv(1 << 16)
        assert sum(isinstance(thing, RequestResponseCycle) for thing in gc.get_objects()) < 20


@pytest.mark.parametrize("pieces", [1, 5])
def test_the_limit_does_not_touch_bodies(port: int, pieces: int) -> None:
    chunk = b"%x\r\n" % (500_000 // pieces) + b"a" * (500_000 // pieces) + b"\r\n"
    assert exchange(port, CHUNKED + chunk * pieces + b"0\r\n\r\n" + GOODBYE).count(b"POST /? 500000") == 1


def test_endless_headers_take_no_memory(port: int) -> None:
    flood = b"a" * 1_000_000
    with connect(port) as client:
        tracemalloc.start()
        client.sendall(b"GET / HTTP/1.1\r\nA: ")
        with suppress(OSError):
            for _ in range(50):
                client.sendall(flood)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 5_000_000


def test_too_many_pipelined_requests_are_answered_429_after_the_others(port: int) -> None:
    received = exchange(port, HELLO * 1000)
    assert statuses(received) == [200] * 6 + [429]
    assert refusal(received) == 429


# What is not HTTP, or no request for a path


MALFORMED = {
    "garbage": b"\x00\x01\x02\x03",
    "TLS": bytes.fromhex("16030100a5010000a10303") + b"a" * 154,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown version": b"GET / HTTP/7.3\r\n\r\n",
    "unknown method": b"FETCH / HTTP/1.1\r\n\r\n",
    "no target": b"GET  HTTP/1.1\r\n\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\n\r\n",
    "UTF-8 in the target": b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n",
    "Latin-1 in the query": b"GET /?\xe9 HTTP/1.1\r\n\r\n",
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\n\r\n",
    "asterisk-form": b"OPTIONS * HTTP/1.1\r\n\r\n",
    "authority-form": b"CONNECT mock:443 HTTP/1.1\r\n\r\n",
    "CONNECT to a path": b"CONNECT / HTTP/1.1\r\n\r\n",
    "another scheme": b"GET ftp://mock/ HTTP/1.1\r\n\r\n",
    "absolute-form without a host": b"GET http:// HTTP/1.1\r\n\r\n",
    "absolute-form with a bad port": b"GET http://mock:123456/ HTTP/1.1\r\n\r\n",
    "bad header": b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "length and chunks": CHUNKED.replace(b"Host", b"Content-Length: 3\r\nHost"),
    "negative length": b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "bad chunk": CHUNKED + b"x\r\n",
    "chunk longer than it says": CHUNKED + b"1\r\naa\r\n",
}


def problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_malformed_is_answered_400(
    port: int, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    received = exchange(port, request_)
    assert refusal(received) == 400
    assert b"callback" not in received
    assert not problems(caplog)


@pytest.mark.parametrize("garbage", [b"garbage", CHUNKED + b"x\r\n"], ids=["head", "body"])
def test_what_is_malformed_is_answered_after_the_requests_before_it(port: int, garbage: bytes) -> None:
    received = exchange(port, HELLO + HELLO + garbage)
    assert statuses(received) == [200, 200, 400]
    assert refusal(received) == 400


def test_an_absolute_target_is_asked_for_its_path(port: int) -> None:
    received = exchange(port, GOODBYE.replace(b"/goodbye", b"http://mock?a=b"))
    assert received.endswith(b"GET /?a=b 0")


@pytest.mark.parametrize("version", [b"1.0", b"0.9", b"2.0"])
def test_other_versions_are_answered_and_closed(port: int, version: bytes) -> None:
    assert exchange(port, b"GET / HTTP/" + version + b"\r\n\r\n").endswith(b"GET /? 0")


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
@pytest.mark.parametrize(
    "body", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
)
def test_a_request_for_an_upgrade_is_served_without_it(
    port: int, protocol: bytes, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    upgrade = b"POST / HTTP/1.1\r\nHost: mock\r\nConnection: Upgrade\r\nUpgrade: " + protocol + b"\r\n" + body
    received = exchange(port, upgrade + upgrade + GOODBYE)
    assert statuses(received) == [200, 200, 200]
    assert received.count(b"POST /? 5") == 2
    assert not problems(caplog)


def test_a_request_for_an_upgrade_does_not_disturb_the_one_before_it() -> None:
    heard, begun = [], threading.Event()

    async def listen(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        begun.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                heard.append(await receive())
        await answer(send, 200, "done")

    with serving(listen) as port, connect(port) as client:
        client.sendall(HELLO)
        begun.wait(GENEROUS)
        client.sendall(HELLO.replace(b"Host", b"Connection: upgrade\r\nUpgrade: h2c\r\nHost"))
        assert reply(client).endswith(b"done")
        assert heard == []


def test_uvicorns_methods_are_still_those_that_ours_take_the_place_of() -> None:
    replaced = inspect.getsource(HttpToolsProtocol.data_received)
    replaced += inspect.getsource(HttpToolsProtocol.on_message_complete)
    assert hashlib.sha256(replaced.encode()).hexdigest()[:16] == "d3d2c93fead69677"
