"""Fine-tuning of networks with any outputs: a loss of one's own, or the original's outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import Run
from tests.datasets.picturing import encoded, pixels, two_classes, write_folder
from trpexport.training.objectives import Imitation, OwnLoss, as_floats

NETWORKS = """
import torch
from torch import nn

class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.mask, self.edge = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        y = self.body(x)
        return self.mask(y), self.edge(y)

class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 4)

    def forward(self, left, right):
        return self.body(left) - self.body(right)

def squares(outputs, labels):
    mask, edge = outputs
    return (mask - labels["mask"]).square().mean() + (edge - labels["edge"]).square().mean()

def classes(outputs, labels):
    return torch.nn.functional.cross_entropy(outputs[0].mean((2, 3)), labels)

def broken(outputs, labels):
    return outputs.mean()

def several(outputs, labels):
    return outputs[0].mean((1, 2, 3))
"""
NOISE = np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32)
QUICK = ("--epochs", "3", "--batch", "8", "--lr", "0.05", "--no-augment", "--workers", "0")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "loss_nets.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("loss_nets")
    for seed, name in enumerate(("student", "teacher")):
        torch.manual_seed(seed)
        torch.save(module.TwoHeads().state_dict(), tmp_path / f"{name}.pth")
        torch.save(module.Siamese().state_dict(), tmp_path / f"pair-{name}.pth")
    return tmp_path


def losses(place: Path) -> list[float]:
    lines = (place / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["test_loss"] for line in lines]


def tuned(run: Run, *options: Any, factory: str = "TwoHeads", student: str = "student.pth") -> Any:
    return run(
        "finetune", student, "--model", f"loss_nets:{factory}", *QUICK, *options, "-o", "run"
    )


def test_without_labels_the_outputs_of_the_original_are_learnt(run: Run, place: Path) -> None:
    np.save("x.npy", NOISE)
    result = tuned(run, "--data", "x.npy", "--teacher", "teacher.pth", "--json")
    assert result.code == 0, result.err
    found = losses(place)
    assert len(found) == 3
    assert found[-1] < 0.8 * found[0]
    assert "test_top1" not in result.json
    assert result.json["test_images"] == 8  # one sample in five


def test_photos_without_classes(run: Run, place: Path) -> None:
    write_folder(place / "photos", {f"{i}.png": encoded(pixels(i, 8, 8)) for i in range(24)})
    how = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")
    result = tuned(run, "--data", "photos", "--teacher", "teacher.pth", *how)
    assert result.code == 0, result.err
    assert losses(place)[-1] < losses(place)[0]


def test_several_inputs(run: Run, place: Path) -> None:
    np.savez("x.npz", left=NOISE[:, 0, 0, :6], right=NOISE[:, 1, 0, :6])
    how = {"factory": "Siamese", "student": "pair-student.pth"}
    result = tuned(run, "--data", "x.npz", "--teacher", "pair-teacher.pth", **how)
    assert result.code == 0, result.err
    assert losses(place)[-1] < 0.8 * losses(place)[0]


def test_a_loss_of_ones_own_gets_all_outputs_and_labels(run: Run, place: Path) -> None:
    targets: dict[str, Any] = {"target.mask": 0 * NOISE[:, :2] + 1, "target.edge": 0 * NOISE[:, :1]}
    np.savez("x.npz", image=NOISE, **targets)
    result = tuned(run, "--data", "tensors:x.npz", "--loss", "loss_nets:squares")
    assert result.code == 0, result.err
    assert losses(place)[-1] < 0.5 * losses(place)[0]


def test_a_loss_of_classes_of_images(run: Run, place: Path) -> None:
    write_folder(place / "sorted", two_classes("train", "test", size=8))
    how = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--batch", "2")
    result = tuned(run, "--data", "sorted", "--loss", "loss_nets:classes", *how)
    assert result.code == 0, result.err
    assert len(losses(place)) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--data", "x.npy"), "x.npy has no labels: give the original network as teacher"),
        (("--data", "x.npy", "--loss", "loss_nets:squares"), "which the loss .*squares is of"),
        (("--data", "y.npz", "--loss", "loss_nets:none"), "has no none"),
        (("--data", "y.npz", "--loss", "loss_nets:broken"), "broken raised AttributeError"),
        (("--data", "y.npz", "--loss", "loss_nets:several"), "returned a tensor of"),
        (("--data", "y.npz", "--loss", "squares"), "it must be package.module:function"),
        (("--data", "y.npz"), "has targets that are no classes: give the original"),
    ],
)
def test_what_can_not_be_learnt_is_one_line(
    run: Run, place: Path, options: tuple[str, ...], says: str
) -> None:
    np.save("x.npy", NOISE)
    np.savez("y.npz", image=NOISE, target=NOISE[:, :2])
    result = tuned(run, *options)
    assert result.code == 2
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(result.error)


def test_imitation_is_the_squared_error_over_the_variation() -> None:
    teacher = nn.Identity()
    x = torch.tensor([[0.0, 2.0], [4.0, 6.0]])  # variation about its mean: 5
    loss = Imitation(teacher)(x + 1, None, x)
    assert float(loss) == pytest.approx(1 / 5)
    halves = as_floats((x.half(), {"a": [x.bfloat16()], "n": torch.ones(2, dtype=torch.int64)}))
    assert halves[0].dtype == halves[1]["a"][0].dtype == torch.float32
    assert halves[1]["n"].dtype == torch.int64


def test_a_function_is_called_with_outputs_and_labels() -> None:
    loss = OwnLoss("f", lambda outputs, labels: (outputs - labels).abs().mean()[None])
    assert float(loss(torch.ones(3), torch.zeros(3), None)) == 1
