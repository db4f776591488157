import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors

from mock_server.weights import lora_file

BLOCKS = ("transformer.transformer_blocks.0.attn.to_q", "transformer.single_transformer_blocks.0.attn.to_q")


def made(**changes: Any) -> bytes:
    asked = {"rank": 4, "seed": 7, "trigger_word": "p3r5on", "steps": 1000, "model": "acme/trainer"}
    return lora_file(**{**asked, **changes})


def tensors(data: bytes) -> dict[str, Any]:
    return dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call] # its stub has no types


def numbers(tensor: dict[str, Any]) -> tuple[float, ...]:
    return struct.unpack(f"<{len(tensor['data']) // 2}e", tensor["data"])


def metadata(data: bytes, folder: Path) -> dict[str, str]:
    path = folder / "lora.safetensors"
    path.write_bytes(data)
    with safetensors.safe_open(path, framework="np") as file:
        found: dict[str, str] = file.metadata()
    return found


@pytest.mark.parametrize("rank", [1, 2, 16, 64, 256])
def test_each_layer_has_a_pair_of_the_asked_rank(rank: int) -> None:
    shapes = {name: (tensor["dtype"], tensor["shape"]) for name, tensor in tensors(made(rank=rank)).items()}
    assert shapes == {
        f"{block}.{half}.weight": ("F16", shape)
        for block in BLOCKS
        for half, shape in (("lora_A", [rank, 3072]), ("lora_B", [3072, rank]))
    }


def test_all_numbers_are_small_and_none_is_zero() -> None:
    magnitudes = [abs(number) for tensor in tensors(made()).values() for number in numbers(tensor)]
    assert 1 / 512 <= min(magnitudes) <= max(magnitudes) < 1 / 128


def test_numbers_are_positive_as_often_as_negative() -> None:
    signs = [number > 0 for tensor in tensors(made()).values() for number in numbers(tensor)]
    assert sum(signs) / len(signs) == pytest.approx(0.5, abs=0.02)


def test_no_two_tensors_are_the_same() -> None:
    assert len({bytes(tensor["data"]) for tensor in tensors(made()).values()}) == 4


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert made() == made()


def test_another_seed_gives_other_numbers() -> None:
    ours, others = tensors(made()), tensors(made(seed=8))
    assert all(ours[name]["data"] != others[name]["data"] for name in ours)


def test_the_numbers_are_aligned() -> None:
    headers = [int.from_bytes(made(trigger_word="odd" * times)[:8], "little") for times in range(4)]
    assert [length % 8 for length in headers] == [0] * 4


def test_the_metadata_say_what_was_asked_and_that_it_is_simulated(tmp_path: Path) -> None:
    assert metadata(made(), tmp_path) == {
        "format": "pt",
        "trigger_word": "p3r5on",
        "rank": "4",
        "steps": "1000",
        "trainer": "acme/trainer",
        "wavemock": "simulated",
    }


@pytest.mark.parametrize("missing", [None, ""])
def test_an_empty_trigger_word_is_left_out(missing: str | None, tmp_path: Path) -> None:
    assert "trigger_word" not in metadata(made(trigger_word=missing), tmp_path)


@pytest.mark.parametrize(
    "word",
    ['\x00\n"\\', "\u732b \U0001f431\u200d\U0001f680", "\u202e\uffff\U0010ffff", "__metadata__"],
    ids=ascii,
)
def test_any_trigger_word_comes_back_as_it_was(word: str, tmp_path: Path) -> None:
    assert metadata(made(trigger_word=word), tmp_path)["trigger_word"] == word


def test_half_a_surrogate_pair_does_not_spoil_the_file(tmp_path: Path) -> None:
    assert metadata(made(trigger_word="half \ud83d"), tmp_path)["trigger_word"] == "half ?"


def test_a_trigger_word_is_cut_after_256_characters(tmp_path: Path) -> None:
    assert (
        metadata(made(trigger_word="\U0001f431" * 1_000_000), tmp_path)["trigger_word"] == "\U0001f431" * 256
    )
