"""Other people's networks: their own classes, wrong shapes, wrong plans, sick weights."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import QUICK, Run
from trpexport import bundle
from trpexport.lowrank.schemes import SCHEMES

OWN_NETWORK = '''
import torch
from torch import nn


class Own(nn.Module):
    """A dilated, a grouped, a depthwise and a 'same'-padded convolution, with biases."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3)
        self.dilated = nn.Conv2d(8, 16, 3, dilation=2, padding=2, padding_mode="circular")
        self.grouped = nn.Conv2d(16, 16, 5, groups=2, stride=(2, 1), padding=(1, 2))
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.same = nn.Conv2d(16, 32, (1, 4), padding="same")
        self.head = nn.Conv2d(32, 6, 1)

    def forward(self, x):
        for layer in (self.stem, self.dilated, self.grouped, self.depthwise, self.same):
            x = torch.relu(layer(x))
        return self.head(x)


def factory():
    torch.manual_seed(0)
    return Own()
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of one's own and a checkpoint of it."""
    (tmp_path / "own_network.py").write_text(OWN_NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import own_network  # type: ignore[import-not-found]

    torch.save({"state_dict": own_network.factory().state_dict()}, tmp_path / "own.pth")
    monkeypatch.delitem(sys.modules, "own_network")
    return tmp_path / "own.pth"


NEW_EXPORTER = ("--verify-seconds", "0", "--no-simplify")


@pytest.mark.parametrize(
    ("scheme", "how"),
    [
        ("spatial", NEW_EXPORTER),
        *((scheme, QUICK) for scheme in SCHEMES if scheme != "spatial"),
        *(
            pytest.param(scheme, NEW_EXPORTER, marks=pytest.mark.slow)
            for scheme in SCHEMES
            if scheme != "spatial"
        ),
    ],
)
def test_own_networks(
    run: Run, own: Path, tmp_path: Path, scheme: str, how: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    result = run(
        *("decompose", own, "--model", "own_network:factory", "--input-shape", "1x2x20x24"),
        *("--scheme", scheme, "--criterion", "fraction:0.3", "--dynamic-batch", "-o", out, *how),
    )
    assert result.code == 0, result.err
    report = json.loads((out / bundle.REPORT).read_text())
    rewritten = {layer["name"] for layer in report["layers"] if layer["scheme"]}
    # Of taps along one axis, three factors are no better than two.
    along_one_axis = set() if scheme == "spatial-channel" else {"same"}
    assert {"dilated", *along_one_axis} <= rewritten
    assert not {"stem", "head"} & rewritten
    assert re.search(r"^head +a head .*is left alone", result.out, re.MULTILINE)
    assert run("verify", out).code == 0


def test_where_no_criterion_helps_the_reasons_are_shown(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "line.py").write_text(
        "from torch import nn\n"
        "def factory():\n"
        "    return nn.Sequential(nn.Conv1d(2, 8, 3), nn.Conv1d(8, 8, 1), nn.Flatten())\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    weights = {"0.weight": (8, 2, 3), "0.bias": (8,), "1.weight": (8, 8, 1), "1.bias": (8,)}
    torch.save({name: torch.ones(shape) for name, shape in weights.items()}, "line.pth")
    options = (
        "--model",
        "line:factory",
        "--input-shape",
        "1x2x20",
        "--include",
        "1",
        "--scheme",
        "tucker2",
    )
    result = run("decompose", "line.pth", *options)
    assert result.code == 3
    assert re.search(r"^1 +of a 1x1 kernel it is no better", result.out, re.MULTILINE)
    first, second, third = re.findall(r"^(?:Next:|Or) .*", result.out, re.MULTILINE)
    assert "calibrate on images, without labels" in first
    assert "train it towards low rank" in second
    assert "compare other criteria" in third


def test_own_networks_need_their_input_shape(run: Run, own: Path) -> None:
    result = run("decompose", own, "--model", "own_network:factory")
    assert result.code == 2
    assert "--input-shape" in result.error


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("own_network:nothing", "nothing"),
        ("no_such_module:factory", "no_such_module"),
        ("own_network", "package.module:factory"),
        ("own_network:torch", "own_network:torch"),
    ],
)
def test_factories_that_are_none(run: Run, own: Path, factory: str, says: str) -> None:
    result = run("decompose", own, "--model", factory, "--input-shape", "1x2x20x24")
    assert result.code == 2
    assert says in result.error


def test_an_input_that_the_network_cannot_take(run: Run, own: Path) -> None:
    options = ("--model", "own_network:factory", "--input-shape")
    for shape in ("1x3x20x24", "1x2x2x2", "1x2"):
        result = run("decompose", own, *options, shape)
        assert result.code == 2
        assert f"can't run an input of shape {shape}" in result.error


def test_wrong_channels_for_a_known_network(run: Run, shared: Path) -> None:
    checkpoint = shared / "checkpoints/resnet20-12fca82f.th"
    result = run("inspect", checkpoint, "--input-shape", "1x1x32x32")
    assert result.code == 2
    assert "3" in result.error
    assert "--input-shape" in result.error


def test_a_plan_for_another_network(run: Run, shared: Path, own: Path, tmp_path: Path) -> None:
    own_options = ("--model", "own_network:factory", "--input-shape", "1x2x20x24")
    criterion = ("--criterion", "fraction:0.3")
    assert run("decompose", own, *own_options, *criterion, "-o", "own", *QUICK).code == 0
    checkpoint = shared / "checkpoints/resnet20-12fca82f.th"
    plan = tmp_path / "own" / bundle.PLAN
    result = run("decompose", checkpoint, "--plan", plan, "-o", "other")
    assert result.code == 2
    assert "is for another network" in result.error
    for rank, says in ((0, "rank 0"), (10_000, "rank 10000")):
        edited = json.loads(plan.read_text())
        edited["layers"][1]["rank"] = rank
        (tmp_path / "edited.json").write_text(json.dumps(edited))
        result = run("decompose", own, *own_options, "--plan", "edited.json", "-o", "other")
        assert result.code == 2
        assert says in result.error
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_sick_weights_are_named(run: Run, shared: Path, tmp_path: Path, value: float) -> None:
    path = shared / "checkpoints/resnet20-12fca82f.th"
    data = torch.load(path, map_location="cpu", weights_only=True)
    data["state_dict"]["module.layer2.1.conv1.weight"][0, 0, 0, 0] = value
    torch.save(data, tmp_path / "sick.pth")
    result = run("decompose", tmp_path / "sick.pth", "-o", tmp_path / "out")
    assert result.code == 2
    assert "layer2.1.conv1.weight" in result.error
    assert not (tmp_path / "out").exists()


def test_files_of_the_wrong_kind(run: Run, shared: Path, tmp_path: Path) -> None:
    checkpoint = shared / "checkpoints/resnet20-12fca82f.th"
    assert run("export", checkpoint, "-o", tmp_path / "out", *QUICK).code == 0
    model = tmp_path / "out" / bundle.MODEL
    result = run("export", model)
    assert result.code == 2
    assert "ONNX" in result.error
    result = run("verify", checkpoint, model)
    assert result.code == 2
    assert "not" in result.error
    result = run("decompose", tmp_path / "out")
    assert result.code == 2
    assert "directory" in result.error


def test_pickled_modules_are_refused_until_asked_for_by_name(
    run: Run, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    import own_network

    torch.save(own_network.factory(), tmp_path / "whole.pth")
    options = ("--input-shape", "1x2x20x24", "--criterion", "fraction:0.3", *QUICK)
    result = run("decompose", "whole.pth", *options)
    assert result.code == 2
    assert "own_network.Own" in result.error
    assert "--unsafe-pickle" in result.error
    result = run("decompose", "whole.pth", "--unsafe-pickle", *options)
    assert result.code == 0, result.err
