"""A thousand broken LoRA files: each is used, or refused with a code, and none leaves a trace."""

import json
import os
import random
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reference import TINY, lora_tensors, same, saved, weights

from reference_backend.job import JobFailed
from reference_backend.loras import applied
from reference_backend.pipelines import load

Mutation = Callable[[bytes, random.Random], bytes]
BATCH = 100


def header(content: bytes) -> dict[str, dict[str, object]]:
    length = struct.unpack("<Q", content[:8])[0]
    found: dict[str, dict[str, object]] = json.loads(content[8 : 8 + length])
    return found


def with_header(content: bytes, made: object) -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    text = json.dumps(made).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def flipped_in_the_header(content: bytes, chance: random.Random) -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(8 + length)] = chance.randrange(256)
    return bytes(changed)


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def grown(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + chance.randbytes(chance.randint(1, 40)) + content[at:]


def other_length(content: bytes, chance: random.Random) -> bytes:
    length = chance.choice([0, 1, 8, len(content), len(content) - 8, 2**31, 2**63 - 1, 2**64 - 1])
    return struct.pack("<Q", length) + content[8:]


def other_entry(content: bytes, chance: random.Random) -> bytes:
    made = header(content)
    entry = made[chance.choice([name for name in made if name != "__metadata__"])]
    field = chance.choice(["dtype", "shape", "data_offsets"])
    numbers = [0, 1, 3, 2**31, 2**63 - 1, 2**64, -1, 0.5]
    entry[field] = chance.choice(
        [
            chance.choice(["F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "C64", "X"]),
            [chance.choice(numbers) for _ in range(chance.randint(0, 4))],
            None,
            "\ud800",
        ]
    )
    return with_header(content, made)


def other_name(content: bytes, chance: random.Random) -> bytes:
    made = header(content)
    name = chance.choice([name for name in made if name != "__metadata__"])
    new = chance.choice(
        [
            "",
            ".alpha",
            "transformer.",
            name[: chance.randrange(len(name))],
            name.replace("lora_A", "lora_down").replace("lora_B", "lora_up"),
            name.replace("transformer_blocks.0", f"transformer_blocks.{10 ** chance.randint(1, 30)}"),
            "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
            "../../" * 40 + name,
            "\x00" + name,
            "ä" * 5000,
        ]
    )
    return with_header(content, {new if key == name else key: entry for key, entry in made.items()})


def other_metadata(content: bytes, chance: random.Random) -> bytes:
    made: dict[str, object] = dict(header(content))
    alphas = ["1e999", "-1", "0", "NaN", '"4"', "[]", "1e308"]
    patterns = ["[]", '{"(a+)+$": 1}', '{"to_q": {}}', "5"]
    text = chance.choice(
        [
            "",
            "null",
            "[" * chance.randint(1, 200_000),
            f'{{"transformer.lora_alpha": {chance.choice(alphas)}}}',
            f'{{"transformer.alpha_pattern": {chance.choice(patterns)}}}',
            '{"transformer.alpha_pattern": {"attn.to_q": -5}, "transformer.lora_alpha": 4}',
        ]
    )
    made["__metadata__"] = chance.choice([{"lora_adapter_metadata": text}, {"a": text}, [text], {"a": 1}])
    return with_header(content, made)


def overlapping(content: bytes, chance: random.Random) -> bytes:
    made = header(content)
    one, other = chance.sample([name for name in made if name != "__metadata__"], 2)
    made[one] = made[other]
    return with_header(content, made)


def wild_numbers(content: bytes, chance: random.Random) -> bytes:
    """Values that are not finite, or as large as they come."""
    length = struct.unpack("<Q", content[:8])[0]
    places = range(8 + length, len(content) - 4, 4)
    changed = bytearray(content)
    for place in chance.sample(places, 5):
        value = chance.choice([float("nan"), float("inf"), -float("inf"), 3.4e38])
        changed[place : place + 4] = struct.pack("<f", value)
    return bytes(changed)


MUTATIONS: list[Mutation] = [
    flipped,
    flipped_in_the_header,
    cut,
    grown,
    other_length,
    other_entry,
    other_name,
    other_metadata,
    overlapping,
    wild_numbers,
]


def attack(folder: Path) -> dict[str, Any]:
    """What comes of all of them, in a process of its own.

    The refusals of each kind, whether the weights are as before, and by how many KiB the process grew.
    """
    flux = load(str(TINY / "dev"), device="cpu")
    tensors = lora_tensors(flux, "blocks.0.attn.to_q", rank=2)
    path = folder / "secret-place.safetensors"
    saved(tensors, path, {"lora_adapter_metadata": '{"transformer.lora_alpha": 2}'})
    whole = path.read_bytes()
    before = weights(flux)
    with applied(flux, [(path, 1.0)]):
        pass
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusals: dict[str, list[tuple[str, str]]] = {mutation.__name__: [] for mutation in MUTATIONS}
    for mutation in MUTATIONS:
        for number in range(BATCH):
            path.write_bytes(mutation(whole, random.Random(f"{mutation.__name__} {number}")))
            try:
                with applied(flux, [(path, 1.0)]):
                    pass
            except JobFailed as failure:
                refusals[mutation.__name__].append((failure.code, failure.message))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    # On a Mac it is counted in bytes.
    kib = grown // 1024 if sys.platform == "darwin" else grown
    return {"refusals": refusals, "same": same(weights(flux), before), "grown": kib}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `attack` tells, after it has run in a child: only there is the most memory its own."""
    folder = tmp_path_factory.mktemp("attack")
    program = "import json, pathlib, sys; import test_hostile_loras as here; "
    program += "print(json.dumps(here.attack(pathlib.Path(sys.argv[1]))))"
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_broken_file_is_used_or_refused_with_a_code(attacked: dict[str, Any], mutation: Mutation) -> None:
    refusals = attacked["refusals"][mutation.__name__]
    assert all(code.startswith("lora_") for code, _ in refusals)
    assert not any("secret-place" in message for _, message in refusals)
    assert max(len(message) for _, message in refusals) < 400
    # Most are; the others changed a number, or a name that nothing depends on.
    assert len(refusals) >= BATCH // 3


def test_the_weights_are_as_before_after_all_of_them(attacked: dict[str, Any]) -> None:
    assert attacked["same"]


def test_no_broken_file_takes_much_memory(attacked: dict[str, Any]) -> None:
    assert attacked["grown"] < 16 * 1024
