"""Networks of every kind from a checkpoint to the gate, by commands alone, without labels.

Data are as people have them: floats in files of NumPy, photos in a folder without classes. Nothing
is labelled for the sake of a command, nothing converted, nothing normalised twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.conftest import QUICK, Run
from tests.datasets.picturing import encoded, pixels, write_folder

NETWORKS = """
import torch
from torch import nn
import torch.nn.functional as F


def cbr(i, o, s=1):
    return nn.Sequential(nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class UNet(nn.Module):
    def __init__(self, c=8):
        super().__init__()
        self.e1, self.e2 = cbr(1, c), cbr(c, 2 * c)
        self.up = nn.ConvTranspose2d(2 * c, c, 2, 2)
        self.d1 = cbr(2 * c, c)
        self.mask = nn.Conv2d(c, 2, 1)
        self.edge = nn.Conv2d(c, 1, 3, padding=1)

    def forward(self, x):
        a = self.e1(x)
        y = self.up(self.e2(F.max_pool2d(a, 2)))
        y = self.d1(torch.cat([y, a], 1))
        return self.mask(y), self.edge(y)


class Detector(nn.Module):
    def __init__(self, c=8, out=9):
        super().__init__()
        self.p3, self.p4, self.p5 = cbr(3, c, 2), cbr(c, 2 * c, 2), cbr(2 * c, 4 * c, 2)
        self.h3, self.h4, self.h5 = (nn.Conv2d(k * c, out, 1) for k in (1, 2, 4))

    def forward(self, x):
        p3 = self.p3(x)
        p4 = self.p4(p3)
        return self.h3(p3), self.h4(p4), self.h5(self.p5(p4))


class Block(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.act2 = nn.ReLU(inplace=True)
        self.downsample = None
        if s > 1:
            pool = nn.AvgPool2d(2, s, ceil_mode=True, count_include_pad=False)
            conv = nn.Conv2d(i, o, 1, bias=False)
            self.downsample = nn.Sequential(pool, conv, nn.BatchNorm2d(o))

    def forward(self, x):
        r = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        x += r
        return self.act2(x)


class ResNetD(nn.Module):
    def __init__(self, w=8):
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
            nn.Conv2d(8, w, 3, 1, 1, bias=False),
        )
        self.bn1, self.act1 = nn.BatchNorm2d(w), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(w, w, 1))
        self.layer2 = nn.Sequential(Block(w, 2 * w, 2))
        self.global_pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(2 * w, 5)

    def forward(self, x):
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.global_pool(self.layer2(self.layer1(x))), 1))


class Audio(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(1, 16, 16, 4), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(4),
            nn.Conv1d(16, 32, 9, padding=4), nn.BatchNorm1d(32), nn.ReLU(),
            nn.Conv1d(32, 32, 9, padding=4), nn.ReLU(), nn.AdaptiveAvgPool1d(1),
        )
        self.fc = nn.Linear(32, 5)

    def forward(self, x):
        return self.fc(self.net(x).flatten(1))


class Spectrogram(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(cbr(1, 16), nn.MaxPool2d(2), cbr(16, 16), nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        return self.fc(self.net(x).flatten(1))


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(cbr(1, 16), nn.MaxPool2d(2), cbr(16, 16), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(32, 1)

    def forward(self, left, right):
        a, b = self.body(left).flatten(1), self.body(right).flatten(1)
        return self.head(torch.cat([(a - b).abs(), a * b], 1))
"""


def _noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random(shape).astype(np.float32)


def _array(*shape: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / "samples.npy", _noise(60, *shape))
        return folder / "samples.npy"

    return write


def _pairs(folder: Path) -> Path:
    np.savez(folder / "pairs.npz", left=_noise(60, 1, 16, 16), right=1 - _noise(60, 1, 16, 16))
    return folder / "pairs.npz"


def _photos(folder: Path) -> Path:
    files = {f"{i}.png": encoded(pixels(i, 40 + i % 3, 36 + i % 2)) for i in range(60)}
    return write_folder(folder / "photos", files)


_PREPARED = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--size", "32", "--resize", "36")
_PREPARED_GREY = ("--mean", "0.5", "--std", "0.25", "--size", "32", "--resize", "36")


@dataclass(frozen=True)
class Kind:
    """A network, its input and its data.

    Attributes:
        network: name of its class.
        shapes: what is typed of its inputs.
        data: writes its data to a folder.
        outputs: how many it has.
        prepared: what is typed of how images become input, once.
    """

    network: str
    shapes: tuple[str, ...]
    data: Callable[[Path], Path]
    outputs: int
    prepared: tuple[str, ...] = ()


KINDS = {
    "U-Net on floats": Kind("UNet", ("1x1x32x32",), _array(1, 32, 32), 2),
    "U-Net on colour photos": Kind("UNet", ("1x1x32x32",), _photos, 2, _PREPARED_GREY),
    "detector on photos": Kind("Detector", ("1x3x32x32",), _photos, 3, _PREPARED),
    "detector on floats": Kind("Detector", ("1x3x32x32",), _array(3, 32, 32), 3),
    "ResNet-D on photos": Kind("ResNetD", ("1x3x32x32",), _photos, 1, _PREPARED),
    "audio": Kind("Audio", ("1x1x400",), _array(1, 400), 1),
    "spectrograms": Kind("Spectrogram", ("1x1x20x31",), _array(1, 20, 31), 1),
    "two inputs": Kind("Siamese", ("left=1x1x16x16", "right=1x1x16x16"), _pairs, 1),
}
# The others differ in what is in front of the reader of data alone.
_FAST = {"U-Net on colour photos", "audio", "two inputs"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in _FAST else pytest.mark.slow) for name in KINDS],
)
def test_from_checkpoint_to_gate(
    run: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = KINDS[name]
    (tmp_path / "people_nets.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("people_nets")
    torch.manual_seed(0)
    torch.save({"state_dict": getattr(module, kind.network)().state_dict()}, "w.pth")
    data = kind.data(tmp_path)
    shapes = [part for shape in kind.shapes for part in ("--input-shape", shape)]
    made = run(
        "decompose", "w.pth", "--model", f"people_nets:{kind.network}", *shapes, *QUICK,
        *("--criterion", "rank:2", "--calib", data, "--inputs", data, "-o", "out"),
        *("--add-baseline", "--dynamic-batch", *kind.prepared),
    )  # fmt: skip
    assert made.code == 0, made.err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert ("preprocessing" in manifest) == bool(kind.prepared)

    verified = run("verify", "out/model.onnx", "out/model.onnx", "--inputs", data)
    assert verified.code == 0, verified.err

    quick = ("--min-time", "0", "--max-time", "0", "--min-runs", "1", "--no-memory")
    timed = run("bench", "out", "--inputs", data, "--warmup-seconds", "0", *quick, "--json")
    assert timed.code == 0, timed.err
    assert timed.json["settings"]["data"] == str(data)

    judged = ("gate", "--candidate", "out", "--data", data, "--json")
    passed = run(*judged, "--max-output-error", "10")
    assert passed.code == 0, passed.err
    assert len(passed.json["outputs"]) == kind.outputs
    assert passed.json["data"]["images"] == 60
    assert 0 < passed.json["rules"][0]["value"] < 10
    refused = run(*judged, "--max-output-error", "1e-9")
    assert refused.code == 1
