"""What a server says when it is ready."""

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mock_server.app import Settings
    from mock_server.catalog import Catalog


def say_ready(settings: "Settings", catalog: "Catalog", url: str, ready_file: Path | None) -> None:
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
