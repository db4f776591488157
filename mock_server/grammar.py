"""The one grammar for everything that is chosen by a text: `NAME; key=value; key="any text; even this"`."""

import re
from collections.abc import Mapping

from mock_server.errors import Refusal

_PART = re.compile(r'\s*(?P<key>[a-z][a-z-]*)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^;"]*))\s*')
_NAME = re.compile(r"\s*(?P<name>[A-Za-z0-9][A-Za-z0-9-]*)\s*")
_SPAN = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,3})?)(?P<unit>ms|s|m|h|d)?")
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
LONGEST = 2000
"""How many characters such a text may have."""


def parts_of(text: str, *, what: str) -> tuple[str, dict[str, str]]:
    """The name at the front, empty where there is none, and the parameters.

    Raises Refusal 400 that names `what` (where the text came from) and the part that is wrong.
    """
    if len(text) > LONGEST:
        raise Refusal(400, f"{what}: {len(text)} characters are too many; {LONGEST} are taken.")
    name, place, found = "", 0, dict[str, str]()
    if (match := _NAME.match(text)) and (match.end() == len(text) or text[match.end()] == ";"):
        name, place = match["name"], match.end() + 1
    while place < len(text):
        part = _PART.match(text, place)
        if part is None or (part.end() < len(text) and text[part.end()] != ";"):
            if not text[place:].strip(" ;"):
                break
            said = text[place : place + 60].strip()
            raise Refusal(400, f"{what}: {said!r} cannot be read; write NAME; key=value; key=value.")
        if part["key"] in found:
            raise Refusal(400, f"{what}: {part['key']} stands there twice.")
        quoted = part["quoted"]
        found[part["key"]] = part["plain"].strip() if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        place = part.end() + 1
    return name, found


def span(text: str, *, what: str) -> int:
    """A span of time such as 500ms, 3s, 1.5m, 2h, 7d, in milliseconds; seconds where no unit is given.

    Raises Refusal 400 where it is none.
    """
    match = _SPAN.fullmatch(text)
    if match is None:
        raise Refusal(400, f"{what}: {text[:40]!r} is no span of time; write 500ms, 3s, 5m, 2h or 7d.")
    return round(float(match["number"]) * _UNITS[match["unit"] or "s"])


def count(text: str, *, what: str, least: int = 0, most: int = 1_000_000) -> int:
    """A whole number from `least` to `most`. Raises Refusal 400 where it is none."""
    if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise Refusal(400, f"{what}: {text[:40]!r} is no whole number from {least} to {most}.")
    return int(text)


def choice(text: str, among: Mapping[str, object] | tuple[str, ...], *, what: str) -> str:
    """One of several words. Raises Refusal 400 that lists them."""
    if text not in among:
        raise Refusal(400, f"{what}: there is no {text[:40]!r}; there are: {', '.join(among)}.")
    return text


def yes(text: str, *, what: str) -> bool:
    """A yes or a no. Raises Refusal 400 where it is neither."""
    return choice(text, ("true", "false"), what=what) == "true"
