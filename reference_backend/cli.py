"""`wavemock worker`: flags become settings, settings become a worker."""

import logging
import os
import socket
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from mock_server.errors import BadConfiguration, NotNow, StoreUnavailable
from mock_server.serving import Unusable
from mock_server.working import retention_option, worker_options
from reference_backend.settings import WorkerSettings

_SETTINGS = [each.name for each in fields(WorkerSettings)]
_FOLDER = click.Path(path_type=Path, file_okay=False)


class _TryAgain(click.ClickException):
    """One line about what is in the way, and an exit code that says that trying again may help."""

    exit_code = os.EX_TEMPFAIL


@click.command()
@click.option(
    "--store", required=True, metavar="URL", help="The servers' store: sqlite:///FILE or postgresql://..."
)
@click.option("--data", required=True, type=_FOLDER, metavar="DIR", help="The servers' data folder.")
@worker_options
@click.option("--name", metavar="NAME", help="What this worker alone is called. [default: HOST-PROCESS]")
@click.option(
    "--stale",
    default=10.0,
    show_default=True,
    type=click.FloatRange(1),
    metavar="SECONDS",
    help="So long unheard of, and a worker on PostgreSQL has lost its job to another; the same for all.",
)
@retention_option
@click.option(
    "--runner", default="reference_backend.jobs:make_runner", hidden=True, metavar="MODULE:FUNCTION"
)
def worker(**flags: Any) -> None:
    """Do the jobs that `wavemock serve --backend gpu` accepts, one at a time, until Ctrl-C.

    One worker per device. `wavemock serve --backend gpu` starts one itself. More than one, on as many
    machines as there are, need a store on PostgreSQL and a data folder that they and the servers share:

    \b
      wavemock worker --store postgresql://USER@HOST/DATABASE --data /shared/wavemock --device cuda:1
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("wavemock.worker").setLevel(logging.INFO)
    # Not for `--help`: SQLAlchemy is most of what a start takes.
    from reference_backend.worker import run  # noqa: PLC0415

    settings = WorkerSettings(**{name: flags.pop(name) for name in _SETTINGS})
    flags["name"] = flags["name"] or f"{socket.gethostname()}-{os.getpid()}"
    try:
        run(settings, **flags, ready=lambda: click.echo(f"wavemock worker {flags['name']} is ready"))
    except (NotNow, StoreUnavailable) as error:
        raise _TryAgain(str(error)) from error
    except BadConfiguration as error:
        raise Unusable(str(error)) from error
    click.echo("The worker has stopped.", err=True)
