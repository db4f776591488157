"""The OpenAPI files of an edition as one document without references."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
"""What an OpenAPI file may say of a path's operations."""


class BadDocument(Exception):
    """OpenAPI files that cannot be read; says which, and why."""


def bundled() -> Path:
    """Where the project's own files are: installed beside this package, or in a checkout."""
    beside = Path(__file__).parent.parent
    installed = beside / "mock_server/openapi"
    return installed if installed.is_dir() else beside / "openapi"


def read_document(edition: str, directory: Path | None = None) -> dict[str, Any]:
    """All operations of an edition, every reference in them resolved.

    `directory` adds the files of somebody's own to the project's. Raises BadDocument.
    """
    paths: dict[str, Any] = {}
    schemes: dict[str, Any] = {}
    for root in (bundled(), directory):
        folder = root if root is None or edition == "current" else root / "editions" / edition
        if folder is None or (not folder.is_dir() and root == directory):
            continue
        if not folder.is_dir():
            raise BadDocument(f"{folder}: there are no OpenAPI files of an edition {edition!r}")
        for file in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
            if file.stem == "common":
                continue
            document = load(file)
            for path, item in _section(document, "paths", file).items():
                paths.setdefault(path, {}).update(resolved(item, file))
            schemes |= resolved(_section(document, "components", file).get("securitySchemes", {}), file)
    common = bundled() / "common.yaml"
    for path, item in load(common)["paths"].items():
        paths.setdefault(path, resolved(item, common))
    return {
        "openapi": "3.0.3",
        "info": {"title": f"The edition {edition}", "version": "1"},
        "servers": [{"url": "/"}],
        "security": [{name: []} for name in schemes],
        "paths": paths,
        "components": {"securitySchemes": schemes},
    }


def _section(document: Mapping[str, Any], name: str, file: Path) -> Mapping[str, Any]:
    found = document.get(name) or {}
    if not isinstance(found, Mapping):
        raise BadDocument(f"{file}: {name} is no mapping")
    return found


@cache
def load(file: Path) -> dict[str, Any]:
    """An OpenAPI file as it stands. Raises BadDocument."""
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadDocument(f"{file}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise BadDocument(f"{file}: is not an OpenAPI document")
    return document


def resolved(node: Any, file: Path, seen: tuple[str, ...] = ()) -> Any:
    """A part of `file` with what its references lead to in their place. Raises BadDocument."""
    if isinstance(node, list):
        return [resolved(each, file, seen) for each in node]
    if not isinstance(node, Mapping):
        return node
    reference = node.get("$ref")
    if not isinstance(reference, str):
        return {key: resolved(each, file, seen) for key, each in node.items()}
    name, _, pointer = reference.partition("#")
    target = file.parent / name if name else file
    if name and not target.is_file():
        target = bundled() / name
    if (address := f"{target}#{pointer}") in seen:
        raise BadDocument(f"{file}: {reference} leads back into itself")
    found: Any = load(target)
    for part in pointer.strip("/").split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or key not in found:
            raise BadDocument(f"{file}: {reference} leads nowhere")
        found = found[key]
    return resolved(found, target, (*seen, address))
