"""Reads the OpenAPI files and makes of them the contracts that the server keeps, edition by edition."""

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mock_server import schemas
from mock_server.documents import Library, LocatedDict, plain
from mock_server.errors import BadConfiguration

CURRENT = "current"
"""The name of the edition that the files directly in `openapi/` make up."""

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_MODEL_PATH = re.compile(r"/api/(v[0-9]+)/(?P<model>[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One model on one API version, as one page of one edition documents it.

    `produces` is what its outputs are, `seconds` how long a simulated run takes, `documented` whether the
    page itself shows this version, `schema` the OpenAPI schema of the input with all references resolved.
    """

    edition: str
    version: str
    model: str
    operation_id: str
    produces: Literal["images", "lora"]
    seconds: float
    documented: bool
    schema: Mapping[str, Any]
    source: str

    @property
    def path(self) -> str:
        """Where to submit, on the edition that stands at the root."""
        return f"/api/{self.version}/{self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """One published revision of the pages: its contracts by operation id, and one OpenAPI document of all."""

    name: str
    contracts: Mapping[str, Contract]
    document: Mapping[str, Any]


Catalog = Mapping[str, Edition]


def bundled_directory() -> Path:
    """Where the project's own OpenAPI files are: inside the installed package, or in a checkout beside it."""
    package = Path(__file__).parent
    installed = package / "openapi"
    return installed if installed.is_dir() else package.parent / "openapi"


def load_catalog(
    *, directory: Path | None = None, only: bool = False, closed: bool = False
) -> dict[str, Edition]:
    """Reads the project's own files and those in `directory`, or `only` the latter.

    `closed` forbids unknown fields in every input. Files directly in a directory make up the edition
    "current"; those in `editions/NAME/` the edition NAME.
    Raises BadConfiguration with file, line and what is wrong.
    """
    bundled = bundled_directory()
    library = Library(fallback=bundled, files={})
    if directory is not None and not directory.is_dir():
        raise BadConfiguration(f"{directory}: is not a directory of OpenAPI files")
    directories = [each for each in (None if only else bundled, directory) if each is not None]
    files: dict[str, list[Path]] = {}
    for root in directories:
        found = dict(_editions(root))
        if not any(found.values()):
            raise BadConfiguration(f"{root}: has no .yaml file that describes a model")
        for name, paths in found.items():
            files.setdefault(name, []).extend(paths)
    return {
        name: _edition(name, paths, library=library, closed=closed)
        for name, paths in sorted(files.items(), key=lambda item: item[0] != CURRENT)
        if paths
    }


def _editions(root: Path) -> Iterator[tuple[str, list[Path]]]:
    """The model files of a directory, by edition; `common.yaml` holds only what others refer to."""
    yield CURRENT, _model_files(root)
    for folder in sorted((root / "editions").glob("*/")):
        if not re.fullmatch(r"[A-Za-z0-9._-]+", folder.name):
            raise BadConfiguration(f"{folder}: an edition's name may have letters, digits and . _ - only")
        yield folder.name, _model_files(folder)


def _model_files(folder: Path) -> list[Path]:
    paths = sorted(path for pattern in ("*.yaml", "*.yml") for path in folder.glob(pattern))
    return [path for path in paths if path.stem != "common"]


def _edition(name: str, paths: Iterable[Path], *, library: Library, closed: bool) -> Edition:
    operations: dict[tuple[str, str], LocatedDict] = {}
    contracts: dict[str, Contract] = {}
    tags: dict[str, str] = {}
    results = False
    for path in paths:
        document = read_document(path, library)
        for url, method, operation in _operations(document):
            kind = _kind(operation)
            known = operations.setdefault((url, method), operation)
            if plain(known) != plain(operation):
                raise BadConfiguration(
                    f"{operation.place()}: {method.upper()} {url} is described by {known.place()} too, and "
                    "differently; give yours a path of its own, an edition of its own, or serve --only it"
                )
            results = results or kind == "result"
            if kind == "submit" and known is operation:
                contract = _contract(name, url, operation, source=path.name, closed=closed)
                if contract.operation_id in contracts:
                    raise BadConfiguration(
                        f"{operation.place('operationId')}: operationId {contract.operation_id!r} is taken"
                    )
                contracts[contract.operation_id] = contract
                about = document["info"].get("description", "")
                tags.update(dict.fromkeys(operation.get("tags", []), about))
    if not results:
        common = read_document(bundled_directory() / "common.yaml", library)
        operations.update({(url, method): operation for url, method, operation in _operations(common)})
    return Edition(name=name, contracts=contracts, document=_merge(name, operations, tags))


def read_document(path: Path, library: Library) -> LocatedDict:
    """One OpenAPI file, checked, with its references resolved.

    Raises BadConfiguration with file, line and what is wrong.
    """
    source = library.read(path)
    schemas.check_structure(source)
    document: LocatedDict = library.resolve(source)
    # Once more, since a reference can lead to something that does not belong where it stands.
    schemas.check_structure(document)
    return document


def _operations(document: LocatedDict) -> Iterator[tuple[str, str, LocatedDict]]:
    """The operations of a file, each with the security that holds for it written into it."""
    schemes = document.get("components", {}).get("securitySchemes", {})
    for name, scheme in schemes.items():
        if (scheme.get("type"), str(scheme.get("scheme")).lower()) != ("http", "bearer"):
            raise BadConfiguration(
                f"{schemes.place(name)}: security scheme {name}: only `type: http, scheme: bearer` is served"
            )
    for url, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                operation = copy.copy(item[method])
                security = operation.get("security", document.get("security", []))
                for requirement in security:
                    for scheme_name in requirement:
                        if scheme_name not in schemes and document.path.stem != "common":
                            raise BadConfiguration(
                                f"{document.place('security')}: there is no security scheme {scheme_name!r}"
                            )
                # Whatever a file calls its bearer scheme, the merged document has one.
                operation["security"] = [{"apiKey": []}] if security else []
                operation["parameters"] = [*item.get("parameters", []), *operation.get("parameters", [])]
                yield url, method, operation


def _kind(operation: LocatedDict) -> Literal["submit", "result"]:
    note = operation.get("x-wavemock")
    kind = note.get("operation") if isinstance(note, dict) else None
    if kind not in {"submit", "result"}:
        raise BadConfiguration(
            f"{operation.place('x-wavemock')}: nothing says what this operation does; add "
            "`x-wavemock: {operation: submit, produces: images}`, or `{operation: result}` where one polls"
        )
    return "submit" if kind == "submit" else "result"


def _contract(edition: str, url: str, operation: LocatedDict, *, source: str, closed: bool) -> Contract:
    match = _MODEL_PATH.fullmatch(url)
    if match is None:
        raise BadConfiguration(f"{operation.place()}: {url} is not of the form /api/v3/VENDOR/MODEL")
    note: LocatedDict = operation["x-wavemock"]
    if (produces := note.get("produces")) not in {"images", "lora"}:
        raise BadConfiguration(f"{note.place('produces')}: x-wavemock.produces has to be images or lora")
    if not isinstance(seconds := note.get("seconds", 2), int | float) or seconds < 0:
        raise BadConfiguration(f"{note.place('seconds')}: x-wavemock.seconds has to be a number, 0 or more")
    media = operation.get("requestBody", LocatedDict(path=operation.path, line=operation.line))
    media = media.get("content", {}).get("application/json", {})
    if "schema" not in media:
        raise BadConfiguration(f"{operation.place('requestBody')}: there is no application/json schema")
    schemas.check_input(media["schema"])
    schemas.check_examples(media, media["schema"])
    schemas.complete(media["schema"])
    if closed:
        schemas.close(media["schema"])
    operation.setdefault("operationId", f"submit-{match[1]}-{match['model'].replace('/', '-')}")
    return Contract(
        edition=edition,
        version=match[1],
        model=match["model"],
        operation_id=operation["operationId"],
        produces="images" if produces == "images" else "lora",
        seconds=float(seconds),
        documented=bool(note.get("documented", False)),
        schema=plain(media["schema"]),
        source=source,
    )


def _merge(
    name: str, operations: Mapping[tuple[str, str], LocatedDict], tags: Mapping[str, str]
) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    responses: dict[str, Any] = {}
    # Polling is by far the most frequent call, and routes are tried in order.
    for (url, method), operation in sorted(operations.items(), key=lambda item: "{id}" not in item[0][0]):
        told = plain(operation)
        told["responses"] = {
            status: _shared(response, responses) for status, response in operation["responses"].items()
        }
        paths.setdefault(url, {})[method] = told
    return {
        "openapi": "3.0.3",
        "info": {
            "title": f"WaveSpeedAI FLUX LoRA API, edition {name}",
            "version": "1",
            "description": "All models of this edition in one document, as wavemock serves them.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag, "description": text} for tag, text in tags.items()],
        "paths": paths,
        "components": {
            "responses": responses,
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`."}
            },
        },
    }


def _shared(response: LocatedDict, responses: dict[str, Any]) -> dict[str, Any]:
    """A reference to the response among the shared ones; the response itself where it has no name of its own.

    Nearly all operations have the same, and a document that repeats them is slow to read for everybody.
    """
    told: dict[str, Any] = plain(response)
    if not response.name or responses.setdefault(response.name, told) != told:
        return told
    return {"$ref": f"#/components/responses/{response.name}"}


def edition_of(catalog: Catalog, name: str) -> Edition:
    """The edition of that name.

    Raises BadConfiguration where there is none.
    """
    if name not in catalog:
        raise BadConfiguration(f"there is no edition {name!r}; there are: {', '.join(catalog)}")
    return catalog[name]
