"""``decompose --calib tensors:`` and the same from Python: no preprocessing, any name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import trpexport as tx
from tests.conftest import QUICK, Run
from trpexport import bundle

NETS = """
from torch import nn

def signal():
    return nn.Sequential(
        nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 36, 3),
    )
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tensornets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((60, 2, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "x.npz", anything=x)
    return tmp_path


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 36, 3),
    )


def test_from_the_command_line(run: Run, place: Path) -> None:
    torch.save(network().state_dict(), place / "w.pt")
    options = ("--model", "tensornets:signal", "--input-shape", "1x2x6x6", "--criterion", "rank:2")
    how = ("--calib", f"tensors:{place / 'x.npz'}", *QUICK)
    result = run("decompose", "w.pt", *options, *how, "--images", "40", "-o", "out")
    assert result.code == 0, result.err
    report = json.loads((place / "out" / bundle.REPORT).read_text())
    assert report["calibration"]["data"] == "tensors:x.npz"
    assert report["calibration"]["images"] == 40
    assert "Calibrated on 40 images of tensors:x.npz; on these" in result.out  # no split to name
    page = run("report", "out", "--format", "md")
    assert page.code == 0, page.err
    assert "preprocessing" not in json.loads((place / "out" / bundle.MANIFEST).read_text())
    sized = ("--images", "40", "--mean", "0,0", "--std", "1,1")
    kept = run("decompose", "w.pt", *options, *how, *sized, "-o", "b")
    assert kept.code == 0, kept.err
    told = json.loads((place / "b" / bundle.MANIFEST).read_text())["preprocessing"]
    assert (told["mean"], told["std"]) == ([0, 0], [1, 1])
    same = json.loads((place / "b" / bundle.REPORT).read_text())["calibration"]
    assert same == report["calibration"]  # and nothing of it is done to what is input already
    refused = run("decompose", "w.pt", *options, *how, "--data-preprocessing", "-o", "c")
    assert "prepare images: leave them out" in refused.error
    wrong = run("decompose", "w.pt", *options[:2], "--input-shape", "1x2x8x8", *how, "-o", "c")
    assert wrong.code == 2


def test_what_a_drop_of_a_metric_allows(run: Run, place: Path) -> None:
    """Targets that are what the network gives: the mean error is what is lost."""
    torch.save(network().state_dict(), place / "w.pt")
    again = network()
    again.load_state_dict(torch.load(place / "w.pt", weights_only=True))
    x = np.load(place / "x.npz")["anything"]
    with torch.no_grad():
        np.savez(place / "t.npz", input=x, target=again(torch.from_numpy(x)).numpy())
    (place / "mine.py").write_text("def lost(p, t):\n    return abs(p - t).mean()\n")
    model = ("--model", "tensornets:signal", "--input-shape", "1x2x6x6", "--calib", "tensors:t.npz")
    rest = (*QUICK, "--cache", "cache")
    bare = run("decompose", "w.pt", *model, "--max-drop", "0.1", *rest, "-o", "out")
    assert bare.code == 2
    assert "no metric is given for tensors:t.npz" in bare.error and "(--metric)" in bare.error
    how = ("--metric", "mine:lost", "--metric-lower-is-better", "--max-drop", "0.1")
    result = run("decompose", "w.pt", *model, *how, *rest, "-o", "out")
    assert result.code == 0, result.err
    assert re.search(r"mine:lost \S+ -> 0\.0\d+ on 12 held-out", " ".join(result.out.split()))
    judged = json.loads((place / "out" / bundle.REPORT).read_text())["calibration"]["judged"]
    assert judged["before"] < 1e-5 < judged["after"] <= 0.1
    assert judged["images"] == 12
    with np.load("t.npz") as held:
        np.savez("other.npz", **{name: held[name][40:] for name in held.files})
    others = ("--data", "tensors:other.npz", *rest)
    result = run("decompose", "w.pt", *model, *how, *others, "-o", "by-others", "--json")
    assert result.code == 0, result.err
    judged = json.loads(result.out)["calibration"]["judged"]
    assert judged["data"] == "tensors:other.npz"
    assert judged["loss"] == pytest.approx(judged["after"] - judged["before"])


def test_from_python(place: Path) -> None:
    text = f"tensors:{place / 'x.npz'}"
    small = tx.decompose(network(), tx.ByCriterion("spatial", "rank:2"), images=text)
    assert small.plan.options["calibration"]["data"] == "tensors:x.npz"
    assert small.images is not None
    assert len(small.images.held_out()[1]) == 12  # a fifth
