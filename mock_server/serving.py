"""`wavemock serve`: flags become settings, settings become a server."""

import contextlib
import os
import re
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mock_server.errors import BadConfiguration
from mock_server.welcome import say_ready
from mock_server.working import (
    WORKER_FLAGS,
    flags_of,
    require_extra,
    retention_option,
    worker_beside,
    worker_options,
)

if TYPE_CHECKING:
    from mock_server.app import Settings

_UNITS = {"": 1, "K": 1000, "KI": 1024, "M": 1000**2, "MI": 1024**2, "G": 1000**3, "GI": 1024**3}


class _Size(click.ParamType[int]):
    """A number of bytes, with a unit or without: 1000000, 64KiB, 32MiB, 1GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The size in bytes."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]{1,15})\s*([KMG]I?)?B?", value.strip().upper())
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is no size; try 500000, 64KiB, 32MiB or 1GiB.", param, ctx)
        return int(match[1]) * _UNITS[match[2] or ""]


class Unusable(click.ClickException):
    """One line about what is wrong, and exit code 2."""

    exit_code = 2


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free port."
)
@click.option(
    "--scenario",
    default="normal",
    show_default=True,
    metavar="SCENARIO",
    help="How predictions go whose request names none; `wavemock scenarios` lists them.",
)
@click.option(
    "--magic/--no-magic",
    default=True,
    show_default=True,
    help="Whether [[mock:SCENARIO]] in a prompt or trigger word, or a reserved seed, chooses a scenario.",
)
@click.option("--seed", type=int, help="Make ids, outputs and timings the same on every run.")
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    metavar="KEY",
    help="Accept only this key; may be repeated. [default: any]",
)
@click.option(
    "--edition", default="current", show_default=True, help="Which published revision stands at the root."
)
@click.option(
    "--openapi", type=click.Path(path_type=Path), metavar="DIR", help="Serve the OpenAPI files in DIR too."
)
@click.option("--only", is_flag=True, help="Serve the files of --openapi and not the built-in ones.")
@click.option(
    "--unknown-fields",
    type=click.Choice(["report", "reject"]),
    default="report",
    show_default=True,
    help="What to do with fields that the contract does not know.",
)
@click.option(
    "--image-format",
    type=click.Choice(["png", "jpeg", "webp"]),
    default="png",
    show_default=True,
    help="Encoding of images whose request does not say.",
)
@click.option(
    "--base64",
    type=click.Choice(["raw", "data-uri"]),
    default="raw",
    show_default=True,
    help="How base64 outputs are written.",
)
@click.option(
    "--sync-timeout",
    default=90.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long enable_sync_mode holds a submit.",
)
@click.option("--store", metavar="URL", help="Keep predictions in sqlite:///FILE. [default: in memory]")
@click.option(
    "--keep",
    default=100_000,
    show_default=True,
    type=click.IntRange(1),
    help="Most predictions in memory; the oldest finished go first.",
)
@click.option(
    "--keep-bytes",
    default="1GiB",
    show_default=True,
    type=_Size(),
    help="Most bytes of predictions in memory.",
)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Processes that serve; more than one need --store.",
)
@click.option("--max-body", default="32MiB", show_default=True, type=_Size(), help="Largest request body.")
@click.option("--max-upload", default="300MiB", show_default=True, type=_Size(), help="Largest upload.")
@click.option(
    "--public-url",
    metavar="URL",
    help="Address to write into answers, behind a proxy. [default: the Host that was asked]",
)
@click.option(
    "--webhook-to",
    "webhook_to",
    multiple=True,
    metavar="HOST",
    help="Send webhooks to this host, address or network too; may be repeated. [default: this machine only]",
)
@click.option(
    "--journal",
    default=10_000,
    show_default=True,
    type=click.IntRange(0),
    metavar="N",
    help="How many requests to remember for /_mock/requests and the audit; 0 for none.",
)
@retention_option
@click.option(
    "--backend",
    type=click.Choice(["simulated", "gpu"]),
    default="simulated",
    show_default=True,
    help="Whether tasks are told as stories or done for real, by a worker on this machine.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep uploads and outputs in DIR. [default: a folder that goes when the server stops]",
)
@click.option(
    "--workers-elsewhere",
    is_flag=True,
    help="Start no worker here: `wavemock worker` runs on the same --store and --data.",
)
@worker_options
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the server's address into FILE once it answers.",
)
@click.option(
    "--control-token", metavar="TOKEN", help="Open /_mock to other machines that send this bearer token."
)
@click.option(
    "--access-log/--no-access-log", default=False, show_default=True, help="Write a line per request."
)
def serve(**flags: Any) -> None:
    """Serve the mock until Ctrl-C.

    \b
    How a single task goes can be chosen by its request:
      curl -H "X-Mock-Scenario: failed" ...
    """
    _hush()
    from mock_server.app import Settings, read_contracts
    from mock_server.server import listen, run

    host, port, processes = flags.pop("host"), flags.pop("port"), flags.pop("workers")
    access_log, sync_seconds = flags.pop("access_log"), flags.pop("sync_timeout")
    ready_file, kept, elsewhere = flags.pop("ready_file"), flags.pop("data"), flags.pop("workers_elsewhere")
    work = {name: flags.pop(name) for name in WORKER_FLAGS}
    # SIGTERM ends as Ctrl-C does, with everything cleared away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _data_folder(kept) as data, contextlib.ExitStack() as beside:
            if flags["backend"] == "gpu":
                flags["store"] = _store_of_jobs(flags["store"], data, kept=kept)
            _check_flags(processes, flags, elsewhere=elsewhere, kept=kept)
            settings = Settings(data=data, sync_seconds=sync_seconds, **flags)
            catalog = read_contracts(settings)
            listening = listen(host, port)
            address = listening.getsockname()
            url = f"http://{f'[{address[0]}]' if ':' in address[0] else address[0]}:{address[1]}"
            if settings.backend == "gpu" and not elsewhere:
                require_extra()
                beside.enter_context(worker_beside(_for_worker(settings, work), grace=work["grace"]))
            run(
                settings,
                catalog,
                listening,
                workers=processes,
                access_log=access_log,
                ready=partial(say_ready, settings, catalog, url, ready_file),
            )
    except BadConfiguration as error:
        raise Unusable(str(error)) from error
    except KeyboardInterrupt:
        pass
    click.echo("wavemock has stopped.", err=True)


@contextlib.contextmanager
def _data_folder(kept: Path | None) -> Iterator[Path]:
    """The folder for files: the one that was named, or one that goes in the end."""
    if kept is None:
        data = Path(tempfile.mkdtemp(prefix="wavemock-"))
        try:
            yield data
        finally:
            shutil.rmtree(data, ignore_errors=True)
        return
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadConfiguration(f"--data {kept}: cannot be used: {error.strerror}") from error
    yield kept.resolve()


def _store_of_jobs(named: str | None, data: Path, *, kept: Path | None) -> str:
    """The URL of the store: the one that was named, or a file that lasts as long as the data folder."""
    if named is None:
        return f"sqlite:///{data}/wavemock.db"
    if kept is None:
        raise click.UsageError(
            "--store: with --backend gpu it needs --data DIR, or the tasks would outlast their results."
        )
    return named


def _for_worker(settings: "Settings", work: Mapping[str, Any]) -> list[str]:
    """The command line of the worker beside this server."""
    where = ["--store", str(settings.store), "--data", str(settings.data)]
    return [*where, "--retention", f"{settings.retention_days:g}", *flags_of(work)]


def _hush() -> None:
    """Keeps a remark of Starlette to Connexion's authors, which is no news to a user, off the terminal."""
    remark = "Using `httpx` with `starlette.testclient`"
    warnings.filterwarnings("ignore", message=remark)
    # For the processes that --workers starts.
    others = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = f"{others},ignore:{remark}" if others else f"ignore:{remark}"


def _check_flags(processes: int, flags: Mapping[str, Any], *, elsewhere: bool, kept: Path | None) -> None:
    if processes > 1 and flags["store"] is None:
        raise click.UsageError(
            "--workers: several processes need a store to share; add --store sqlite:///FILE."
        )
    if elsewhere and (flags["backend"] != "gpu" or kept is None):
        raise click.UsageError(
            "--workers-elsewhere: they need --backend gpu, and the --store and --data to share."
        )
    if flags["only"] and flags["openapi"] is None:
        raise click.UsageError("--only: there is nothing to serve but the built-in files; add --openapi DIR.")
    url = flags["public_url"]
    if url is not None and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url):
        raise click.UsageError(f"--public-url: {url!r} is no address; write http://HOST:PORT.")
    if any(not key.strip() for key in (*flags["api_keys"], flags["control_token"] or "-")):
        raise click.UsageError("--api-key and --control-token: an empty one would keep everybody out.")
