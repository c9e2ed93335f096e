"""The public functions as people will try them first."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trpexport as tx
from tests.conftest import ROOT
from trpexport.errors import DataError, NothingToDoError, OutputError, PlanError

CHECKPOINT = ROOT / "models_zoo/checkpoints/resnet20-plain.safetensors"
SHAPE = (1, 3, 12, 12)
QUICK: dict[str, Any] = {
    **{"opset": 17, "legacy_exporter": True, "simplify": False},
    "verify_seconds": 0.1,
}


class Net(nn.Module):
    """Three convolutions and a classifier of ten."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c1 = nn.Conv2d(3, 16, 3, padding=1)
        self.c2, self.c3 = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c3(self.c2(self.c1(x).relu()).relu()).relu()
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


def images(count: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *SHAPE[1:], generator=generator)


DENSE = (3 * 16 + 2 * 16 * 16) * 9 * 144 + 160
PAIR = 2 * 16 * 3 * 4 * 144  # spatial, rank 4


@pytest.mark.parametrize("example", [torch.zeros(SHAPE), np.zeros(SHAPE), SHAPE])
def test_a_module_by_a_criterion(example: Any) -> None:
    model = Net()
    before = copy.deepcopy(model.state_dict())
    small = tx.decompose(model, tx.ByCriterion("spatial", "rank:4"), example=example)
    assert [layer.name for layer in small.plan.rewritten] == ["c2", "c3"]
    assert small.plan.architecture == "Net"
    assert small.plan.macs_before == DENSE
    assert small.plan.macs_after == DENSE - 2 * 16 * 16 * 9 * 144 + 2 * PAIR
    assert small.module(images()).shape == (24, 10)
    assert small.module is small.module
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("kind", [torch.Tensor, np.ndarray])
def test_a_module_within_a_budget(kind: type) -> None:
    x = images()
    found = tx.decompose(
        Net(), tx.ByBudget(macs=0.5), images=x if kind is torch.Tensor else x.numpy()
    )
    plain = tx.decompose(
        Net(),
        tx.ByPlan(found.plan),
        example=SHAPE,
    )
    assert found.plan.macs_after <= 0.5 * found.plan.macs_before
    assert found.plan.options["calibration"]["images"] == 20
    assert found.plan.options["calibration"]["held_out"]["images"] == 4
    with torch.no_grad():
        expected = Net()(x)
        errors = [float((small.module(x) - expected).norm()) for small in (found, plain)]
    assert errors[0] < errors[1]
    assert any("plain SVD" in note for note in plain.notes)


def test_a_checkpoint_by_its_path(tmp_path: Path) -> None:
    for path in (CHECKPOINT, str(CHECKPOINT)):
        small = tx.decompose(path, tx.ByCriterion("channel", "rank:4"))
        assert {layer.scheme for layer in small.plan.rewritten} == {"channel"}
    assert small.plan.architecture is not None
    shape = small.plan.inputs.first.shape
    values = np.random.default_rng(0).standard_normal((16, *shape[1:]), dtype=np.float32)
    budget = tx.ByBudget(parameters=0.6, scheme="channel", cache=tmp_path)
    fitted = tx.decompose(CHECKPOINT, budget, images=values)
    counts = [
        sum(p.numel() for p in module.parameters())
        for module in (fitted.module, fitted.original.model)
    ]
    assert counts[0] <= 0.6 * counts[1]
    found = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert found == ["calibration", "sensitivity"]


def test_verify_export_count_and_bench(tmp_path: Path) -> None:
    small = tx.decompose(Net(), tx.ByCriterion("spatial", "rank:4"), example=SHAPE)
    assert tx.verify(small, seconds=0.1).is_equivalent
    out = tmp_path / "out"
    report = tx.export(small, out, baseline=True, verify_seconds=0.1)
    assert report.path == out
    assert report.plan == small.plan
    assert tx.verify(out).is_equivalent
    assert tx.verify(out / "model.onnx", out).is_equivalent
    assert tx.verify(out / "model.onnx", out / "model.onnx", seconds=0.0).is_equivalent
    assert not tx.verify(out / "baseline.onnx", out / "model.onnx", seconds=0.0).is_equivalent
    with pytest.raises(PlanError, match="nothing to be compared with"):
        tx.verify(out / "model.onnx")
    with pytest.raises(OutputError):
        tx.export(small, out, **QUICK)
    tx.export(small, out, replace=True, **QUICK)
    counts = {
        tx.count(small).macs,
        tx.count(small.module, example=SHAPE).macs,
        tx.count(out).macs,
        tx.count(out / "model.onnx").macs,
        small.plan.macs_after,
    }
    assert counts == {DENSE - 2 * 16 * 16 * 9 * 144 + 2 * PAIR}
    assert tx.count(CHECKPOINT).macs == tx.count(CHECKPOINT, example=(1, 3, 32, 32)).macs > 0
    dense = tx.export(CHECKPOINT, tmp_path / "dense", **QUICK)
    assert not dense.plan.rewritten
    quick: dict[str, Any] = {
        "min_time": 0.02,
        "max_time": 0.1,
        "min_runs": 3,
        "warmup_seconds": 0.1,
    }
    record = tx.bench([out, tmp_path / "dense"], threads=1, memory=False, **quick)
    assert record["settings"]["threads"] == [1]
    (result,) = record["results"]
    assert [model["seconds"]["median"] > 0 for model in result["models"]] == [True, True]
    assert result["models"][1]["ratio"]["to"] == result["models"][0]["label"]


@pytest.mark.parametrize("threads", ["2", 1.5, (1, "2"), None, (True,)])
def test_threads_are_a_number_or_several(threads: Any) -> None:
    for use in (
        lambda: tx.bench([CHECKPOINT], threads=threads),
        lambda: tx.gate(CHECKPOINT, CHECKPOINT, settings={"threads": threads}, max_file_size=1),
    ):
        with pytest.raises(tx.TrpexportError, match=r"threads can't be .*several as in \(1, 2\)"):
            use()


def test_a_setting_that_a_bench_does_not_have_is_named() -> None:
    with pytest.raises(tx.TrpexportError, match="no setting 'thread': it has provider"):
        tx.gate(CHECKPOINT, CHECKPOINT, settings={"thread": 1}, max_file_size=1)


@pytest.fixture
def digits(tmp_path: Path) -> str:
    """Returns a data set of random images of ten classes, as it is typed."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3, 12, 12), dtype=np.uint8)
    np.savez(tmp_path / "digits.npz", images=pixels, labels=np.arange(60) % 10)
    return f"npz:{tmp_path / 'digits.npz'}"


def test_evaluate_and_gate(tmp_path: Path, digits: str) -> None:
    paths = {}
    for name, rank in (("whole", 48), ("cut", 1)):
        chooser = tx.ByCriterion("spatial", f"rank:{rank}", keep_expensive=True)
        small = tx.decompose(Net(), chooser, example=SHAPE)
        paths[name] = tx.export(small, tmp_path / name, **QUICK).path
    how = tx.Preprocessing((0.5,) * 3, (0.25,) * 3)
    found = tx.evaluate(paths["whole"], digits, limit=40, preprocessing=how)
    assert len(found) == 40
    assert found.top1 == pytest.approx(float(found.correct.mean()))
    result = tx.gate(
        paths["whole"], paths["cut"], min_macs_ratio=3.0, data=digits, preprocessing=how
    )
    assert result.passed
    assert not tx.gate(paths["cut"], paths["whole"], min_macs_ratio=1.0).passed
    with pytest.raises(tx.TrpexportError, match="no limit"):
        tx.gate(paths["cut"], paths["whole"])
    with pytest.raises(TypeError, match="min_mac_ratio"):
        tx.gate(paths["cut"], paths["whole"], min_mac_ratio=1.0)  # type: ignore[call-arg]


def test_train_and_load(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(40) % 4
    np.savez(tmp_path / "tiny.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    facts = tx.train(
        "resnet20",
        f"npz:{tmp_path / 'tiny.npz'}",
        tmp_path / "run",
        low_rank=tx.LowRank("spatial", energy=0.9, period=1),
        epochs=1,
        batch_size=20,
    )
    assert facts["epoch"] == 1
    checkpoint = tx.load(tmp_path / "run/last.safetensors")
    assert checkpoint.label.startswith("resnet20")
    small = tx.decompose(tmp_path / "run/last.safetensors", tx.ByCriterion("spatial", "energy:0.9"))
    bundle = tx.export(small, tmp_path / "bundle", **QUICK).path
    factors = tx.load(bundle)
    assert factors.plan is not None
    assert [layer.rank for layer in factors.plan.rewritten] == [
        layer.rank for layer in small.plan.rewritten
    ]
    x = torch.zeros(1, 3, 32, 32)
    torch.testing.assert_close(factors.module(x), small.network.model(x))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: tx.decompose(Net(), tx.ByCriterion()), PlanError, "an example"),
        (lambda: tx.decompose(Net(), tx.ByBudget(macs=0.5), example=SHAPE), PlanError, "images"),
        (lambda: tx.decompose(Net(), tx.ByBudget(), images=images()), PlanError, "give one"),
        (lambda: tx.decompose(Net(), tx.ByBudget(macs=0.5, error=0.1)), PlanError, "give one"),
        (lambda: tx.decompose(Net(), tx.ByBudget(macs=1.5)), PlanError, "between 0 and 1"),
        (lambda: tx.decompose(Net(), tx.ByBudget(drop=-1)), PlanError, "out of range"),
        (lambda: tx.decompose(Net(), tx.ByBudget(share=0.5)), PlanError, "share and price"),
        (
            lambda: tx.decompose(Net(), tx.ByBudget(drop=1.0), images=images()),
            DataError,
            "a data set",
        ),
        (
            lambda: tx.decompose(Net(), tx.ByBudget(macs=0.001), images=images()),
            NothingToDoError,
            "can't be met",
        ),
        (lambda: tx.decompose(Net(), tx.ByCriterion("spacial"), example=SHAPE), None, "spatial"),
        (lambda: tx.decompose(Net(), tx.ByCriterion(criterion="x"), example=SHAPE), None, "x"),
        (
            lambda: tx.decompose(Net(), tx.ByCriterion("auto"), example=SHAPE),
            PlanError,
            "budget",
        ),
        (lambda: tx.decompose(Net(), tx.ByPlan("none.json"), example=SHAPE), PlanError, "read"),
        (
            lambda: tx.decompose(Net(), tx.ByCriterion(), example=(1, 4, 12, 12)),
            PlanError,
            "can't run",
        ),
        (
            lambda: tx.decompose(Net(), tx.ByBudget(macs=0.5), images=images()[:, :2]),
            None,
            "can't run|do not fit",
        ),
        (lambda: tx.decompose("none.pth", tx.ByCriterion()), None, "none.pth"),
        (lambda: tx.count(Net()), PlanError, "an example"),
    ],
)
def test_what_is_wrong_is_one_line(
    call: Callable[[], object], error: type[Exception] | None, words: str
) -> None:
    with pytest.raises(error or tx.TrpexportError, match=words) as found:
        call()
    assert "\n" not in str(found.value)
    assert "--" not in str(found.value)


def test_a_plan_goes_through_a_file(tmp_path: Path) -> None:
    small = tx.decompose(Net(), tx.ByCriterion("spatial", "rank:4"), example=SHAPE)
    data = small.plan.to_json()
    data["layers"][1]["rank"] = 2
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(data))
    edited = tx.decompose(Net(), tx.ByPlan(path))  # the plan says which input
    assert [layer.rank for layer in edited.plan.rewritten] == [2, 4]
    assert tx.read_plan(path).layers[2] == small.plan.layers[2]
