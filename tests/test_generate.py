"""Pictures by the offline model: sizes, seeds, masks, strength, and what goes wrong."""

import gc
import io
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image
from reference import distance, pixels
from reference import picture as picture_of

from reference_backend.generate import Request, encode, generate, noise_source
from reference_backend.job import Cancelled, JobFailed
from reference_backend.pipelines import Flux

pytest_plugins = ("reference",)


def picture(flux: Flux, prompt: str = "a large red circle", **asked: Any) -> Image.Image:
    """A small one, which takes a tenth of the time of the smallest that the API allows."""
    return picture_of(flux, prompt, **{"width": 256, "height": 256, **asked})


def photo(width: int = 256, height: int = 256) -> Image.Image:
    """Something with edges, gradients and noise."""
    chance = np.random.default_rng(7)
    rows, columns = np.mgrid[0:height, 0:width]
    values = np.stack([rows * 255 / height, columns * 255 / width, (rows // 40 + columns // 40) % 2 * 255], 2)
    return Image.fromarray((values + chance.normal(0, 8, values.shape)).clip(0, 255).astype(np.uint8))


def half_mask(width: int = 256, height: int = 256) -> Image.Image:
    """Black on the left, white on the right."""
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, (width // 2, 0, width, height))
    return mask


def same_picture(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("size", [(512, 512), (513, 1535), (1000, 777), (640, 512)])
def test_a_picture_has_exactly_the_asked_size(tiny_dev: Flux, size: tuple[int, int]) -> None:
    made = picture(tiny_dev, width=size[0], height=size[1], steps=1)
    assert (made.size, made.mode) == (size, "RGB")


def test_a_picture_of_the_largest_size_can_be_made(tiny_schnell: Flux) -> None:
    assert picture(tiny_schnell, width=1536, height=1536, steps=1).size == (1536, 1536)


def test_a_picture_is_the_one_that_diffusers_makes(tiny_dev: Flux) -> None:
    kind: Any = FluxPipeline
    plain = kind(**tiny_dev.pipe.components)
    plain.set_progress_bar_config(disable=True)
    wanted = plain(
        "a blue star",
        width=256,
        height=256,
        num_inference_steps=4,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(77),
        max_sequence_length=tiny_dev.text_tokens,
    ).images[0]
    assert same_picture(picture(tiny_dev, "a blue star", guidance=2.0, seed=77), wanted)


@pytest.mark.parametrize("given", [{}, {"image": photo(), "strength": 0.5}])
def test_the_same_seed_gives_the_same_picture(tiny_dev: Flux, given: dict[str, Any]) -> None:
    assert same_picture(
        picture(tiny_dev, seed=9999999999, **given), picture(tiny_dev, seed=9999999999, **given)
    )


def test_another_seed_gives_another_picture(tiny_dev: Flux) -> None:
    assert distance(picture(tiny_dev, seed=1), picture(tiny_dev, seed=2)) > 0


@pytest.mark.parametrize("seed", [0, 5, 1410065407, 2**32 - 1])
def test_every_bit_of_a_seed_counts(seed: int) -> None:
    noises = [torch.randn(8, generator=noise_source(seed + high * 2**32)) for high in range(3)]
    assert not any(torch.equal(noises[one], noises[other]) for one, other in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("seed", [2**32, 2**32 + 5, 9999999999, 2**64 - 1])
def test_a_seed_of_more_than_32_bits_has_no_twin_among_the_smaller_ones(seed: int) -> None:
    state = noise_source(seed).get_state()
    # A seed of 32 bits is the first number of its twister: only one of them can be the twin.
    first = int.from_bytes(bytes(state[24:32].tolist()), "little")
    twin = torch.Generator().manual_seed(first)
    assert bytes(twin.get_state()[24:32].tolist()) == first.to_bytes(8, "little")
    assert not torch.equal(torch.randn(64, generator=twin), torch.randn(64, generator=noise_source(seed)))


@pytest.mark.parametrize(("seed", "words"), [(77, 77), (2**32 + 5, [5, 1])])
def test_torch_begins_where_numpy_begins_its_twister(seed: int, words: int | list[int]) -> None:
    drawn = torch.rand(700, generator=noise_source(seed)).numpy() * 2**24
    theirs = np.random.RandomState(words).randint(2**32, size=700, dtype=np.uint32)
    assert np.array_equal(drawn, theirs % 2**24)


def test_a_small_seed_means_what_it_means_to_torch() -> None:
    plain = torch.randn(8, generator=torch.Generator().manual_seed(2**32 - 1))
    assert torch.equal(torch.randn(8, generator=noise_source(2**32 - 1)), plain)


def test_a_picture_does_not_depend_on_the_one_before(tiny_dev: Flux) -> None:
    alone = picture(tiny_dev, seed=4)
    picture(tiny_dev, seed=3, image=photo(), mask=half_mask(), strength=0.3, steps=7)
    assert same_picture(picture(tiny_dev, seed=4), alone)


def test_strength_orders_how_far_the_picture_departs_from_the_image(tiny_dev: Flux) -> None:
    # A scene, since the small model knows nothing else: of a photograph it leaves little at any strength.
    image = picture(tiny_dev, "a large red circle on the left with a green background", steps=10)
    prompt = "a large blue square on the right with a yellow background"
    given: dict[str, Any] = {"prompt": prompt, "image": image, "steps": 10}
    far = [distance(picture(tiny_dev, strength=each, **given), image) for each in (0, 0.1, 0.2, 0.5, 1)]
    assert far == sorted(far)
    assert far[0] == 0 < far[1] < far[4] / 2


def test_strength_0_gives_the_image_at_the_asked_size(tiny_dev: Flux) -> None:
    image = photo(100, 120)
    made = picture(tiny_dev, image=image, strength=0.0, width=300, height=200)
    assert same_picture(made, image.resize((300, 200), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("strength", [1e-18, 1e-9, 0.01, 0.999999, 1.0])
def test_any_strength_above_0_can_be_had(tiny_dev: Flux, strength: float) -> None:
    assert picture(tiny_dev, image=photo(), strength=strength).size == (256, 256)


def test_an_image_stays_in_its_place_where_the_size_is_no_multiple(tiny_dev: Flux) -> None:
    # The offline model's autoencoder is coarse: what it makes of the image is nearest where the image was.
    image = Image.new("RGB", (276, 276), "white")
    image.paste("black", (0, 0, 138, 138))
    made = picture(tiny_dev, image=image, width=276, height=276, strength=0.01, steps=50)
    apart = {
        shift: np.abs(pixels(made) - np.roll(pixels(image), shift, (0, 1))).mean() for shift in (-64, 0, 64)
    }
    assert min(apart, key=lambda shift: apart[shift]) == 0


def test_an_image_lies_in_the_middle_of_the_canvas_and_is_cut_out_there(
    tiny_dev: Flux, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Echo:
        """Gives back the canvas that it is asked to paint over."""

        def __init__(self, **_parts: Any) -> None:
            self.images = Image.new("RGB", (1, 1))

        def set_progress_bar_config(self, **_: Any) -> None:
            return

        def __call__(self, *, image: Image.Image, **_: Any) -> "Echo":
            assert image.size == (320, 320)
            assert same_picture(image.crop((22, 10, 298, 310)), given)
            self.images = image
            return self

    given = photo(276, 300)
    monkeypatch.setattr("reference_backend.generate.FluxImg2ImgPipeline", Echo)
    monkeypatch.setattr("reference_backend.generate._decoded", lambda _pipe, canvas, _frame: canvas)
    assert same_picture(picture(tiny_dev, image=given, width=276, height=300), given)


@pytest.mark.parametrize("size", [(256, 256), (310, 275)])
def test_what_is_black_in_the_mask_stays_bit_for_bit(tiny_dev: Flux, size: tuple[int, int]) -> None:
    image = photo(*size)
    made = picture(tiny_dev, image=image, mask=half_mask(*size), strength=1.0, width=size[0], height=size[1])
    middle = size[0] // 2
    assert np.array_equal(pixels(made)[:, :middle], pixels(image)[:, :middle])
    assert np.abs(pixels(made)[:, middle:] - pixels(image)[:, middle:]).mean() > 5


def test_a_mask_of_another_size_is_fitted(tiny_dev: Flux) -> None:
    image = photo()
    made = picture(tiny_dev, image=image, mask=half_mask(64, 32), strength=1.0)
    assert np.array_equal(pixels(made)[:, :122], pixels(image)[:, :122])
    assert np.abs(pixels(made)[:, 134:] - pixels(image)[:, 134:]).mean() > 5


@pytest.mark.parametrize(("grey", "repainted"), [(0, False), (127, False), (128, True), (255, True)])
def test_a_grey_mask_counts_as_white_from_the_middle_on(tiny_dev: Flux, grey: int, repainted: bool) -> None:
    image = photo()
    made = picture(tiny_dev, image=image, mask=Image.new("L", (256, 256), grey), strength=1.0)
    assert same_picture(made, image) is not repainted


def test_a_line_thinner_than_a_cell_is_repainted(tiny_dev: Flux) -> None:
    image, mask = photo(), Image.new("L", (256, 256), 0)
    mask.paste(255, (97, 0, 104, 256))
    changed = np.abs(pixels(picture(tiny_dev, image=image, mask=mask, strength=1.0)) - pixels(image)).sum(
        (0, 2)
    )
    assert set(np.flatnonzero(changed)) == set(range(97, 104))
    # More than the autoencoder alone would change, which is what comes out where no cell was repainted.
    vae = tiny_dev.pipe.vae
    values = torch.tensor(np.asarray(image)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        kept = ((vae.decode(vae.encode(values).latent_dist.mode()).sample[0] + 1) * 127.5).permute(1, 2, 0)
    made = picture(tiny_dev, image=image, mask=mask, strength=1.0)
    apart = np.abs(pixels(made)[:, 97:104] - kept.clamp(0, 255).numpy()[:, 97:104]).mean()
    assert apart > 20


def test_a_mask_needs_an_image(tiny_dev: Flux) -> None:
    with pytest.raises(JobFailed) as caught:
        picture(tiny_dev, mask=half_mask())
    assert caught.value.code == "mask_without_image"


@pytest.mark.parametrize(
    "prompt", ["", " ", "\ud800 lone \udfff", "🦊" * 3000, "x" * 10_000, "\x00\x07", "red " * 250_000]
)
def test_any_prompt_makes_a_picture(tiny_dev: Flux, prompt: str) -> None:
    assert picture(tiny_dev, prompt, steps=1).size == (256, 256)


@pytest.mark.parametrize(("given", "steps"), [({}, 4), ({"image": photo(), "strength": 0.5}, 2)])
def test_each_step_is_reported(tiny_dev: Flux, given: dict[str, Any], steps: int) -> None:
    told: list[tuple[str, int, int]] = []
    request = Request(prompt="", width=256, height=256, steps=4, guidance=3.5, seed=1, **given)
    generate(tiny_dev, request, lambda *report: told.append(report))
    assert told == [("denoising", done, steps) for done in range(steps + 1)]


@pytest.mark.parametrize("given", [{}, {"image": photo()}, {"image": photo(), "mask": half_mask()}])
def test_a_picture_is_cancelled_within_a_step(tiny_dev: Flux, given: dict[str, Any]) -> None:
    told = []

    def report(_stage: str, done: int, _of: int) -> None:
        told.append(done)
        if done == 1:
            raise Cancelled

    before = picture(tiny_dev)
    with pytest.raises(Cancelled):
        generate(
            tiny_dev,
            Request(prompt="", width=256, height=256, steps=50, guidance=3.5, seed=1, **given),
            report,
        )
    assert told == [0, 1]
    assert same_picture(picture(tiny_dev), before)


def test_numbers_that_are_no_picture_fail_the_job(tiny_dev: Flux, monkeypatch: pytest.MonkeyPatch) -> None:
    before = picture(tiny_dev)
    with monkeypatch.context() as patch:
        weight = tiny_dev.pipe.transformer.proj_out.weight.data
        patch.setattr(tiny_dev.pipe.transformer.proj_out.weight, "data", weight * torch.nan)
        with pytest.raises(JobFailed) as caught:
            picture(tiny_dev)
    assert caught.value.code == "picture_not_finite"
    assert same_picture(picture(tiny_dev), before)


@pytest.mark.parametrize("number", [torch.inf, -torch.inf])
def test_infinite_numbers_are_no_white_or_black_picture(
    tiny_dev: Flux, monkeypatch: pytest.MonkeyPatch, number: float
) -> None:
    bias = tiny_dev.pipe.vae.decoder.conv_out.bias
    monkeypatch.setattr(bias, "data", torch.full_like(bias, number))
    with pytest.raises(JobFailed, match="picture_not_finite"):
        picture(tiny_dev)


def test_lack_of_memory_fails_the_job_and_nothing_of_it_is_kept(
    tiny_dev: Flux, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = picture(tiny_dev)
    kept: list[weakref.ref[torch.Tensor]] = []

    def decode(latents: torch.Tensor, **_: Any) -> None:
        kept.append(weakref.ref(latents))
        torch.empty(2**60)

    with monkeypatch.context() as patch:
        patch.setattr(tiny_dev.pipe.vae, "decode", decode)
        with pytest.raises(JobFailed) as caught:
            picture(tiny_dev)
        assert caught.value.code == "out_of_memory"
        # Also while somebody looks at the error.
        assert kept[0]() is None
    assert same_picture(picture(tiny_dev), before)


def test_other_errors_are_not_hidden(tiny_dev: Flux, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: Any, **__: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(tiny_dev.pipe.vae, "decode", decode)
    with pytest.raises(RuntimeError, match="something else"):
        picture(tiny_dev)


@pytest.mark.parametrize(
    ("suffix", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("jpg", "JPEG"), ("webp", "WEBP")]
)
def test_a_picture_becomes_a_file(suffix: str, kind: str) -> None:
    found = Image.open(io.BytesIO(encode(photo(), suffix)))
    assert (found.format, found.size) == (kind, (256, 256))
    assert distance(found, photo()) < 12


def test_a_png_keeps_every_bit() -> None:
    assert same_picture(Image.open(io.BytesIO(encode(photo(), "png"))), photo())


def test_only_known_kinds_of_file_are_written() -> None:
    with pytest.raises(ValueError, match="gif"):
        encode(photo(), "gif")


def test_the_models_scheduler_is_left_alone(tiny_dev: Flux) -> None:
    state = dict(vars(tiny_dev.pipe.scheduler))
    picture(tiny_dev, steps=3)
    gc.collect()
    assert vars(tiny_dev.pipe.scheduler) == state
