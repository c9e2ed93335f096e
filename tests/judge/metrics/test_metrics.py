"""Metrics against figures by hand and against other ways to compute them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import jaccard_score, mean_absolute_error, mean_squared_error

from trpexport.errors import DataError, TrpexportError
from trpexport.judge.metrics import METRICS, OwnMetric, find_metric
from trpexport.judge.paired import Share
from trpexport.judge.resampling import ResampledLoss, resampled

RNG = np.random.default_rng(0)


def value(name: str, *batches: tuple[Any, Any]) -> float:
    tally = METRICS[name].tally()
    for predictions, targets in batches:
        tally.add(predictions, targets)
    return tally.outcome().value


def batches(predictions: Any, targets: Any, size: int = 5) -> list[tuple[Any, Any]]:
    starts = range(0, len(targets), size)
    return [(predictions[i : i + size], targets[i : i + size]) for i in starts]


def test_miou_is_that_of_scikit_learn_without_void() -> None:
    scores = RNG.standard_normal((13, 4, 6, 5)).astype(np.float32)
    targets = RNG.integers(0, 4, (13, 6, 5))
    targets[RNG.random(targets.shape) < 0.2] = 255
    targets[0, 0, 0] = -1
    kept = (targets != 255) & (targets >= 0)
    wanted = jaccard_score(targets[kept], scores.argmax(1)[kept], average="macro")
    assert value("miou", *batches(scores, targets)) == pytest.approx(wanted)
    maps = scores.argmax(1)
    assert value("miou", *batches(maps, targets)) == pytest.approx(wanted)
    assert value("miou", *batches(maps[:, None], targets[:, None])) == pytest.approx(wanted)


def test_miou_of_foreground_by_one_channel() -> None:
    logits = RNG.standard_normal((6, 1, 4, 4))
    targets = RNG.integers(0, 2, (6, 4, 4))
    wanted = jaccard_score(targets.ravel(), (logits > 0).ravel(), average="macro")
    assert value("miou", (logits, targets)) == pytest.approx(wanted)
    assert value("miou", (1 / (1 + np.exp(-logits)), targets > 0)) == pytest.approx(wanted)


def test_a_class_that_is_nowhere_does_not_count() -> None:
    maps = np.array([[[0, 0], [3, 3]]])
    assert value("miou", (maps, maps)) == 1
    # 0: 1 of 2; 1 is missed; 2 is seen where it is not; 3: 1 of 2.
    found, truth = np.array([[[0, 2], [3, 3]]]), np.array([[[0, 0], [1, 3]]])
    assert value("miou", (found, truth)) == pytest.approx((0.5 + 0 + 0 + 0.5) / 4)


def test_accuracy_by_hand() -> None:
    scores = np.array([[1, 1, 0], [0, 1, 2], [np.nan, 9, 0]], np.float32)
    assert value("top1", (scores, np.array([0, 2, 1]))) == pytest.approx(2 / 3)
    assert value("top1", (scores, np.array([1, 2, 1]))) == pytest.approx(1 / 3)  # the lower class
    assert value("top5", (scores, np.array([[0], [2], [1]]))) == pytest.approx(2 / 3)
    dense = RNG.standard_normal((3, 4, 7))
    classes = RNG.integers(0, 4, (3, 7))
    assert value("top1", (dense, classes)) == pytest.approx((dense.argmax(1) == classes).mean())


@pytest.mark.parametrize(("name", "power"), [("rmse", 0.5), ("mae", 1)])
def test_errors_are_those_of_scikit_learn(name: str, power: float) -> None:
    found, truth = RNG.standard_normal((2, 11, 3))
    reference = mean_squared_error if name == "rmse" else mean_absolute_error
    assert value(name, *batches(found, truth, 4)) == pytest.approx(reference(truth, found) ** power)
    assert value(name, (found[:, :1], truth[:, 0])) == pytest.approx(
        reference(truth[:, 0], found[:, 0]) ** power
    )


@pytest.mark.parametrize(
    ("name", "predictions", "targets", "says"),
    [
        ("miou", np.zeros((2, 3, 4, 4)), np.zeros((2, 8, 8), int), "of the same size"),
        ("miou", np.zeros((2, 3, 4, 4)), np.full((2, 4, 4), 7), "class 7, the network tells 3"),
        ("miou", np.full((2, 3, 4, 4), np.nan), np.zeros((2, 4, 4), int), "NaN"),
        ("top1", np.zeros((2, 3)), np.array([0, 3]), "the network tells 3 classes apart"),
        ("top1", np.zeros((2, 3)), np.zeros(2), "float64 of n"),
        ("rmse", np.zeros((2, 3)), np.zeros((2, 4)), "rmse can't hold predictions"),
        ("mae", {"a": np.zeros(2), "b": np.zeros(2)}, np.zeros(2), "judges one output"),
    ],
)
def test_what_does_not_fit_is_said(name: str, predictions: Any, targets: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        value(name, (predictions, targets))


def test_own_function_gets_everything_at_once() -> None:
    seen = []

    def gap(predictions: Any, targets: Any) -> float:
        seen.append((predictions["a"].shape, targets.shape))
        return float(predictions["a"].mean() - targets.mean())

    tally = OwnMetric("gap", gap).tally()
    for start in (0, 4):
        part = np.arange(start, start + 4.0)
        tally.add({"a": part, "b": part}, part + 1)
    found = tally.outcome()
    assert (found.value, found.terms, seen) == (-1, None, [((8,), (8,))])


def test_own_function_may_give_one_number_a_sample() -> None:
    tally = OwnMetric("hits", lambda predictions, targets: predictions == targets).tally()
    tally.add(np.array([1, 2, 3]), np.array([1, 2, 4]))
    found = tally.outcome()
    assert found.value == pytest.approx(2 / 3)
    assert found.terms is not None and found.terms.are_shares


class Total:
    """Counts what it is given."""

    def __init__(self) -> None:
        self.count = 0

    def update(self, predictions: Any, targets: Any) -> None:
        self.count += len(targets)

    def compute(self) -> int:
        return self.count


def test_own_class_is_called_batch_by_batch() -> None:
    tally = OwnMetric("total", Total).tally()
    for size in (3, 4):
        tally.add(np.zeros(size), np.zeros(size))
    assert tally.outcome().value == 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nothing", "unknown metric 'nothing': choose from mae, miou, rmse, top1, top5"),
        ("no_such_module_here:f", "there is no module no_such_module_here: run from"),
        ("math:no_such", "math has no no_such; it has"),
        ("math:pi", "pi is a float, not a function or class"),
        (":f", "it must be package.module:function, as in metrics:mean_dice"),
    ],
)
def test_metrics_that_are_not_there(text: str, says: str) -> None:
    with pytest.raises(TrpexportError, match=says):
        find_metric(text)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda p, t: p["key"], "calling it raised IndexError: only integers"),
        (lambda p, t: "good", "it returned str, not a number"),
        (lambda p, t: np.zeros((2, 2)), r"shape \(2, 2\), not a number, nor one for each of 3"),
        (dict, "a class needs update"),
    ],
)
def test_own_functions_that_fail(function: Any, says: str) -> None:
    with pytest.raises(TrpexportError, match=says):
        tally = OwnMetric("own", function).tally()
        tally.add(np.zeros(3), np.zeros(3))
        tally.outcome()


def test_what_one_function_would_get_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRPEXPORT_MEMORY", "1G")
    tally = OwnMetric("own", lambda p, t: 0.0).tally()
    large = np.broadcast_to(np.float32(0), (2**28, 1))
    with pytest.raises(DataError, match="write it as a class with update and compute"):
        tally.add(large, large)


def terms_of(values: Any) -> Any:
    tally = OwnMetric("mean", lambda p, t: p).tally()
    tally.add(np.asarray(values, float), np.zeros(len(values)))
    return tally.outcome().terms


@pytest.mark.parametrize("count", [200, 6000])
def test_the_bootstrap_of_a_mean_has_its_standard_error(count: int) -> None:
    before = RNG.standard_normal(count)
    after = before - 0.1 - 0.2 * RNG.standard_normal(count)
    loss = ResampledLoss.between(terms_of(before), terms_of(after), lower_is_better=False)
    assert loss.estimate == pytest.approx((before - after).mean())
    assert loss.error == pytest.approx((before - after).std(ddof=1) / np.sqrt(count), rel=0.1)
    turned = ResampledLoss.between(terms_of(before), terms_of(after), lower_is_better=True)
    assert turned.estimate == -loss.estimate
    assert loss.scaled(4 * loss.n).error == pytest.approx(loss.error / 2)


def test_the_bootstrap_of_shares_agrees_with_wilson() -> None:
    hits = RNG.random(500) < 0.8
    low, high = np.quantile(resampled([terms_of(hits)])[0], [0.025, 0.975])
    assert (low, high) == pytest.approx(Share(500, int(hits.sum())).interval(), abs=0.01)
