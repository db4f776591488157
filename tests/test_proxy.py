"""The proxy: what passes it, what it sees, and how it ends."""

import asyncio
import contextlib
import gzip
import hashlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import wavespeed
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from conftest import Server, StartServer
from contract_tests import proxy
from contract_tests.case import Finding, Report, Unproven
from contract_tests.document import read_document
from contract_tests.exchange import Exchange
from contract_tests.exchange import Request as Sent
from contract_tests.forward import Forwarder
from contract_tests.judges import appoint
from contract_tests.listener import Flow, Listener
from contract_tests.recording import BadRecording
from contract_tests.rewriting import led_here
from contract_tests.watch import Watch

SCHNELL = "wavespeed-ai/flux-schnell-lora"
SUBMIT = f"/api/v3/{SCHNELL}"
KEY = {"Authorization": "Bearer a-secret-key"}
RUN = """
import json, sys
from pathlib import Path
from contract_tests import proxy
given = json.loads(sys.argv[1])
record = Path(given.pop("record")) if "record" in given else None
report = proxy.serve(host="127.0.0.1", port=0, record=record, ready=lambda url: print(url, flush=True),
    again="wavemock proxy", **{"edition": "current", **given})
print(json.dumps({
    "sent": report.sent, "begun": report.begun, "exit": report.exit_code, "again": report.again,
    "findings": [[f.verdict, f.case.model, f.case.field, f.case.rule, f.message] for f in report.findings],
}))
"""


@dataclass(kw_only=True)
class Running:
    """A proxy in a process of its own."""

    process: subprocess.Popen[str]
    url: str

    def stop(self, how: signal.Signals = signal.SIGINT) -> dict[str, Any]:
        self.process.send_signal(how)
        told, errors = self.process.communicate(timeout=60)
        assert (self.process.returncode, errors) == (0, "")
        report: dict[str, Any] = json.loads(told)
        return report


StartProxy = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[StartProxy]:
    """Starts proxies that end with the test."""
    with contextlib.ExitStack() as stack:

        def begin(**given: Any) -> Running:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RUN, json.dumps(given)],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            return Running(process=process, url=process.stdout.readline().strip())

        yield begin


App = Callable[..., Awaitable[None]]
Host = Callable[[App], str]


@pytest.fixture
def hosted() -> Iterator[Host]:
    """Serves ASGI applications in threads, until the test ends."""
    with contextlib.ExitStack() as stack:

        def host(app: App) -> str:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            config = uvicorn.Config(app, lifespan="off", log_level="critical", ws="none")
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            return f"http://127.0.0.1:{listening.getsockname()[1]}"

        yield host


@dataclass(kw_only=True)
class Within:
    """A proxy within this process, which one can look into once it has ended."""

    url: str
    listener: Listener
    server: uvicorn.Server
    thread: threading.Thread

    def stop(self) -> dict[tuple[str, str, str], Finding]:
        """What was refuted, by operation, field and rule."""
        self.server.should_exit = True
        self.thread.join()
        refuted = [each for each in self.listener.watch.verdicts() if each.verdict == "refuted"]
        return {(each.case.model, each.case.field, each.case.rule): each for each in refuted}


StartWithin = Callable[..., Within]


@pytest.fixture
def within() -> Iterator[StartWithin]:
    """Starts proxies in threads."""
    with contextlib.ExitStack() as stack:

        def begin(upstream: str, **more: Any) -> Within:
            listener = Listener(watch=Watch(judges=appoint(read_document("current")), brief=True))
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            forwarder = Forwarder(upstream=httpx.URL(upstream), listener=listener, **more)
            server = proxy.server_of(forwarder)

            async def run() -> None:
                judging = asyncio.create_task(listener.listen())
                await server.serve(sockets=[listening])
                await listener.finish(10)
                judging.cancel()
                await forwarder.http.aclose()

            thread = threading.Thread(target=asyncio.run, args=[run()])
            thread.start()
            made = Within(url=url, listener=listener, server=server, thread=thread)
            stack.callback(made.stop)
            return made

        yield begin


def prediction(url: str, **more: Any) -> bytes:
    """An envelope as the contract has it, with one thing or another put wrong."""
    data = {
        "id": "x1", "model": SCHNELL, "outputs": [], "urls": {"get": f"{url}/api/v3/predictions/x1/result"},
        "has_nsfw_contents": [], "status": "created", "created_at": "2026-04-01T12:34:56.789Z", "error": "",
        "timings": {"inference": 0}, **more,
    }  # fmt: skip
    return json.dumps({"code": 200, "message": "success", "data": data}, indent=1).encode()


def answers(body: Callable[[str], bytes], **headers: str) -> App:
    """An upstream that has one answer to everything. The body may depend on its own address."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        await request.body()
        made = body(str(request.base_url).rstrip("/"))
        await Response(made, media_type="application/json", headers=headers)(scope, receive, send)

    return app


@dataclass(kw_only=True)
class Echo:
    """An upstream that keeps what it was asked."""

    scopes: list[Any]
    bodies: list[bytes]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.bodies.append(await Request(scope, receive).body())
        await Response(b"here")(scope, receive, send)


def raw(url: str, sent: bytes) -> bytes:
    """All that comes back on a connection, until it is closed."""
    parts = httpx.URL(url)
    with socket.create_connection((parts.host, parts.port or 80), timeout=20) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_the_sdk_runs_through_it_to_the_end(serve: StartServer, start: StartProxy) -> None:
    running = start(upstream=serve().url)
    sdk = wavespeed.Client(api_key="a-secret-key", base_url=running.url)
    made = sdk.run(SCHNELL, {"prompt": "A lighthouse", "size": "512*512"}, poll_interval=0.1)
    report = running.stop()
    assert made["outputs"]
    assert (report["begun"], report["exit"], report["again"]) == (1, 0, "wavemock proxy")
    proven = {(model, rule) for verdict, model, _, rule, _ in report["findings"] if verdict == "proven"}
    judges = ("jsonschema-rs", "openapi-core", "laws")
    assert proven == {(name, each) for name in ("v3/flux-schnell-lora", "v3/predictions") for each in judges}


def test_operations_that_were_not_used_are_not_proven(serve: StartServer, start: StartProxy) -> None:
    report = start(upstream=serve().url).stop(signal.SIGTERM)
    assert {verdict for verdict, *_ in report["findings"]} == {"not proven"}
    assert (report["sent"], report["exit"]) == (0, 2)


def test_a_status_that_no_page_knows_is_refuted(hosted: Host, within: StartWithin) -> None:
    running = within(hosted(answers(lambda url: prediction(url, status="queued"))))
    httpx.get(f"{running.url}/api/v3/predictions/x1/result", headers=KEY)
    found = running.stop()
    assert set(found) == {
        ("v3/predictions", "data.status", "answer enum"),
        ("v3/predictions", "data.status", "status"),
    }
    assert all("queued" in each.message for each in found.values())
    assert found["v3/predictions", "data.status", "status"].exchanges[0].data["status"] == "queued"


def test_a_finding_of_the_proxy_cannot_be_run_again(hosted: Host, within: StartWithin) -> None:
    running = within(hosted(answers(lambda url: prediction(url, status="queued"))))
    httpx.get(f"{running.url}/api/v3/predictions/x1/result", headers=KEY)
    finding = next(iter(running.stop().values()))
    with pytest.raises(Unproven, match="seen by the proxy"):
        finding.case.check(None)  # type: ignore[arg-type]


def test_what_is_wrong_often_is_told_once(hosted: Host, within: StartWithin) -> None:
    running = within(hosted(answers(lambda url: prediction(url, outputs="none"))))
    for _ in range(3):
        httpx.get(f"{running.url}/api/v3/predictions/x1/result", headers=KEY)
    assert next(iter(running.stop())) == ("v3/predictions", "data.outputs", "answer type")
    assert len(running.listener.watch.remarks) == 2


def test_a_good_request_that_is_refused_is_held_against_the_upstream(
    hosted: Host, within: StartWithin
) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await Response(b'{"code":400,"message":"no"}', 400, media_type="application/json")(
            scope, receive, send
        )

    running = within(hosted(refuse))
    httpx.post(f"{running.url}{SUBMIT}", json={"prompt": "x"}, headers=KEY)
    assert ("v3/flux-schnell-lora", "", "request refused") in running.stop()


def test_the_address_to_poll_leads_to_the_proxy(hosted: Host, within: StartWithin) -> None:
    upstream = hosted(answers(prediction))
    running = within(upstream)
    told = httpx.post(f"{running.url}{SUBMIT}", json={"prompt": "x"}, headers=KEY)
    assert told.content == prediction(upstream).replace(upstream.encode(), running.url.encode())
    assert not running.stop()


def test_judges_see_the_address_that_the_upstream_gave(hosted: Host, within: StartWithin) -> None:
    upstream = hosted(answers(lambda url: prediction(url, status="queued")))
    running = within(upstream)
    httpx.post(f"{running.url}{SUBMIT}", json={"prompt": "x"}, headers=KEY)
    exchange = next(iter(running.stop().values())).exchanges[0]
    assert exchange.data["urls"]["get"].startswith(upstream)


def test_the_proxys_address_is_the_one_that_the_client_asked_for(hosted: Host, within: StartWithin) -> None:
    running = within(hosted(answers(prediction)))
    told = httpx.post(f"{running.url}{SUBMIT}", json={}, headers={**KEY, "Host": "proxy.example:81"})
    assert told.json()["data"]["urls"]["get"] == "http://proxy.example:81/api/v3/predictions/x1/result"


def test_without_rewriting_not_a_byte_is_changed(hosted: Host, within: StartWithin) -> None:
    upstream = hosted(answers(prediction))
    told = httpx.post(f"{within(upstream, rewrite_urls=False).url}{SUBMIT}", json={}, headers=KEY)
    assert told.content == prediction(upstream)


def test_an_address_elsewhere_is_left_alone(hosted: Host, within: StartWithin) -> None:
    running = within(hosted(answers(lambda _: prediction("https://elsewhere.example"))))
    told = httpx.post(f"{running.url}{SUBMIT}", json={}, headers=KEY)
    assert told.content == prediction("https://elsewhere.example")


def test_outputs_are_left_alone(hosted: Host, within: StartWithin) -> None:
    upstream = hosted(answers(lambda url: prediction(url, outputs=[f"{url}/outputs/0.png"])))
    told = httpx.get(f"{within(upstream).url}/api/v3/predictions/x1/result", headers=KEY)
    assert told.json()["data"]["outputs"] == [f"{upstream}/outputs/0.png"]


def test_what_stands_below_a_path_of_the_upstream_is_found_there(hosted: Host, within: StartWithin) -> None:
    upstream = hosted(answers(lambda url: prediction(f"{url}/below")))
    running = within(f"{upstream}/below")
    told = httpx.post(f"{running.url}{SUBMIT}", json={}, headers=KEY)
    assert told.json()["data"]["urls"]["get"] == f"{running.url}/api/v3/predictions/x1/result"


def test_a_zipped_answer_is_judged(hosted: Host, within: StartWithin) -> None:
    body = lambda url: gzip.compress(prediction(url, status="queued"))  # noqa: E731 - a body is a function here
    running = within(hosted(answers(body, **{"Content-Encoding": "gzip"})))
    told = httpx.get(f"{running.url}/api/v3/predictions/x1/result", headers=KEY)
    assert told.json()["data"]["urls"]["get"].startswith(running.url)
    assert ("v3/predictions", "data.status", "status") in running.stop()


def test_an_answer_in_an_unknown_coding_passes_and_is_counted(hosted: Host, within: StartWithin) -> None:
    running = within(hosted(answers(lambda _: b"...", **{"Content-Encoding": "zz"})))
    assert httpx.get(f"{running.url}/api/v3/predictions/x1/result", headers=KEY).content == b"..."
    assert not running.stop()
    assert "content coding 'zz'" in next(iter(running.listener.counts))


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb",
        "/%C3%A9t%C3%A9",
        "/x?a=1&a=2&b=%20+",
        "/a/../b",
        "/a//b/",
        "/x?q=a%2fb?c",
        "/%zz",
        '/x"<|>^`',
        '/x?"|',
    ],
)
def test_a_path_passes_byte_for_byte(hosted: Host, within: StartWithin, target: str) -> None:
    echo = Echo(scopes=[], bodies=[])
    url = within(hosted(echo)).url
    answer = raw(url, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.endswith(b"here")
    scope = echo.scopes[0]
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    assert scope["raw_path"] + query == target.encode()


def test_headers_pass_but_for_those_of_the_connection(hosted: Host, within: StartWithin) -> None:
    echo = Echo(scopes=[], bodies=[])
    upstream = hosted(echo)
    raw(
        within(upstream).url,
        b"GET / HTTP/1.1\r\nHost: proxy\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\n"
        b"TE: trailers\r\n"
        b"Upgrade: websocket\r\nX-Yours: a\r\nX-Yours: b\r\nX-Latin: \xe9\r\n\r\n",
    )
    host = upstream.removeprefix("http://").encode()
    assert echo.scopes[0]["headers"] == [
        (b"host", host), (b"x-yours", b"a"), (b"x-yours", b"b"), (b"x-latin", b"\xe9"),
    ]  # fmt: skip


def test_a_chunked_body_arrives_chunked(hosted: Host, within: StartWithin) -> None:
    echo = Echo(scopes=[], bodies=[])
    httpx.post(within(hosted(echo)).url, content=iter([b"one", b"two"]))
    assert echo.bodies == [b"onetwo"]
    assert (b"transfer-encoding", b"chunked") in echo.scopes[0]["headers"]


def test_a_body_that_is_too_large_to_be_judged_passes(hosted: Host, within: StartWithin) -> None:
    echo = Echo(scopes=[], bodies=[])
    running = within(hosted(echo), largest=100_000)
    body = bytes(range(256)) * 2000
    httpx.post(f"{running.url}{SUBMIT}", content=body, headers=KEY)
    running.stop()
    assert echo.bodies == [body]
    assert running.listener.counts == {"had bodies that are too large to be judged": 1}


def test_an_answer_that_is_too_large_to_be_judged_passes(hosted: Host, within: StartWithin) -> None:
    running = within(hosted(answers(lambda _: b"[" + b" " * 500_000 + b"]")), largest=100_000)
    assert len(httpx.get(f"{running.url}/api/v3/predictions/x/result", headers=KEY).content) == 500_002
    running.stop()
    assert running.listener.counts == {"had bodies that are too large to be judged": 1}


def test_what_is_not_documented_is_counted_and_not_judged(hosted: Host, within: StartWithin) -> None:
    running = within(hosted(Echo(scopes=[], bodies=[])))
    httpx.get(f"{running.url}/outputs/x.png")
    assert not running.stop()
    assert running.listener.counts == {"were not documented": 1}


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", "/api/v3/predictions/none/result", {}),
        ("GET", "/nothing/here", {}),
        ("DELETE", SUBMIT, {}),
        ("HEAD", "/_mock/health", {}),
        ("POST", SUBMIT, {"content": b"{", "headers": {"Content-Type": "application/json"}}),
        ("POST", SUBMIT, {"json": {"prompt": "x"}, "headers": {"Authorization": ""}}),
    ],
)
def test_an_answer_is_the_upstreams(
    server: Server, within: StartWithin, method: str, path: str, more: dict[str, Any]
) -> None:
    more = {**more, "headers": {**KEY, **more.get("headers", {})}}
    through = httpx.request(method, f"{within(server.url).url}{path}", **more)
    direct = httpx.request(method, f"{server.url}{path}", **more)
    assert (through.status_code, through.content) == (direct.status_code, direct.content)
    assert {**through.headers, "date": ""} == {**direct.headers, "date": ""}


def test_a_picture_is_the_same_through_the_proxy(server: Server, within: StartWithin) -> None:
    sdk = wavespeed.Client(api_key="k", base_url=server.url)
    url = sdk.run(SCHNELL, {"prompt": "A lighthouse", "size": "512*512"}, poll_interval=0.1)["outputs"][0]
    through = httpx.get(url.replace(server.url, within(server.url).url)).content
    assert hashlib.sha256(through).digest() == hashlib.sha256(httpx.get(url).content).digest()


def test_a_redirect_is_passed_on_and_not_followed(server: Server, within: StartWithin) -> None:
    assert (
        httpx.get(f"{within(server.url).url}/docs").status_code == httpx.get(f"{server.url}/docs").status_code
    )


def test_the_control_plane_is_not_opened_to_others(server: Server, within: StartWithin) -> None:
    told = httpx.get(f"{within(server.url).url}/_mock/health", headers={"Host": "evil.example"})
    assert (told.status_code, told.json()["code"]) == (403, 403)


def test_an_upstream_that_is_down_is_answered_502(within: StartWithin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    told = httpx.get(f"{within(url).url}/api/v3/predictions/x/result")
    assert (told.status_code, told.json()["code"]) == (502, 502)
    assert url in told.json()["message"]


def test_an_upstream_that_hangs_is_answered_504(within: StartWithin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        running = within(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.2)
        told = httpx.get(f"{running.url}/api/v3/predictions/x/result")
    assert (told.status_code, told.json()["code"]) == (504, 504)


def test_an_answer_that_breaks_off_is_broken_off(hosted: Host, within: StartWithin) -> None:
    async def stop_short(scope: Any, receive: Any, send: Any) -> None:
        async def pieces() -> Any:
            yield b"half"
            raise ConnectionError

        with contextlib.suppress(ConnectionError):
            await StreamingResponse(pieces(), headers={"Content-Length": "8"})(scope, receive, send)

    running = within(hosted(stop_short))
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{running.url}/outputs/x")
    running.stop()
    assert running.listener.counts == {"were broken off by the upstream": 1}


@pytest.mark.parametrize(
    "said",
    [
        b"no HTTP at all\r\n\r\n",
        b"",
        b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_answered_502(within: StartWithin, said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as odd, ThreadPoolExecutor() as pool:
        running = within(f"http://127.0.0.1:{odd.getsockname()[1]}")
        told = pool.submit(httpx.get, f"{running.url}/api/v3/predictions/x/result")
        connection = odd.accept()[0]
        with connection:
            connection.recv(65536)
            connection.sendall(said)
        assert (told.result().status_code, told.result().json()["code"]) == (502, 502)


def test_a_304_with_a_length_passes(within: StartWithin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as odd, ThreadPoolExecutor() as pool:
        running = within(f"http://127.0.0.1:{odd.getsockname()[1]}")
        told = pool.submit(httpx.get, f"{running.url}/outputs/x.png")
        connection = odd.accept()[0]
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: x\r\n\r\n")
        assert (told.result().status_code, told.result().headers["etag"]) == (304, "x")
    running.stop()
    assert running.listener.counts == {"were not documented": 1}


def test_an_address_that_cannot_be_told_from_another_is_left_alone() -> None:
    body = json.dumps({"data": {"urls": {"get": "http://up/x"}}, "more": {"get": "http://up/x"}}).encode()
    assert led_here(body, "http://up", "http://here") is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"data":{"urls":{"get":3}}}', b"[" * 100_000])
def test_what_is_no_envelope_has_no_address(body: bytes) -> None:
    assert led_here(body, "http://up", "http://here") is None


def test_an_address_with_escaped_slashes_is_found() -> None:
    body = rb'{"data": {"urls": {"get" :"http:\/\/up:80\/x?a=1"}}}'
    assert led_here(body, "http://up", "http://here") == b'{"data": {"urls": {"get" :"http://here/x?a=1"}}}'


def test_a_client_that_hangs_up_takes_its_request_with_it(hosted: Host, within: StartWithin) -> None:
    asked, left = threading.Event(), threading.Event()

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        await request.body()
        asked.set()
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    running = within(hosted(wait))
    with socket.create_connection(("127.0.0.1", httpx.URL(running.url).port or 0)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert asked.wait(20)
    assert left.wait(20)
    running.stop()
    assert running.listener.counts == {"were given up by the client": 1}


def test_ctrl_c_ends_it_while_a_request_hangs(start: StartProxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        running = start(upstream=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with socket.create_connection(("127.0.0.1", httpx.URL(running.url).port or 0)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            connection = silent.accept()[0]
            report = running.stop()
            connection.close()
    assert report["sent"] == 0


@pytest.mark.parametrize(
    ("upstream", "said"),
    [
        ("ftp://x", "has to be http"),
        ("nothing", "has to be http"),
        ("http://", "has to be http"),
        ("http://u:p@x", "takes no user"),
        ("http://x/?a=1", "takes no user"),
        ("http://[", "has to be http"),
        ("http://a b", "has to be http"),
        ("http://x:y", "is no address"),
    ],
)
def test_an_upstream_that_is_no_address_is_refused(upstream: str, said: str) -> None:
    with pytest.raises(proxy.CannotServe, match=said):
        serve_nothing(upstream=upstream)


def serve_nothing(**given: Any) -> Report:
    flags = {"upstream": "http://127.0.0.1:1", "host": "127.0.0.1", "port": 0, "edition": "current", **given}
    return proxy.serve(ready=lambda _: pytest.fail("it serves"), **flags)


def test_a_port_that_is_taken_is_refused() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(proxy.CannotServe, match="cannot be had"),
    ):
        serve_nothing(port=taken.getsockname()[1])


def test_a_proxy_before_itself_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(proxy.CannotServe, match="the proxy itself"):
        serve_nothing(port=port, upstream=f"http://127.0.0.1:{port}")


def test_a_recording_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match="cannot be written"):
        serve_nothing(record=tmp_path / "nowhere" / "x.jsonl")


def watched(*exchanges: tuple[dict[str, Any], float, float], brief: bool = True) -> Watch:
    """What a watch has to say of answers about one task, each with when it began and ended."""
    watch = Watch(judges=appoint(read_document("current")), brief=brief)
    for more, began, ended in exchanges:
        request = Sent(method="GET", path="/api/v3/predictions/x1/result")
        headers = (("content-type", "application/json"),)
        body = prediction("http://x", **more)
        exchange = Exchange(request=request, status=200, headers=headers, body=body, seconds=ended - began)
        watch.look_at(exchange, ended=ended)
    return watch


RUNNING = {"status": "processing"}


def test_a_status_that_goes_back_is_a_fault() -> None:
    watch = watched((RUNNING, 0, 1), ({}, 2, 3))
    assert [fault.rule for _, fault in watch.faults] == ["order"]


def test_answers_that_overlap_are_in_no_order() -> None:
    assert not watched((RUNNING, 1, 2), ({}, 0, 3)).faults


def test_what_is_said_after_an_overlap_is_in_order_again() -> None:
    assert [fault.rule for _, fault in watched((RUNNING, 1, 2), ({}, 0, 3), ({}, 4, 5)).faults] == ["order"]


def test_an_output_that_changes_after_the_end_is_a_fault_though_it_is_long() -> None:
    first, then = (
        {"status": "completed", "outputs": [each * 9999], "has_nsfw_contents": [False]} for each in "ab"
    )
    assert [fault.rule for _, fault in watched((first, 0, 1), (then, 2, 3)).faults] == ["final"]


def test_a_watch_does_not_hold_pictures() -> None:
    done = {"status": "completed", "has_nsfw_contents": [False], "outputs": ["a" * 9999]}
    assert len(str(watched((done, 0, 1)).seen)) < 2000


def test_a_brief_watch_keeps_one_exchange_of_a_kind() -> None:
    odd = [({"status": f"odd {number}"}, number, number + 0.5) for number in range(3)]
    assert len(watched(*odd).faults) == 1
    assert len(watched(*odd, brief=False).faults) == 3
    assert "(3 times)" in next(
        each.message for each in watched(*odd).verdicts() if each.case.rule == "status"
    )


def test_a_judge_that_fails_ends_nothing() -> None:
    watch = watched()
    listener = Listener(watch=watch)
    watch.judges = None  # type: ignore[assignment]
    exchange = Exchange(request=Sent(method="GET", path="/"), status=200, headers=(), body=b"", seconds=0)
    listener.look_at(Flow(exchange=exchange, ended=0, at=datetime.now(UTC), request_size=0, answer_size=0))
    assert listener.counts == {"made a judge fail with AttributeError": 1}


def test_many_clients_at_once_are_judged_fairly(server: Server, within: StartWithin) -> None:
    running = within(server.url)
    sdk = wavespeed.Client(api_key="k", base_url=running.url)

    def run(seed: int) -> Any:
        return sdk.run(SCHNELL, {"prompt": "x", "seed": seed, "size": "512*512"}, poll_interval=0.05)[
            "outputs"
        ]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(8)))
    assert running.stop() == {}
