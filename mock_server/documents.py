"""YAML files read so that every value knows its file and line, and references followed across files."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from mock_server.errors import BadConfiguration

_MOST_LEVELS = 200


class Place(str):
    """A file and a line, as `file.yaml:12`."""

    __slots__ = ()


class LocatedDict(dict[str, Any]):
    """A mapping that knows where each of its keys was written, and in which file its references start.

    `name` is the last part of the reference that led to it, if one did.
    """

    def __init__(self, *, path: Path, line: int) -> None:
        super().__init__()
        self.path = path
        self.line = line
        self.lines: dict[str, int] = {}
        self.name = ""

    def place(self, key: str | None = None) -> Place:
        """Where `key` stands, or the mapping itself."""
        return Place(f"{self.path}:{self.lines.get(key, self.line) if key else self.line}")


# The C parser is many times faster, and PyYAML has it on nearly every machine.
_Base: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc, valid-type] # either base is a loader with the same interface
    """YAML as JSON knows it: no dates, no `yes`, no octal numbers, no sets; text keys, each once."""

    path = Path()
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own
    yaml_constructors = {  # noqa: RUF012 - likewise
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in {"null", "bool", "int", "float", "str", "seq"}
    }


for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> Iterator[LocatedDict]:
    result = LocatedDict(path=loader.path, line=node.start_mark.line + 1)
    yield result
    seen: set[str] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise BadConfiguration(f"{loader.path}:{key_node.start_mark.line + 1}: a key has to be a text")
        if key_node.tag != "tag:yaml.org,2002:merge" and key_node.value in seen:
            raise BadConfiguration(
                f"{loader.path}:{key_node.start_mark.line + 1}: the key {key_node.value!r} stands here twice"
            )
        seen.add(key_node.value)
    loader.flatten_mapping(node)
    for key_node, value_node in node.value:
        result.lines[key_node.value] = key_node.start_mark.line + 1
        result[key_node.value] = loader.construct_object(value_node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def _text(path: Path) -> str:
    """The text of a file, looked over for what a YAML parser cannot take, or not without harm."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadConfiguration(f"{path}: cannot be read: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadConfiguration(f"{path}:{line}: is not UTF-8 text") from error
    if bad := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise BadConfiguration(f"{path}:{line}: has a character that YAML does not allow: {bad[0]!r}")
    return text


def _check_depth(text: str, path: Path) -> None:
    """Refuses what is nested so deeply that composing it, which is recursive, would end the process.

    Scanning for events is not recursive.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_LEVELS:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise BadConfiguration(f"{path}:{line}: is nested too deeply; {_MOST_LEVELS} levels are read")


def read(path: Path) -> LocatedDict:
    """Reads one YAML file whose top is a mapping.

    Raises BadConfiguration, with file and line, where it cannot be read or is no YAML.
    """
    text = _text(path)
    loader = None
    try:
        _check_depth(text, path)
        loader = _Loader(text)
        loader.path = path
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadConfiguration(f"{path}:{line}: is not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise BadConfiguration(f"{path}: is not YAML: {error}") from error
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(value, LocatedDict):
        raise BadConfiguration(f"{path}:1: is not an OpenAPI document; one begins with `openapi: 3.0.3`")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """The files that references may lead to, each read once.

    `fallback` is the folder that is searched after a file's own.
    """

    fallback: Path
    files: dict[Path, LocatedDict]

    def read(self, path: Path) -> LocatedDict:
        """The file at `path`, from memory when it was read before."""
        path = Path(os.path.normpath(path))
        if path not in self.files:
            self.files[path] = read(path)
        return self.files[path]

    def follow(self, reference: str, *, referrer: LocatedDict) -> Any:
        """What a `$ref` of `referrer` points to.

        Raises BadConfiguration, with the place of the reference, where it leads nowhere.
        """
        place = referrer.place("$ref")
        name, _, pointer = reference.partition("#")
        if "://" in name:
            raise BadConfiguration(f"{place}: {reference} is on the network; only files are followed")
        path = self._find(referrer.path.parent, unquote(name)) if name else referrer.path
        if path is None:
            raise BadConfiguration(f"{place}: {reference} leads to no file")
        value: Any = self.read(path)
        for raw in pointer.split("/")[1:]:
            key = unquote(raw).replace("~1", "/").replace("~0", "~")
            if not isinstance(value, LocatedDict) or key not in value:
                raise BadConfiguration(f"{place}: {reference} leads nowhere; there is no {key!r}")
            value = value[key]
        return value

    def _find(self, folder: Path, name: str) -> Path | None:
        candidates = [Path(os.path.normpath(folder / name)), self.fallback / Path(name).name]
        return next((each for each in candidates if each in self.files or each.is_file()), None)

    def resolve(self, value: Any, *, chain: tuple[str, ...] = ()) -> Any:
        """The value with every `$ref` replaced by what it points to; places stay known.

        Raises BadConfiguration where a reference leads nowhere or back into itself.
        """
        if isinstance(value, list):
            return [self.resolve(item, chain=chain) for item in value]
        if not isinstance(value, LocatedDict):
            return value
        reference = value.get("$ref")
        if isinstance(reference, str):
            step = f"{value.path}|{reference}"
            if step in chain:
                place = value.place("$ref")
                raise BadConfiguration(
                    f"{place}: {reference} leads back into itself; recursive schemas are not served"
                )
            found = self.resolve(self.follow(reference, referrer=value), chain=(*chain, step))
            if isinstance(found, LocatedDict):
                found.name = reference.rpartition("/")[2]
            return found
        result = LocatedDict(path=value.path, line=value.line)
        result.lines = value.lines
        result.update({key: self.resolve(item, chain=chain) for key, item in value.items()})
        return result


def plain(value: Any) -> Any:
    """The value without places, as ordinary dicts and lists; shares nothing with it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value
