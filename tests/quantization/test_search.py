"""Which nodes stay in float32: the ranking, the exclusion, and the limit that can't be met."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.quantization.networks import classifier, images
from trpexport.errors import ModelError, NothingToDoError
from trpexport.quantization.formats import NumberFormat
from trpexport.quantization.observing import histograms
from trpexport.quantization.ort import Quantizer, ready, serialized
from trpexport.quantization.search import Search, Trials, find_units
from trpexport.quantization.settings import QuantizationSettings
from trpexport.runtime.session import open_session

Write = Callable[..., Path]
NUMBERS = NumberFormat()


def search(path: Path, settings: QuantizationSettings) -> tuple[Search, Any]:
    model = ready(path)
    ranges = {name: found.whole() for name, found in histograms(model, {"x": images(32)}).items()}
    trials = Trials(model, {"x": images(16, seed=1)})
    units = find_units(model, NUMBERS, ranges)
    quantize = Quantizer(model, NUMBERS)
    ranking = trials.ranking(units, ranges, quantize)
    return Search(quantize, ranges, frozenset(), trials, settings), ranking


def test_units_are_nodes_with_the_activations_behind_them(write_onnx: Write) -> None:
    model = ready(classifier(write_onnx))
    units = find_units(model, NUMBERS, {"x", *"abcdehiy"})
    assert [unit.label for unit in units if unit.is_linear] == [
        "stem",
        "chain.0",
        "chain.1",
        "head",
    ]
    assert [unit.operator for unit in units] == [
        *("Conv", "Conv", "Conv", "Add", "GlobalAveragePool", "Gemm"),
    ]  # a reshape is none, it goes with what it moves
    assert [len(unit.nodes) for unit in units] == [2, 1, 1, 1, 1, 1]


def test_the_worst_is_ranked_first(write_onnx: Write) -> None:
    _, ranking = search(classifier(write_onnx, trap=True), QuantizationSettings())
    assert {unit.label for unit, _ in ranking[:2]} >= {"trap"}
    errors = [error for _, error in ranking]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 5 * errors[3]


def test_an_error_is_that_of_the_outputs_on_held_out_images(write_onnx: Write) -> None:
    path = classifier(write_onnx)
    found, _ = search(path, QuantizationSettings())
    content = serialized(found.quantize(found.ranges))
    inputs = {"x": images(16, seed=1)}
    expected, given = (open_session(one).run(inputs)["y"] for one in (path, content))
    variation = np.sqrt(np.square(expected - expected.mean(0)).sum())
    error = np.sqrt(np.square(given - expected).sum()) / variation
    assert found.trials.error(content).value == pytest.approx(error, rel=1e-4)


def test_the_worst_are_excluded_until_the_limit_holds(write_onnx: Write) -> None:
    path = classifier(write_onnx, trap=True)
    open_limit, ranking = search(path, QuantizationSettings())
    whole = open_limit(ranking)
    assert whole.excluded == ()
    limited, _ = search(path, QuantizationSettings(max_error=0.05))
    found = limited(ranking)
    assert whole.error.bound > 0.05 >= found.error.bound
    assert [unit.label for unit in found.excluded] == [
        unit.label for unit, _ in ranking[: len(found.excluded)]
    ]
    assert "trap" in [unit.label for unit in found.excluded]
    # One fewer would not do, and the error is that of the very network that is returned.
    fewer, _ = search(path, QuantizationSettings())
    without = {name for unit in found.excluded[:-1] for name in unit.nodes}
    tried = fewer.quantize(fewer.ranges, without=without)
    assert fewer.trials.error(serialized(tried)).bound > 0.05
    assert found.error == fewer.trials.error(serialized(found.model))


def test_points_that_a_judge_tells_are_a_limit_as_well(write_onnx: Write) -> None:
    judged: list[bool] = []

    def judge(file: Path) -> float:
        stored = {tensor.name for tensor in onnx.load(file).graph.initializer}
        judged.append("trap.weight_quantized" in stored)
        return 5.0 if judged[-1] else 0.25

    settings = QuantizationSettings(judge=judge, max_drop=1.0)
    limited, ranking = search(classifier(write_onnx, trap=True), settings)
    found = limited(ranking)
    assert judged[0]
    assert found.drop == 0.25
    assert [unit.label for unit in found.excluded][-1] == "trap"


def test_a_limit_that_cannot_be_met_names_the_worst(write_onnx: Write) -> None:
    limited, ranking = search(classifier(write_onnx), QuantizationSettings(max_error=1e-9))
    worst = ranking[0][0].label
    with pytest.raises(NothingToDoError, match=rf"error of 1e-09.*{worst} .*allow more") as refusal:
        limited(ranking)
    assert refusal.value.exit_code == 3
    assert "\n" not in str(refusal.value)


def test_a_network_that_gives_no_numbers_is_refused(write_onnx: Write) -> None:
    path = write_onnx([helper.make_node("Log", ["x"], ["y"])], {"x": ("n", 3)}, {"y": ("n", 3)})
    with pytest.raises(ModelError, match="no finite number in y"):
        Trials(ready(path), {"x": -np.ones((2, 3), np.float32)})


def test_a_fixed_batch_is_filled_up(write_onnx: Write) -> None:
    model = ready(classifier(write_onnx, batch=4))
    found = histograms(model, {"x": images(6)})
    assert found["x"].highest == images(6).max()
    error = Trials(model, {"x": images(6)}).error(serialized(model))
    assert error.value == pytest.approx(0, abs=1e-6)
