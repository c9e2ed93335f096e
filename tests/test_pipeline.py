"""From a checkpoint and images to a verified bundle of factors, and on from that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tests.artifact.networks import SHAPE, tiny
from tests.conftest import ROOT
from tests.made_data import BOTH, HOW, made_dataset, pixels
from trpexport import bundle
from trpexport.artifact.build import BundleReport, ExportSettings
from trpexport.calibration_data import CalibrationData
from trpexport.checkpoints import Checkpoint, load_bundle, save_checkpoint
from trpexport.choose.base import Chooser
from trpexport.choose.by_budget import ByBudget
from trpexport.choose.by_criterion import ByCriterion
from trpexport.choose.by_plan import ByPlan
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.errors import DataError, TrpexportError
from trpexport.exporting import export_checkpoint
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import (
    Source,
    decompose_checkpoint,
    decompose_network,
    decompose_to_bundle,
    default_directory,
)

QUICK = ExportSettings(opset=17, legacy_exporter=True, verify_seconds=0, simplify=False)
FACTORY = "tests.artifact.networks:tiny"

Decompose = Callable[..., BundleReport]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A file of the tiny network that says how images become input."""
    path = tmp_path / "tiny.safetensors"
    metadata = {"preprocessing": HOW.to_json(), "input_shape": SHAPE}
    save_checkpoint(path, tiny(), architecture=None, metadata=metadata)
    return path


BUILD = """
import sys
from pathlib import Path
from trpexport.artifact.build import ExportSettings
from trpexport.choose.by_criterion import ByCriterion
from trpexport.pipeline import Source, decompose_to_bundle
settings = ExportSettings(opset=17, legacy_exporter=True, verify_seconds=0, simplify=False)
source = Source(Path(sys.argv[1]), inputs=(1, 3, 32, 32))
chooser = ByCriterion("spatial", "energy:0.8")
decompose_to_bundle(source, chooser, Path(sys.argv[2]), settings=settings)
"""


@pytest.mark.slow
def test_the_same_bytes_at_another_time_and_on_more_threads(tmp_path: Path) -> None:
    """The comparisons of the report are measured: they are the same on the same threads alone."""
    plain = ROOT / "models_zoo/checkpoints/resnet20-plain.safetensors"
    for out, threads in (("one", "1"), ("again", "1"), ("two", "2")):
        fixed = {"SOURCE_DATE_EPOCH": "1700000000", "OMP_NUM_THREADS": threads}
        subprocess.run(
            [sys.executable, "-c", BUILD, str(plain), out],
            cwd=tmp_path, env={**os.environ, **fixed}, check=True,
        )  # fmt: skip
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    again = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert files == again
    assert json.loads(files[bundle.MANIFEST])["created"] == "2023-11-14T22:13:20+00:00"
    for name in (bundle.MODEL, bundle.WEIGHTS, bundle.PLAN, bundle.GOLDEN):
        assert (tmp_path / "two" / name).read_bytes() == files[name], name


def test_the_same_factors_on_more_threads() -> None:
    before = torch.get_num_threads()
    torch.manual_seed(0)
    network = TorchNetwork(nn.Sequential(nn.Conv2d(96, 96, 3), nn.ReLU()).eval(), (1, 96, 8, 8))
    plans, factors = [], []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            small = decompose_network(network, ByCriterion("spatial", "rank:20", include=["0"]))
            assert torch.get_num_threads() == threads
            plans.append(small.plan.to_json())
            factors.append(
                [value.numpy().tobytes() for value in small.module.state_dict().values()]
            )
    finally:
        torch.set_num_threads(before)
    assert plans[0] == plans[1] == plans[2]
    assert factors[0] == factors[1] == factors[2]


@pytest.fixture
def decompose(tmp_path: Path, checkpoint: Path) -> Decompose:
    """Decomposes the tiny network."""

    def call(
        chooser: Chooser, data: CalibrationData | None = None, out: str = "out"
    ) -> BundleReport:
        source = Source(checkpoint, model=FACTORY)
        return decompose_to_bundle(source, chooser, tmp_path / out, data, settings=QUICK)

    return call


def safetensors_content(path: Path) -> tuple[Any, bytes]:
    """Return the header, whose entries safetensors writes in any order, and all weights."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def test_a_calibrated_bundle_can_be_loaded_exported_and_applied_again(
    decompose: Decompose, tmp_path: Path
) -> None:
    data = CalibrationData(BOTH, count=16)
    report = decompose(ByCriterion(criterion="rank:3"), data)
    facts = report.data["calibration"]
    assert facts["data"] == "made:up"
    assert (facts["split"], facts["images"]) == ("train", 16)
    assert {layer["name"] for layer in facts["layers"]} == {
        layer.name for layer in report.plan.rewritten
    }
    for layer in facts["layers"]:
        assert layer["error_after"] < layer["error_before"]
    by_name = {layer["name"]: layer for layer in report.data["layers"]}
    assert by_name["conv2"]["weight_error"] == facts["layers"][1]["weight_error"]
    assert by_name["conv2"]["factor_error"] is None
    assert report.data["parameters"]["before"] == sum(p.numel() for p in tiny().parameters())

    loaded = load_bundle(report.path, model=FACTORY)
    golden = np.load(report.path / bundle.GOLDEN)
    with torch.no_grad():
        names = {name.partition("/")[0]: name for name in golden.files}
        x = torch.from_numpy(golden[next(n for n in golden.files if "input" in n)])
        y = golden[next(n for n in golden.files if "output" in n)]
        assert np.allclose(loaded.module(x).numpy(), y, atol=1e-5), names
    weights = report.path / bundle.WEIGHTS
    again = export_checkpoint(Source(weights, model=FACTORY), tmp_path / "again", settings=QUICK)
    assert again.data["parameters"] == report.data["parameters"]
    assert again.data["calibration"] is None  # nobody knows whether it was trained since

    plan = report.path / bundle.PLAN
    plain = decompose(ByPlan(plan), out="plain")
    assert any("plain SVD" in note for note in plain.data["notes"])
    assert plain.data["calibration"] is None
    assert plain.plan.criterion == "rank:3"
    same = decompose(ByPlan(plan), data, out="same")
    assert safetensors_content(same.path / bundle.WEIGHTS) == safetensors_content(weights)
    assert not [note for note in same.data["notes"] if "plain SVD" in note]


def test_a_bundle_says_on_which_images_it_was_verified(decompose: Decompose) -> None:
    rank = ByCriterion(criterion="rank:2")
    notes = decompose(rank, CalibrationData(BOTH, count=16)).data["notes"]
    assert [note for note in notes if "verified on" in note] == [
        "verified on test images; golden.npz holds the first of them"
    ]
    few = CalibrationData(made_dataset(test=pixels(24)), count=512)
    notes = decompose(rank, few, "few").data["notes"]
    assert any("20 of 24 images, fewer than 512" in note for note in notes)


@pytest.mark.parametrize("kind", ["macs", "parameters"])
def test_a_share_that_may_remain_is_in_the_report(decompose: Decompose, kind: str) -> None:
    budget = ByBudget(**{kind: 0.6}, scheme="auto", exclude=["conv3"])  # type: ignore[arg-type]
    report = decompose(budget, CalibrationData(BOTH, count=16))
    found = report.data[kind]
    assert found["after"] <= 0.6 * found["before"]


@pytest.mark.parametrize(
    "images", [np.zeros((4, *SHAPE[1:]), np.uint8), np.repeat(pixels(1), 4, axis=0), pixels(1)]
)
def test_poor_images_make_a_sound_bundle(decompose: Decompose, images: NDArray[np.uint8]) -> None:
    report = decompose(ByBudget(macs=0.6), CalibrationData(made_dataset(train=images)))
    state = load_bundle(report.path, model=FACTORY).module.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    json.loads((report.path / bundle.REPORT).read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("chooser", "data", "message"),
    [
        (
            ByCriterion(criterion="rank:2"),
            CalibrationData(made_dataset(train=pixels(8)[:, :, :8])),
            "3x8x16, the network",
        ),
        (ByBudget(macs=0.01), CalibrationData(BOTH, count=16), "the best is"),
        (ByBudget(macs=0.5), None, "give some"),
        (ByCriterion("auto"), CalibrationData(BOTH), "auto chooses by output error"),
        (ByCriterion(criterion="value:1e-9"), None, "no layer of"),
    ],
)
def test_what_fails_leaves_nothing(
    decompose: Decompose,
    tmp_path: Path,
    chooser: Chooser,
    data: CalibrationData | None,
    message: str,
) -> None:
    with pytest.raises(TrpexportError, match=message) as caught:
        decompose(chooser, data)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.safetensors"]


def test_how_images_become_input_is_said_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "silent.safetensors"
    save_checkpoint(path, tiny(), architecture=None, metadata={"input_shape": SHAPE})
    source, rank = Source(path, model=FACTORY), ByCriterion(criterion="rank:2")
    with pytest.raises(DataError, match="does not say how images become its input"):
        decompose_checkpoint(source, rank, CalibrationData(BOTH))
    other = Preprocessing((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    small = decompose_checkpoint(source, rank, CalibrationData(BOTH, preprocessing=other))
    assert isinstance(small.source, Checkpoint)
    assert small.source.preprocessing == other
    assert small.images is not None
    expected = {image.tobytes() for image in other.normalise(pixels(24))}
    given = {image.tobytes() for image in np.asarray(small.images.inputs)}
    assert given < expected  # a fifth of so few is kept back, to tell the error on
    assert len(given) == 20


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20.th", "resnet20-spatial"),
        ("a.b.pth.tar", "a.b-spatial"),
        ("model.safetensors", "model-spatial"),
        ("model", "model-spatial"),
    ],
)
def test_a_bundle_without_a_place_is_named_after_its_checkpoint(name: str, expected: str) -> None:
    assert default_directory(Path("/some/where") / name, "spatial") == Path(expected)
