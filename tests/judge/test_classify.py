"""Classifiers on images whose outputs are known by hand."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from trpexport.bundle import MODEL, write_manifest
from trpexport.datasets.base import Dataset
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.splits import ArraySplit
from trpexport.errors import DataError, ModelError, OutputError, TrpexportError
from trpexport.judge.classify import evaluate, locate, open_classifier
from trpexport.judge.examples import ImageExamples
from trpexport.judge.images import choose_images
from trpexport.judge.metrics import METRICS
from trpexport.judge.predictions import Evaluation, read_evaluation, save_evaluation
from trpexport.judge.scoring import score

PIXELS = Preprocessing((0.0,), (1.0,))
Make = Callable[..., Any]


def dataset(pixels: Any, labels: Any, classes: int | None = None) -> Dataset:
    """Images of 1 x 1 x classes; what a network gets is pixel / 255."""
    images = np.asarray(pixels, np.uint8)[:, None, None, :]
    split = ArraySplit(images, np.asarray(labels, np.int64))
    names = tuple(f"class {k}" for k in range(classes or images.shape[3]))
    return Dataset("made:up", names, 1, PIXELS, {"test": lambda: split})


def random_dataset(count: int, classes: int = 10) -> Dataset:
    generator = np.random.default_rng(5)
    pixels = generator.integers(0, 256, (count, classes))
    return dataset(pixels, generator.integers(0, classes, count))


@pytest.fixture(scope="module")
def network(write_onnx: Make) -> Make:
    """Writes a network that returns the pixels, put through some operators."""

    def write(classes: int = 10, *, batch: int | str = "n", then: tuple[str, ...] = ()) -> Path:
        nodes = [helper.make_node("Flatten", ["input"], ["t0"])]
        for index, operator in enumerate((*then, "Identity")):
            last = "output" if index == len(then) else f"t{index + 1}"
            nodes.append(helper.make_node(operator, [f"t{index}"], [last]))
        shapes = {"input": (batch, 1, 1, classes)}, {"output": (batch, classes)}
        path: Path = write_onnx(nodes, *shapes)
        return path

    return write


def run(path: Path, data: Dataset, limit: int | None = None, **options: Any) -> Evaluation:
    classifier = open_classifier(path, preprocessing=PIXELS)
    return evaluate([classifier], choose_images(data, limit=limit), **options).classifiers[0]


def test_figures_by_hand(network: Make) -> None:
    # Scores (1, 0.2), (0.2, 1), (0.2, 1); the last one's class is 0.
    found = run(network(2), dataset([[255, 51], [51, 255], [51, 255]], [0, 1, 0]))
    assert found.top1 == pytest.approx(2 / 3)
    assert found.top5 == 1  # of two classes
    right, wrong = math.log(1 + math.exp(-0.8)), math.log(1 + math.exp(0.8))
    assert found.losses == pytest.approx([right, right, wrong])
    assert found.loss == pytest.approx((2 * right + wrong) / 3)
    assert found.confusion.tolist() == [[1, 1], [0, 1]]
    assert found.ranked.tolist() == [[0, 1], [1, 0], [1, 0]]


def test_top5_and_ties(network: Make) -> None:
    # Of equal outputs the lower class comes first: 5 is the first that is left out.
    data = dataset([[100] * 7, [100] * 7, [0, 1, 2, 3, 4, 5, 6]], [4, 5, 2])
    found = run(network(7), data)
    assert found.correct_top5.tolist() == [True, False, True]
    assert found.correct.tolist() == [False, False, False]
    assert found.ranked[2].tolist() == [6, 5, 4, 3, 2]


def test_probabilities_are_known_as_such(network: Make) -> None:
    data = random_dataset(70)
    logits, probabilities = run(network(), data), run(network(then=("Softmax",)), data)
    assert (logits.outputs_are, probabilities.outputs_are) == ("logits", "probabilities")
    assert probabilities.losses == pytest.approx(logits.losses, abs=1e-5)
    # One row that is no distribution, and none are.
    data = dataset([[255, 0], [255, 0], [255, 255]], [0, 0, 0])
    assert run(network(2), data, batch=1).outputs_are == "logits"
    # A probability of 0 has a loss that is large, not infinite.
    sure = run(network(2), dataset([[255, 0]], [1]))
    assert (sure.outputs_are, sure.losses[0]) == ("probabilities", pytest.approx(87.3, abs=0.1))


@pytest.mark.parametrize("batch", ["n", 1, 7, 64])
@pytest.mark.parametrize("count", [1, 7, 33, 70])
def test_batches_make_no_difference(network: Make, batch: int | str, count: int) -> None:
    data = random_dataset(count)
    found, plain = run(network(batch=batch), data), run(network(), data, batch=5)
    assert len(found) == count
    assert np.array_equal(found.ranked, plain.ranked)
    assert np.array_equal(found.labels, data.split("test").labels)


def test_broken_outputs_never_count_as_right(network: Make) -> None:
    # log(0) is -inf: every image with a black pixel is broken, whatever the rest says.
    data = dataset([[255, 0], [255, 1], [1, 255]], [0, 0, 0])
    found = run(network(2, then=("Log",)), data)
    assert found.broken == 1
    assert found.correct.tolist() == [False, True, False]
    assert not found.correct_top5[0]
    assert found.loss is None
    assert found.confusion.sum() == 2
    facts = json.dumps(found.to_json(confusion=True), allow_nan=False)
    assert json.loads(facts)["broken_images"] == 1


def test_some_images_are_spread_evenly(network: Make) -> None:
    data = random_dataset(10)
    assert choose_images(data, limit=4).indices.tolist() == [0, 2, 5, 7]
    assert choose_images(data, limit=99).indices.tolist() == list(range(10))
    found = run(network(), data, limit=4)
    assert found.labels.tolist() == data.split("test").labels[[0, 2, 5, 7]].tolist()
    with pytest.raises(DataError, match="a limit of 0"):
        choose_images(data, limit=0)
    nothing = replace(
        data,
        readers={
            "test": lambda: ArraySplit(np.empty((0, 1, 1, 2), np.uint8), np.empty(0, np.int64))
        },
    )
    with pytest.raises(DataError, match="no test images"):
        choose_images(nothing)


def test_several_classifiers_see_the_same_images(network: Make) -> None:
    halved = Preprocessing((0.0,), (2.0,))
    path, images = network(3), choose_images(dataset([[255, 0, 0], [0, 51, 255]], [0, 1]))
    pair = [open_classifier(path, preprocessing=how) for how in (PIXELS, halved)]
    found = evaluate(pair, images, batch=1)
    (pair_of_outputs,) = found.pairs
    assert pair_of_outputs.squares == pytest.approx([1, 1 + 0.2**2])
    assert pair_of_outputs.differences == pytest.approx([0.25, 0.25 * (1 + 0.2**2)])
    assert found.inputs == ((1, 1, 3), (1, 1, 3))


def test_time_in_the_network_alone(network: Make) -> None:
    ticks = count()
    seen: list[int] = []
    found = run(
        network(), random_dataset(6), batch=2, clock=lambda: next(ticks), advance=seen.append
    )
    assert seen == [2, 2, 2]
    assert found.seconds == 3
    assert found.images_per_second == 2


@pytest.mark.parametrize(
    ("classes", "data", "says"),
    [
        (3, dataset([[1, 2, 3]], [0], classes=4), "puts out output 3 an image, made:up has 4"),
        (4, dataset([[1, 2, 3]], [0]), "takes images of 1x1x4, made:up gives 1x1x3"),
    ],
)
def test_what_does_not_fit_is_said(network: Make, classes: int, data: Dataset, says: str) -> None:
    with pytest.raises(DataError, match=says):
        run(network(classes), data)


def test_channels_have_to_fit(network: Make) -> None:
    with pytest.raises(DataError, match="takes 1 channel, the preprocessing has a mean for 2"):
        open_classifier(network(3), preprocessing=Preprocessing((0, 0), (1, 1)))


def test_outputs_are_chosen_not_guessed(write_onnx: Make) -> None:
    nodes = [
        helper.make_node("Flatten", ["input"], ["first"]),
        helper.make_node("Neg", ["first"], ["second"]),
        helper.make_node("Identity", ["input"], ["image"]),
    ]
    shape = ("n", 1, 1, 2)
    path = write_onnx(
        nodes, {"input": shape}, {"image": shape, "first": ("n", 2), "second": ("n", 2)}
    )
    images = choose_images(dataset([[255, 0]], [0]))
    with pytest.raises(ModelError, match=r"several outputs .* as in first"):
        evaluate([open_classifier(path, preprocessing=PIXELS)], images)
    for name, top1 in (("first", 1), ("second", 0)):
        chosen = open_classifier(path, preprocessing=PIXELS, output=name)
        assert evaluate([chosen], images).classifiers[0].top1 == top1
    with pytest.raises(ModelError, match="no output 'third': choose from image, first, second"):
        open_classifier(path, preprocessing=PIXELS, output="third")


def test_trailing_dimensions_of_one_are_a_classifier_too(write_onnx: Make) -> None:
    node = helper.make_node("Transpose", ["input"], ["output"], perm=[0, 3, 1, 2])
    path = write_onnx([node], {"input": ("n", 1, 1, 2)}, {"output": ("n", 2, 1, 1)})
    assert run(path, dataset([[255, 0]], [0])).top1 == 1


def test_inputs_that_are_no_images(linear: Make, write_onnx: Make) -> None:
    with pytest.raises(ModelError, match="one input, images x channels"):
        open_classifier(linear(), preprocessing=PIXELS)
    path = write_onnx(
        [helper.make_node("Identity", ["input"], ["output"])],
        {"input": ("n", 1, 2, 2)},
        {"output": ("n", 1, 2, 2)},
        types={"input": TensorProto.UINT8, "output": TensorProto.UINT8},
    )
    with pytest.raises(ModelError, match="an input of floats"):
        open_classifier(path, preprocessing=PIXELS)


def test_preprocessing_comes_from_the_bundle_or_is_asked_for(network: Make, tmp_path: Path) -> None:
    path = tmp_path / MODEL
    path.write_bytes(network().read_bytes())
    with pytest.raises(DataError, match="give mean and std as in its training") as caught:
        open_classifier(path)
    assert caught.value.parameters == ("mean", "std", "size", "resize", "data_preprocessing")
    write_manifest(tmp_path, {"preprocessing": None})
    with pytest.raises(DataError, match="does not say how images become its input"):
        open_classifier(tmp_path)
    how = Preprocessing((0.5,), (0.25,))
    write_manifest(tmp_path, {"preprocessing": how.to_json()})
    for given in (tmp_path, path):
        assert open_classifier(given).preprocessing == how
        assert locate(given)[0] == path
    (tmp_path / "stranger.onnx").write_bytes(path.read_bytes())  # lies there, and is not of it
    with pytest.raises(DataError, match="does not say"):
        open_classifier(tmp_path / "stranger.onnx")
    write_manifest(tmp_path, {"preprocessing": {"mean": "x"}})
    with pytest.raises(TrpexportError, match="preprocessing"):
        open_classifier(tmp_path)


def test_the_same_images_are_told_by_their_pixels(network: Make) -> None:
    labels = [0, 1, 1]
    shown = np.array([[9, 0], [0, 9], [3, 5]])
    found = run(network(2), dataset(shown, labels))
    assert run(network(2), dataset(shown, labels), batch=1).fingerprint == found.fingerprint
    fogged = shown.copy()
    fogged[2, 0] += 1  # one pixel of one image
    for pixels, other in ((fogged, labels), (shown[::-1], labels), (shown, [1, 1, 1])):
        assert run(network(2), dataset(pixels, other)).fingerprint != found.fingerprint


@pytest.mark.parametrize("size", [("height", 3), ("height", "width")])
def test_a_network_with_its_channels_last_gets_them_last(
    network: Make, write_onnx: Make, size: tuple[Any, Any]
) -> None:
    nodes = [
        helper.make_node("Transpose", ["input"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Flatten", ["first"], ["output"]),
    ]
    last = write_onnx(nodes, {"input": ("n", *size, 1)}, {"output": ("n", 3)})
    data = random_dataset(7, classes=3)
    found, usual = run(last, data), run(network(3), data)
    assert found.losses.tolist() == usual.losses.tolist()
    assert found.fingerprint == usual.fingerprint
    classifier = open_classifier(last, preprocessing=PIXELS)
    (scored,) = score([classifier], ImageExamples(choose_images(data)), METRICS["top1"]).models
    assert scored.value == usual.top1


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (("n", 1, 5, 3), (5, 3)),
        (("n", 5, 3, 1), (5, 3)),
        (("n", 1, 3, 1), (3, 1)),  # as most networks have it, where both could be meant
        (("n", "height", 3, 1), None),
    ],
)
def test_height_and_width_are_where_the_channels_are_not(
    write_onnx: Make, shape: tuple[Any, ...], size: tuple[int, int] | None
) -> None:
    nodes = [helper.make_node("Flatten", ["input"], ["output"])]
    path = write_onnx(nodes, {"input": shape}, {"output": ("n", "classes")})
    assert open_classifier(path, preprocessing=PIXELS).image_size == size


def test_networks_of_different_input_sizes_see_the_same_images(
    network: Make, write_onnx: Make
) -> None:
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["output"]),
    ]
    weight = {"weight": np.ones((1, 3), np.float32)}
    narrow = write_onnx(nodes, {"input": ("n", 1, 1, 1)}, {"output": ("n", 3)}, weight)
    cut = Preprocessing((0.5,), (2.0,), size=(1, 1))
    images = choose_images(random_dataset(7, classes=3))
    pair = [
        open_classifier(path, preprocessing=how)
        for path, how in ((network(3), PIXELS), (narrow, cut))
    ]
    found = evaluate(pair, images)
    assert found.inputs == ((1, 1, 3), (1, 1, 1))
    alone = [evaluate([classifier], images).classifiers[0] for classifier in pair]
    assert len({one.fingerprint for one in (*found.classifiers, *alone)}) == 1


def test_predictions_are_kept(network: Make, tmp_path: Path) -> None:
    found = run(network(then=("Log",)), random_dataset(40), limit=30)
    path = tmp_path / "predictions.npz"
    save_evaluation(path, found)
    again = read_evaluation(path)
    assert again.to_json(confusion=True) == found.to_json(confusion=True)
    assert again.fingerprint == found.fingerprint
    for name in ("indices", "labels", "ranked", "scores", "losses"):
        assert np.array_equal(getattr(again, name), getattr(found, name), equal_nan=True)
    assert list(tmp_path.iterdir()) == [path]
    content = path.read_bytes()
    with pytest.raises(OutputError, match="can't write"):
        save_evaluation(tmp_path / "no" / "where.npz", found)
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "pixels"}
    np.savez(path, **arrays | {"kind": np.asarray("trpexport evaluation 1")})
    earlier = read_evaluation(path)
    assert earlier.top1 == found.top1
    with pytest.raises(DataError, match=r"can't be compared: .* evaluate and save again"):
        _ = earlier.fingerprint
    np.savez(path, **arrays)  # of this version, without its pixels
    with pytest.raises(DataError, match="holds no predictions"):
        read_evaluation(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"is damaged or holds no arrays: evaluate again"):
        read_evaluation(path)
    np.savez(path, labels=np.arange(3))
    with pytest.raises(DataError, match="holds no predictions"):
        read_evaluation(path)
    for part in (
        {"labels": np.arange(2)},
        {"ranked": found.ranked + 99},
        {"kind": np.asarray("x")},
    ):
        with np.load(io.BytesIO(content)) as archive:
            np.savez(path, **{**archive, **part})
        with pytest.raises(DataError, match="holds no predictions"):
            read_evaluation(path)
    with pytest.raises(DataError, match="can't read"):
        read_evaluation(tmp_path / "gone.npz")
