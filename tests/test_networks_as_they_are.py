"""Six kinds of networks, each trained a little on real data, through the whole job.

Decomposed plain and calibrated, exported, verified, counted, timed, evaluated and gated by a metric
that fits, from the command line and from Python; and the same from the dense network's ONNX file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import trpexport as tx
from tests.conftest import Run
from tests.kinds_of_networks import NETWORKS
from trpexport.arrays import write_arrays

pytestmark = pytest.mark.slow
Arrays = dict[str, NDArray[Any]]
FAST = ("--verify-seconds", "1")


@dataclass(frozen=True)
class Job:
    """A network and what it is trained for.

    Attributes:
        data: makes inputs by name, and targets by output ("" for one), from digits and labels.
        loss: of outputs and targets, both as the network gives and the data have them.
        metric: judges it.
        bound: what the trained network reaches at least; at most, where lower is better.
        output: which output the metric judges.
        lower_is_better: whether that metric is an error.
    """

    data: Callable[[NDArray[Any], NDArray[Any]], tuple[Arrays, Arrays]]
    loss: Callable[[Any, dict[str, Tensor]], Tensor]
    metric: str
    bound: float
    output: str | None = None
    lower_is_better: bool = False


def images(digits: NDArray[Any]) -> NDArray[Any]:
    """Digits of 8x8 on 16x16, (n, 1, 16, 16)."""
    return np.repeat(np.repeat(digits[:, None] / 16, 2, 2), 2, 3).astype(np.float32)


def masks(digits: NDArray[Any], labels: NDArray[Any]) -> tuple[Arrays, Arrays]:
    noise = 0.5 * np.random.default_rng(0).standard_normal((len(digits), 1, 16, 16))
    shown = images(digits)
    return {"input": (shown + noise).astype(np.float32)}, {"": (shown[:, 0] > 0.5).astype(int)}


def boxes(digits: NDArray[Any], labels: NDArray[Any]) -> tuple[Arrays, Arrays]:
    shown = images(digits)
    ink = shown[:, 0] > 0.5
    place = np.arange(16)
    rows, columns = ink.any(2), ink.any(1)
    edges = [
        np.where(seen, place, limit).min(1) if low else np.where(seen, place, limit).max(1)
        for seen in (rows, columns)
        for low, limit in ((True, 16), (False, -1))
    ]
    centre = np.stack([edges[0] + edges[1], edges[2] + edges[3]], 1) / 32
    size = np.stack([edges[1] - edges[0], edges[3] - edges[2]], 1) / 16
    targets = {"label": labels, "centre": centre, "size": size}
    return {"input": shown}, {
        k: v if k == "label" else v.astype(np.float32) for k, v in targets.items()
    }


def signals(digits: NDArray[Any], labels: NDArray[Any]) -> tuple[Arrays, Arrays]:
    return {"input": (digits.reshape(-1, 1, 64) / 16).astype(np.float32)}, {"": labels}


def volumes(digits: NDArray[Any], labels: NDArray[Any]) -> tuple[Arrays, Arrays]:
    moved = np.stack([np.roll(digits, step, axis=2) for step in range(4)], 1) / 16
    return {"input": moved[:, None].astype(np.float32)}, {"": labels}


def pairs(digits: NDArray[Any], labels: NDArray[Any]) -> tuple[Arrays, Arrays]:
    """An image and a turn of it by some quarters: how many?"""
    turns = np.arange(len(digits)) % 4
    turned = np.stack([np.rot90(d, int(k)) for d, k in zip(digits, turns, strict=True)])
    return {"left": images(digits), "right": images(turned)}, {"": turns}


def plain(digits: NDArray[Any], labels: NDArray[Any]) -> tuple[Arrays, Arrays]:
    return {"input": images(digits)}, {"": labels}


def classes(outputs: Tensor, targets: dict[str, Tensor]) -> Tensor:
    return functional.cross_entropy(outputs, targets[""])


def detected(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    label = functional.cross_entropy(outputs["label"], targets["label"])
    places = [functional.mse_loss(outputs[k], targets[k]) for k in ("centre", "size")]
    return label + 10 * (places[0] + places[1])


JOBS = {
    "unet": Job(masks, classes, "miou", 0.8),
    "detector": Job(boxes, detected, "mae", 0.06, "centre", lower_is_better=True),
    "audio": Job(signals, classes, "top1", 0.85),
    "volume": Job(volumes, classes, "top1", 0.85),
    "two_inputs": Job(pairs, classes, "top1", 0.6),
    "vit": Job(plain, classes, "top1", 0.75),
}


@dataclass(frozen=True)
class Trained:
    """A trained network, its checkpoint and its data, in a folder of its own."""

    name: str
    job: Job
    module: nn.Module
    folder: Path
    shapes: tuple[str, ...]

    @property
    def judged(self) -> tuple[str, ...]:
        output = () if self.job.output is None else ("--output", self.job.output)
        return (
            "--data",
            f"tensors:{self.folder / 'val.npz'}",
            "--metric",
            self.job.metric,
            *output,
        )


@pytest.fixture(scope="module", params=sorted(JOBS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    name: str = request.param
    job, folder = JOBS[name], tmp_path_factory.mktemp(name)
    digits, labels = load_digits(return_X_y=True)
    inputs, targets = job.data(digits.reshape(-1, 8, 8), labels)
    fitted, judged = slice(None, 1400), slice(1400, None)
    for file, some in (("train", fitted), ("val", judged)):
        named = {f"target.{k}" if k else "target": v[some] for k, v in targets.items()}
        write_arrays(folder / f"{file}.npz", {k: v[some] for k, v in inputs.items()} | named)
    torch.manual_seed(0)
    module = NETWORKS[name]()
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    x = [torch.from_numpy(array[fitted]) for array in inputs.values()]
    y = {key: torch.from_numpy(array[fitted]) for key, array in targets.items()}
    for _ in range(8):
        for batch in torch.randperm(1400).reshape(-1, 50):
            loss = job.loss(module(*(a[batch] for a in x)), {k: v[batch] for k, v in y.items()})
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    module.eval()
    torch.save(module.state_dict(), folder / "weights.pt")
    sizes = {key: "x".join(map(str, (1, *array.shape[1:]))) for key, array in inputs.items()}
    shapes = [f"{key}={size}" if len(sizes) > 1 else size for key, size in sizes.items()]
    return Trained(
        name, job, module, folder, tuple(s for shape in shapes for s in ("--input-shape", shape))
    )


def facts(run: Run, *arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def check_bundle(run: Run, trained: Trained, out: Path, baseline: Path) -> None:
    """Verify, count, time, evaluate and gate a bundle."""
    job = trained.job
    assert run("verify", out).code == 0
    assert facts(run, "flops", out / "model.onnx")["macs"] > 0
    assert run("bench", baseline, out, "--max-time", "1", "--min-time", "0.1").code == 0
    before = facts(run, "eval", baseline, *trained.judged)
    after = facts(run, "eval", out, *trained.judged)
    sign = -1 if job.lower_is_better else 1
    assert sign * before["value"] >= sign * job.bound
    assert before["metric"] == job.metric
    assert tx.evaluate(
        out, trained.judged[1], metric=job.metric, output=job.output
    ).value == pytest.approx(after["value"])
    gate = ("gate", "--baseline", baseline, "--candidate", out, *trained.judged)
    assert run(*gate, "--max-drop", "20").code in (0, 1)
    rule = json.loads(run(*gate, "--max-drop", "20", "--json").out)["rules"][0]
    scale = 1 if job.lower_is_better else 100
    assert rule["value"] == pytest.approx(
        scale * sign * (before["value"] - after["value"]), abs=1e-6
    )


def test_from_its_checkpoint(run: Run, trained: Trained, tmp_path: Path) -> None:
    weights = trained.folder / "weights.pt"
    model = ("--model", f"tests.kinds_of_networks:{trained.name}", *trained.shapes)
    assert facts(run, "inspect", weights, *model)
    dense = tmp_path / "dense"
    assert run("export", weights, *model, "-o", dense, "--dynamic-batch", *FAST).code == 0
    options = ("--criterion", "energy:0.8", "--dynamic-batch", *FAST)
    calib = ("--calib", f"tensors:{trained.folder / 'train.npz'}")
    errors = []
    for name, how in (("plain", ()), ("calibrated", calib)):
        out = tmp_path / name
        found = facts(run, "decompose", weights, *model, *options, *how, "-o", out)
        assert found["plan"]["layers"] if "plan" in found else found
        check_bundle(run, trained, out, dense)
        errors.append(facts(run, "eval", out, *trained.judged)["value"])
    better = (
        errors[1] <= errors[0] + 0.02
        if trained.job.lower_is_better
        else (errors[1] >= errors[0] - 0.05)
    )
    assert better, errors


def test_from_python(trained: Trained) -> None:
    small = tx.decompose(
        trained.module,
        tx.ByCriterion("spatial", "energy:0.8"),
        images=f"tensors:{trained.folder / 'train.npz'}",
    )
    tx.verify(small, seconds=1)
    assert small.plan.macs_after < small.plan.macs_before


def test_from_its_onnx_file(run: Run, trained: Trained, tmp_path: Path) -> None:
    weights = trained.folder / "weights.pt"
    model = ("--model", f"tests.kinds_of_networks:{trained.name}", *trained.shapes)
    assert run("export", weights, *model, "-o", tmp_path / "d", "--dynamic-batch", *FAST).code == 0
    file = tmp_path / "d" / "model.onnx"
    assert facts(run, "inspect", file)
    calib = ("--calib", f"tensors:{trained.folder / 'train.npz'}")
    for name, how in (("plain", ()), ("calibrated", calib)):
        result = run(
            "decompose", file, "--criterion", "energy:0.8", *how, *FAST, "-o", tmp_path / name
        )
        assert result.code == 0, result.err
        check_bundle(run, trained, tmp_path / name, tmp_path / "d")


@pytest.mark.parametrize("trained", ["detector", "unet"], indirect=True)
def test_at_other_sizes(run: Run, trained: Trained, tmp_path: Path) -> None:
    """Digits twice as large as those that it was trained and calibrated on, one way or both.

    The network itself says what comes out there; the factors lose somewhat more than at home.
    """
    weights, out = trained.folder / "weights.pt", tmp_path / "out"
    options = (
        *("--model", f"tests.kinds_of_networks:{trained.name}", *trained.shapes),
        *("--criterion", "energy:0.8", "--calib", f"tensors:{trained.folder / 'train.npz'}"),
        *("--dynamic-batch", "--dynamic", "height,width", *FAST),
    )
    found = run("decompose", weights, *options, "-o", out)
    assert found.code == 0, found.err
    session = InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    digits = load_digits().images[1400:1500]

    def distance(rows: int, columns: int) -> float:
        """Return how far outputs are from the network's, relative to their variation."""
        x = np.repeat(np.repeat(digits[:, None] / 16, rows, 2), columns, 3).astype(np.float32)
        with torch.no_grad():
            wanted = trained.module(torch.from_numpy(x))
        named = wanted if isinstance(wanted, dict) else {"output": wanted}
        given = session.run(list(named), {"input": x})
        return max(
            float(np.linalg.norm(ours - theirs.numpy()) / (theirs - theirs.mean(0)).norm())
            for ours, theirs in zip(given, named.values(), strict=True)
        )

    own = distance(2, 2)
    assert 1e-4 < own < 0.5
    for size in ((4, 4), (4, 2), (2, 4)):
        assert distance(*size) < min(0.5, 4 * own)
