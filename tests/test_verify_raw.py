"""The raw layer of the contract suite: against the mock, and against servers that are wrong on purpose."""

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from conftest import MakeClient, Server
from contract_tests.case import Broken, Case, Stopped, Unproven
from contract_tests.document import read_document
from contract_tests.judges import appoint
from contract_tests.layers.raw import cases
from contract_tests.layers.raw_replay import RawExchange, command
from contract_tests.session import Session
from contract_tests.table import read_models
from contract_tests.target import Manners, Target
from contract_tests.watch import Watch

Answer = Callable[[bytes, socket.socket], None]

DOCUMENT = read_document("current")
JUDGES = appoint(DOCUMENT)
MODELS = read_models("current")
GONE = b'{"code":404,"message":"There is no such prediction."}'
TAKEN = json.dumps({"code": 200, "message": "success", "data": {"id": "1"}}).encode()
REFUSED = b'{"code":400,"message":"This is no body."}'


@contextmanager
def session_with(
    url: str, *, edition: str = "current", key: str = "k", seconds: float = 20, budget: int | None = None
) -> Iterator[Session]:
    models = MODELS if edition == "current" else read_models(edition)
    target = Target(url=url, key=key, manners=Manners(seconds=seconds, budget=budget))
    try:
        yield Session(target=target, models=models, watch=Watch(judges=JUDGES), document=DOCUMENT)
    finally:
        target.close()


def case_of(session: Session, label: str) -> Case:
    return next(case for case in cases(session) if case.label == f"raw: {label}")


with session_with("http://127.0.0.1:1") as _session:
    LABELS = [case.label.removeprefix("raw: ") for case in cases(_session)]
with session_with("http://127.0.0.1:1/editions/flux-lora", edition="flux-lora") as _session:
    OLDER = [case.label.removeprefix("raw: ") for case in cases(_session)]


@pytest.fixture(scope="module")
def current(server: Server) -> Iterator[Session]:
    with session_with(server.url) as session:
        yield session


@pytest.fixture(scope="module")
def older(server: Server) -> Iterator[Session]:
    with session_with(f"{server.url}/editions/flux-lora", edition="flux-lora") as session:
        yield session


@pytest.mark.parametrize("label", LABELS)
def test_the_mock_keeps_what_the_raw_layer_asks(current: Session, label: str) -> None:
    case_of(current, label).check(current)


@pytest.mark.parametrize("label", OLDER)
def test_the_mock_keeps_it_below_a_prefix(older: Session, label: str) -> None:
    case_of(older, label).check(older)


def read_request(connection: socket.socket) -> bytes:
    """A request with a length or without a body; empty where none comes."""
    came = b""
    while b"\r\n\r\n" not in came:
        piece = connection.recv(1 << 16)
        if not piece:
            return b""
        came += piece
    head, _, body = came.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
    while len(body) < length:
        body += connection.recv(1 << 16)
    return head + b"\r\n\r\n" + body


def answer(status: int, body: bytes, *lines: bytes) -> bytes:
    head = [
        b"HTTP/1.1 %d Said" % status,
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    ]
    return b"\r\n".join([*head, *lines, b"", body])


@contextmanager
def serving(submit: Answer) -> Iterator[str]:
    """The URL of a server that answers polls with 404, and submits as `submit` does."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while sent := read_request(connection):
                if sent.startswith(b"POST "):
                    submit(sent, connection)
                else:
                    connection.sendall(answer(404, GONE))
                if b"Connection: close" in sent:
                    return

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def says(*parts: bytes) -> Answer:
    return lambda _, connection: connection.sendall(b"".join(parts))


def hangs(_: bytes, connection: socket.socket) -> None:
    connection.recv(1)


def drips(_: bytes, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad\r\nX: ")
    connection.settimeout(0.05)
    while True:
        connection.sendall(b"x")
        with suppress(TimeoutError):
            if not connection.recv(1):
                return


def resets(_: bytes, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()


def takes_nan(sent: bytes, connection: socket.socket) -> None:
    try:
        json.loads(sent.partition(b"\r\n\r\n")[2])
    except ValueError:
        connection.sendall(answer(400, REFUSED))
    else:
        connection.sendall(answer(200, TAKEN))


def hears_all(_: bytes, connection: socket.socket) -> None:
    connection.sendall(answer(400, REFUSED) + answer(404, GONE))
    connection.shutdown(socket.SHUT_RDWR)


def echoes(sent: bytes, connection: socket.socket) -> None:
    said = json.dumps({"code": 400, "message": sent.decode("latin-1")}).encode()
    connection.sendall(answer(400, said))


WRONG: dict[str, tuple[Answer, str]] = {
    "500 to everything": (
        says(answer(500, b'{"code":500,"message":"Oh."}')),
        "HTTP 500 instead of 400 or 422",
    ),
    "two answers": (
        says(answer(400, REFUSED) * 2),
        "the next request on the connection is answered with HTTP 400",
    ),
    "one answer too many, like the next": (says(answer(400, REFUSED), answer(404, GONE)), "bytes came after"),
    "nothing": (hangs, "gave no complete answer within 0.3 s"),
    "a byte now and then": (drips, "gave no complete answer within 0.3 s"),
    "a reset": (resets, "reset the connection|hung up"),
    "garbage": (says(b"HTTP/1.0 garbage\r\n\r\n"), "the status line is"),
    "no HTTP": (says(b"SSH-2.0-x\r\n"), "the status line is"),
    "a trace": (
        says(answer(400, b'{"code":400,"message":"Traceback (most recent call last)"}')),
        "the program behind it",
    ),
    "a path": (
        says(answer(400, b'{"code":400,"message":"in /srv/api/views.py"}')),
        "the program behind it",
    ),
    "no envelope": (says(answer(400, b'{"detail":"no"}')), "code is None under HTTP 400"),
    "another code": (says(answer(400, GONE)), "code is 404 under HTTP 400"),
    "two lengths": (says(answer(400, REFUSED, b"Content-Length: 3")), "the Content-Length of the answer"),
    "a length and chunks": (
        says(answer(400, REFUSED, b"Transfer-Encoding: chunked")),
        "Transfer-Encoding",
    ),
    "a header that is none": (says(answer(400, REFUSED, b"X y")), "a header of the answer is"),
    "a chunk without a size": (
        says(b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        "a chunk of the answer begins with b'xyz'",
    ),
    "a chunk longer than its size": (
        says(b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n"),
        "a chunk of the answer does not end",
    ),
    "half an answer": (says(answer(400, REFUSED)[:-3], b""), "gave no complete answer within 0.3 s"),
    "401 without a scheme": (says(answer(401, b'{"code":401,"message":"No."}')), "instead of 400"),
    "the key for a status": (says(b"sesame-open\r\n"), "the status line is b'[(]elided[)]"),
    "the request": (echoes, "the answer tells the key"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_server_that_answers_wrongly_is_refuted(name: str) -> None:
    submit, message = WRONG[name]
    with serving(submit) as url, session_with(url, key="sesame-open", seconds=0.3) as session:
        with pytest.raises(Broken, match=message) as caught:
            case_of(session, "half an object").check(session)
        assert caught.value.exchange is session.exchanges[-1]
        assert "sesame-open" not in str(caught.value)


def test_a_401_has_to_name_a_scheme() -> None:
    submit = says(answer(401, b'{"code":401,"message":"No."}'))
    with (
        serving(submit) as url,
        session_with(url) as session,
        pytest.raises(Broken, match="www-authenticate"),
    ):
        case_of(session, "no key").check(session)


def test_a_server_that_takes_nan_is_refuted_by_the_case_of_nan() -> None:
    with serving(takes_nan) as url, session_with(url) as session:
        case_of(session, "half an object").check(session)
        with pytest.raises(Broken, match="HTTP 200 instead of 400 or 422"):
            case_of(session, "NaN").check(session)
        assert session.target.begun == 1


def test_a_request_that_is_smuggled_is_found_out() -> None:
    with serving(hears_all) as url, session_with(url) as session:
        case = case_of(session, "two lengths")
        with pytest.raises(Broken, match="bytes came after the last answer"):
            case.check(session)


def test_a_connection_that_should_be_closed_and_is_not_is_found_out() -> None:
    with serving(says(answer(400, REFUSED))) as url, session_with(url, seconds=0.3) as session:
        case = case_of(session, "a length with a minus")
        with pytest.raises(Broken, match="did not close the connection"):
            case.check(session)


def test_an_answer_in_chunks_is_read() -> None:
    chunked = b"HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"%x;a=b\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(REFUSED), REFUSED)
    with serving(says(chunked, body)) as url, session_with(url) as session:
        case_of(session, "half an object").check(session)
        assert session.exchanges[-1].body == REFUSED


def test_a_busy_server_proves_nothing() -> None:
    busy = says(answer(429, b'{"code":429,"message":"Later."}'))
    with serving(busy) as url, session_with(url) as session, pytest.raises(Unproven, match="too busy"):
        case_of(session, "half an object").check(session)


@pytest.mark.parametrize("met", [{}, {"raw greeting": 404}], ids=["never met", "met before"])
def test_a_target_that_is_gone_ends_the_run(met: dict[str, int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with session_with(f"http://127.0.0.1:{port}") as session:
        session.memo.update(met)
        case = case_of(session, "half an object")
        with pytest.raises(Stopped):
            case.check(session)


def test_there_is_no_connection_to_an_application_in_this_process(make_client: MakeClient) -> None:
    target = Target(url="http://127.0.0.1", key="k", manners=Manners(), app=make_client().app)
    session = Session(target=target, models=MODELS, watch=Watch(judges=JUDGES), document=DOCUMENT)
    with pytest.raises(Unproven, match="no connection to an application"):
        case_of(session, "half an object").check(session)
    target.close()


def test_a_budget_that_is_spent_allows_only_what_should_be_refused(server: Server) -> None:
    with session_with(server.url, budget=0) as session:
        with pytest.raises(Unproven, match="--budget 0 allows no more"):
            case_of(session, "chunked").check(session)
        case_of(session, "half an object").check(session)
        assert session.target.begun == 0


def test_nothing_more_is_sent_to_a_target_that_begins_more_than_it_may(server: Server) -> None:
    with session_with(server.url, budget=0) as session:
        session.target.begun = 1
        with pytest.raises(Unproven, match="began tasks that it should have refused"):
            case_of(session, "half an object").check(session)


def test_between_two_requests_lies_the_time_that_was_asked_for(server: Server) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    target = Target(url=server.url, key="k", manners=Manners(rate=4, sleep=wait))
    session = Session(target=target, models=MODELS, watch=Watch(judges=JUDGES), document=DOCUMENT)
    case_of(session, "half an object").check(session)
    target.close()
    assert waits == [0.25, 0.25]


def test_what_was_begun_and_sent_is_counted(server: Server) -> None:
    with session_with(server.url) as session:
        case_of(session, "chunked").check(session)
        greeting, probe, next_ = 1, 1, 1
        assert (session.target.sent, session.target.begun) == (greeting + probe + next_, 1)


def test_every_case_has_a_name_of_its_own(current: Session) -> None:
    names = [case.id for case in cases(current)]
    assert len(names) == len(set(names))


def test_what_may_begin_a_task_comes_behind_what_has_to_be_refused(current: Session) -> None:
    labels = [case.label.removeprefix("raw: ") for case in cases(current)]
    assert labels.index("a charset") > labels.index("text/plain")
    assert labels.index("chunked") > labels.index("two lengths")


def test_a_model_without_a_size_is_tried_without_one() -> None:
    with session_with("http://127.0.0.1:1") as session:
        session.models = tuple(model for model in MODELS if model.page == "flux-dev-lora-trainer")
        labels = {case.label.removeprefix("raw: ") for case in cases(session)}
    assert "half an object" in labels
    assert labels.isdisjoint({"a size and a line feed", "NaN"})


def test_the_same_bytes_are_sent_every_time(server: Server) -> None:
    sent = []
    for _ in range(2):
        with session_with(server.url) as session:
            case_of(session, "three at once").check(session)
            exchange = session.exchanges[-1]
            assert isinstance(exchange, RawExchange)
            sent.append(exchange.sent)
    assert sent[0] == sent[1]


def test_what_was_sent_is_on_record_as_a_request(older: Session) -> None:
    case_of(older, "NaN").check(older)
    request = older.exchanges[-1].request
    assert (request.method, request.path) == ("POST", "/api/v2/wavespeed-ai/flux-dev-lora")
    assert ("Authorization", "Bearer k") in request.headers
    assert request.body is not None
    assert b"NaN" in request.body


AWKWARD = b"POST / HTTP/1.1\r\nAuthorization: Bearer KEY\r\n\r\n" + bytes(range(256)) + b"%s'\\n" + b"[" * 500


def test_the_command_sends_the_same_bytes_with_the_key_of_the_environment() -> None:
    line = command(AWKWARD.replace(b"KEY", b"sesame"), "http://127.0.0.1:8080/editions/flux-lora")
    printed, reader = line.rsplit(" | ", 1)
    assert "sesame" not in line
    assert reader == "nc 127.0.0.1 8080"
    key = {"WAVESPEED_API_KEY": "100%s", "PATH": "/usr/bin:/bin"}
    sent = subprocess.run(
        [shutil.which("sh") or "sh", "-c", printed], env=key, capture_output=True, check=True
    )
    assert sent.stdout == AWKWARD.replace(b"KEY", b"100%s")


def test_the_command_speaks_tls_where_the_target_does() -> None:
    line = command(b"x", "https://api.example")
    assert line == "printf 'x' | openssl s_client -quiet -connect api.example:443 -servername api.example"
