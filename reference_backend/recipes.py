"""What the two trainers do: which layers a LoRA adapts, at what sizes, how fast, and how it is fed."""

from dataclasses import dataclass, replace

EVERY_LINEAR = (
    r"transformer_blocks\.\d+\."
    r"(norm1\.linear|norm1_context\.linear"
    r"|attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
    r"|ff\.net\.0\.proj|ff\.net\.2|ff_context\.net\.0\.proj|ff_context\.net\.2)"
    r"|single_transformer_blocks\.\d+\.(norm\.linear|proj_mlp|proj_out|attn\.(to_q|to_k|to_v))"
)
"""All linear layers inside the blocks: 494 of FLUX.1.

A public file of the provider's trainer is, at rank 16 in 16 bit, as long as this set makes it to the byte.
Anchored names: peft matches a whole path against it, so the model's own last `proj_out`, which a list of
bare names would take in as well, stays out.
"""

SINGLE_STREAM = r"single_transformer_blocks\.\d+\.(norm\.linear|proj_mlp|proj_out|attn\.(to_q|to_k|to_v))"
"""The linear layers of the second half: 228 of FLUX.1.

Nothing before them needs a gradient, so the backward pass ends where they begin. The modulation is worth much
and costs nothing, since it is computed once per picture instead of per token: without it the small model was
further from its pictures after 50 steps than with every layer adapted, and with it much nearer.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a LoRA is trained.

    `targets` is a regular expression of whole module paths. `steps` (1-10000), `learning_rate` (0-1) and
    `rank` (1-64, and alpha is the rank) are the request's. `resolutions` are sides in pixels of squares whose
    area a training picture gets; a step works at one of them. `batch` is the number of examples per step.
    `b_ratio` is how much faster the second LoRA matrix, which starts at zero, learns than the first.
    `padded_text` says that captions fill the text encoder's whole length, as in inference, instead of the
    longest caption's.
    `mask_floor` is the weight of a masked-out spot before the weights are brought to a mean of 1.
    """

    name: str
    targets: str
    steps: int = 1000
    learning_rate: float = 4e-4
    rank: int = 16
    resolutions: tuple[int, ...] = (512,)
    batch: int = 1
    b_ratio: float = 1.0
    padded_text: bool = True
    mask_floor: float = 0.1
    weight_decay: float = 1e-4
    clip: float = 1.0


BASE = Recipe(name="base", targets=EVERY_LINEAR, resolutions=(512, 768, 1024))
"""The thorough one: every layer, three sizes, the whole text length."""

TURBO = Recipe(name="turbo", targets=SINGLE_STREAM, b_ratio=4.0, padded_text=False)
"""The fast one: a step costs less (half a backward pass, one small size, short text) and gets further."""

MODEL_PIXELS = 16
"""Pixels per token side of FLUX.1."""

ENOUGH_TOKENS = 512


def suited(recipe: Recipe, *, pixel_step: int) -> Recipe:
    """The recipe for a model one token of which covers `pixel_step` pixels a side.

    A coarser model than FLUX.1 is the small offline one, which is at home at 512 pixels. It makes so few
    tokens of a picture that a step of one would mostly be overhead and noise: a batch fills 512 tokens.
    """
    if pixel_step <= MODEL_PIXELS:
        return recipe
    tokens = max(1, min(recipe.resolutions) // pixel_step) ** 2
    return replace(recipe, resolutions=(min(recipe.resolutions),), batch=max(1, ENOUGH_TOKENS // tokens))
