"""The suite's commands: `wavemock verify`, `wavemock proxy`, `wavemock drift`."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from contract_tests.case import LAYERS

if TYPE_CHECKING:
    from contract_tests.case import Report
    from contract_tests.parity import Parity
    from contract_tests.sides import Side

_NEEDED = ("httpx", "hypothesis", "jinja2", "openapi_core", "rich", "schemathesis")
_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)

edition_option = click.option(
    "--edition", default="current", show_default=True, help="Which published revision it has to keep."
)
openapi_option = click.option(
    "--openapi",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Judge by the OpenAPI files in DIR too.",
)
report_option = click.option(
    "--report", type=_FOLDER, metavar="DIR", help="Write report.html, junit.xml and report.json there."
)


class _Refused(click.ClickException):
    """One line about what is wrong, and exit code 2."""

    exit_code = 2


@contextlib.contextmanager
def _told_plainly(*kinds: type[Exception]) -> Iterator[None]:
    """Turns what a person can mend into one line."""
    try:
        yield
    except kinds as error:
        raise _Refused(str(error)) from error


def _require_extra() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise _Refused(
            f"this needs the extra `verify` ({', '.join(missing)} missing): pip install 'wavemock[verify]'"
        )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return known and url.isprintable() and not set(url) & set(" ?#")


def _addresses(context: click.Context, parameter: click.Parameter, urls: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_address(context, parameter, url) for url in urls)


def _address(_context: click.Context, parameter: click.Parameter, url: str) -> str:
    if not _is_address(url):
        raise click.BadParameter(f"{url!r} is no address; write http://HOST:PORT.", param=parameter)
    return url.rstrip("/")


@click.command()
@click.argument("urls", nargs=-1, callback=_addresses, metavar="URL [URL_B]")
@click.option(
    "--parity", is_flag=True, help="Run the same against URL and URL_B, and show both side by side."
)
@click.option(
    "--api-key",
    "key",
    envvar="WAVESPEED_API_KEY",
    default="wavemock-verify",
    metavar="KEY",
    help="Key to send. [default: $WAVESPEED_API_KEY, or any]",
)
@edition_option
@click.option(
    "--only", multiple=True, metavar="MODEL", help="Look at this model only; may be repeated, may hold *."
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    type=click.Choice(LAYERS),
    help="Run this layer only; may be repeated.",
)
@click.option("--case", multiple=True, metavar="ID", help="Run this case only; may be repeated, may hold *.")
@click.option("--seed", default=0, show_default=True, help="The same seed sends the same requests.")
@report_option
@click.option(
    "--timeout",
    "seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="How long one answer may take.",
)
@click.option(
    "--patience",
    default=120.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long a task may take where the target's clock cannot be moved.",
)
@click.option(
    "--wait",
    default=0.0,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long to wait for a target that is still starting.",
)
@click.option(
    "--budget",
    type=click.IntRange(0),
    metavar="N",
    help="Begin at most N tasks. [default: 0, or any number on this machine]",
)
@click.option(
    "--pages-only", is_flag=True, help="Leave out what is only our reading where the pages are silent."
)
@click.option("--strict", is_flag=True, help="Take what could not be proven for broken.")
@openapi_option
@click.option(
    "--table", type=_FILE, metavar="FILE", help="Use this table of fields instead of the built-in one."
)
@click.option("--list", "listed", is_flag=True, help="Print the ids of the cases, and send nothing.")
def verify(
    urls: tuple[str, ...], parity: bool, report: Path | None, listed: bool, strict: bool, **flags: Any
) -> None:
    """Tell whether the server at URL keeps the documented contract.

    \b
    Exit code 0: every promise that was looked at is kept. 1: one is broken.
    2: it could not be told. What could not be proven is counted, and said.

    With --parity, that holds for both servers, URL and URL_B: 0 says that both keep
    all that was looked at. What only one of them could not be seen to keep is shown,
    and so is what one has in its answers and the other has not.
    """
    _check_number(urls, parity=parity)
    _require_extra()
    from contract_tests.document import BadDocument
    from contract_tests.run import BadOptions, Options
    from contract_tests.sides import open_side
    from contract_tests.table import DOCUMENTED, BadTable

    flags["table"] = flags["table"] or DOCUMENTED
    options = [Options(url=url, **flags) for url in urls]
    with contextlib.ExitStack() as stack:
        sides = []
        with _told_plainly(BadOptions, BadTable, BadDocument):
            for each in options:
                sides.append(open_side(each, *options))
                stack.callback(sides[-1].session.target.close)
        if listed:
            _print("\n".join(case.id for case in sides[0].cases))
            return
        sys.exit(_verified(sides, report, strict=strict))


def _check_number(urls: tuple[str, ...], *, parity: bool) -> None:
    if not urls:
        raise click.UsageError("Missing argument 'URL'." if not parity else "--parity: name two servers.")
    if parity and len(urls) != 2:
        raise click.UsageError(f"--parity: name two servers, not {len(urls)}.")
    if not parity and len(urls) != 1:
        raise click.UsageError("There is more than one server; --parity compares two.")


def _verified(sides: Sequence[Side], directory: Path | None, *, strict: bool) -> int:
    from contract_tests.case import Report
    from contract_tests.report.terminal import progress
    from contract_tests.sides import examine_sides

    if directory is not None:
        with _refused_report(directory):  # better now than after an hour
            directory.mkdir(parents=True, exist_ok=True)
    with progress(sum(len(side.cases) for side in sides)) as told:
        outcome = examine_sides(sides, told)
    _deliver(outcome, directory)
    reports = (outcome,) if isinstance(outcome, Report) else (outcome.one, outcome.other)
    unproven = any(report.of("not proven") for report in reports)
    return 1 if strict and outcome.exit_code == 0 and unproven else outcome.exit_code


@contextlib.contextmanager
def _refused_report(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Refused(f"--report {directory}: {error.strerror or error}") from error


def _deliver(outcome: Report | Parity, directory: Path | None) -> None:
    from contract_tests.report.delivery import deliver

    with _refused_report(directory) if directory is not None else contextlib.nullcontext():
        deliver(outcome, directory)


def _print(text: str) -> None:
    try:
        click.echo(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left would be written, and fail, once more at the end of the program.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.command()
@click.option(
    "--upstream", required=True, metavar="URL", callback=_address, help="Where to pass requests on to."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8081, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free port."
)
@edition_option
@openapi_option
@click.option("--record", type=_FILE, metavar="FILE", help="Write every exchange there, a line of JSON each.")
@report_option
@click.option(
    "--rewrite-urls/--no-rewrite-urls",
    default=True,
    show_default=True,
    help="Let urls.get of answers lead through the proxy.",
)
@click.option(
    "--timeout",
    "seconds",
    default=120.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="How long the upstream may be silent.",
)
def proxy(report: Path | None, openapi: Path | None, **flags: Any) -> None:
    """Stand between a client and a server, and judge every exchange.

    \b
    Passes everything on as it is until Ctrl-C, then reports. Point the client at it:
      wavemock proxy --upstream https://api.wavespeed.ai --record session.jsonl
    """
    _require_extra()
    from contract_tests.document import BadDocument
    from contract_tests.proxy import CannotServe, serve
    from contract_tests.recording import BadRecording

    def ready(url: str) -> None:
        _print(f"wavemock proxy passes {url} on to {flags['upstream']}  (Ctrl-C stops it and reports)")

    again = shlex.join(["wavemock", *sys.argv[1:]])
    with _told_plainly(CannotServe, BadDocument, BadRecording):
        outcome = serve(**flags, directory=openapi, ready=ready, again=again)
    _deliver(outcome, report)
    sys.exit(outcome.exit_code)


@click.command()
@click.argument("before")
@click.argument("after")
@click.option("--all", "everything", is_flag=True, help="List what no client can notice too.")
def drift(before: str, after: str, everything: bool) -> None:
    """Tell what changed between two editions, OpenAPI files or folders, or one of them and a recording.

    \b
    Exit code 0: nothing that a client may notice. 1: something. 2: it could not be told.
      wavemock drift flux-lora current
      wavemock drift current session.jsonl
    """
    _require_extra()
    from contract_tests.drift import BadSource, compare, render_table

    with _told_plainly(BadSource):
        found = compare(before, after, everything=everything)
    _print(render_table(found).rstrip("\n"))
    sys.exit(found.exit_code)


COMMANDS: tuple[click.Command, ...] = (verify, proxy, drift)
