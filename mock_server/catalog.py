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
from mock_server.merging import merged

CURRENT = "current"
"""The name of the edition that the files directly in `openapi/` make up."""

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_NOTES = ("operation", "produces", "seconds", "documented", "price")
_MODEL_PATH = re.compile(r"/api/(v[0-9]+)/(?P<model>[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One model on one API version, as one page of one edition documents it.

    `produces` is what its outputs are, `seconds` how long a simulated run takes, `price` what the mock takes
    for an output in US dollars, `documented` whether the page itself shows this version, `schema` the OpenAPI
    schema of the input with all references resolved.
    """

    edition: str
    version: str
    model: str
    operation_id: str
    produces: Literal["images", "lora"]
    seconds: float
    price: float
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

    The platform's own endpoints are added to every edition, with `only` too: without uploads and the rest,
    no official client would get far. `closed` forbids unknown fields in every input. Files directly in a
    directory make up the edition "current"; those in `editions/NAME/` the edition NAME.
    Raises BadConfiguration with file, line and what is wrong.
    """
    bundled = bundled_directory()
    library = Library(fallback=bundled, files={})
    if directory is not None and not directory.is_dir():
        raise BadConfiguration(f"{directory}: is not a directory of OpenAPI files")
    directories = [each for each in (None if only else bundled, directory) if each is not None]
    platform = tuple(_operations(read_document(bundled / "platform" / "platform.yaml", library)))
    files: dict[str, list[Path]] = {}
    for root in directories:
        found = list(_editions(root))
        if not any(paths for _, paths in found):
            raise BadConfiguration(f"{root}: has no .yaml file that describes a model")
        for name, paths in found:
            files.setdefault(name, []).extend(paths)
    return {
        name: _edition(name, paths, library=library, closed=closed, platform=platform)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """An edition while its files are read one after the other."""

    name: str
    closed: bool
    operations: dict[tuple[str, str], LocatedDict]
    contracts: dict[str, Contract]
    tags: dict[str, str]


_Operation = tuple[str, str, LocatedDict]
"""A path, a method, and what they do."""


def _edition(
    name: str, paths: Iterable[Path], *, library: Library, closed: bool, platform: Iterable[_Operation]
) -> Edition:
    draft = _Draft(name=name, closed=closed, operations={}, contracts={}, tags={})
    for path in paths:
        document = read_document(path, library)
        kinds = [_take_in(draft, document, *each) for each in _operations(document)]
        if "submit" not in kinds:
            raise BadConfiguration(
                f"{document.place('paths')}: nothing here describes a model; only common.yaml may do that"
            )
    if not any(_kind(operation) == "result" for operation in draft.operations.values()):
        common = read_document(bundled_directory() / "common.yaml", library)
        for each in _operations(common):
            _take_in(draft, common, *each)
    _add_platform(draft, platform)
    document_of_all = merged(name, draft.operations, draft.tags)
    return Edition(name=name, contracts=draft.contracts, document=document_of_all)


def _add_platform(draft: _Draft, platform: Iterable[_Operation]) -> None:
    """Adds what the platform has beside its models, which is there whatever the models are."""
    named = {operation["operationId"]: operation for operation in draft.operations.values()}
    for url, method, operation in platform:
        if (other := draft.operations.get((url, method))) is not None:
            raise BadConfiguration(f"{other.place()}: {method.upper()} {url} is the platform's own")
        if (other := named.get(name := operation["operationId"])) is not None:
            raise BadConfiguration(
                f"{other.place('operationId')}: operationId {name!r} is the platform's own"
            )
        draft.operations[url, method] = operation


def _take_in(
    draft: _Draft, document: LocatedDict, url: str, method: str, operation: LocatedDict
) -> Literal["submit", "result"]:
    """Adds an operation to the edition, unless it is there already, and says of which kind it is."""
    kind = _kind(operation)
    if kind == "result" and "{id}" not in url:
        raise BadConfiguration(f"{operation.place()}: {url}: the path of a result has to name its {{id}}")
    operation.setdefault("operationId", re.sub("[^A-Za-z0-9]+", "-", f"{kind}{url}"))
    known = draft.operations.get((url, method))
    if known is None:
        names = {each["operationId"] for each in draft.operations.values()}
        if operation["operationId"] in names:
            raise BadConfiguration(
                f"{operation.place('operationId')}: operationId {operation['operationId']!r} is taken"
            )
        if kind == "submit":
            contract = _contract(draft, url, operation, source=document.path.name)
            draft.contracts[contract.operation_id] = contract
            about = document["info"].get("description", "")
            draft.tags.update(dict.fromkeys(operation.get("tags", []), about))
        draft.operations[url, method] = operation
    elif plain(known) != plain(operation):
        raise BadConfiguration(
            f"{operation.place()}: {method.upper()} {url} is described by {known.place()} too, and "
            "differently; give yours a path of its own, an edition of its own, or serve --only it"
        )
    return kind


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


def _operations(document: LocatedDict) -> Iterator[_Operation]:
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
                            place = (operation if "security" in item[method] else document).place("security")
                            raise BadConfiguration(f"{place}: there is no security scheme {scheme_name!r}")
                # Whatever a file calls its bearer scheme, the merged document has one.
                operation["security"] = [{"apiKey": []}] if security else []
                operation["parameters"] = [*item.get("parameters", []), *operation.get("parameters", [])]
                yield url, method, operation


def _kind(operation: LocatedDict) -> Literal["submit", "result"]:
    note = operation.get("x-wavemock")
    kind = note.get("operation") if isinstance(note, dict) else None
    if kind not in ("submit", "result"):
        raise BadConfiguration(
            f"{operation.place('x-wavemock')}: nothing says what this operation does; add "
            "`x-wavemock: {operation: submit, produces: images}`, or `{operation: result}` where one polls"
        )
    return "submit" if kind == "submit" else "result"


def _contract(draft: _Draft, url: str, operation: LocatedDict, *, source: str) -> Contract:
    match = _MODEL_PATH.fullmatch(url)
    if match is None:
        raise BadConfiguration(f"{operation.place()}: {url} is not of the form /api/v3/VENDOR/MODEL")
    note: LocatedDict = operation["x-wavemock"]
    for key in note:
        if key not in _NOTES:
            raise BadConfiguration(
                f"{note.place(key)}: x-wavemock has no {key!r}; it has {', '.join(_NOTES)}"
            )
    if (produces := note.get("produces")) not in ("images", "lora"):
        raise BadConfiguration(f"{note.place('produces')}: x-wavemock.produces has to be images or lora")
    for key in ("seconds", "price"):
        if type(note.get(key, 0)) not in {int, float} or not 0 <= note.get(key, 0) < float("inf"):
            raise BadConfiguration(f"{note.place(key)}: x-wavemock.{key} has to be a number, 0 or more")
    if not isinstance(documented := note.get("documented", False), bool):
        raise BadConfiguration(f"{note.place('documented')}: x-wavemock.documented has to be true or false")
    media = operation.get("requestBody", LocatedDict(path=operation.path, line=operation.line))
    media = media.get("content", {}).get("application/json", {})
    if "schema" not in media:
        raise BadConfiguration(f"{operation.place('requestBody')}: there is no application/json schema")
    schemas.check_input(media["schema"])
    schemas.check_examples(media, media["schema"])
    schemas.complete(media["schema"])
    if draft.closed:
        schemas.close(media["schema"])
    return Contract(
        edition=draft.name,
        version=match[1],
        model=match["model"],
        operation_id=operation["operationId"],
        produces="images" if produces == "images" else "lora",
        seconds=float(note.get("seconds", 2)),
        price=float(note.get("price", 0.01)),
        documented=documented,
        schema=plain(media["schema"]),
        source=source,
    )


def edition_of(catalog: Catalog, name: str) -> Edition:
    """The edition of that name.

    Raises BadConfiguration where there is none.
    """
    if name not in catalog:
        raise BadConfiguration(f"there is no edition {name!r}; there are: {', '.join(catalog)}")
    return catalog[name]
