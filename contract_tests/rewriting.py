"""Bodies on their way: decoded, and with the one address changed that would lead past the proxy."""

import json
import re
import zlib
from typing import Any
from urllib.parse import SplitResult, urlsplit

_PORTS = {"http": 80, "https": 443}
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


def decoded(body: bytes, encoding: str, most: int) -> bytes | None:
    """The body without its content coding; None where it cannot be had, or is longer than `most` bytes."""
    coding = encoding.strip().lower()
    if coding in {"", "identity"}:
        return body
    if coding not in {"gzip", "x-gzip", "deflate"}:
        return None
    reader = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        plain = reader.decompress(body, most + 1)
    except zlib.error:
        return None
    return plain if reader.eof and len(plain) <= most else None


def led_here(body: bytes, upstream: str, here: str) -> bytes | None:
    """An envelope whose `data.urls.get` leads to the proxy at `here`; all other bytes are as they were.

    None where there is no such field, it does not lead to the upstream, or it cannot be told from another.
    """
    try:
        url = json.loads(body)["data"]["urls"]["get"]
        moved = _moved(urlsplit(url), urlsplit(upstream), here)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if moved is None:
        return None
    plain, escaped = (json.dumps(url, ensure_ascii=ascii_only) for ascii_only in (False, True))
    written = {
        text.encode() for text in (plain, escaped, plain.replace("/", "\\/"), escaped.replace("/", "\\/"))
    }
    found = list(re.finditer(rb'"get"\s*:\s*(' + b"|".join(map(re.escape, sorted(written))) + b")", body))
    if len(found) != 1:
        return None
    start, end = found[0].span(1)
    return body[:start] + json.dumps(moved).encode() + body[end:]


def _moved(url: SplitResult, upstream: SplitResult, here: str) -> str | None:
    if _origin(url) != _origin(upstream) or not url.path.startswith(f"{upstream.path.rstrip('/')}/"):
        return None
    behind = url._replace(scheme="", netloc="", path=url.path[len(upstream.path.rstrip("/")) :]).geturl()
    return here + behind


def _origin(url: SplitResult) -> Any:
    return url.scheme, url.hostname, url.port or _PORTS.get(url.scheme)
