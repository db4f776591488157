"""`wavemock run`: a server for as long as one command runs, and what it saw of that command."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import click
from click.core import ParameterSource

from mock_server.audit.words import books, junit_xml, story, summary
from mock_server.serving import Unusable, serve
from mock_server.testing.control import Control, WavemockError
from mock_server.testing.starting import WavemockServer, started_server

KEY = "wavemock"
"""The API key that the command gets where --api-key names none."""

_OURS = {"host", "port", "ready_file", "public_url", "access_log"}
_FLAGS = [each for each in serve.params if isinstance(each, click.Option) and each.name not in _OURS]
_KEYS = {signal.SIGINT, signal.SIGQUIT}
_PASSED_ON = (signal.SIGHUP, *_KEYS, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_STOPPING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_GRAVEST_FIRST = ("error", "warning", "note")
_SUMS = ("accepted", "charged", "duplicates_charged")
_LISTS = ("duplicates", "never_fetched", "answers_lost")

Handler = Callable[[int, FrameType | None], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What a server has to say of its clients, in all of its sessions: findings, and the ledger's totals."""

    findings: list[dict[str, Any]]
    requests: int
    books: dict[str, Any]


class _NotFound(click.ClickException):
    """One line about a command that there is not, and the exit code that a shell gives then."""

    exit_code = 127


class _NotExecutable(click.ClickException):
    """One line about a command that cannot be executed, and the exit code that a shell gives then."""

    exit_code = 126


@click.command(params=[*_FLAGS], context_settings={"allow_interspersed_args": False})
@click.option(
    "--audit/--no-audit",
    "audited",
    default=True,
    show_default=True,
    help="Whether to tell on standard error, afterwards, what was charged and what the audit found.",
)
@click.option(
    "--fail-on-audit",
    is_flag=True,
    help="Exit with 1 where the audit finds more than notes and all else is well.",
)
@click.option("--allow", multiple=True, metavar="RULE", help="Say nothing of this rule; may be repeated.")
@click.option(
    "--junit",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the audit as JUnit's XML there.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context,
    /,
    command: tuple[str, ...],
    *,
    audited: bool,
    fail_on_audit: bool,
    allow: tuple[str, ...],
    junit: Path | None,
    **_flags: Any,
) -> None:
    """Run COMMAND against a mock of its own, which ends with it.

    \b
    The command finds in its environment:
      WAVEMOCK_URL         where the mock is; this is the base_url to give to an SDK
      WAVESPEED_API_KEY    a key for it; what was set is replaced, so that no real key is ever sent
      WAVESPEED_BASE_URL   the same as WAVEMOCK_URL; the official SDKs do not read it, your client may
      WAVEMOCK_CONTROL_TOKEN   where --control-token was given

    \b
      wavemock run -- pytest
      wavemock run --scenario failed --fail-on-audit --junit audit.xml -- npm test

    Exit code: that of COMMAND (128 and the signal's number where one ended it); 127 where there is no such
    command, 126 where it cannot be executed; 2 where the mock does not start, or its audit cannot be told.
    """
    _check(allow, audited=audited, needed=fail_on_audit or bool(allow) or junit is not None)
    try:
        with _handling(_STOPPING, _stop), started_server(list(_given(ctx)), directory=Path.cwd()) as server:
            code = _finished(command, _environment(server, ctx.params["api_keys"]))
            if audited:
                found = _audit(server, allow, junit)
                code = code or (found if fail_on_audit or found == 2 else 0)
    except WavemockError as error:
        raise Unusable(_last_line(error)) from error
    sys.exit(code)


def _check(allow: Sequence[str], *, audited: bool, needed: bool) -> None:
    from mock_server.audit.rules import RULES  # noqa: PLC0415 - `--help` need not wait for it

    if needed and not audited:
        raise click.UsageError("--no-audit leaves nothing to --fail-on-audit, --allow and --junit.")
    for rule in allow:
        if rule not in RULES:
            raise click.UsageError(f"--allow: there is no rule {rule!r}; there are: {', '.join(RULES)}.")


def _given(ctx: click.Context) -> Iterator[str]:
    """The flags for the server that were given, as it reads them."""
    for flag in _FLAGS:
        if flag.name is None or ctx.get_parameter_source(flag.name) is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[flag.name]
        if flag.is_flag:
            yield flag.opts[0] if value else flag.secondary_opts[0]
        else:
            yield from (f"{flag.opts[0]}={each}" for each in (value if flag.multiple else (value,)))


def _environment(server: WavemockServer, keys: Sequence[str]) -> dict[str, str]:
    return {
        **os.environ,
        "WAVEMOCK_URL": server.url,
        "WAVESPEED_BASE_URL": server.url,
        "WAVESPEED_API_KEY": keys[0] if keys else KEY,
        **({"WAVEMOCK_CONTROL_TOKEN": server.token} if server.token else {}),
    }


def _finished(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit code of the command, which got every signal that came in meanwhile."""
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
        elif number not in _KEYS or not _in_foreground():
            # One that runs as somebody else takes its signals from somebody else.
            with contextlib.suppress(PermissionError):
                process.send_signal(number)

    with _handling(_PASSED_ON, pass_on):
        try:
            process = subprocess.Popen(command, env=environment)  # noqa: S603 - what the user asked for
        except FileNotFoundError as error:
            raise _NotFound(f"{command[0]}: there is no such command.") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise _NotExecutable(f"{command[0]}: cannot be executed: {reason}.") from error
        for number in early:
            process.send_signal(number)
        code = process.wait()
    return code if code >= 0 else 128 - code


def _in_foreground() -> bool:
    """Whether a terminal's keys signal this job: the command, being part of it, is signalled too."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@contextlib.contextmanager
def _handling(numbers: Sequence[signal.Signals], by: Handler) -> Iterator[None]:
    """Handles these signals, except for those that are ignored: under nohup, the command ignores them too."""
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, by)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _audit(server: WavemockServer, allow: Sequence[str], junit: Path | None) -> int:
    """Tells what the server saw: 0 where that is nothing but notes, 1 where it is more, 2 where it cannot."""
    from mock_server.audit.rules import RULES  # noqa: PLC0415 - as above

    try:
        seen = _seen(server)
    except WavemockError as error:
        _say(f"Error: the audit cannot be told: {error}")
        return 2
    shown = [each for each in seen.findings if each["rule"] not in allow]
    grave = [each for each in shown if each["severity"] != "note"]
    total = summary(shown, len(seen.findings) - len(shown), {"requests": seen.requests})
    _say("\n\n".join((*map(story, grave), f"{books(server.url, seen.books)}\n{total}")))
    if junit is not None:
        try:
            junit.write_text(junit_xml(shown, tuple(RULES), allow), encoding="utf-8")
        except OSError as error:
            _say(f"Error: --junit {junit}: {error.strerror or error}")
            return 2
    return int(bool(grave))


def _say(text: str) -> None:
    # Whoever reads only the first lines of this still gets the command's exit code.
    with contextlib.suppress(BrokenPipeError):
        click.echo(f"\n{text}", err=True)


def _seen(server: WavemockServer) -> _Seen:
    findings: list[dict[str, Any]] = []
    requests = 0
    sums: dict[str, Any] = {**dict.fromkeys(_SUMS, 0), **{name: [] for name in _LISTS}}
    with contextlib.closing(Control(server.url, token=server.token)) as control:
        for name in ("", *control.call("GET", "/_mock/health")["sessions"]):
            where = f"/_session/{name}" if name else ""
            data = control.call("GET", f"{where}/_mock/audit")
            requests += data["requests"]
            findings += [_of_session(each, name) for each in data["findings"]]
            for key, value in control.call("GET", f"{where}/_mock/ledger").items():
                if key in sums:
                    sums[key] += value
    findings.sort(key=lambda each: _GRAVEST_FIRST.index(each["severity"]))
    return _Seen(findings=findings, requests=requests, books=sums)


def _of_session(finding: dict[str, Any], name: str) -> dict[str, Any]:
    return {**finding, "message": f"session {name}: {finding['message']}"} if name else finding


def _last_line(error: WavemockError) -> str:
    """What the server said last where it did not start, which is why; or else the whole."""
    return str(error).splitlines()[-1].removeprefix("Error: ")
