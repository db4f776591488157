"""Which hosts may be called from here, judged by what a URL resolves to and not by how it reads."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import quote, urlsplit

from mock_server.errors import BadConfiguration

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Lookup = Callable[[str, int], Awaitable[Iterable[str]]]
"""Gives the addresses of a host name; the number is the port. Raises OSError where there are none."""

_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_][a-z0-9_-]{0,62})*", re.ASCII)
_UNREADABLE = re.compile(r"[\x00-\x20\x7f\\]")
_LONGEST = 8000
_KEPT = "/%:@!$&'()*+,;=~-._"
_PLACE = re.compile(r"(?P<host>\[[^\]]+\]|[^:]+):(?P<port>[0-9]{1,5})", re.ASCII)
_PORTS = {"http": 80, "https": 443}
_LOCALHOST = "localhost"
WEB_PORTS = frozenset(_PORTS.values())
"""Where websites are."""

# Where clouds tell a machine its secrets. Nobody's receiver is there, whatever network includes it.
_METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # most of them
        "169.254.169.253",
        "169.254.170.2",  # AWS: containers
        "169.254.170.23",
        "169.254.0.23",  # Tencent
        "169.254.10.10",
        "169.254.42.42",  # Scaleway
        "168.63.129.16",  # Azure: its own service, at a public address
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",
        "fd00:ec2::253",
        "fd00:ec2::23",
        "fd00:42::42",
        "fd20:ce::254",  # Google
        "fe80::a9fe:a9fe",  # OpenStack
    )
)
# What `is_global` of Python 3.11 lets through, or lets through in one of its patch releases.
_NOT_PUBLIC = tuple(
    ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_PUBLIC_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")
_ISATAP = (0x00005EFE, 0x02005EFE)


class NotAllowed(Exception):
    """A URL that may not be called; `reason` is a sentence that says what would be right."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What may be called: names with public addresses, and networks as they are.

    `public` stands for every name, and `this_machine` for its own addresses. Names and `public` are called at
    `ports` only, where that is not None, and at `places`, each a host with a port. `option` is what a refusal
    names as the way to allow more.
    """

    option: str
    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    public: bool = False
    this_machine: bool = False
    ports: frozenset[int] | None = None
    places: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A URL and the addresses that it was judged by, in the order to try them.

    `host` is the Host header, `target` path and query as they are sent, `sni` the name for TLS, None where
    there is an address in the URL.
    """

    tls: bool
    host: str
    port: int
    target: str
    addresses: tuple[str, ...]
    sni: str | None

    @property
    def address(self) -> str:
        """The address to try first."""
        return self.addresses[0]


def read_allowed(
    texts: Iterable[str],
    *,
    option: str,
    public: bool = False,
    this_machine: bool = False,
    ports: frozenset[int] | None = None,
) -> Allowed:
    """What a user allows by an option: host names, addresses and networks such as 10.0.0.0/8.

    Where names are called at some `ports` only, HOST:PORT allows another. Raises BadConfiguration for what is
    none of these.
    """
    hosts, networks, places = set(), [], set()
    for text in texts:
        plain = text.strip()
        place = None if ports is None else _place(plain)
        if network := _network(plain):
            networks.append(network)
        elif place is not None:
            places.add(place)
        elif name := _name(plain):
            hosts.add(name)
        else:
            also = "" if ports is None else "HOST:PORT, "
            raise BadConfiguration(
                f"{option} {text[:80]!r}: give a host name, {also}an address, or a network such as 10.0.0.0/8"
            )
    return Allowed(
        option=option,
        hosts=frozenset(hosts),
        networks=tuple(networks),
        public=public,
        this_machine=this_machine,
        ports=ports,
        places=frozenset(places),
    )


def _place(text: str) -> tuple[str, int] | None:
    found = _PLACE.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65536:
        return None
    literal = _literal(found["host"].strip("[]"))
    host = _name(found["host"]) if literal is None else str(literal)
    return None if host is None else (host, int(found["port"]))


def _name(text: str) -> str | None:
    """A host name as it is compared; None where the text is none, or a number that is no address."""
    name = _ascii(text)
    return None if name is None or "/" in text or re.fullmatch("[0-9.]+|0x[0-9a-f.x]+", name) else name


def _network(text: str) -> Network | None:
    try:
        return None if "%" in text else ip_network(re.sub(r"\A\[(.+)\]\Z", r"\1", text))
    except ValueError:
        return None


async def look_up(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system knows them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


async def resolve(url: str, allowed: Allowed, *, lookup: Lookup = look_up) -> Pinned:
    """Where a request for `url` has to go. Every address that its host has must be allowed.

    Raises NotAllowed, and OSError where the host has no address.
    """
    tls, host, port, target = _read(url)
    literal = _literal(host)
    found = [str(literal)] if literal else list(dict.fromkeys(await lookup(host, port)))
    if not found:
        raise OSError(f"{host} has no address")
    addresses = [_plain(text) for text in found]
    for address in addresses:
        _judge(host, port, address, allowed)
    shown = f"[{literal}]" if isinstance(literal, IPv6Address) else host
    return Pinned(
        tls=tls,
        host=shown if port == _PORTS["https" if tls else "http"] else f"{shown}:{port}",
        port=port,
        target=target,
        addresses=tuple(str(address) for address in dict.fromkeys(addresses)),
        sni=None if literal else host,
    )


def _read(url: str) -> tuple[bool, str, int, str]:
    """Whether it is TLS, the host in ASCII, the port, and the target of a URL."""
    if len(url) > _LONGEST or _UNREADABLE.search(url):
        raise NotAllowed("This is no URL: write http://HOST:PORT/PATH without spaces.")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname
    except ValueError:
        raise NotAllowed("This is no URL: write http://HOST:PORT/PATH.") from None
    if parts.scheme not in _PORTS:
        raise NotAllowed("The URL is not one of http or https: write http://HOST:PORT/PATH.")
    if "@" in parts.netloc:
        raise NotAllowed("The URL has a user name in it: write http://HOST:PORT/PATH without one.")
    name = _ascii(host or "")
    if name is None or port == 0 or ("[" in parts.netloc and ":" not in name):
        raise NotAllowed("The URL has no host that can be called: write http://HOST:PORT/PATH.")
    target = quote(parts.path or "/", safe=_KEPT, errors="replace")
    if parts.query:
        target += "?" + quote(parts.query, safe=f"{_KEPT}?[]{{}}|^`", errors="replace")
    return parts.scheme == "https", name, port or _PORTS[parts.scheme], target


def _ascii(host: str) -> str | None:
    """A host name in small ASCII letters, without the dot at its end, or an address; else None."""
    literal = _literal(host)
    if literal is not None:
        return str(literal)
    try:
        name = host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError:
        return None
    name = name.lower().removesuffix(".")
    return name if _NAME.fullmatch(name) else None


def _literal(host: str) -> Address | None:
    if "%" in host:  # a zone makes an address unequal to itself, and only link-local ones have it
        return None
    try:
        return ip_address(host)
    except ValueError:
        return None


def _plain(text: str) -> Address:
    """An address that a lookup gave, without a zone, and as IPv4 where it is only mapped."""
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _judge(host: str, port: int, address: Address, allowed: Allowed) -> None:
    """Raises NotAllowed for an address that may not be called under that name."""
    shown = str(address) if host == str(address) else f"{host} resolves to {address}, which"
    inside = tuple(_inside(address))
    if any(each in _METADATA for each in (address, *inside)):
        raise NotAllowed(f"{shown} is where a cloud keeps a machine's secrets; it is never called.")
    if address.is_multicast or address.is_unspecified or address == IPv4Address("255.255.255.255"):
        raise NotAllowed(f"{shown} is no address of one machine; write 127.0.0.1 for this one.")
    if address.is_loopback and (allowed.this_machine or (_LOCALHOST, port) in allowed.places):
        return
    is_named = (host, port) in allowed.places
    if any(address in network for network in allowed.networks) or (is_named and host == str(address)):
        return
    if not _is_public(address, inside):
        raise NotAllowed(
            f"{shown} is not a public address; start the server with {allowed.option} {address}."
        )
    if is_named:
        return
    if not (allowed.public or host in allowed.hosts):
        raise NotAllowed(f"{shown} is not this machine; start the server with {allowed.option} {host}.")
    if allowed.ports is not None and port not in allowed.ports:
        raise NotAllowed(
            f"{shown} is called at the ports of websites only; start the server with {allowed.option}"
            f" {host}:{port}."
        )


def _is_public(address: Address, inside: tuple[IPv4Address, ...]) -> bool:
    if any(address in network for network in _NOT_PUBLIC):
        return False
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and not address.is_reserved
    if address in _NAT64:  # how a network without IPv4 reaches what has nothing else
        return all(_is_public(each, ()) for each in inside)
    return address in _PUBLIC_V6 and address.is_global and all(_is_public(each, ()) for each in inside)


def _inside(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that may be meant by an IPv6 address."""
    if isinstance(address, IPv4Address):
        return
    number, last = int(address), int(address) & 0xFFFFFFFF
    if address in _SIX_TO_FOUR:
        yield IPv4Address(number >> 80 & 0xFFFFFFFF)
    if address in _TEREDO:
        yield IPv4Address(number >> 64 & 0xFFFFFFFF)
        yield IPv4Address(last ^ 0xFFFFFFFF)
    if address in _LOCAL_NAT64:  # the four bytes leave out the ninth of the sixteen
        joined = (number >> 64) << 56 | number & 0xFFFFFFFFFFFFFF
        yield from (IPv4Address(joined >> 88 - width & 0xFFFFFFFF) for width in (48, 56, 64))
    if address in _NAT64 or address in _LOCAL_NAT64 or number >> 64 == 0:
        yield IPv4Address(last)
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        yield IPv4Address(last)
