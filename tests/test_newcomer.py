"""The scripts of a newcomer: what each stumbled over is told, or works."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trpexport as tx
from tests.conftest import QUICK, Run

PYTHON = ("api_message.py", "siamese_api.py", "str_paths.py")
TWO_HEADS = ("--model", "twohead:make", "--input-shape", "1x3x32x32")


@pytest.fixture
def newcomer(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, in which commands are typed."""
    folder = shared / "cases/newcomer"
    for path in (*folder.glob("*.*"), *(folder / "conv_subclass").iterdir()):
        if path.is_file():
            shutil.copyfile(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def saved(newcomer: Path, module: str, factory: str, name: str) -> Any:
    """Save the weights of a network of a script, and return it."""
    import importlib

    import torch

    torch.manual_seed(0)
    model = getattr(importlib.import_module(module), factory)().eval()
    torch.save(model.state_dict(), newcomer / name)
    return model


@pytest.mark.parametrize("script", PYTHON)
def test_each_function_is_there_or_its_successor_is_named(newcomer: Path, script: str) -> None:
    text = (newcomer / script).read_text()
    names = {*re.findall(r"\btx\.(\w+)", text), *re.findall(r'\("(\w+)", \(', text)}
    assert len(names) > 1
    gone = 0
    for name in names:
        try:
            getattr(tx, name)
        except AttributeError as error:
            found = re.fullmatch(rf"trpexport\.{name} is gone: use trpexport\.(\w+)", str(error))
            assert found is not None, error
            assert callable(getattr(tx, found[1]))
            gone += 1
    assert gone  # which is where the script stops


def test_what_those_scripts_did_is_done_by_the_functions_of_today(newcomer: Path) -> None:
    model = saved(newcomer, "nets", "siamese", "siamese.pth")
    shapes = {"left": (1, 1, 28, 28), "right": (1, 1, 28, 28)}
    small = tx.decompose(
        model, tx.ByCriterion(criterion="energy:0.8", keep_expensive=True), example=shapes
    )
    quick: dict[str, Any] = {"opset": 17, "legacy_exporter": True, "simplify": False}
    report = tx.export(small, "siam_bundle", verify_seconds=0, **quick)  # a path as text
    assert max(len(repr(report)), len(repr(small)), len(repr(small.plan))) < 400
    assert len(tx.read_plan("siam_bundle/plan.json").inputs) == 2
    with pytest.raises(tx.TrpexportError, match="exists") as error:
        tx.export(small, "siam_bundle", verify_seconds=0, **quick)
    assert "--" not in str(error.value)
    with pytest.raises(TypeError, match="schem"):
        tx.decompose(model, schem="x")  # type: ignore[call-arg]


def test_two_heads(newcomer: Path, run: Run) -> None:
    saved(newcomer, "twohead", "make", "twohead.pth")
    result = run(
        *("decompose", "twohead.pth", *TWO_HEADS, "--criterion", "fraction:0.25"),
        *("--rank-multiple", 1, "-o", "b", "--json", *QUICK),
    )
    assert result.code == 0, result.err
    rows = {row["name"]: row for row in result.json["layers"]}
    assert {name for name, row in rows.items() if row["rank"]} == {"body.2", "up"}
    plan = tx.read_plan("b/plan.json")
    reasons = {row.name: row.reason or "" for row in plan.layers}
    for head in ("boxes", "classes"):
        assert reasons[head].startswith("a head (no layer with weights comes behind it)")
    (up,) = (row for row in plan.layers if row.name == "up")
    assert str(up.op).endswith("transposed")
    # Where nothing gets cheaper, what is proposed can be typed as it stands.
    refused = run("decompose", "twohead.pth", *TWO_HEADS, "--criterion", "energy:1", "-o", "c")
    assert refused.code == 3
    proposed = re.findall(r"^  trpexport (decompose .*)$", refused.out, re.MULTILINE)
    assert proposed
    for line in proposed:
        assert " ".join(TWO_HEADS) in line
    images = np.zeros((8, 32, 32, 3), np.uint8)
    labels = np.zeros(8, int)
    np.savez("i.npz", train_images=images, train_labels=labels, test_images=images,
             test_labels=labels)  # fmt: skip
    for options in (("digits", "--size", "32"), ("npz:i.npz", "--mean", "0,0,0", "--std", "1,1,1")):
        result = run("finetune", "b", "--data", *options, *TWO_HEADS[:2], "-o", "r")
        assert result.code == 2
        assert result.error
    assert "has several outputs" in result.error


NETWORKS = {
    "unet": ((1, 1, 32, 32), {"mask", "edge"}),
    "mobilenet": ((1, 3, 32, 32), {"classifier"}),
    "resnetd": ((1, 3, 32, 32), {"fc"}),
    "audio": ((1, 1, 4000), {"fc"}),
    "video": ((1, 3, 4, 16, 16), {"fc"}),
    "vit": ((1, 3, 32, 32), {"head"}),
    "yolo": ((1, 3, 64, 64), {"h3.1", "h4.1", "h5.1"}),
}


@pytest.mark.parametrize("factory", NETWORKS)
def test_each_kind_of_network_is_read_counted_and_rewritten_but_for_its_heads(
    newcomer: Path, factory: str
) -> None:
    import torch

    shape, heads = NETWORKS[factory]
    model = saved(newcomer, "nets", factory, f"{factory}.pth")
    chooser = tx.ByCriterion("input-channel", "fraction:0.5", keep_expensive=True)
    small = tx.decompose(f"{factory}.pth", chooser, example=shape, factory=f"nets:{factory}")
    kept = {row.name for row in small.plan.layers if "a head" in (row.reason or "")}
    assert kept == heads
    assert small.plan.rewritten
    assert not small.plan.uncounted
    with torch.no_grad():
        found, wanted = (net(torch.zeros(2, *shape[1:])) for net in (small.module, model))
    for ours, theirs in zip(
        *((x if isinstance(x, tuple) else (x,)) for x in (found, wanted)), strict=True
    ):
        assert ours.shape == theirs.shape


@pytest.mark.parametrize("factory", ["make", "make_plain_subclass", "make_child"])
def test_subclasses_of_convolutions_are_rewritten(newcomer: Path, run: Run, factory: str) -> None:
    shape = ("--input-shape", "1x3x16x16")
    result = run(
        *("decompose", "mynet.pth", "--model", f"mynet:{factory}", *shape, "--criterion"),
        *("fraction:0.25", "--rank-multiple", 1, "-o", "b", "--json", *QUICK),
    )
    assert result.code == 0, result.err
    assert {row["name"] for row in result.json["layers"] if row["rank"]} == {"2", "4"}


def test_times_outlive_a_memory_probe_that_fails(
    linear: Callable[..., Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/tmp/trpexport-memory/inputs.npz")

    monkeypatch.setattr("trpexport.measure.bench.measure_peak_memory", fails)
    result = run("bench", linear(), "--min-time", 0.01, "--max-time", 0.1)
    assert result.code == 0, result.err
    assert "memory" in result.out
    assert "inputs.npz" in result.out
