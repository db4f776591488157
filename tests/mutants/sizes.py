"""Sizes `W*H` whose form or range is wrong at one edge."""

from collections.abc import Iterator

from mock_server.schemas import size_pattern

from .contracts import Change, contract_mutant
from .mutant import Mutant

_LOW, _HIGH = 512, 1536
_END = r"(?![\s\S])"


def mutants() -> Iterator[Mutant]:
    models = ("v3/flux-schnell-lora", "v2/flux-dev-lora", "v2/flux-schnell-lora", "v3/flux-dev-lora")
    for index, (label, pattern, values) in enumerate(_patterns()):
        for model in (
            {models[index % 4], models[(index + 1) % 4]} if "by one" in label else [models[index % 4]]
        ):
            yield contract_mutant(label, model, "size", _with(pattern), values, family="sizes")


def _with(pattern: str) -> Change:
    return lambda schema: schema.update(pattern=pattern)


def _side(low: int, high: int) -> str:
    """A regular expression for a number, without anchors."""
    return size_pattern(low, high).removeprefix("^").partition(r"\*")[0]


def _patterns() -> Iterator[tuple[str, str, list[str]]]:
    good = _side(_LOW, _HIGH)
    ends = [f"{side}*1024" for side in (510, 511, 512, 513, 1535, 1536, 1537)]
    ends += [f"1024*{side}" for side in (510, 511, 512, 513, 1535, 1536, 1537)]
    for name, low, high in (
        ("min too low by one", _LOW - 1, _HIGH),
        ("min too high by one", _LOW + 1, _HIGH),
        ("max too low by one", _LOW, _HIGH - 1),
        ("max too high by one", _LOW, _HIGH + 1),
    ):
        other = _side(low, high)
        yield f"width's {name}", rf"^{other}\*{good}{_END}", ends
        yield f"height's {name}", rf"^{good}\*{other}{_END}", ends
    yield "from 256", size_pattern(256, _HIGH), ["256*256", "511*511", "255*256"]
    yield "up to 2048", size_pattern(_LOW, 2048), ["2048*2048", "1600*600"]
    yield "up to 1024", size_pattern(_LOW, 1024), ["1025*1024"]
    yield "of unchecked width", rf"^[0-9]+\*{good}{_END}", ["1*1024", "9999*1024"]
    yield "of unchecked height", rf"^{good}\*[0-9]+{_END}", ["1024*1", "1024*9999"]
    yield "of unchecked numbers", rf"^[0-9]+\*[0-9]+{_END}", ["1*1"]
    yield "of any text", "^", ["square"]
    yield "with x between", rf"^{good}[*x]{good}{_END}", ["1024x1024"]
    yield "with x alone between", rf"^{good}x{good}{_END}", ["1024*1024"]
    yield "with anything between", rf"^{good}.{good}{_END}", ["1024:1024"]
    yield "with a comma between", rf"^{good}[*,]{good}{_END}", ["1024,1024"]
    yield "with a line feed behind", rf"^{good}\*{good}\n?{_END}", ["1024*1024\n"]
    yield "with anything behind", rf"^{good}\*{good}", ["1024*1024 px", "1024*10240"]
    yield "with anything before", rf"{good}\*{good}{_END}", ["size 1024*1024"]
    yield "with blanks around the asterisk", rf"^{good} ?\* ?{good}{_END}", ["1024 * 1024"]
    yield "with blanks around it", rf"^\s*{good}\*{good}\s*{_END}", [" 1024*1024"]
    yield "with a third side", rf"^{good}\*{good}(\*{good})?{_END}", ["1024*1024*1024"]
    yield "with zeros before", rf"^0*{good}\*0*{good}{_END}", ["01024*1024"]
    yield (
        "with any digits",
        rf"^(?:{good}|\p{{Nd}}{{4}})\*{good}{_END}",
        ["\u0661\u0660\u0662\u0664*1024", "2000*1024"],
    )
    yield "with whole fractions", rf"^{good}(\.0)?\*{good}(\.0)?{_END}", ["1024.0*1024.0"]
    eight = "(?:" + "|".join(str(side) for side in range(_LOW, _HIGH + 1, 8)) + ")"
    yield "in multiples of 8", rf"^{eight}\*{eight}{_END}", ["1025*1024"]
    multiple = "(?:" + "|".join(str(side) for side in range(_LOW, _HIGH + 1, 64)) + ")"
    yield "in multiples of 64", rf"^{multiple}\*{multiple}{_END}", ["1032*1024", "1025*1024"]
    yield "square only", "^(?:512\\*512|768\\*768|1024\\*1024|1536\\*1536)(?![\\s\\S])", ["1024*768"]
    gap = good.replace("1[0-4][0-9]{2}", "1[0-3][0-9]{2}")
    yield "without the 1400s", rf"^{gap}\*{good}{_END}", ["1450*1024"]
    nines = good.replace("1[0-4][0-9]{2}", "1[0-4][0-8][0-9]")
    yield "without what has 9 as its tens", rf"^{good}\*{nines}{_END}", ["1024*1390"]
    dev = _side(_LOW, 1529)
    yield "up to 1529, a digit forgotten", rf"^{dev}\*{good}{_END}", ["1530*1024"]
