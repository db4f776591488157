"""The command line: every command, each in its own module where it is long."""

import json
from pathlib import Path
from typing import Any

import click

from contract_tests.cli import COMMANDS
from mock_server.audit.cli import audit
from mock_server.errors import BadConfiguration
from mock_server.running import run
from mock_server.serving import Unusable, serve
from mock_server.webhooks.cli import webhook
from reference_backend.cli import worker


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="wavemock", prog_name="wavemock")
def main() -> None:
    """A mock of the WaveSpeedAI FLUX LoRA API: the documented contracts, tasks that move, real outputs.

    \b
    Start it, and point your client at it:
      wavemock serve
      export WAVESPEED_API_KEY=anything   # and base_url=http://127.0.0.1:8080
    """


@main.command()
@click.option("--edition", default="current", show_default=True, help="Which published revision.")
@click.option(
    "--openapi",
    "directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Take in the OpenAPI files in DIR too.",
)
@click.option("--only", is_flag=True, help="Take the files of --openapi and not the built-in ones.")
@click.option(
    "--format", "file_format", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True
)
@click.option(
    "--server",
    "url",
    default="http://127.0.0.1:8080",
    show_default=True,
    metavar="URL",
    help="Server to name in the document.",
)
def openapi(edition: str, directory: Path | None, only: bool, file_format: str, url: str) -> None:
    """Print one OpenAPI document of all models, as it is served."""
    import yaml

    from mock_server.catalog import edition_of, load_catalog

    try:
        found = edition_of(load_catalog(directory=directory, only=only), edition)
    except BadConfiguration as error:
        raise Unusable(str(error)) from error
    document = {**found.document, "servers": [{"url": url}]}
    if file_format == "json":
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(
            yaml.dump(document, Dumper=_no_aliases(yaml), sort_keys=False, allow_unicode=True), nl=False
        )


def _no_aliases(yaml: Any) -> Any:
    """A YAML dumper that writes everything out, for tools that know no anchors."""
    return type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})


@main.command()
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def scenarios(as_json: bool) -> None:
    """List every scenario and fault, with what your client has to do about it.

    \b
    Choose one in the header X-Mock-Scenario, in the query (?__scenario=), as the API key (mk_SCENARIO), or
    for all requests to come with POST /_mock/scenario. What stands first here wins. Parameters may follow:
      slow; processing=3s        failed; error=out of memory        progression=polls; created=2; processing=3
      normal; fault=503; on=poll; times=2; retry-after=1s
    """
    from mock_server.faults import KINDS
    from mock_server.scenarios import SCENARIOS

    if as_json:
        told = {
            "scenarios": [
                {"name": each.name, "what": each.what, "advice": each.advice, "seed": each.magic}
                for each in SCENARIOS.values()
            ],
            "faults": [
                {"kind": each.name, "on": each.places, "what": each.what, "advice": each.advice}
                for each in KINDS.values()
            ],
        }
        click.echo(json.dumps(told, indent=2))
        return
    for each in SCENARIOS.values():
        seed = f"  (seed {each.magic})" if each.magic is not None else ""
        click.echo(
            f"{click.style(each.name, bold=True)}{seed}\n  {each.what}\n  Your client: {each.advice}\n"
        )
    click.echo("Faults, as `fault=KIND` in a scenario or by POST /_mock/faults:\n")
    for kind in KINDS.values():
        click.echo(
            f"{click.style(kind.name, bold=True)}  on {', '.join(kind.places)}\n  {kind.what}\n"
            f"  Your client: {kind.advice}\n"
        )


main.add_command(serve)
main.add_command(audit)
main.add_command(webhook)
main.add_command(run)
main.add_command(worker)
for command in COMMANDS:
    main.add_command(command)
