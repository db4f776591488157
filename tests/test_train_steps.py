"""What the steps of a training draw and ask, and which layers the recipes adapt."""

import math
import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import nn

from reference_backend import train
from reference_backend.recipes import BASE, TURBO, Recipe, suited
from reference_backend.training_cache import Item, Prepared
from reference_backend.training_loop import must_recompute
from reference_backend.training_steps import (
    Draw,
    Shift,
    draw,
    generator,
    loss_of,
    part,
    shift_of,
    whole_batches,
)

FLUX_1 = Shift(base_tokens=256, max_tokens=4096, base=0.5, max=1.15)
NONE = Shift(base_tokens=0, max_tokens=1, base=0.0, max=0.0)
SIZE = (64, 64)


def prepared(*sizes: tuple[tuple[int, int], ...], weight: torch.Tensor | None = None) -> Prepared:
    """Examples at these sizes, all of the same latents: 16 channels of 4 x 4 cells."""
    items = tuple(Item(latents=dict.fromkeys(each, "latent"), text="text") for each in sizes)
    kept = {
        "latent": {
            "mean": torch.linspace(-1, 1, 256).view(1, 16, 4, 4),
            "std": torch.full((1, 16, 4, 4), 0.1),
            "weights": torch.ones(1, 1, 4, 4) if weight is None else weight,
        },
        "text": {"embeds": torch.ones(1, 3, 8), "pooled": torch.ones(1, 8)},
    }
    return Prepared(items=items, read=kept.__getitem__)


def drawn(of: Prepared, step: int, *, batch: int = 1, shift: Shift = NONE, seed: int = 1) -> Draw:
    return draw(of, step, seed=seed, batch=batch, shift=shift, pixel_step=16)


def test_every_epoch_shows_every_example_once() -> None:
    of = prepared(*[(SIZE,)] * 5)
    for epoch in range(3):
        shown = [drawn(of, 5 * epoch + step).items[0] for step in range(5)]
        assert sorted(shown) == [0, 1, 2, 3, 4]


def test_epochs_have_orders_of_their_own() -> None:
    of = prepared(*[(SIZE,)] * 9)
    orders = {tuple(drawn(of, 9 * epoch + step).items[0] for step in range(9)) for epoch in range(4)}
    assert len(orders) == 4


def test_a_batch_is_of_one_size_and_holds_nobody_twice_while_others_are_left() -> None:
    of = prepared((SIZE,), ((64, 96),), (SIZE,), ((64, 96),), (SIZE,))
    for step in range(20):
        found = drawn(of, step, batch=4)
        assert all(found.size in of.items[each].latents for each in found.items)
        assert len(set(found.items)) == min(4, sum(found.size in each.latents for each in of.items))


def test_a_picture_takes_turns_at_its_sizes() -> None:
    of = prepared((SIZE, (128, 128), (192, 192)))
    counts = Counter(drawn(of, step).size for step in range(300))
    assert min(counts.values()) > 70


def test_a_draw_follows_from_seed_and_step_alone() -> None:
    of = prepared(*[(SIZE, (128, 128))] * 5)
    assert drawn(of, 7, batch=3) == drawn(of, 7, batch=3)
    assert drawn(of, 7, batch=3) != drawn(of, 8, batch=3)
    assert drawn(of, 7, batch=3) != drawn(of, 7, batch=3, seed=1 + (1 << 40))


def test_noise_levels_are_logit_normal_and_even_over_few_steps() -> None:
    of = prepared((SIZE,))
    for batch in (1, 8):
        levels = [level for step in range(64 // batch) for level in drawn(of, step, batch=batch).sigmas]
        normal = torch.tensor([math.log(each / (1 - each)) for each in levels])
        # Independent draws would be off by 1/8.
        assert abs(float(normal.mean())) < 0.06
        assert abs(float(normal.std()) - 1) < 0.06


@pytest.mark.parametrize(("size", "shift"), [((256, 256), math.exp(0.5)), ((1024, 1024), math.exp(1.15))])
def test_noise_levels_are_moved_as_the_sampler_moves_its_own(size: tuple[int, int], shift: float) -> None:
    of = prepared((size,))
    plain = [drawn(of, step).sigmas[0] for step in range(10)]
    moved = [drawn(of, step, shift=FLUX_1).sigmas[0] for step in range(10)]
    assert moved == pytest.approx([shift * each / (1 + (shift - 1) * each) for each in plain])


class Config(NamedTuple):
    """The part of a scheduler's configuration that matters."""

    use_dynamic_shifting: bool
    shift: float = 1.0
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    base_shift: float = 0.5
    max_shift: float = 1.15


def test_the_shift_is_the_schedulers() -> None:
    assert shift_of(Config(use_dynamic_shifting=True)) == FLUX_1
    constant = shift_of(Config(use_dynamic_shifting=False, shift=3.0))
    assert constant.mu(64) == constant.mu(4096) == pytest.approx(math.log(3))


class Asked(nn.Module):
    """A model that answers with its one parameter, and keeps what it was asked."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.zeros(shape))
        self.given: dict[str, Any] = {}

    def forward(self, **given: Any) -> tuple[torch.Tensor]:
        self.given = given
        return (self.answer,)


def loss(
    of: Prepared,
    model: nn.Module,
    *,
    one: Draw | None = None,
    batch: int = 2,
    mine: slice = slice(None),
    guided: bool = True,
) -> torch.Tensor:
    return loss_of(
        model,
        of,
        one or drawn(of, 0, batch=batch),
        noise=generator(1, "noise", 0),
        mine=mine,
        device=torch.device("cpu"),
        dtype=torch.float32,
        guided=guided,
    )


def test_the_target_is_noise_less_latent_along_a_straight_line() -> None:
    """From what it is shown at two levels of the same draw, the velocity follows: that has no loss."""
    of = prepared((SIZE,))
    model = Asked((1, 4, 64))
    one = drawn(of, 0)
    shown = []
    for sigma in (0.25, 0.75):
        loss(of, model, one=replace(one, sigmas=(sigma,)))
        shown.append(model.given["hidden_states"])
        assert float(model.given["timestep"]) == sigma
    model.answer.data = 2 * (shown[1] - shown[0])
    assert loss(of, model, batch=1).item() == pytest.approx(0, abs=1e-9)


def test_a_guided_model_is_told_1_and_another_nothing() -> None:
    model = Asked((2, 4, 64))
    loss(prepared((SIZE,)), model)
    assert model.given["guidance"].tolist() == [1, 1]
    loss(prepared((SIZE,)), model, guided=False)
    assert model.given["guidance"] is None


def test_what_does_not_count_has_no_gradient() -> None:
    weight = torch.ones(1, 1, 4, 4)
    weight[..., 2:] = 0
    model = Asked((2, 4, 64))
    torch.autograd.backward(loss(prepared((SIZE,), weight=weight), model))
    assert model.answer.grad is not None
    left, right = model.answer.grad.view(2, 2, 2, 64).unbind(2)
    assert right.abs().max() == 0
    assert left.abs().min() > 0


def test_two_halves_of_a_batch_are_the_whole() -> None:
    of = prepared((SIZE,), (SIZE,))
    whole, first, second = Asked((4, 4, 64)), Asked((2, 4, 64)), Asked((2, 4, 64))
    together = loss(of, whole, batch=4)
    parts = [loss(of, each, batch=4, mine=part(4, rank, 2)) for rank, each in enumerate((first, second))]
    assert sum(each.item() for each in parts) / 2 == pytest.approx(together.item())
    given = torch.cat([first.given["hidden_states"], second.given["hidden_states"]])
    assert torch.equal(given, whole.given["hidden_states"])


def test_every_example_has_noise_of_its_own() -> None:
    of = prepared((SIZE,))
    model = Asked((3, 4, 64))
    loss(of, model, one=replace(drawn(of, 0, batch=3), sigmas=(1.0,) * 3))
    assert len({tuple(each.flatten().tolist()) for each in model.given["hidden_states"]}) == 3


def test_every_process_gets_its_part_of_the_batch() -> None:
    assert [whole_batches(batch, 4) for batch in (1, 4, 5, 8)] == [4, 4, 8, 8]
    assert [list(range(8))[part(8, rank, 4)] for rank in range(4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.fixture(scope="module")
def flux_1() -> Any:
    """FLUX.1 [dev] without its weights."""
    with torch.device("meta"):
        return FluxTransformer2DModel(guidance_embeds=True)


@pytest.mark.parametrize(("recipe", "layers"), [(BASE, 494), (TURBO, 228)])
def test_a_recipe_adapts_so_many_linear_layers_of_flux_1(flux_1: Any, recipe: Recipe, layers: int) -> None:
    found = [module for name, module in flux_1.named_modules() if re.fullmatch(recipe.targets, name)]
    assert len(found) == layers
    assert all(isinstance(each, nn.Linear) for each in found)


def test_the_base_recipe_adapts_every_linear_layer_in_the_blocks(flux_1: Any) -> None:
    inside = {
        name
        for name, module in flux_1.named_modules()
        if isinstance(module, nn.Linear) and "transformer_blocks." in name
    }
    assert inside == {name for name, _ in flux_1.named_modules() if re.fullmatch(BASE.targets, name)}


@pytest.mark.parametrize(
    ("side", "gigabytes", "recomputed"),
    [(1024, 118, False), (512, 58, False), (1024, 56, True), (512, 18, True)],
)
def test_activations_are_kept_where_they_fit(
    flux_1: Any, side: int, gigabytes: int, recomputed: bool
) -> None:
    """Beside 22 GiB of weights: 140, 80 and 40 GiB in all. They take 18 GiB at 512, and 54 at 1024."""
    tokens = (side // 16) ** 2 + 512
    free = gigabytes << 30
    assert must_recompute(flux_1.config, tokens=tokens, batch=1, value_bytes=2, free=free) is recomputed


@pytest.mark.parametrize(
    ("gigabytes", "fused", "recomputed"),
    [((70, 0), True, False), ((30, 40), True, False), ((30, 0), True, True), ((70, 0), False, True)],
)
def test_what_torch_has_cached_is_free_and_attention_without_a_fused_kernel_never_fits(
    monkeypatch: pytest.MonkeyPatch, flux_1: Any, gigabytes: tuple[int, int], fused: bool, recomputed: bool
) -> None:
    free, cached = gigabytes
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free << 30, 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: (cached + 24) << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 24 << 30)
    monkeypatch.setattr(train, "_fused_attention", lambda _: fused)
    transformer = SimpleNamespace(device=torch.device("cuda"), config=flux_1.config, dtype=torch.bfloat16)
    plan: Any = SimpleNamespace(pixel_step=16, recipe=BASE)
    of = prepared(((1024, 1024),))
    assert train._recompute(SimpleNamespace(transformer=transformer), of, plan, 1) is recomputed


@pytest.mark.parametrize("kernel", ["can_use_flash_attention", "can_use_efficient_attention"])
def test_either_kernel_of_torch_is_a_fused_one(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    config = SimpleNamespace(num_attention_heads=2, attention_head_dim=64)
    transformer = SimpleNamespace(device=torch.device("cpu"), config=config, dtype=torch.bfloat16)
    assert not train._fused_attention(transformer)
    monkeypatch.setattr(torch.backends.cuda, kernel, lambda _: True)
    assert train._fused_attention(transformer)


def test_flux_1_is_trained_as_the_recipe_says() -> None:
    assert suited(BASE, pixel_step=16) == BASE


def test_the_small_model_is_trained_at_512_with_batches() -> None:
    assert suited(BASE, pixel_step=64) == replace(BASE, resolutions=(512,), batch=8)
