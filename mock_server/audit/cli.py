"""`wavemock audit`: asks a running server what it has against its clients."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from mock_server.audit.words import Untold, books, clean, junit_xml, story, summary, told

_SECONDS = 30
_MOST_BYTES = 64 * 1024 * 1024
_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TEXTS = ("rule", "severity", "message", "advice", "prediction", "first_at", "last_at")


@click.command()
@click.argument("url", default="http://127.0.0.1:8080")
@click.option("--session", metavar="NAME", help="Look at this session. [default: requests that name none]")
@click.option("--token", metavar="TOKEN", help="The server's --control-token.")
@click.option("--allow", multiple=True, metavar="RULE", help="Say nothing of this rule; may be repeated.")
@click.option(
    "--junit",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write JUnit's XML there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--ledger", "with_ledger", is_flag=True, help="Print what was charged, too.")
@click.option("--rules", "listed", is_flag=True, help="Print the rules, and ask nobody.")
def audit(url: str, *, session: str | None, listed: bool, **flags: Any) -> None:
    """Tell what clients of the mock at URL did that they had better not.

    \b
    Exit code 0: nothing but notes. 1: at least a warning. 2: it could not be told.
      wavemock audit --allow polled-too-fast --junit audit.xml
    """
    from mock_server.audit.rules import RULES  # noqa: PLC0415 - `--help` need not wait for it

    if listed:
        click.echo(
            "\n\n".join(
                f"{each.id} ({each.severity})\n{told(each.what, each.advice)}" for each in RULES.values()
            )
        )
        return
    for rule in flags["allow"]:
        if rule not in RULES:
            raise click.UsageError(f"--allow: there is no rule {rule!r}; there are: {', '.join(RULES)}.")
    sys.exit(_audited(_address(url, session), tuple(RULES), **flags))


def _audited(
    url: str,
    rules: Sequence[str],
    *,
    token: str | None,
    allow: Sequence[str],
    junit: Path | None,
    as_json: bool,
    with_ledger: bool,
) -> int:
    data = _data(url, "audit", token)
    found = _findings(url, data)
    shown = [each for each in found if each["rule"] not in allow]
    ledger = _data(url, "ledger", token) if with_ledger else None
    if junit is not None:
        try:
            junit.write_text(junit_xml(shown, rules, allow), encoding="utf-8")
        except OSError as error:
            raise Untold(f"--junit {junit}: {error.strerror or error}") from error
    if as_json:
        whole = {**data, "findings": shown, **({} if ledger is None else {"ledger": ledger})}
        click.echo(json.dumps(whole, indent=2))
    else:
        texts = [story(each) for each in shown]
        if ledger is not None:
            texts.append(books(url, ledger))
        click.echo("\n\n".join((*texts, summary(shown, len(found) - len(shown), data))))
    return int(any(each["severity"] != "note" for each in shown))


def _address(url: str, session: str | None) -> str:
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or not url.isprintable() or set(url) & set(" ?#"):
        raise click.UsageError(f"{url!r} is no address; write http://HOST:PORT.")
    if session is None:
        return url.rstrip("/")
    if not _SESSION.fullmatch(session):
        raise click.UsageError("--session: a name has up to 64 letters, digits and . _ - only.")
    return f"{url.rstrip('/')}/_session/{session}"


def _data(url: str, name: str, token: str | None) -> dict[str, Any]:
    """The `data` of an answer of the control plane."""
    import asyncio  # noqa: PLC0415 - as above

    import httpx  # noqa: PLC0415

    address = f"{url}/_mock/{name}"
    try:
        status, body = asyncio.run(_get(address, token))
    except TimeoutError as error:
        raise Untold(f"{address} has not answered within {_SECONDS} s.") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Untold(f"{address} cannot be reached: {clean(reason)}") from error
    try:
        envelope = json.loads(body)
    except (ValueError, RecursionError):
        envelope = None
    if not isinstance(envelope, dict):
        raise Untold(f"{url} is no wavemock: {address} answers HTTP {status}, and no JSON object.")
    if status != 200 or not isinstance(envelope.get("data"), dict):
        said = clean(str(envelope.get("message", "")))[:300]
        raise Untold(f"{address} answers HTTP {status}" + (f": {said}" if said else "."))
    data: dict[str, Any] = envelope["data"]
    return data


async def _get(address: str, token: str | None) -> tuple[int, bytes]:
    """Status and body; one deadline and one size for the whole of it, however it comes in."""
    import asyncio  # noqa: PLC0415 - as above

    import httpx  # noqa: PLC0415

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    local = urlsplit(address).hostname in {"127.0.0.1", "::1", "localhost"}
    body = bytearray()
    async with (
        asyncio.timeout(_SECONDS),
        httpx.AsyncClient(timeout=_SECONDS, trust_env=not local) as http,
        http.stream("GET", address, headers=headers) as answer,
    ):
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > _MOST_BYTES:
                raise ValueError(f"its answer has more than {_MOST_BYTES} bytes")
    return answer.status_code, bytes(body)


def _findings(url: str, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The findings, if that is what they are."""
    found = data.get("findings")
    if not isinstance(found, list) or not all(_is_finding(each) for each in found):
        raise Untold(f"{url} is no wavemock that this command understands: its findings read otherwise.")
    return found


def _is_finding(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(name), str) for name in _TEXTS)
        and value["severity"] in {"error", "warning", "note"}
        and isinstance(value.get("count"), int)
        and isinstance(value.get("entries"), list)
    )
