"""The values that a documented field is tried with: at its bounds, beyond them, of other types."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from contract_tests.case import Source
from contract_tests.table import Field

_LONG = 20_000
_NO_FREE_TEXT = ("archive", "base64", "repainted", "an empty string", "no values are listed")
_LANDMARKS = (0, 2**31 - 1, 2**31, 2**32 - 1, 2**32)
_BEYOND_ALL = 10**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value for a field, and whether the contract accepts it."""

    label: str
    rule: str
    value: Any
    accepted: bool
    source: Source = "page"


def values(field: Field) -> Iterator[Value]:
    """All values that a field by itself is tried with."""
    if field.kind in {"integer", "number"}:
        yield from _numbers(field)
    elif field.is_size:
        yield from _sizes(field)
    elif field.kind == "string":
        yield from _texts(field)
    elif field.kind == "boolean":
        for flag in (True, False):
            yield Value(label=json.dumps(flag), rule="type", value=flag, accepted=True)
    yield from _of_other_types(field)


def _numbers(field: Field) -> Iterator[Value]:
    low, high = field.minimum, field.maximum
    if low is None or high is None:
        yield Value(label="1", rule="type", value=1, accepted=True)
        return
    made = _integers(int(low), int(high)) if field.kind == "integer" else _fractions(low, high)
    for label, number, accepted in made:
        yield Value(label=label, rule="range", value=number, accepted=accepted)
    if field.kind == "integer":
        inside = int(low + high) // 2
        yield Value(label="a fraction inside", rule="integer", value=inside + 0.5, accepted=False)
        yield Value(label="a fraction above min", rule="integer", value=int(low) + 0.5, accepted=False)
        yield Value(label="a hair above an integer", rule="integer", value=inside + 1e-6, accepted=False)
        whole = float(inside)
        yield Value(label=f"{whole}", rule="integer", value=whole, accepted=False, source="reading")


def _integers(low: int, high: int) -> Iterator[tuple[str, Any, bool]]:
    yield "min", low, True
    yield "max", high, True
    yield "min-1", low - 1, False
    yield "max+1", high + 1, False
    yield "min-0.5", low - 0.5, False
    yield "max+0.5", high + 0.5, False
    if high - low > 1:
        yield "min+1", low + 1, True
        yield "max-1", high - 1, True
    yield "far below min", -_BEYOND_ALL, False
    yield "far above max", _BEYOND_ALL, False
    yield "min-2", low - 2, False
    yield "max+2", high + 2, False
    yield "max*2", high * 2, False
    for landmark in _LANDMARKS:
        if low + 1 < landmark < high - 1:
            yield str(landmark), landmark, True
    for landmark in _LANDMARKS:
        if landmark < low - 2:
            yield str(landmark), landmark, False


def _fractions(low: Decimal, high: Decimal) -> Iterator[tuple[str, Any, bool]]:
    step = Decimal(1).scaleb(min(int(low.as_tuple().exponent), -1))
    yield "min", float(low), True
    yield "max", float(high), True
    yield f"min+{step}", float(low + step), True
    yield f"max-{step}", float(high - step), True
    yield "the middle", float((low + high) / 2), True
    if low == low.to_integral() and high == high.to_integral():
        yield "min as an integer", int(low), True
        yield "max as an integer", int(high), True
    for name, less, more in (("1", 1, 1), (str(step), step, step), (str(step / 2), step / 2, step / 2)):
        yield f"min-{name}", float(low - less), False
        yield f"max+{name}", float(high + more), False
    yield "a hair below min", math.nextafter(float(low), -math.inf), False
    yield "a hair above max", math.nextafter(float(high), math.inf), False
    yield "far below min", -1e300, False
    yield "far above max", 1e300, False


def _sizes(field: Field) -> Iterator[Value]:
    assert field.minimum is not None  # it is a size by that  # noqa: S101
    assert field.maximum is not None  # noqa: S101
    low, high = int(field.minimum), int(field.maximum)
    inner = (low + high) // 2
    for width, height in ((low, low), (low, high), (high, low), (high, high), (inner, low), (inner, high)):
        yield Value(label=f"{width}*{height}", rule="range", value=f"{width}*{height}", accepted=True)
    # Each side by itself wherever a decimal digit turns, since a pattern may err at any of them.
    for side in _turns(low, high):
        for text in (f"{side}*{inner}", f"{inner}*{side}"):
            yield Value(label=text, rule="range", value=text, accepted=True)
    beyond = (low - 1, high + 1, low - 12, high + 8, low // 10, high * 10, 0, -low, 100 + high, 2000)
    for side in beyond:
        for text in (f"{side}*{inner}", f"{inner}*{side}", f"{side}*{low}", f"{high}*{side}"):
            yield Value(label=text, rule="range", value=text, accepted=False)
    both = f"{low - 1}*{high + 1}"
    yield Value(label=both, rule="range", value=both, accepted=False)
    for label, text in _no_sizes(inner):
        yield Value(label=label, rule="form", value=text, accepted=False)
    for label, text in _nearly_sizes(inner):
        yield Value(label=label, rule="form", value=text, accepted=False, source="reading")


def _turns(low: int, high: int) -> list[int]:
    """Numbers within the range beside which a decimal digit turns, or that are near an end of it."""
    tens = {each for unit in (10, 100, 1000) for at in range(0, high + unit, unit) for each in (at - 1, at)}
    wanted = {low + 1, high - 1} | {each for each in tens if each % 100 in {0, 99} or abs(each - high) < 10}
    wanted |= {each for each in tens if abs(each - low) < 10}
    return sorted(each for each in wanted if low < each < high)


def _no_sizes(side: int) -> Iterator[tuple[str, str]]:
    yield "an empty text", ""
    yield "one number", f"{side}"
    yield "no width", f"*{side}"
    yield "no height", f"{side}*"
    yield "an asterisk alone", "*"
    yield "x between", f"{side}x{side}"
    yield "X between", f"{side}X{side}"
    yield "a comma between", f"{side},{side}"
    yield "a multiplication sign between", f"{side}\N{MULTIPLICATION SIGN}{side}"
    yield "a colon between", f"{side}:{side}"
    yield "two asterisks", f"{side}**{side}"
    yield "three numbers", f"{side}*{side}*{side}"
    yield "words", "square"
    yield "hexadecimal", f"{side:#x}*{side:#x}"
    yield "a fraction", f"{side}.5*{side}"
    yield "a text before it", f"size {side}*{side}"
    yield "a text behind it", f"{side}*{side}px"


def _nearly_sizes(side: int) -> Iterator[tuple[str, str]]:
    yield "a line feed behind", f"{side}*{side}\n"
    yield "a line feed before", f"\n{side}*{side}"
    yield "a blank before", f" {side}*{side}"
    yield "a blank behind", f"{side}*{side} "
    yield "blanks around the asterisk", f"{side} * {side}"
    yield "a leading zero", f"0{side}*{side}"
    yield "a plus", f"+{side}*{side}"
    yield "digits that are not ASCII", "".join(chr(0x660 + int(digit)) for digit in str(side)) + f"*{side}"
    yield "a whole fraction", f"{side}.0*{side}.0"
    yield "a second line", f"{side}*{side}\n{side}*{side}"
    yield "a NUL behind", f"{side}*{side}\0"


def _texts(field: Field) -> Iterator[Value]:
    """Good texts. Where a page says what the text has to be, others may well be refused."""
    free: Source = "reading" if any(word in field.note for word in _NO_FREE_TEXT) else "page"
    yield Value(label="a text", rule="type", value="a lighthouse", accepted=True, source=free)
    empty: Source = "page" if "an empty string" in field.note else "reading"
    yield Value(label="an empty text", rule="type", value="", accepted=True, source=empty)
    if field.is_archive:
        yield Value(label="an address", rule="type", value="https://example.com/a.zip", accepted=True)
    yield Value(label="one letter", rule="type", value="x", accepted=True, source="reading")
    text = "ein Leuchtturm, маяк, 灯台 \N{GRINNING FACE}\n\t\"'\\"
    yield Value(label="other scripts", rule="type", value=text, accepted=True, source="reading")
    yield Value(label="a long text", rule="type", value="x" * _LONG, accepted=True, source="reading")


_OTHERS: Mapping[str, Any] = {
    "an empty text": "",
    "a text": "a lighthouse",
    "true": True,
    "false": False,
    "0": 0,
    "1": 1,
    "a fraction": 1.5,
    "an empty array": [],
    "an array": [1],
    "an empty object": {},
    "an object": {"value": 1},
}
_OWN: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "integer": (int, float),
    "number": (int, float),
}


def _of_other_types(field: Field) -> Iterator[Value]:
    for label, value in _OTHERS.items():
        if type(value) not in _OWN[field.kind]:
            yield Value(label=f"{label} instead", rule="type", value=value, accepted=False)
    yield Value(label="null", rule="null", value=None, accepted=False)
    if field.kind in {"integer", "number"}:
        good = field.default if field.default is not None else int(field.maximum or 1)
        yield Value(label="a number as a text", rule="type", value=str(good), accepted=False)
        yield Value(label="a number in an array", rule="type", value=[good], accepted=False)
    if field.kind == "boolean":
        for text in ("true", "false"):
            yield Value(label=f"{text} as a text", rule="type", value=text, accepted=False)
    if field.kind == "string":
        yield Value(label="a text in an array", rule="type", value=["a lighthouse"], accepted=False)
