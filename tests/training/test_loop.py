"""Runs that break off and go on, of networks of anybody's own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.splits import ArraySplit
from trpexport.errors import TrainingError
from trpexport.training.augmentation import Augmentation
from trpexport.training.batches import ArrayBatches, Normaliser
from trpexport.training.distributed import Workers
from trpexport.training.loop import Loop, Totals, evaluate
from trpexport.training.recipe import RECIPES
from trpexport.training.run_directory import LAST, METRICS, RunDirectory
from trpexport.training.trp import TrainedRankPruning

CPU = torch.device("cpu")
ALONE = Workers(0, 1, CPU)
PREPROCESSING = Preprocessing((0.3,), (0.4,))


class PowerCut(BaseException):
    """What nobody catches."""


class CutAt:
    """A watcher at which a run breaks off at a step."""

    def __init__(self, step: int | None = None) -> None:
        self.last, self.done = step, 0

    def begin(self, epochs: int, steps_per_epoch: int, done: int) -> None:
        self.done = done

    def step(self, facts: dict[str, Any]) -> None:
        if facts["step"] == self.last:
            raise PowerCut

    def epoch(self, facts: dict[str, Any]) -> None:
        pass

    def end(self) -> None:
        pass


def images(count: int) -> ArraySplit:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    return ArraySplit(pixels, pixels.reshape(count, -1).astype(np.int64).sum(1) % 10)


def network() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.3),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 10),
    )  # fmt: skip
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def loop(path: Path, watcher: CutAt, low_rank: dict[str, Any] | None, lr: float = 0.1) -> Loop:
    model = network()
    recipe = RECIPES["one-cycle"].changed(epochs=3, batch_size=16, lr=lr)
    train, test, augmentation = images(70), images(20), Augmentation(1, True)
    x, y = (
        Normaliser(PREPROCESSING, CPU)(torch.from_numpy(test.images)),
        torch.from_numpy(test.labels),
    )
    trp = None
    if low_rank is not None:
        trp = TrainedRankPruning(
            model, period=3, input_shape=(1, 1, 8, 8), total_steps=3 * 4, **low_rank
        )
    path.mkdir(exist_ok=True)

    def save(target: Path, facts: dict[str, Any]) -> None:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, target)

    def loss(logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        return cross_entropy(logits, labels)

    return Loop(
        model=model, net=model,
        batches=ArrayBatches(train, PREPROCESSING, augmentation, CPU, batch_size=16, seed=5),
        test=lambda: [(x, y)], recipe=recipe,
        optimizer=torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4),
        workers=ALONE, directory=RunDirectory(path), save=save, trp=trp, loss=loss, bf16=False,
        seed=5, save_seconds=0, watcher=watcher,
    )  # fmt: skip


def outcome(path: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    lines = [json.loads(line) for line in (path / METRICS).read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return load_file(path / LAST), lines


@pytest.mark.parametrize(
    "low_rank",
    [
        None,
        {"energy": 0.9, "nuclear_weight": 3e-4},
        {"energy": None, "nuclear_weight": 3e-4},
        {"target_macs": 0.5},
    ],
    ids=["plain", "both", "nuclear", "steered"],
)
def test_a_run_that_breaks_off_at_any_step_ends_at_the_same_bits(
    tmp_path: Path, low_rank: dict[str, Any] | None
) -> None:
    loop(tmp_path / "whole", CutAt(), low_rank).run()
    weights, metrics = outcome(tmp_path / "whole")
    assert [line["step"] for line in metrics] == [4, 8, 12]
    # Broken off at each step in turn, before that step's state is written.
    for step in range(1, 13):
        watcher = CutAt(step)
        with pytest.raises(PowerCut):
            loop(tmp_path / "broken", watcher, low_rank).run()
        assert watcher.done == max(0, step - 2)
    loop(tmp_path / "broken", CutAt(), low_rank).run()
    found, lines = outcome(tmp_path / "broken")
    assert lines == metrics
    assert weights.keys() == found.keys()
    assert all(torch.equal(weights[name], found[name]) for name in weights)
    # A run that is finished is not trained any further.
    loop(tmp_path / "broken", CutAt(), low_rank).run()
    assert outcome(tmp_path / "broken")[1] == metrics


def test_a_steered_run_follows_its_schedule_from_epoch_to_epoch(tmp_path: Path) -> None:
    loop(tmp_path / "run", CutAt(), {"target_macs": 0.5}).run()
    ratios = [line["macs_ratio"] for line in outcome(tmp_path / "run")[1]]
    # A third of the way: 0.5 + 0.5 (1 - 2/3)^3; from half-way on the target.
    assert 0.5 < ratios[0] <= 0.5 + 0.5 / 27
    assert ratios[1] <= 0.5
    assert ratios[2] <= 0.5


@pytest.mark.parametrize("low_rank", [None, {"energy": 0.9, "nuclear_weight": 3e-4}])
def test_a_loss_that_is_no_number_stops_the_run(
    tmp_path: Path, low_rank: dict[str, Any] | None
) -> None:
    with pytest.raises(PowerCut):
        loop(tmp_path / "run", CutAt(5), low_rank).run()
    good = (tmp_path / "run" / LAST).read_bytes()
    with pytest.raises(TrainingError, match=r"step (\d+)") as caught:
        loop(tmp_path / "run", CutAt(), low_rank, lr=1e30).run()
    assert "\n" not in str(caught.value)
    assert (tmp_path / "run" / LAST).read_bytes() == good


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    first = loop(tmp_path / "run", CutAt(), None)
    first.directory.write_state({"epoch": 1})
    with pytest.raises(TrainingError, match=r"does not fit .* restart the run"):
        first.run()


def test_evaluation_counts_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    labels = torch.tensor([0, 0, 1])
    batches = [(logits[:2], labels[:2]), (logits[2:], labels[2:])]
    score = evaluate(nn.Identity(), batches, ALONE)
    expected = [math.log1p(math.exp(-2)), math.log1p(math.exp(1)), math.log1p(math.exp(3))]
    assert score.top1 == pytest.approx(100 / 3)
    assert score.loss == pytest.approx(sum(expected) / 3)
    assert score.images == 3


def test_sums_are_handed_back_to_those_who_made_them() -> None:
    sums = torch.tensor([[1.0, 2, 3], [4, 5, 6]], dtype=torch.float64)
    assert Totals.restored(sums, Workers(1, 2, CPU)).sums.tolist() == [4, 5, 6]
    assert Totals.restored(sums, ALONE).sums.tolist() == [5, 7, 9]
    assert Totals.restored(sums[0], ALONE).sums.tolist() == [1, 2, 3]
    assert Totals.restored(sums, Workers(2, 3, CPU)).sums.tolist() == [0, 0, 0]


def test_a_run_that_is_asked_to_stop_saves_its_state_after_the_step(tmp_path: Path) -> None:
    whole, part = (loop(tmp_path / name, CutAt(), {"energy": 0.8}) for name in ("whole", "part"))
    whole.run()
    part.save_seconds = math.inf  # nothing else has it save
    answers = iter([False, False, True])
    part.should_stop = lambda: next(answers)
    with pytest.raises(KeyboardInterrupt):
        part.run()
    state = part.directory.read_state()
    assert state is not None
    assert (state["epoch"], state["step"]) == (0, 3)
    watcher = CutAt()
    loop(tmp_path / "part", watcher, {"energy": 0.8}).run()
    assert watcher.done == 3
    one, two = (load_file(tmp_path / name / LAST) for name in ("whole", "part"))
    assert all(torch.equal(one[key], two[key]) for key in one)
