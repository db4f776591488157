"""What becomes of a submit: a story that is told at once with all it makes, or a job for a worker."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, overload

from mock_server.catalog import Contract
from mock_server.drawing import Picture, draw
from mock_server.prediction import Asked, Prediction, luck_of
from mock_server.scenarios import PLAIN, Scenario
from mock_server.stories import tell
from mock_server.weights import lora_file

_OWN = r"(?:https?://[^/?#]+)?(?:/_session/(?P<session>[A-Za-z0-9][A-Za-z0-9_.-]{0,63}))?"
OWN_OUTPUT = re.compile(_OWN + r"/outputs/(?P<id>[0-9a-f]{32})/(?P<name>[0-9]+\.[a-z]+)")
"""A URL of an output of this server. Which host it names does not matter; the id says enough."""
OWN_UPLOAD = re.compile(_OWN + r"/uploads/(?P<id>[0-9a-f]{32})\.(?P<suffix>[a-z0-9]{2,11})")
"""A URL of something that was uploaded to this server, to the session that it names."""

_READ = {
    **dict.fromkeys(("image", "mask_image"), "base64, data URIs and outputs of this server"),
    **dict.fromkeys(("data", "images_data_url"), "uploads to this server"),
}
_DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_SEEDS = 2**31  # what -1 draws fits into every integer that a contract may ask for
_DEFAULT_RANK = 16
_HIGHEST_RANK = 256
_MOST_IMAGES = 100
_LARGEST_SIDE = 4096
_DEFAULT_SIZE = (1024, 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request that was accepted `at` a moment in milliseconds; `given` is its effective input.

    It does not begin to run before `free_at`; None: not before something has ended.
    """

    id: str
    at: int
    contract: Contract
    scenario: Scenario
    given: Mapping[str, Any]
    free_at: int | None = 0
    webhook: str = ""


class Backend(Protocol):
    """What submits are handed to."""

    def submit(self, submission: Submission) -> Prediction:
        """The prediction that begins with it."""
        ...

    def remarks(self, contract: Contract, given: Mapping[str, Any]) -> tuple[str, ...]:
        """What will not be done with an input, for the author of the client."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedBackend:
    """Makes outputs without a model. `image_format` is what images are encoded as unless a request says.

    `uploaded` gives the image that was uploaded to a URL, as it could be had at a moment in milliseconds.
    """

    image_format: str
    uploaded: Callable[[str, int], bytes | None]

    def submit(self, submission: Submission) -> Prediction:
        """A prediction with all that lies ahead of it."""
        contract, scenario, given = submission.contract, submission.scenario, submission.given
        if contract.produces == "lora":
            outputs: tuple[str, ...] = ("0.safetensors",)
        else:
            suffix = self._image_format(given)
            outputs = tuple(f"{index}.{suffix}" for index in range(image_count(given)))
        story = tell(
            scenario,
            at=submission.at,
            seconds=contract.seconds,
            luck=luck_of(submission.id),
            outputs=outputs,
            checked=is_checked(contract, given),
            free_at=submission.free_at,
        )
        return Prediction(
            id=submission.id,
            model=contract.model,
            edition=contract.edition,
            version=contract.version,
            scenario=scenario.name,
            created_at=submission.at,
            inline=contract.produces == "images" and bool(given.get("enable_base64_output", False)),
            makes=outputs,
            events=story.events,
            steps=story.steps,
            fault=scenario.fault,
            webhook=submission.webhook,
        )

    def remarks(self, contract: Contract, given: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ARG002 - whatever the model
        """What is not looked at."""
        return tuple(
            f"{name} was not looked at: only {read} are"
            for name, read in _READ.items()
            if isinstance(text := given.get(name), str)
            and re.match(r"[a-z][a-z0-9+.-]*://", text, re.IGNORECASE)
            and not OWN_OUTPUT.fullmatch(text)
            and not OWN_UPLOAD.fullmatch(text)
        )

    def _image_format(self, given: Mapping[str, Any]) -> str:
        asked = str(given.get("output_format", self.image_format)).lower()
        return {"jpg": "jpeg"}.get(asked, asked if asked in {"png", "jpeg", "webp"} else self.image_format)

    def make(
        self, prediction: Prediction, asked: Asked, name: str, fetch: Callable[[str, str], bytes | None]
    ) -> bytes:
        """The bytes of one output. The same request and seed make the same bytes.

        `fetch` gives another output of this server by prediction id and file name, where there is one.
        """
        given = asked.input
        stem, _, suffix = name.partition(".")
        if suffix == "safetensors":
            return lora_file(
                rank=min(max(_whole(given, "lora_rank", _DEFAULT_RANK), 1), _HIGHEST_RANK),
                seed=seed_of(prediction, given),
                trigger_word=str(given.get("trigger_word") or ""),
                steps=_whole(given, "steps", 0),
                model=prediction.model,
            )
        width, height = _size(given)

        def uploaded(url: str) -> bytes | None:
            return self.uploaded(url, prediction.created_at)

        image = _read(given.get("image"), fetch, uploaded)
        picture = Picture(
            model=prediction.model,
            prompt=str(given.get("prompt", "")),
            width=width,
            height=height,
            seed=seed_of(prediction, given) + int(stem),
            steps=_whole(given, "num_inference_steps", None),
            guidance=_number(given.get("guidance_scale")),
            loras=_loras(given),
            strength=_number(given.get("strength")) if image is not None else None,
            image=image,
            mask=_read(given.get("mask_image"), fetch, uploaded) if image is not None else None,
        )
        return draw(picture, suffix)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobBackend:
    """Leaves the work to workers. A request that asks for a story gets that, told by the simulated backend.

    `models` are those that workers know; those of other files are simulated too.
    """

    simulated: SimulatedBackend
    models: frozenset[str]

    def submit(self, submission: Submission) -> Prediction:
        """A prediction that waits for a worker, or one with all that lies ahead of it."""
        told = self.simulated.submit(submission)
        if submission.scenario.name != PLAIN or submission.contract.model not in self.models:
            return told
        return replace(told, events=told.events[:1], steps=(), job=True)

    def remarks(self, contract: Contract, given: Mapping[str, Any]) -> tuple[str, ...]:
        """Those of the simulated backend, where the model is one that no worker knows."""
        if contract.model in self.models:
            return ()
        return (f"no worker knows {contract.model}: simulated", *self.simulated.remarks(contract, given))


def image_count(given: Mapping[str, Any]) -> int:
    """How many images an input asks for, and gets."""
    return min(max(_whole(given, "num_images", 1), 1), _MOST_IMAGES)


def is_checked(contract: Contract, given: Mapping[str, Any]) -> bool:
    """Whether a safety checker looks at what comes out."""
    return bool(given.get("enable_safety_checker", contract.produces == "images"))


def seed_of(prediction: Prediction, given: Mapping[str, Any]) -> int:
    """The seed that was asked for, or the one that -1 drew."""
    seed = _whole(given, "seed", -1)
    return seed if seed >= 0 else luck_of(prediction.id) % _SEEDS


# A model of one's own may know a field by another kind than the pages do, or let it be null. What is not what
# the drawing needs is then as good as left out.


@overload
def _whole(given: Mapping[str, Any], name: str, default: int) -> int: ...
@overload
def _whole(given: Mapping[str, Any], name: str, default: None) -> int | None: ...
def _whole(given: Mapping[str, Any], name: str, default: int | None) -> int | None:
    value = given.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _size(given: Mapping[str, Any]) -> tuple[int, int]:
    sides = re.fullmatch(r"([0-9]{1,4})\*([0-9]{1,4})", str(given.get("size")))
    if sides is None or not all(1 <= int(side) <= _LARGEST_SIDE for side in sides.groups()):
        return _DEFAULT_SIZE
    return int(sides[1]), int(sides[2])


def _loras(given: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    loras = given.get("loras")
    found = [lora for lora in loras if isinstance(lora, dict)] if isinstance(loras, list) else []
    return tuple(
        (lora["path"], 1.0 if (scale := _number(lora.get("scale"))) is None else scale)
        for lora in found
        if isinstance(lora.get("path"), str)
    )


def _read(
    text: Any, fetch: Callable[[str, str], bytes | None], uploaded: Callable[[str], bytes | None]
) -> bytes | None:
    if not isinstance(text, str) or not text:
        return None
    if OWN_UPLOAD.fullmatch(text):
        return uploaded(text)
    if own := OWN_OUTPUT.fullmatch(text):
        return fetch(own["id"], own["name"])
    prefix = _DATA_URI.match(text)
    try:
        return base64.b64decode(text[prefix.end() if prefix else 0 :], validate=True)
    except (binascii.Error, ValueError):
        return None
