"""A drop on labelled samples of a data set that is not the one to calibrate on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.artifact.networks import SHAPE
from tests.made_data import BOTH, HOW, made_dataset, pixels
from trpexport.choose.judged_images import JudgedImages, judged_by
from trpexport.choose.judging import NetworkJudge
from trpexport.datasets.base import Dataset
from trpexport.datasets.calibration import ArrayImages, DatasetImages, LabelledTensors
from trpexport.datasets.tensors import TensorSet
from trpexport.errors import DataError
from trpexport.inputs import Inputs
from trpexport.judge.metrics import METRICS, OwnMetric
from trpexport.judge.paired import PairedDrop

INPUTS = Inputs.of(SHAPE)


def named(name: str, **images: Any) -> Dataset:
    return replace(made_dataset(**images), name=name)


def count(samples: Any) -> int:
    return sum(len(targets) for _, targets in samples.batches())


@pytest.mark.parametrize("split", ["train", "test"])
def test_they_come_from_the_other_data_set(split: str) -> None:
    images = DatasetImages(BOTH, HOW, SHAPE, count=16)
    other = named("made:other", **{split: pixels(30, seed=2)})
    both = judged_by(images, other, INPUTS, HOW)
    assert count(both.labelled()) == 30
    assert both.labelled().data == "made:other"
    assert both.inputs is images.inputs
    assert (both.facts(), both.notes) == (images.facts(), images.notes)
    assert len(both.unseen()) == 16


def test_what_is_calibrated_on_is_left_out() -> None:
    images = DatasetImages(named("made:a", train=pixels(24)), HOW, SHAPE, count=10)
    again = named("made:b", test=np.concatenate([pixels(5, seed=3), pixels(24)]))
    labelled: Any = judged_by(images, again, INPUTS, HOW).labelled()
    assert count(labelled) == 5 + 24 - 10
    seen = {image.tobytes() for image in images.inputs}
    samples = {one.tobytes() for some, _ in labelled.batches() for one in some}
    assert not seen & samples
    everything: Any = SimpleNamespace(to_train_on=lambda _: HOW.normalise(pixels(24)))
    trained_on: Any = JudgedImages(everything, labelled).to_train_on(24)
    assert {one.tobytes() for one in trained_on} == seen
    is_seen = [one.tobytes() in seen for one in HOW.normalise(pixels(24))]
    assert sum(is_seen) == 10
    with pytest.raises(DataError, match="made:b holds no labelled samples besides"):
        judged_by(images, named("made:b", test=pixels(24)[is_seen]), INPUTS, HOW)


def test_raw_tensors_are_judged_by_others() -> None:
    x = np.random.default_rng(0).standard_normal((40, 2, 3)).astype(np.float32)
    images = ArrayImages(x[:12], name="tensors:a.npz")
    others = TensorSet("tensors:b.npz", {"x": x[8:]}, {"target": x[8:, 0]})
    labelled: Any = judged_by(images, others, Inputs.of((1, 2, 3)), None).labelled()
    ((inputs, targets),) = labelled.batches()
    assert np.array_equal(inputs, x[12:]) and np.array_equal(targets, x[12:, 0])
    bare = replace(others, targets={})
    with pytest.raises(DataError, match="no targets"):
        judged_by(images, bare, Inputs.of((1, 2, 3)), None)


class Known:
    """A network that puts out what it is told to, of samples that come in order."""

    outputs = ()
    inputs = Inputs.of((1, 1))

    def __init__(self, said: Any) -> None:
        self._said = said

    def run(self, feeds: Any) -> dict[str, Any]:
        (array,) = feeds.values()
        return {"output": self._said[array[:, 0].astype(int)]}


def judged(metric: Any, before: Any, after: Any, targets: Any) -> dict[str, Any]:
    numbers = np.arange(len(targets), dtype=np.float32)[:, None]
    samples = LabelledTensors("tensors:/some/where/x.npz", "held-out", numbers, targets)
    original: Any = Known(before)
    changed: Any = Known(after)
    return NetworkJudge(original, samples, metric).facts(changed)


def test_what_is_lost_is_paired() -> None:
    right, wrong = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    before = np.stack([wrong] + [right] * 43)
    after = np.stack([right] + [wrong] * 3 + [right] * 40)
    facts = judged(METRICS["top1"], before, after, np.zeros(44, np.int64))
    assert facts["loss"] == pytest.approx(2 / 44)
    assert facts["interval"] == list(PairedDrop(44, lost=3, won=1).interval())
    assert facts["data"] == "tensors:x.npz"


def test_an_error_rises_in_its_own_unit_and_a_function_of_all_has_no_interval() -> None:
    targets = np.linspace(0, 1, 60, dtype=np.float32)[:, None]
    noise = np.random.default_rng(0).standard_normal((60, 1)).astype(np.float32) / 10
    facts = judged(METRICS["mae"], targets, targets + noise, targets)
    wanted, deviation = abs(noise).mean(), abs(noise).std() / 60**0.5
    assert facts["loss"] == pytest.approx(wanted, rel=1e-3)
    low, high = facts["interval"]
    assert (low, high) == (
        pytest.approx(wanted - 1.96 * deviation, rel=0.1),
        pytest.approx(wanted + 1.96 * deviation, rel=0.1),
    )
    of_all = OwnMetric("worst", lambda p, t: float(abs(p - t).max()), lower_is_better=True)
    facts = judged(of_all, targets, targets + noise, targets)
    assert facts["interval"] is None
    assert facts["loss"] == pytest.approx(abs(noise).max(), rel=1e-5)
