"""Fetching from hosts: only from where the operator allows, only as much, only as long."""

import io
import socket
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate_for
from sites import Answer, Site, moved, ok, site

from mock_server.addresses import Lookup, Pinned
from mock_server.errors import BadConfiguration
from reference_backend import fetch
from reference_backend.fetch import Fetcher, download, fetcher_for
from reference_backend.job import Cancelled, JobFailed, Report

HERE = ("127.0.0.1",)
PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.8",
    "198.18.0.1",
    "192.88.99.1",
    "240.0.0.1",
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "2002:a00:1::1",
    "fe80::1",
    "fec0::1",
    "fc00::1",
    "ff02::1",
]


def answers(*addresses: str) -> Lookup:
    async def lookup(_host: str, _port: int) -> Iterable[str]:
        return addresses

    return lookup


async def no_lookup(host: str, _port: int) -> Iterable[str]:
    raise AssertionError(f"{host} was looked up")


def fetcher(*allowed: str, lookup: Lookup = no_lookup, seconds: float = 60, **more: Any) -> Fetcher:
    return replace(fetcher_for(allowed, seconds=seconds), lookup=lookup, **more)


def fetched(by: Fetcher, url: str, *, most: int = 1000, report: Report | None = None) -> bytes:
    into = io.BytesIO()
    download(by, url, into=into, most=most, what="image", report=report)
    return into.getvalue()


def refusal(by: Fetcher, url: str, *, most: int = 1000) -> JobFailed:
    """How a download fails. Whatever it says, it tells nothing of the network here."""
    with pytest.raises(JobFailed) as failed:
        fetched(by, url, most=most)
    for secret in ("127.", "10.0.", "::", "localhost", "resolve", "refused", "Errno"):
        assert secret not in str(failed.value)
    return failed.value


@pytest.fixture
def there() -> Iterator[Site]:
    """A host of this machine, with a file."""
    with site({"/file": ok(b"content")}) as made:
        yield made


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Addresses and names that connections are made to; none is."""
    made: list[tuple[str, str | None]] = []

    async def connect(address: str, _errand: Any, to: Pinned) -> None:
        made.append((address, to.sni))

    monkeypatch.setattr(fetch, "_get_from", connect)
    return made


@pytest.mark.parametrize("url", ["http://8.8.8.8/", "http://example.com/", "http://localhost/"])
def test_nothing_is_fetched_or_looked_up_unless_it_is_allowed(url: str) -> None:
    assert refusal(fetcher(), url).code == "url_not_allowed"
    assert refusal(fetcher("other.test"), url).code == "url_not_allowed"


def test_this_machine_is_not_fetched_from_unasked(there: Site) -> None:
    for allowed in ((), ("public",), ("example.com",), ("10.0.0.0/8",)):
        assert refusal(fetcher(*allowed), there.url()).code == "url_not_allowed"
    assert there.calls == 0


@pytest.mark.parametrize("address", PRIVATE)
def test_neither_public_nor_a_name_allows(address: str, pinned: list[Any]) -> None:
    for allowed in ("public", "example.com"):
        by = fetcher(allowed, lookup=answers(address))
        assert refusal(by, "http://example.com/").code == "url_not_allowed"
    literal = f"[{address}]" if ":" in address else address
    assert refusal(fetcher("public"), f"http://{literal}/").code == "url_not_allowed"
    assert pinned == []


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fd00:ec2::254", "168.63.129.16", "0.0.0.0", "ff02::1"]
)
def test_no_network_allows(address: str, pinned: list[Any]) -> None:
    by = fetcher("public", "localhost", "0.0.0.0/0", "::/0", lookup=answers(address))
    assert refusal(by, "http://example.com/").code == "url_not_allowed"
    assert pinned == []


@pytest.mark.parametrize("other", ["10.0.0.1", "127.0.0.1", "169.254.169.254"])
def test_every_address_of_a_name_has_to_be_allowed(other: str, pinned: list[Any]) -> None:
    for found in (("8.8.8.8", other), (other, "8.8.8.8")):
        assert (
            refusal(fetcher("public", lookup=answers(*found)), "http://example.com/").code
            == "url_not_allowed"
        )
    assert pinned == []


@pytest.mark.parametrize("allowed", ["public", "example.com"])
def test_a_public_address_is_fetched_from_where_that_is_allowed(allowed: str, pinned: list[Any]) -> None:
    fetched(fetcher(allowed, lookup=answers("8.8.8.8")), "https://example.com/file")
    assert pinned == [("8.8.8.8", "example.com")]


@pytest.mark.parametrize("allowed", ["public", "example.com"])
@pytest.mark.parametrize("port", [22, 6379, 8080])
def test_other_ports_than_those_of_websites_need_their_host(
    allowed: str, port: int, pinned: list[Any]
) -> None:
    url = f"http://example.com:{port}/"
    assert refusal(fetcher(allowed, lookup=answers("8.8.8.8")), url).code == "url_not_allowed"
    assert refusal(fetcher(allowed), f"http://8.8.8.8:{port}/").code == "url_not_allowed"
    assert pinned == []
    fetched(fetcher(f"example.com:{port}", lookup=answers("8.8.8.8")), url)
    assert pinned == [("8.8.8.8", "example.com")]


def test_a_host_at_another_port_than_its_own_is_not_even_looked_up() -> None:
    assert refusal(fetcher("example.com:8080"), "http://example.com/").code == "url_not_allowed"


def test_another_name_is_not_allowed_by_one(pinned: list[Any]) -> None:
    for host in ("www.example.com", "example.com.evil.test", "evilexample.com"):
        assert refusal(fetcher("example.com"), f"http://{host}/").code == "url_not_allowed"
    assert pinned == []


def test_a_private_network_is_fetched_from_where_it_is_allowed(there: Site) -> None:
    for allowed in ("127.0.0.0/8", "127.0.0.1", "localhost"):
        assert fetched(fetcher(allowed), there.url()) == b"content"


def test_a_name_is_looked_up_once_and_the_connection_goes_to_what_was_judged(there: Site) -> None:
    found = iter([["127.0.0.1"], ["10.0.0.1"]])

    async def lookup(_host: str, _port: int) -> Iterable[str]:
        return next(found)

    assert fetched(fetcher(*HERE, lookup=lookup), there.url(host="files.test")) == b"content"
    assert next(found) == ["10.0.0.1"]
    assert f"\r\nHost: files.test:{there.port}\r\n" in there.heads[0]


def test_the_next_address_is_tried_where_one_does_not_answer(there: Site) -> None:
    by = fetcher("127.0.0.0/8", "::1", lookup=answers("::1", "127.0.0.1"))
    assert fetched(by, there.url(host="files.test")) == b"content"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file",
        "//127.0.0.1/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1/",
        "data:,x",
        "http://",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:99999/",
        "http://user@127.0.0.1/",
        "http://user:word@127.0.0.1/",
        "http://127.0.0.1:80@10.0.0.1/",
        "http://127.0.0.1\\@10.0.0.1/",
        "http://127.0.0.1/\r\nX: y",
        "http://[::1%25lo]/",
        "http://127.0.0.1/" + "a" * 9000,
    ],
)
def test_what_is_no_web_address_of_one_host_is_refused(url: str) -> None:
    assert refusal(fetcher("public", "0.0.0.0/0", "::/0"), url).code == "url_not_allowed"


@pytest.mark.parametrize(
    "host",
    ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "①②⑦.⓪.⓪.①", "127。0。0。1", "localhost."],
)
def test_this_machine_is_known_however_it_is_written(host: str, there: Site) -> None:
    by = fetcher("public", lookup=fetch.look_up)
    assert refusal(by, there.url(host=host)).code == "url_not_allowed"
    assert there.calls == 0


def test_a_redirect_is_followed_three_times(there: Site) -> None:
    there.answers |= {"/1": moved("/2"), "/2": moved("3?x", status="307 Temporary Redirect")}
    there.answers |= {"/3?x": moved(there.url("/file"), status="308 Permanent Redirect"), "/0": moved("/1")}
    assert fetched(fetcher(*HERE), there.url("/1")) == b"content"
    assert refusal(fetcher(*HERE), there.url("/0")).code == "download_failed"


@pytest.mark.parametrize(
    "to",
    [
        "http://10.0.0.1/",
        "http://169.254.169.254/",
        "//10.0.0.1/",
        "file:///etc/passwd",
        "http://user@127.0.0.1/",
    ],
)
def test_a_redirect_is_judged_again(to: str, there: Site) -> None:
    there.answers["/out"] = moved(to)
    assert refusal(fetcher(*HERE), there.url("/out")).code == "url_not_allowed"
    assert there.calls == 1


def test_a_name_that_leads_elsewhere_after_a_redirect_is_refused(there: Site) -> None:
    there.answers["/out"] = moved("/file")
    found = iter([["127.0.0.1"], ["127.0.0.2"]])

    async def lookup(_host: str, _port: int) -> Iterable[str]:
        return next(found)

    assert (
        refusal(fetcher(*HERE, lookup=lookup), there.url("/out", host="files.test")).code == "url_not_allowed"
    )
    assert there.calls == 1


def test_a_redirect_to_nothing_that_can_be_read_is_refused(there: Site) -> None:
    there.answers |= {"/out": moved("http://[::1/"), "/nowhere": ok(b"", status="302 Found")}
    assert refusal(fetcher(*HERE), there.url("/out")).code == "download_failed"
    assert refusal(fetcher(*HERE), there.url("/nowhere")).code == "download_failed"


def test_the_cap_holds_for_bytes_that_come(there: Site) -> None:
    there.answers["/endless"] = endless
    there.answers["/chunked"] = chunked
    assert fetched(fetcher(*HERE), there.url(), most=7) == b"content"
    assert refusal(fetcher(*HERE), there.url(), most=6).code == "too_large"
    assert refusal(fetcher(*HERE), there.url("/endless"), most=2**20).code == "too_large"
    assert refusal(fetcher(*HERE), there.url("/chunked"), most=2**20).code == "too_large"


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(65536))


def chunked(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")


def test_an_announced_length_is_enough_to_refuse(there: Site) -> None:
    there.answers["/announced"] = ok(b"x", "Content-Length: 99999999999")
    assert refusal(fetcher(*HERE), there.url("/announced")).code == "too_large"


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"cont", "Content-Length: 7"),
        ok(b"5\r\ncont", "Transfer-Encoding: chunked"),
        ok(b"x", "Content-Encoding: gzip"),
        ok(b"x", "Content-Length: -1"),
        ok(b"", "Content-Length: 1", "Content-Length: 2"),
        ok(b"", status="500 Oh no"),
        ok(b"", status="204 No Content"),
        ok(b"half", "Content-Range: bytes 0-3/8", status="206 Partial Content"),
        b"SSH-2.0-OpenSSH_9\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
)
def test_an_answer_that_is_no_whole_file_fails(there: Site, answer: bytes) -> None:
    there.answers["/odd"] = answer
    assert refusal(fetcher(*HERE), there.url("/odd")).code == "download_failed"


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
def test_what_is_not_there_is_told(there: Site, status: str) -> None:
    there.answers["/gone"] = ok(b"", status=status)
    assert refusal(fetcher(*HERE), there.url("/gone")).code == "not_found"


def test_a_host_that_does_not_answer_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert refusal(fetcher(*HERE), f"http://127.0.0.1:{port}/").code == "download_failed"


def drip(beginning: bytes) -> Answer:
    def answer(connection: socket.socket) -> None:
        connection.sendall(beginning)
        connection.settimeout(0.05)
        while True:
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                connection.sendall(b"x")

    return answer


@pytest.mark.parametrize(
    "beginning",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1"],
)
def test_a_slow_answer_ends_with_the_deadline(there: Site, beginning: bytes) -> None:
    there.answers["/slow"] = drip(beginning)
    failed = refusal(fetcher(*HERE, seconds=0.4), there.url("/slow"))
    assert failed.code == "download_failed"
    assert "took too long" in failed.message


def test_a_handshake_that_never_ends_does(there: Site) -> None:
    assert "took too long" in refusal(fetcher(*HERE, seconds=0.4), there.url(scheme="https")).message


def test_a_lookup_that_never_ends_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go = [], socket.socketpair()

    def hang(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        go[0].recv(1)
        raise OSError("late")

    monkeypatch.setattr(fetch, "getaddrinfo", hang)
    by = fetcher("public", lookup=fetch.look_up, seconds=0.2)
    assert "took too long" in refusal(by, "http://example.com/").message
    assert asked == ["example.com"]
    for each in go:
        each.close()


def test_a_name_without_addresses_is_refused_like_a_private_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(fetch, "getaddrinfo", unknown)
    nowhere = refusal(fetcher("public", lookup=fetch.look_up), "http://nowhere.example/")
    inside = refusal(fetcher("public", lookup=answers("10.0.0.1")), "http://inside.example/")
    assert str(nowhere) == str(inside)


def test_the_system_is_asked_for_addresses() -> None:
    by = fetcher("localhost", lookup=fetch.look_up)
    with site({"/file": ok(b"content")}) as there:
        assert fetched(by, there.url(host="localhost")) == b"content"


def test_a_download_is_given_up_when_nobody_wants_it(there: Site) -> None:
    there.answers["/slow"] = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
    told: list[tuple[str, int, int]] = []

    def report(stage: str, done: int, of: int) -> None:
        told.append((stage, done, of))
        if len(told) == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        fetched(fetcher(*HERE), there.url("/slow"), report=report)
    assert {(stage, of) for stage, _, of in told} == {("fetching", 1000)}


def test_a_request_says_nothing_of_this_server(
    there: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password word\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with site() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url(""))
        assert fetched(fetcher(*HERE), there.url()) == b"content"
        assert proxy.calls == 0
    fields = {line.partition(":")[0].lower() for line in there.heads[0].split("\r\n")[1:] if line}
    assert fields == {"host", "user-agent", "accept-encoding"}
    assert "\r\nAccept-Encoding: identity\r\n" in there.heads[0]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate_for("files.test", tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secure(certificate: Path) -> Iterator[tuple[Site, list[str | None]]]:
    """A host that speaks TLS, and the names that it was asked for."""
    names: list[str | None] = []
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    with site({"/file": ok(b"content")}, tls=tls) as made:
        yield made, names


def trusting(certificate: Path) -> Fetcher:
    trust = ssl.create_default_context(cafile=f"{certificate}.crt")
    return fetcher(*HERE, lookup=answers("127.0.0.1"), trust=lambda: trust)


def test_tls_is_checked_by_the_name_though_the_address_is_pinned(
    secure: tuple[Site, list[str | None]], certificate: Path
) -> None:
    there, names = secure
    by = trusting(certificate)
    assert fetched(by, there.url(host="files.test", scheme="https")) == b"content"
    assert refusal(by, there.url(host="other.test", scheme="https")).code == "download_failed"
    assert names == ["files.test", "other.test"]
    assert len(there.heads) == 1


def test_a_certificate_of_nobody_is_not_trusted(secure: tuple[Site, list[str | None]]) -> None:
    there, _ = secure
    by = fetcher(*HERE, lookup=answers("127.0.0.1"))
    assert refusal(by, there.url(host="files.test", scheme="https")).code == "download_failed"
    assert there.heads == []


def test_a_redirect_out_of_tls_is_refused(
    secure: tuple[Site, list[str | None]], certificate: Path, there: Site
) -> None:
    behind, _ = secure
    behind.answers["/out"] = moved(there.url())
    there.answers["/in"] = moved(behind.url(host="files.test", scheme="https"))
    by = trusting(certificate)
    assert fetched(by, there.url("/in")) == b"content"
    assert refusal(by, behind.url("/out", host="files.test", scheme="https")).code == "download_failed"
    assert there.calls == 1


@pytest.mark.parametrize(
    "text", ["", "*", "http://example.com", "example.com:x", "10.0.0.1/8", "10.1", "0x7f000001"]
)
def test_what_cannot_be_allowed_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(BadConfiguration, match="--fetch-from"):
        fetcher_for([text])
