"""Who may use the API (bearer keys), and who may use the control plane."""

import hmac
import ipaddress
import re

from starlette.types import Scope

from mock_server.body import header
from mock_server.errors import Refusal

_KEY = "wavemock.key"
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip")
_HOST = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::[0-9]+)?")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="wavemock"'}


def bearer_key(scope: Scope) -> bytes:
    """The key in `Authorization: Bearer KEY`, or nothing. Found once per request, since many ask."""
    known: bytes | None = scope.get(_KEY)
    if known is None:
        scheme, _, key = header(scope, b"authorization").strip().partition(b" ")
        scope[_KEY] = known = key.strip() if scheme.lower() == b"bearer" else b""
    return known


def check_key(scope: Scope, *, accepted: tuple[bytes, ...]) -> None:
    """Refuses with 401 a request without a key, or with none of the `accepted` ones; empty, all are."""
    key = bearer_key(scope)
    if not key:
        raise Refusal(401, "There is no key; send Authorization: Bearer YOUR_KEY.", headers=_CHALLENGE)
    # Every accepted key is compared, so that the time taken tells nothing.
    if accepted and not sum(hmac.compare_digest(key, each) for each in accepted):
        raise Refusal(401, "The key is not one that this server accepts.", headers=_CHALLENGE)


def guard_control(scope: Scope, *, token: str | None) -> None:
    """Refuses the control plane to whoever is neither on this machine nor holds the token.

    Without a token, both ends have to be loopback: the peer's address, and the name it asked for. The
    latter keeps out web pages that point a name of their own at 127.0.0.1; `Origin`, those that post to it.
    What came through a proxy came from somebody else.
    """
    if header(scope, b"webhook-signature"):
        raise Refusal(403, "The control plane takes no webhooks; it would be moved by whoever submits.")
    if token is not None:
        if not hmac.compare_digest(bearer_key(scope), token.encode()):
            raise Refusal(
                401, "The control plane wants Authorization: Bearer CONTROL_TOKEN.", headers=_CHALLENGE
            )
        return
    peer = scope["client"][0] if scope.get("client") else "127.0.0.1"
    asked = _hostname(header(scope, b"host").decode("latin-1"))
    origin = header(scope, b"origin").decode("latin-1")
    if not (
        _is_loopback(peer)
        and not any(header(scope, name) for name in _FORWARDED)
        and _is_loopback(asked or "localhost")
        and (not origin or _is_loopback(_hostname(origin.removeprefix("http://"))))
    ):
        raise Refusal(
            403,
            "The control plane answers on loopback only; start with --control-token to open it to others.",
        )


def _hostname(host: str) -> str:
    """The name or address in `name:port`; what is neither is given back, and is no loopback address."""
    match = _HOST.fullmatch(host)
    return (match["v6"] or match["name"] or "") if match else host


def _is_loopback(name: str) -> bool:
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
