"""What the offline model draws follows what it is told, as its reader sees it."""

from PIL import Image
from reference import distance, picture

from reference_backend.pipelines import Flux
from reference_backend.tiny.reader import read_picture

pytest_plugins = ("reference",)

INK = (40, 70, 200)
PROMPT = "a large {colour} {shape} {place} with a {background} background"
SCENES = [
    {"colour": "red", "shape": "circle", "place": "on the left", "background": "blue"},
    {"colour": "yellow", "shape": "circle", "place": "on the left", "background": "blue"},
    {"colour": "red", "shape": "circle", "place": "on the right", "background": "blue"},
    {"colour": "red", "shape": "circle", "place": "on the left", "background": "green"},
]


def test_words_for_colours_and_places_change_what_is_drawn(tiny_dev: Flux) -> None:
    for scene in SCENES:
        seen = read_picture(picture(tiny_dev, PROMPT.format(**scene), steps=12))
        assert seen.colour == scene["colour"]
        assert seen.background == scene["background"]
        assert seen.place == scene["place"].rpartition(" ")[2]


def test_dev_heeds_the_guidance_scale(tiny_dev: Flux) -> None:
    prompt = PROMPT.format(**SCENES[0])
    plain, none, high = (picture(tiny_dev, prompt, steps=8, guidance=scale) for scale in (3.5, 0.0, 10.0))
    assert distance(plain, none) > 5
    assert distance(plain, high) > 1


def test_schnell_ignores_the_guidance_scale(tiny_schnell: Flux) -> None:
    prompt = PROMPT.format(**SCENES[0])
    none, high = (picture(tiny_schnell, prompt, guidance=scale) for scale in (0.0, 10.0))
    assert distance(none, high) == 0


def test_schnell_draws_what_it_is_told_in_four_steps(tiny_schnell: Flux) -> None:
    for scene in SCENES[:2]:
        seen = read_picture(picture(tiny_schnell, PROMPT.format(**scene)))
        assert (seen.colour, seen.background) == (scene["colour"], scene["background"])


def test_the_number_of_steps_matters(tiny_dev: Flux) -> None:
    prompt = PROMPT.format(**SCENES[0])
    few, more = (picture(tiny_dev, prompt, steps=steps) for steps in (2, 16))
    assert distance(few, more) > 1


def test_a_little_strength_keeps_the_image_and_all_of_it_follows_the_prompt(tiny_dev: Flux) -> None:
    image = picture(tiny_dev, PROMPT.format(**SCENES[0]), steps=12)
    told = PROMPT.format(**SCENES[3])
    little, all_of_it = (
        read_picture(picture(tiny_dev, told, image=image, strength=strength, steps=20, seed=2))
        for strength in (0.05, 1.0)
    )
    assert (little.background, all_of_it.background) == ("blue", "green")


def test_the_white_half_of_a_mask_follows_the_prompt(tiny_dev: Flux) -> None:
    image = Image.new("RGB", (512, 512), INK)
    mask = Image.new("L", (512, 512), 0)
    mask.paste(255, (256, 0, 512, 512))
    told = PROMPT.format(colour="yellow", shape="circle", place="on the right", background="blue")
    made = picture(tiny_dev, told, image=image, mask=mask, strength=1.0, steps=12)
    assert distance(made.crop((0, 0, 256, 512)), image.crop((0, 0, 256, 512))) == 0
    assert read_picture(made.crop((256, 0, 512, 512))).colour == "yellow"
