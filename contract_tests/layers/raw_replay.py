"""What was sent byte for byte, kept on record, and the command that sends it again."""

import re
import shlex
from dataclasses import dataclass

from contract_tests.exchange import Exchange, Request, endpoint

_RUN = re.compile(rb"(?s)(.)\1{199,}")
_KEY = re.compile(rb"(?i)(^authorization:[ \t]*bearer[ \t]+)([^\s]+)", re.MULTILINE)
_PLAIN = frozenset(range(0x20, 0x7F)) - frozenset(b"\\%'")
_NAMED = {0x0D: "\\r", 0x0A: "\\n", 0x5C: "\\\\", 0x25: "%%"}


@dataclass(frozen=True, kw_only=True)
class RawExchange(Exchange):
    """An exchange over a plain connection. `sent` are its bytes; the request is what can be read from them.

    The status is 0 where there was no answer.
    """

    sent: bytes


def told(sent: bytes, prefix: bytes) -> Request:
    """A request as far as it can be read from bytes that may be none."""
    head, _, body = sent.lstrip(b"\r\n").partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    method, _, rest = first.partition(b" ")
    path = re.sub(rb"^https?://[^/]*", b"", rest.rpartition(b" HTTP/")[0] or rest).removeprefix(prefix)
    fields = (line.partition(b":") for line in lines)
    return Request(
        method=method.decode("latin-1"),
        path=path.decode("latin-1"),
        headers=tuple((name.decode("latin-1"), value.strip().decode("latin-1")) for name, _, value in fields),
        body=body or None,
        keyed=False,
    )


def command(sent: bytes, url: str) -> str:
    """The shell command that sends these bytes to the host of a URL, with the key taken from the environment.

    Long runs of one byte are made by the command, so that it stays short enough to be pasted.
    """
    parts: list[str] = []
    at = 0
    for run in _RUN.finditer(sent):
        parts += [_printf(sent[at : run.start()]), _repeated(run[1][0], len(run[0]))]
        at = run.end()
    parts.append(_printf(sent[at:]))
    said = "; ".join(part for part in parts if part)
    host, port, secure = endpoint(url)
    if secure:
        peer = shlex.quote(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        reader = f"openssl s_client -quiet -connect {peer} -servername {shlex.quote(host)}"
    else:
        reader = f"nc {shlex.quote(host)} {port}"
    return f"{said} | {reader}" if len(parts) == 1 else f"{{ {said}; }} | {reader}"


def _printf(sent: bytes) -> str:
    if not sent:
        return ""
    pieces = _KEY.split(sent)
    # Of every three pieces, the last is a key: it goes in as an argument, so that printf reads nothing in it.
    format_ = "".join("%s" if at % 3 == 2 else _escaped(piece) for at, piece in enumerate(pieces))
    return f"printf '{format_}'" + ' "$WAVESPEED_API_KEY"' * (len(pieces) // 3)


def _escaped(sent: bytes) -> str:
    return "".join(chr(byte) if byte in _PLAIN else _NAMED.get(byte, f"\\{byte:03o}") for byte in sent)


def _repeated(byte: int, times: int) -> str:
    return f"head -c {times} /dev/zero | tr '\\000' '\\{byte:03o}'"
