"""Prompts for drawn scenes, in many wordings, and which attributes each names."""

import string
from dataclasses import astuple, dataclass

import torch
from torch import Generator

from reference_backend.tiny.scenes import Scene
from reference_backend.tiny.words import COLOURS, FILLER, PLACES, SHAPES, SIZES

VALUES = (tuple(COLOURS), tuple(COLOURS), tuple(SHAPES), tuple(PLACES), tuple(SIZES))
"""The values of each attribute, in the order of Scene's fields."""

_OMITTED = (0.10, 0.08, 0.05, 0.12, 0.30)
"""How often a prompt leaves out each attribute."""
_EMPTY = 0.02
_NOISY = 0.35

_FORMS = (
    "{subject} {place} {ground}",
    "{subject} {place} {ground}",
    "{subject} {place}, {ground}",
    "{subject} {ground}, {place}",
    "{subject} {ground} {place}",
    "{place} {subject} {ground}",
    "{place}, {subject}, {ground}",
    "{ground}, {subject} {place}",
    "{ground} and {subject} {place}",
)
_GROUNDS = (
    "with a {} background",
    "with a {} background",
    "on a {} background",
    "against a {} background",
    "in front of a {} background",
    "{} background",
    "the background is {}",
    "a {} backdrop",
)
_SUBJECTS = (
    "{size} {colour} {shape}",
    "{size} {colour} {shape}",
    "{colour} {size} {shape}",
    "{size} {shape} in {colour}",
)
_ARTICLES = ("a ", "a ", "a ", "the ", "one ", "")
_OPENINGS = (
    "",
    "",
    "",
    "a photo of ",
    "a picture of ",
    "an illustration of ",
    "a drawing of ",
    "there is ",
    "show ",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt's text, and for each attribute the index of the value it names, or one past the last."""

    text: str
    labels: tuple[int, ...]


def standard_prompt(scene: Scene) -> str:
    """The wording in which models are measured."""
    place = PLACES[scene.place][0]
    return f"a {scene.size} {scene.colour} {scene.shape} {place} with a {scene.background} background"


def empty_prompt() -> Prompt:
    """The prompt that names nothing."""
    return Prompt(text="", labels=tuple(len(values) for values in VALUES))


def random_prompt(scene: Scene, generator: Generator) -> Prompt:
    """A prompt for the scene; it may leave attributes out, and have other words around it."""
    draws = torch.rand(16, generator=generator).tolist()
    if draws[0] < _EMPTY:
        return Prompt(text=_noise(generator), labels=empty_prompt().labels)
    named = [draw >= share for draw, share in zip(draws[1:6], _OMITTED, strict=True)]
    text = _wording(scene, named, draws[6:14])
    if draws[14] < _NOISY:
        noise = _noise(generator)
        text = f"{noise}, {text}" if draws[15] < 0.5 else f"{text}, {noise}"
    return Prompt(text=text, labels=_labels(scene, named))


def _labels(scene: Scene, named: list[bool]) -> tuple[int, ...]:
    return tuple(
        values.index(value) if said else len(values)
        for values, value, said in zip(VALUES, astuple(scene), named, strict=True)
    )


def _pick(choices: tuple[str, ...], draw: float) -> str:
    return choices[int(draw * len(choices))]


def _wording(scene: Scene, named: list[bool], draws: list[float]) -> str:
    ground, colour, shape, place, size = named
    subject = _pick(_SUBJECTS if colour else ("{size} {shape}",), draws[0]).format(
        size=_pick(SIZES[scene.size], draws[1]) if size else "",
        colour=_pick(COLOURS[scene.colour], draws[2]) if colour else "",
        shape=_pick(SHAPES[scene.shape], draws[2] * 7 % 1) if shape else "shape",
    )
    text = _pick(_FORMS, draws[3]).format(
        subject=_pick(_ARTICLES, draws[4]) + subject,
        place=_pick(PLACES[scene.place], draws[5]) if place else "",
        ground=_pick(_GROUNDS, draws[6]).format(_pick(COLOURS[scene.background], draws[6] * 7 % 1))
        if ground
        else "",
    )
    text = " ".join((_pick(_OPENINGS, draws[7]) + text).split()).strip(" ,").replace(" ,", ",")
    return text.capitalize() if draws[7] * 7 % 1 < 0.2 else text


def _noise(generator: Generator) -> str:
    """A few words that say nothing about the scene; some are invented, as trigger words are."""
    words = []
    for _ in range(int(torch.randint(1, 5, (), generator=generator))):
        if float(torch.rand((), generator=generator)) < 0.7:
            words.append(FILLER[int(torch.randint(len(FILLER), (), generator=generator))])
        else:
            letters = string.ascii_lowercase + string.digits
            count = int(torch.randint(2, 7, (), generator=generator))
            words.append(
                "".join(letters[i] for i in torch.randint(len(letters), (count,), generator=generator))
            )
    return " ".join(words)
