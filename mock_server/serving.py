"""`wavemock serve`: flags become settings, settings become a server."""

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mock_server.errors import BadConfiguration

if TYPE_CHECKING:
    from mock_server.app import Settings
    from mock_server.catalog import Catalog

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
@click.option(
    "--retention",
    "retention_days",
    default=7.0,
    show_default=True,
    type=click.FloatRange(0.001),
    metavar="DAYS",
    help="How long outputs and uploads are kept, on the server's clock.",
)
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

    host, port, workers = flags.pop("host"), flags.pop("port"), flags.pop("workers")
    access_log, sync_seconds = flags.pop("access_log"), flags.pop("sync_timeout")
    ready_file = flags.pop("ready_file")
    _check_flags(workers, flags)
    data = Path(tempfile.mkdtemp(prefix="wavemock-"))
    # SIGTERM ends as Ctrl-C does, with everything cleared away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        settings = Settings(data=data, sync_seconds=sync_seconds, **flags)
        catalog = read_contracts(settings)
        listening = listen(host, port)
        address = listening.getsockname()
        url = f"http://{f'[{address[0]}]' if ':' in address[0] else address[0]}:{address[1]}"
        run(
            settings,
            catalog,
            listening,
            workers=workers,
            access_log=access_log,
            ready=partial(_say_ready, settings, catalog, url, ready_file),
        )
    except BadConfiguration as error:
        raise Unusable(str(error)) from error
    except KeyboardInterrupt:
        pass
    finally:
        shutil.rmtree(data, ignore_errors=True)
    click.echo("wavemock has stopped.", err=True)


def _hush() -> None:
    """Keeps a remark of Starlette to Connexion's authors, which is no news to a user, off the terminal."""
    remark = "Using `httpx` with `starlette.testclient`"
    warnings.filterwarnings("ignore", message=remark)
    # For the processes that --workers starts.
    others = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = f"{others},ignore:{remark}" if others else f"ignore:{remark}"


def _check_flags(workers: int, flags: Mapping[str, Any]) -> None:
    if workers > 1 and flags["store"] is None:
        raise click.UsageError(
            "--workers: several processes need a store to share; add --store sqlite:///FILE."
        )
    if flags["only"] and flags["openapi"] is None:
        raise click.UsageError("--only: there is nothing to serve but the built-in files; add --openapi DIR.")
    url = flags["public_url"]
    if url is not None and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url):
        raise click.UsageError(f"--public-url: {url!r} is no address; write http://HOST:PORT.")
    if any(not key.strip() for key in (*flags["api_keys"], flags["control_token"] or "-")):
        raise click.UsageError("--api-key and --control-token: an empty one would keep everybody out.")


def _say_ready(settings: "Settings", catalog: "Catalog", url: str, ready_file: Path | None) -> None:
    """What a program waits for; and what a person wants to know first, and what to paste first."""
    if ready_file is not None:
        part = ready_file.with_name(f".{ready_file.name}.part")
        try:
            part.write_text(f"{url}\n")
            part.replace(ready_file)
        except OSError as error:
            click.echo(f"--ready-file: {ready_file} cannot be written: {error.strerror}", err=True)
    root = catalog[settings.edition]
    shown = sorted(root.contracts.values(), key=lambda contract: (contract.model, contract.version))
    example = next(contract for contract in shown if contract.documented or contract is shown[-1])
    others = [f"{url}/editions/{name}" for name in catalog if name != settings.edition]
    models = sorted({contract.model for contract in shown})
    width = max(len(model) for model in models)
    lines = [f"wavemock serves the edition {settings.edition} at {url}  (Ctrl-C stops it)", ""]
    for model in models:
        versions = [
            contract.version + "*" * contract.documented for contract in shown if contract.model == model
        ]
        lines.append(f"  {model:<{width}}  {' '.join(versions)}")
    lines += ["", "  * the version that the model's page shows"]
    if others:
        lines.append(f"  other editions: {' '.join(others)}")
    key = settings.api_keys[0] if settings.api_keys else "any-key"
    headers = f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
    body = json.dumps(_smallest(example.schema))
    lines += [
        "",
        f"Try:     curl {url}{example.path} {headers} -d '{body}'",
        f"Inside:  {url}/_mock/",
        f"Docs:    {url}/docs",
        "",
    ]
    # Whoever reads only the first lines of this still gets a server.
    with contextlib.suppress(BrokenPipeError):
        click.echo("\n".join(lines))
        sys.stdout.flush()


def _smallest(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A body with the required fields alone."""
    filler = {"string": "A lighthouse in a storm", "integer": 1, "number": 1, "boolean": True, "array": []}
    return {
        name: field.get("example", filler.get(field.get("type", ""), {}))
        if field.get("type") != "string" or "enum" in field or "http" in str(field.get("example"))
        else filler["string"]
        for name in schema.get("required", [])
        for field in [schema["properties"].get(name, {})]
    }
