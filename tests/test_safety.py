"""Safety checkers. No unsafe picture is in the project; these are clean ones, and networks made to say so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mock_server.errors import BadConfiguration
from reference_backend.safety import checker_of


def photo(red: int) -> Image.Image:
    return Image.new("RGB", (640, 512), (red, 60, 60))


def test_none_is_no_checker() -> None:
    assert checker_of("none") is None


@pytest.mark.parametrize("name", ["", "nude", "onnx", "onnx:", "hf:", "None"])
def test_an_unknown_checker_is_refused(name: str) -> None:
    with pytest.raises(BadConfiguration, match=r"--safety: .* is none of"):
        checker_of(name)


@pytest.mark.parametrize("name", ["onnx:/nowhere/x.onnx", "hf:/nowhere"])
def test_a_checker_that_is_not_there_is_refused(name: str) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `safety` is not installed")
    with pytest.raises(BadConfiguration, match="--safety: "):
        checker_of(name)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nudenet", None)
    with pytest.raises(BadConfiguration, match=r"nudenet is not installed; the extra `safety` brings it"):
        checker_of("nudenet")


def nudenet() -> Any:
    return pytest.importorskip("nudenet", reason="the extra `safety` is not installed (NudeNet, AGPL-3.0)")


@pytest.mark.parametrize("picture", [photo(200), Image.effect_noise((512, 512), 80).convert("RGB")])
def test_nudenet_finds_nothing_in_what_is_clean(picture: Image.Image) -> None:
    nudenet()
    unsafe = checker_of("nudenet")
    assert unsafe is not None
    assert not unsafe(picture)


@pytest.mark.parametrize(
    ("found", "flagged"),
    [
        ([], False),
        ([("FEMALE_BREAST_EXPOSED", 0.7)], True),
        ([("MALE_GENITALIA_EXPOSED", 0.41), ("FACE_MALE", 0.9)], True),
        ([("FEMALE_BREAST_EXPOSED", 0.3)], False),
        ([("FEMALE_BREAST_COVERED", 0.9), ("BELLY_EXPOSED", 0.9), ("FEET_EXPOSED", 0.9)], False),
    ],
)
def test_what_nudenet_finds_is_judged_by_part_and_score(
    monkeypatch: pytest.MonkeyPatch, found: list[tuple[str, float]], flagged: bool
) -> None:
    class Detector:
        def detect(self, pixels: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
            assert tuple(pixels[0, 0]) == (60, 60, 200)
            return [{"class": part, "score": score} for part, score in found]

    monkeypatch.setattr(nudenet(), "NudeDetector", Detector)
    unsafe = checker_of("nudenet")
    assert unsafe is not None
    assert unsafe(photo(200)) is flagged


def network(path: Path, *, sides: tuple[int, int, int] = (224, 224, 3), outputs: int = 2) -> Path:
    """A network that takes red for unsafe: the mean of each channel, weighed, as two probabilities."""
    onnx = pytest.importorskip("onnx", reason="onnx, which writes networks for the tests, is not installed")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.zeros((3, outputs), np.float32)
    weights[2] = np.linspace(-1, 1, outputs)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["pixels", "sides"], ["means"], keepdims=0),
            helper.make_node("MatMul", ["means", "weights"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["shares"]),
        ],
        "red",
        [helper.make_tensor_value_info("pixels", kind, ["n", *sides])],
        [helper.make_tensor_value_info("shares", kind, ["n", outputs])],
        [
            helper.make_tensor("sides", onnx.TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("weights", kind, weights.shape, weights.ravel()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(("red", "flagged"), [(200, True), (100, False)])
def test_a_network_of_yahoos_layout_sees_blue_green_and_red_less_their_means(
    tmp_path: Path, red: int, flagged: bool
) -> None:
    unsafe = checker_of(f"onnx:{network(tmp_path / 'x.onnx')}")
    assert unsafe is not None
    assert unsafe(photo(red)) is flagged


def test_only_the_middle_of_the_picture_is_looked_at(tmp_path: Path) -> None:
    unsafe = checker_of(f"onnx:{network(tmp_path / 'x.onnx')}")
    assert unsafe is not None
    framed = Image.new("RGB", (512, 512), "red")
    framed.paste((100, 0, 0), (30, 30, 482, 482))
    assert not unsafe(framed)


def test_a_network_of_another_layout_is_refused(tmp_path: Path) -> None:
    path = network(tmp_path / "x.onnx", outputs=3)
    with pytest.raises(BadConfiguration, match="input and output of open_nsfw"):
        checker_of(f"onnx:{path}")


def test_a_file_that_is_no_network_is_refused_in_a_line(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `safety` is not installed")
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(BadConfiguration, match="not a network") as caught:
        checker_of(f"onnx:{tmp_path / 'x.onnx'}")
    assert "\n" not in str(caught.value)


def classifier(folder: Path, labels: dict[int, str], says: int) -> Path:
    """A small vision transformer with random weights that always gives the label of that number."""
    torch = pytest.importorskip("torch")
    import transformers

    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        id2label=labels,
        label2id={label: index for index, label in labels.items()},
    )
    model: Any = transformers.ViTForImageClassification(config)
    with torch.no_grad():
        model.classifier.bias[says] += 50
    model.save_pretrained(folder)
    processor: Any = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("says", "flagged"), [(0, False), (1, True), (2, True)])
def test_a_classifiers_labels_decide(tmp_path: Path, says: int, flagged: bool) -> None:
    folder = classifier(tmp_path / "vit", {0: "normal", 1: "NSFW", 2: "hentai"}, says)
    unsafe = checker_of(f"hf:{folder}")
    assert unsafe is not None
    assert unsafe(photo(200)) is flagged


def test_a_classifier_without_such_a_label_is_refused(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "vit", {0: "cat", 1: "dog"}, 0)
    with pytest.raises(BadConfiguration, match="no label of unsafe pictures"):
        checker_of(f"hf:{folder}")


def test_a_classifier_that_is_pickled_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    folder = classifier(tmp_path / "vit", {0: "normal", 1: "nsfw"}, 0)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(BadConfiguration, match="cannot be loaded"):
        checker_of(f"hf:{folder}")
