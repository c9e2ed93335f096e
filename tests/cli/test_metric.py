"""``--metric`` and ``tensors:`` in ``eval`` and ``gate``, on networks whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import trpexport as tx
from tests.conftest import Run

OWN = """
import numpy as np

def gap(predictions, targets):
    return float(np.abs(predictions - targets).mean())

def near(predictions, targets):
    return (np.abs(predictions - targets) < 1).all(axis=1)

class Largest:
    def __init__(self):
        self.value = 0.0
    def update(self, predictions, targets):
        self.value = max(self.value, float(np.abs(predictions - targets).max()))
    def compute(self):
        return self.value
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "ownmetrics.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def network(write_onnx: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a network that adds a number to its only input, (n, 3)."""

    def write(shift: float = 0.0, name: str = "x", batch: int | str = "n") -> Path:
        return write_onnx(
            [helper.make_node("Add", [name, "shift"], ["y"])],
            {name: (batch, 3)},
            {"y": (batch, 3)},
            {"shift": np.full(3, shift, np.float32)},
        )

    return write


@pytest.fixture
def data(place: Path) -> str:
    x = np.random.default_rng(0).standard_normal((120, 3)).astype(np.float32)
    np.savez(place / "d.npz", anything=x, target=x)
    return f"tensors:{place / 'd.npz'}"


@pytest.mark.parametrize("batch", ["n", 7])
@pytest.mark.parametrize(
    ("metric", "value", "has_interval"),
    [
        ("rmse", 0.5, True),
        ("mae", 0.5, True),
        ("ownmetrics:gap", 0.5, False),
        ("ownmetrics:near", 1.0, True),
        ("ownmetrics:Largest", 0.5, False),
    ],
)
def test_eval(
    run: Run,
    network: Callable[..., Path],
    data: str,
    metric: str,
    value: float,
    has_interval: bool,
    batch: int | str,
) -> None:
    model = network(0.5, batch=batch)
    result = run("eval", model, "--data", data, "--metric", metric, "--json")
    assert result.code == 0, result.err
    facts = json.loads(result.out)
    assert facts["metric"] == metric
    assert facts["value"] == pytest.approx(value, abs=1e-6)
    assert (facts["low"] is not None) is has_interval
    shown = run("eval", model, "--data", data, "--metric", metric)
    assert metric in shown.out
    assert ("no interval" in shown.out) is not has_interval


def test_several_inputs_and_outputs(run: Run, write_onnx: Callable[..., Path], place: Path) -> None:
    model = write_onnx(
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Sub", ["a", "b"], ["difference"]),
        ],
        {"a": ("n", 3), "b": ("n", 3)},
        {"sum": ("n", 3), "difference": ("n", 3)},
    )
    folder = place / "arrays"
    folder.mkdir()
    a, b = np.random.default_rng(1).standard_normal((2, 9, 3)).astype(np.float32)
    for name, array in {"a": a, "b": b, "target.sum": a + b, "target.difference": a}.items():
        np.save(folder / f"{name}.npy", array)
    found = tx.evaluate(model, f"tensors:{folder}", metric="mae", output="difference")
    assert found.value == pytest.approx(np.abs(b).mean())
    seen: dict[str, Any] = {}

    def both(predictions: Any, targets: Any) -> float:
        seen.update(predictions=predictions, targets=targets)
        return 1.0

    tx.evaluate(model, f"tensors:{folder}", metric=both)
    assert np.array_equal(seen["predictions"]["sum"], a + b)
    assert np.array_equal(seen["targets"]["difference"], a)
    several = run("eval", model, "--data", f"tensors:{folder}", "--metric", "mae")
    assert several.code == 2
    assert "mae judges one output, the network has sum, difference: choose one" in several.error
    (folder / "b.npy").unlink()
    missing = run("eval", model, "--data", f"tensors:{folder}", "--metric", "mae")
    assert "holds a, the network takes a, b: save one array for each input" in missing.error


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "no metric is given"),
        (["--metric", "miuo"], "unknown metric 'miuo': did you mean miou"),
        (["--metric", "miou", "--metric-lower-is-better"], "of miou more is better"),
        (["--metric", "ownmetrics:nothing"], "ownmetrics has no nothing; it has Largest, gap"),
        (["--metric", "top1"], "give scores n x classes, and as targets the classes"),
        (["--metric", "rmse", "--mean", "0.5", "--std", "0.5"], "prepare images: leave them out"),
        (["--metric", "rmse", "--save", "a.npz"], "--save does nothing beside the metric rmse"),
        (["--metric", "rmse", "--images", "0"], "--images"),
        (["--metric", "rmse", "--output", "z"], "has no output 'z': choose from y"),
    ],
)
def test_eval_misuse(
    run: Run, network: Callable[..., Path], data: str, options: list[str], says: str
) -> None:
    result = run("eval", network(), "--data", data, *options)
    assert result.code == 2
    assert says in result.err
    assert "Traceback" not in result.err


def gate(run: Run, before: Path, after: Path, data: str, *options: object) -> tuple[int, Any]:
    arguments = ["--baseline", before, "--candidate", after, "--data", data, "--json"]
    result = run("gate", *arguments, *options)
    assert result.code in (0, 1), result.err
    return result.code, json.loads(result.out)


def test_gate_holds_an_error_to_a_limit_in_its_unit(
    run: Run, network: Callable[..., Path], data: str, place: Path
) -> None:
    before, after = network(0.1), network(0.35)
    options = ("--metric", "rmse", "--max-drop")
    code, found = gate(run, before, after, data, *options, "0.3", "--history", place / "h.jsonl")
    rule = found["rules"][0]
    assert (code, found["metric"], rule["title"]) == (0, "rmse", "rise of rmse")
    assert rule["value"] == pytest.approx(0.25, abs=1e-6)
    assert rule["low"] <= rule["value"] <= rule["high"]
    assert gate(run, before, after, data, *options, "0.2")[0] == 1
    assert gate(run, after, before, data, *options, "0.01")[0] == 0  # a gain is no loss
    api = tx.gate(before, after, data=data, metric="rmse", max_drop=0.3)
    assert api.passed
    other = run(
        *("gate", "--baseline", before, "--candidate", after, "--data", data, "--metric", "mae"),
        *("--max-drop", "0.3", "--compare-to", place / "h.jsonl"),
    )
    assert "was judged by rmse, this one by mae" in other.error


def test_gate_by_a_function_of_everything(
    run: Run, network: Callable[..., Path], data: str
) -> None:
    options = ("--metric", "ownmetrics:gap", "--metric-lower-is-better", "--max-drop", "0.3")
    code, found = gate(run, network(0), network(0.25), data, *options)
    assert (code, found["rules"][0]["low"]) == (0, None)
    code, found = gate(run, network(0), network(0.25), data, *options, "--confident")
    assert (code, found["rules"][0]["reason"]) == (1, "the rise of ownmetrics:gap has no interval")
    assert gate(run, network(0), network(0.5), data, *options)[0] == 1


def test_gate_by_the_metric_of_its_file(
    run: Run, network: Callable[..., Path], data: str, place: Path
) -> None:
    (place / "trpexport.toml").write_text("[gate]\nmetric = 'rmse'\nmax-drop = 0.3\n")
    code, found = gate(run, network(0.1), network(0.35), data)
    assert (code, found["metric"], found["rules"][0]["title"]) == (0, "rmse", "rise of rmse")
    assert gate(run, network(0.1), network(0.5), data)[0] == 1
    typed = gate(run, network(0.1), network(0.35), data, "--metric", "mae", "--max-drop", "0.2")
    assert (typed[0], typed[1]["metric"]) == (1, "mae")


def test_gate_counts_one_number_a_sample_pairwise(
    run: Run, network: Callable[..., Path], data: str
) -> None:
    options = ("--metric", "ownmetrics:near", "--max-drop")
    code, found = gate(run, network(0), network(2), data, *options, "0.9")
    assert code == 1
    assert found["rules"][0]["value"] == 1
    code, found = gate(run, network(0), network(0), data, *options, "0.05")
    assert code == 0
    code, found = gate(run, network(0), network(0), data, *options, "0.001")
    assert "too few images" in found["rules"][0]["reason"]  # 120 can't tell that


def test_gate_refuses_rules_on_classes(run: Run, network: Callable[..., Path], data: str) -> None:
    result = run(
        *("gate", "--baseline", network(), "--candidate", network(), "--data", data),
        *("--metric", "rmse", "--max-top5-drop", "1"),
    )
    assert "needs classes, rmse tells none: leave max-top5-drop out" in result.error
    bare = run("gate", "--baseline", network(), "--candidate", network(), "--metric", "rmse")
    assert "--metric does nothing without --data" in bare.error
