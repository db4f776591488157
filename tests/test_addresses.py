"""Which hosts may be called: judged by what a URL resolves to."""

import asyncio
import socket
from collections.abc import Iterable
from functools import partial

import pytest

from mock_server.addresses import Lookup, NotAllowed, Pinned, look_up, read_allowed, resolve
from mock_server.errors import BadConfiguration

allowed_by = partial(read_allowed, option="--webhook-to", this_machine=True)
NOBODY = allowed_by(())


def answers(*addresses: str) -> Lookup:
    """A lookup that knows these addresses for every name."""

    async def lookup(_host: str, _port: int) -> Iterable[str]:
        return addresses

    return lookup


async def no_lookup(host: str, _port: int) -> Iterable[str]:
    raise AssertionError(f"{host} was looked up")


def pin(url: str, *allowed: str, lookup: Lookup = no_lookup) -> Pinned:
    return asyncio.run(resolve(url, allowed_by(allowed), lookup=lookup))


def refusal(url: str, *allowed: str, lookup: Lookup = no_lookup) -> str:
    with pytest.raises(NotAllowed) as refused:
        pin(url, *allowed, lookup=lookup)
    assert str(refused.value) == refused.value.reason
    return refused.value.reason


NOT_PUBLIC = [
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.1.1",
    "100.64.0.1",
    "100.127.255.254",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "240.0.0.1",
    "0.1.2.3",
    "fe80::1",
    "fec0::1",
    "fc00::1",
    "fd12:3456::1",
    "2001:db8::1",
    "3fff::1",
    "100::1",
    "5f00::1",
    "::ffff:10.0.0.1",
    "::ffff:0:10.0.0.1",
    "::10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2002:808:808::1",
    "2001:0:808:808::f5ff:fffe",
    "2001:10::1",
]
NEVER = [
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::a9fe:a9fe",
    "::ffff:169.254.169.254",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::169.254.169.254",
    "64:ff9b:1:a9fe:a9:fe00::",
    "64:ff9b:1:a9:fe:a9fe::",
    "64:ff9b:1:0:a9:fea9:fe00:0",
    "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe::1",
    "2001:0:808:808::5601:5601",
    "2606:4700::5efe:a9fe:a9fe",
]
NO_MACHINE = ["0.0.0.0", "::", "224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1", "ff0e::1"]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]
EVERYTHING = ("example.com", "0.0.0.0/0", "::/0")


def in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@pytest.mark.parametrize("address", [*NOT_PUBLIC, *NEVER, *NO_MACHINE, *PUBLIC])
def test_nothing_but_this_machine_is_called_unasked(address: str) -> None:
    refusal(f"http://{in_url(address)}/")
    refusal("http://example.com/", lookup=answers(address))


@pytest.mark.parametrize("address", [*NOT_PUBLIC, *NEVER, *NO_MACHINE])
def test_a_name_that_is_allowed_may_not_lead_to(address: str) -> None:
    refusal("https://example.com/", "example.com", lookup=answers(address))


@pytest.mark.parametrize("address", [*NEVER, *NO_MACHINE])
def test_no_network_includes(address: str) -> None:
    refusal(f"http://{in_url(address)}/", *EVERYTHING)
    refusal("http://example.com/", *EVERYTHING, lookup=answers(address))


@pytest.mark.parametrize("address", [*NEVER, *NO_MACHINE])
def test_no_zone_hides(address: str) -> None:
    if ":" in address:
        refusal("http://example.com/", *EVERYTHING, lookup=answers(f"{address}%eth0"))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_name_that_is_allowed_may_lead_to_a_public_address(address: str) -> None:
    plain = address.removeprefix("::ffff:")
    pinned = pin("https://example.com/", "example.com", lookup=answers(plain))
    assert pinned.sni == "example.com"
    assert socket.inet_pton(socket.AF_INET6 if ":" in plain else socket.AF_INET, pinned.address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_private_address_is_called_where_its_network_is_allowed(address: str) -> None:
    assert pin(f"http://{in_url(address)}/", "0.0.0.0/0", "::/0").addresses


def test_an_allowed_network_holds_for_names_too() -> None:
    assert pin("http://box.test/", "10.0.0.0/8", lookup=answers("10.1.2.3")).address == "10.1.2.3"


def test_an_allowed_address_is_one_address() -> None:
    assert pin("http://10.0.0.5/", "10.0.0.5").address == "10.0.0.5"
    assert "--webhook-to 10.0.0.6" in refusal("http://10.0.0.6/", "10.0.0.5")


def test_a_name_is_not_allowed_by_another() -> None:
    for other in ("www.example.com", "example.com.evil.test", "evilexample.com"):
        assert f"--webhook-to {other}" in refusal(
            f"http://{other}/", "example.com", lookup=answers("8.8.8.8")
        )


@pytest.mark.parametrize(
    "addresses",
    [
        ("8.8.8.8", "10.0.0.1"),
        ("10.0.0.1", "8.8.8.8"),
        ("8.8.8.8", "169.254.169.254"),
        ("127.0.0.1", "10.0.0.1"),
    ],
)
def test_every_address_of_a_name_has_to_be_allowed(addresses: tuple[str, str]) -> None:
    refusal("http://example.com/", "example.com", lookup=answers(*addresses))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]", "localhost"])
def test_this_machine_is_always_called(scheme: str, host: str) -> None:
    assert pin(f"{scheme}://{host}:9/hook", lookup=answers("::1", "127.0.0.1")).tls == (scheme == "https")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
    ],
)
def test_an_odd_number_is_judged_by_what_the_system_takes_it_for(host: str, address: str) -> None:
    assert pin(f"http://{host}/", lookup=look_up).address == address


@pytest.mark.parametrize(
    "host", ["2852039166", "0xa9fea9fe", "0xa9.254.0xa9fe", "0251.0376.0251.0376", "169.16689662"]
)
def test_an_odd_number_does_not_lead_to_metadata(host: str) -> None:
    assert "is never called" in refusal(f"http://{host}/", *EVERYTHING, lookup=look_up)


@pytest.mark.parametrize("host", ["①②⑦.⓪.⓪.①", "127。0。0。1", "\uff11\uff12\uff17.0.0.1", "127.0.0.1."])
def test_an_address_in_other_letters_is_that_address(host: str) -> None:
    assert pin(f"http://{host}/").address == "127.0.0.1"


@pytest.mark.parametrize("host", ["①⑥⑨.②⑤④.①⑥⑨.②⑤④", "169。254。169。254", "169.254.169.254."])
def test_metadata_in_other_letters_is_metadata(host: str) -> None:
    assert "is never called" in refusal(f"http://{host}/", *EVERYTHING)


@pytest.mark.parametrize("host", ["EXAMPLE.com", "example.com.", "\uff45xample.com"])
def test_a_name_is_the_same_however_it_is_written(host: str) -> None:
    assert pin(f"http://{host}/", "example.com", lookup=answers("8.8.8.8")).host == "example.com"


def test_a_name_in_other_letters_is_sent_in_ascii() -> None:
    pinned = pin("https://bücher.example/", "bücher.example", lookup=answers("8.8.8.8"))
    assert (pinned.host, pinned.sni) == ("xn--bcher-kva.example", "xn--bcher-kva.example")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook",
        "//127.0.0.1/",
        "127.0.0.1:80/hook",
        "http://",
        "http:///hook",
        "http:127.0.0.1",
        "http://:80/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:65536/",
        "http://127.0.0.1:x/",
        "http://127.0.0.1:-1/",
        "http://[::1/",
        "http://[::1%25lo]/",
        "http://[fe80::1%eth0]/",
        "http://[v1.a]/",
        "http://127.0.0.1 /",
        "http://127.0.0.1\t/",
        "http://127.0.0.1/\r\nHost: evil",
        "http://127.0.0.1\\@evil.test/",
        "\x01http://127.0.0.1/",
        "http://exa%6dple.com/",
        "http://exa mple.com/",
        "http://a..b/",
        "http://" + "a" * 64 + "é.test/",
        "http://" + "a." * 200 + "test/",
        "http://127.0.0.1/" + "a" * 9000,
        "http://user@127.0.0.1/",
        "http://user:word@127.0.0.1/",
        "http://127.0.0.1:80@10.0.0.1/",
        "http://@127.0.0.1/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "javascript:alert(1)",
        "unix:///run/docker.sock",
        "http+unix://127.0.0.1/",
    ],
)
def test_what_is_no_web_address_of_one_host_is_refused(url: str) -> None:
    assert "write http://HOST:PORT/PATH" in refusal(url, *EVERYTHING)


def test_a_refusal_tells_nothing_of_the_path() -> None:
    assert "word" not in refusal("http://10.0.0.1/word?token=word")
    assert "word" not in refusal("http://user:word@10.0.0.1/")


def test_a_refusal_says_how_to_allow_a_host() -> None:
    said = refusal("http://example.com/", lookup=answers("8.8.8.8"))
    assert said.startswith("example.com resolves to 8.8.8.8, which is not this machine;")
    assert said.endswith("start the server with --webhook-to example.com.")


def test_a_refusal_says_how_to_allow_a_private_address() -> None:
    assert "--webhook-to 10.0.0.1" in refusal("http://box.test/", "box.test", lookup=answers("10.0.0.1"))


def test_the_parts_of_a_url_are_kept() -> None:
    pinned = pin(
        "https://example.com:8443/a%20b/ü?x=1&y=%2F#end", "example.com", lookup=answers("8.8.8.8", "1.1.1.1")
    )
    assert pinned == Pinned(
        tls=True,
        host="example.com:8443",
        port=8443,
        target="/a%20b/%C3%BC?x=1&y=%2F",
        addresses=("8.8.8.8", "1.1.1.1"),
        sni="example.com",
    )


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://127.0.0.1", "127.0.0.1"),
        ("http://127.0.0.1:80", "127.0.0.1"),
        ("https://127.0.0.1:80", "127.0.0.1:80"),
        ("https://[::1]:443", "[::1]"),
        ("http://[0::1]:8080", "[::1]:8080"),
    ],
)
def test_the_host_header_is_that_of_the_url(url: str, host: str) -> None:
    pinned = pin(url)
    assert (pinned.host, pinned.sni, pinned.target) == (host, None, "/")


def test_an_address_is_not_looked_up_and_a_name_once() -> None:
    asked = []

    async def lookup(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1", "127.0.0.1"]

    pin("http://127.0.0.1/", lookup=lookup)
    assert pin("http://rebound.test:81/", lookup=lookup).addresses == ("127.0.0.1",)
    assert asked == [("rebound.test", 81)]


@pytest.mark.parametrize("addresses", [(), ("127.0.0.1",)])
def test_a_name_without_addresses_is_no_refusal(addresses: tuple[str, ...]) -> None:
    async def lookup(_host: str, _port: int) -> Iterable[str]:
        if addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return ()

    with pytest.raises(OSError, match=r"unknown|has no address"):
        pin("http://nowhere.test/", lookup=lookup)


def test_names_addresses_and_networks_can_be_allowed() -> None:
    found = allowed_by(["Hooks.Example.com.", "10.0.0.0/8", "192.168.0.7", "[fd00::1]", "box", " localhost "])
    assert found.hosts == {"hooks.example.com", "box", "localhost"}
    assert [str(network) for network in found.networks] == ["10.0.0.0/8", "192.168.0.7/32", "fd00::1/128"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "*.example.com",
        "http://example.com",
        "example.com/x",
        "example.com:80",
        "10.0.0.1/8",
        "10.1",
        "2130706433",
        "0x7f000001",
        "a b",
        "[::1",
        "fe80::1%eth0",
    ],
)
def test_what_cannot_be_allowed_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(BadConfiguration, match="--webhook-to"):
        allowed_by([text])


def web(url: str, *allowed: str, lookup: Lookup = no_lookup) -> Pinned:
    found = read_allowed(allowed, option="--fetch-from", ports=frozenset({80, 443}))
    return asyncio.run(resolve(url, found, lookup=lookup))


@pytest.mark.parametrize("port", [22, 6379, 8080])
def test_a_name_is_called_at_the_given_ports_only(port: int) -> None:
    assert pin(f"http://example.com:{port}/", "example.com", lookup=answers("8.8.8.8")).port == port
    with pytest.raises(NotAllowed, match=f"--fetch-from example.com:{port}"):
        web(f"http://example.com:{port}/", "example.com", lookup=answers("8.8.8.8"))


def test_the_ports_of_websites_are_the_given_ones_whatever_the_scheme() -> None:
    for url in ("http://example.com/", "https://example.com/", "http://example.com:443/"):
        assert web(url, "example.com", lookup=answers("8.8.8.8")).port in {80, 443}


def test_a_host_with_a_port_is_called_at_that_one() -> None:
    found = web("http://example.com:8080/", "Example.com:8080", lookup=answers("8.8.8.8"))
    assert found.port == 8080
    for url in ("http://example.com/", "http://example.com:8081/", "http://other.test:8080/"):
        with pytest.raises(NotAllowed):
            web(url, "example.com:8080", lookup=answers("8.8.8.8"))


@pytest.mark.parametrize("address", [*NOT_PUBLIC, *NEVER, *NO_MACHINE])
def test_a_host_with_a_port_may_not_lead_to(address: str) -> None:
    with pytest.raises(NotAllowed):
        web("http://example.com:8080/", "example.com:8080", lookup=answers(address))


@pytest.mark.parametrize(("address", "place"), [("10.0.0.5", "10.0.0.5:90"), ("[fd00::1]", "[fd00::1]:90")])
def test_an_address_with_a_port_is_called_at_that_one(address: str, place: str) -> None:
    assert web(f"http://{address}:90/", place).port == 90
    for url in (f"http://{address}:91/", f"http://{address}/", "http://10.0.0.6:90/"):
        with pytest.raises(NotAllowed):
            web(url, place)
    with pytest.raises(NotAllowed):
        web("http://box.test:90/", place, lookup=answers(address.strip("[]")))


def test_metadata_is_not_called_though_it_is_given_with_a_port() -> None:
    with pytest.raises(NotAllowed, match="never called"):
        web("http://169.254.169.254:80/", "169.254.169.254:80")


def test_this_machine_may_be_given_with_a_port() -> None:
    for host in ("127.0.0.1", "localhost"):
        assert web(f"http://{host}:9000/", "localhost:9000", lookup=answers("127.0.0.1")).port == 9000
        with pytest.raises(NotAllowed):
            web(f"http://{host}:9001/", "localhost:9000", lookup=answers("127.0.0.1"))


def test_a_network_is_called_at_any_port() -> None:
    assert web("http://10.0.0.5:6379/", "10.0.0.0/8").port == 6379


@pytest.mark.parametrize(
    "text",
    ["example.com:0", "example.com:65536", "example.com:", ":80", "10.0.0.0/8:80", "a/b:80", "10.1:80"],
)
def test_what_is_no_host_with_a_port_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(BadConfiguration, match="HOST:PORT"):
        read_allowed([text], option="--fetch-from", ports=frozenset({80, 443}))
