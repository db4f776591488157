"""`wavemock webhook`: why the signature of a request that somebody kept is not right."""

import re
import sys
import time
from typing import IO

import click

_REQUEST_LINE = re.compile(r"[A-Z]{1,20} \S+(?: HTTP/[0-9](?:\.[0-9])?)?")
_FIELD = re.compile(r"(?P<name>[A-Za-z0-9!#$%&'*+.^_`|~-]+):(?P<value>.*)", re.DOTALL)
_LARGEST = 64 * 1024 * 1024


class _Unreadable(click.ClickException):
    """One line about what is wrong, and exit code 2."""

    exit_code = 2


@click.group()
def webhook() -> None:
    """Webhooks: what they are signed with, and why a signature fails."""


@webhook.command()
@click.option(
    "--secret",
    required=True,
    envvar="WAVEMOCK_WEBHOOK_SECRET",
    metavar="SECRET",
    help="What the account's webhooks are signed with: whsec_… [env: WAVEMOCK_WEBHOOK_SECRET]",
)
@click.option(
    "--now",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    help="When it came, in seconds since 1970. [default: now]",
)
@click.argument("file", type=click.File("rb"), default="-")
def verify(secret: str, now: int | None, file: IO[bytes]) -> None:
    """Say whether the webhook in FILE is signed as it should be, and if not, why.

    FILE (standard input if left out) is the request as it came: headers, a blank line, the body. Exit codes:
    0 signed well, 1 not, 2 no request.
    """
    from mock_server.webhooks.signing import explain  # noqa: PLC0415 - --help need not wait for it

    headers, body = _request(file.read(_LARGEST + 1))
    verdict = explain(secret, headers, body, now=int(time.time()) if now is None else now)
    if verdict.ok:
        click.echo("The signature is good.")
        return
    click.echo("The webhook is not to be believed:")
    for reason in verdict.reasons:
        click.echo(f"  {reason}")
    if now is None and any("s old" in reason for reason in verdict.reasons):
        click.echo("For a request that was kept, say when it came: --now SECONDS.")
    sys.exit(1)


def _request(raw: bytes) -> tuple[dict[str, str], bytes]:
    """Headers, those that came twice with a comma between, and the body of a request as text."""
    if len(raw) > _LARGEST:
        raise _Unreadable(f"the request is longer than {_LARGEST} bytes")
    head, blank, body = _parted(raw)
    if not blank:
        raise _Unreadable("there is no blank line between headers and body; save the request as it came")
    lines = head.decode("utf-8", "surrogateescape").replace("\r\n", "\n").split("\n")
    if _REQUEST_LINE.fullmatch(lines[0]):
        del lines[0]
    headers: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise _Unreadable(f"{line[:60]!a} is no header; write NAME: VALUE")
        name, value = field["name"].lower(), field["value"].strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "chunked" in headers.get("transfer-encoding", "").lower():
        raise _Unreadable("the body is in chunks; save it as it reads when they are joined")
    return headers, body


def _parted(raw: bytes) -> tuple[bytes, bytes, bytes]:
    """What stands before the first blank line, that line's end, and what follows."""
    found = re.search(rb"\r?\n(\r?\n)", raw)
    return (raw[: found.start()], found[1], raw[found.end() :]) if found else (raw, b"", b"")
