"""From images and a target to a verified bundle of calibrated factors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from trpexport.choose.calibrating import CalibrationSettings, Target, automatic_multiple, spread
from trpexport.choose.layerwise import Calibrated, calibrate
from trpexport.choose.planner import make_plan
from trpexport.choose.revision import revise_plan
from trpexport.networks.torch.factorize import dense_twin

from tests.artifact.networks import SHAPE, tiny
from trpexport import bundle
from trpexport.artifact.build import BundleReport, ExportSettings
from trpexport.artifact.verification import ReferenceRuns, verify_factorization
from trpexport.checkpoints import load_bundle, save_checkpoint
from trpexport.datasets.base import Dataset
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.splits import ArraySplit, Split
from trpexport.errors import DataError, NothingToDoError, OutputError, PlanError, VerificationError
from trpexport.measure import machine
from trpexport.pipeline import Decomposition, Source, decompose_checkpoint, export_checkpoint
from trpexport.plan import read_plan

HOW = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
QUICK = ExportSettings(opset=17, legacy_exporter=True, verify_seconds=0, simplify=False)


def pixels(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return images whose neighbouring pixels are alike, as those of real images are."""
    noise = np.random.default_rng(seed).standard_normal((count, *SHAPE[1:]))
    smooth = noise.cumsum(2).cumsum(3) * 8 + 128
    return smooth.clip(0, 255).astype(np.uint8)


def split_of(images: NDArray[np.uint8], model: nn.Module) -> ArraySplit:
    """Return images with the labels that a network gives them: it is right about all of them."""
    with torch.no_grad():
        labels = model(torch.from_numpy(HOW.normalise(images))).argmax(1).numpy()
    return ArraySplit(images, labels.astype(np.int64))


def safetensors_content(path: Path) -> tuple[Any, bytes]:
    """Return the header, whose entries safetensors writes in any order, and all weights."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def dataset(**images: NDArray[np.uint8]) -> Dataset:
    def reader(values: NDArray[np.uint8]) -> Callable[[], Split]:
        return lambda: split_of(values, tiny())

    readers = {name: reader(values) for name, values in images.items()}
    return Dataset("made:/some/where/up", tuple("abcde"), 3, HOW, readers)


@pytest.fixture
def decompose(tmp_path: Path) -> Callable[..., BundleReport]:
    """Decompose the tiny network, whose checkpoint says how images become input."""
    path = tmp_path / "tiny.safetensors"
    metadata = {"preprocessing": HOW.to_json(), "input_shape": SHAPE}
    save_checkpoint(path, tiny(), architecture=None, metadata=metadata)

    def call(
        out: str = "out", calibration: CalibrationSettings | None = None, **options: Any
    ) -> BundleReport:
        source = Source(path, model="tests.artifact.networks:tiny")
        if calibration is not None:
            calibration = replace(calibration, cache=calibration.cache or tmp_path / "cache")
        decomposition = Decomposition(calibration=calibration, **options)
        return decompose_checkpoint(source, decomposition, tmp_path / out, settings=QUICK)

    return call


@pytest.fixture(scope="module")
def calibrated() -> Calibrated:
    model = tiny()
    plan = make_plan(model, input_shape=SHAPE, criterion="rank:3")
    return calibrate(model, plan, HOW.normalise(pixels(24)))


RANK = {"criterion": "rank:2"}
BOTH = dataset(train=pixels(24), test=pixels(16, seed=1))
GREY = replace(BOTH, readers={"test": lambda: ArraySplit(pixels(8)[:, :1], np.zeros(8, np.int64))})


def verify(network: nn.Module, found: Calibrated, original: nn.Module | None) -> None:
    reference = ReferenceRuns(network, SHAPE, found.plan.macs_after)
    check = verify_factorization(original, found.plan, reference, seconds=0)
    assert all(layer.factor_error is None for layer in check.layers)
    assert bool(check.approximation) == (original is not None)


def test_a_calibrated_network_is_its_own_products(calibrated: Calibrated) -> None:
    verify(calibrated.network, calibrated, tiny())
    verify(calibrated.network, calibrated, None)
    # Layers had no bias, their factors have: the dense twin keeps it.
    twin = dense_twin(calibrated.network, calibrated.plan)
    assert tiny().get_submodule("conv1").bias is None
    assert twin.get_parameter("conv1.bias").abs().max() > 0


def test_a_wrong_geometry_is_still_found(calibrated: Calibrated) -> None:
    import copy

    wrong = copy.deepcopy(calibrated.network)
    chain = wrong.get_submodule("conv1")
    chain.get_submodule("0").padding, chain.get_submodule("1").padding = (0, 1), (1, 0)  # type: ignore[assignment]
    with pytest.raises(VerificationError, match=r"conv1 drifts: .* their product"):
        verify(wrong, calibrated, tiny())


def test_a_revised_plan_is_of_plain_factors(calibrated: Calibrated) -> None:
    model = tiny()
    plain = make_plan(model, input_shape=SHAPE, criterion="rank:3")
    revised = revise_plan(model, calibrated.plan)
    assert revised.layers == plain.layers
    assert revised.criterion == "rank:3"
    assert "calibration" not in revised.options


def test_a_calibrated_bundle_can_be_loaded_exported_and_applied_again(
    decompose: Callable[..., BundleReport], tmp_path: Path
) -> None:
    report = decompose(criterion="rank:3", calibration=CalibrationSettings(BOTH, images=16))
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

    loaded = load_bundle(report.path, model="tests.artifact.networks:tiny")
    golden = np.load(report.path / bundle.GOLDEN)
    with torch.no_grad():
        names = {name.partition("/")[0]: name for name in golden.files}
        x = torch.from_numpy(golden[next(n for n in golden.files if "input" in n)])
        y = golden[next(n for n in golden.files if "output" in n)]
        assert np.allclose(loaded.module(x).numpy(), y, atol=1e-5), names
    weights = report.path / bundle.WEIGHTS
    source = Source(weights, model="tests.artifact.networks:tiny")
    again = export_checkpoint(source, tmp_path / "again", settings=QUICK)
    assert again.data["parameters"] == report.data["parameters"]
    assert again.data["calibration"] is None  # nobody knows whether it was trained since

    plan = report.path / bundle.PLAN
    plain = decompose("plain", plan=plan)
    assert any("plain SVD" in note for note in plain.data["notes"])
    assert plain.data["calibration"] is None
    assert plain.plan.criterion == "rank:3"
    same = decompose("same", plan=plan, calibration=CalibrationSettings(BOTH, images=16))
    assert safetensors_content(same.path / bundle.WEIGHTS) == safetensors_content(weights)
    assert not [note for note in same.data["notes"] if "plain SVD" in note]


@pytest.mark.parametrize(
    ("kind", "key"), [("macs", "macs"), ("params", "parameters")], ids=["macs", "params"]
)
def test_a_share_that_may_remain(
    decompose: Callable[..., BundleReport], kind: Any, key: str
) -> None:
    target = CalibrationSettings(BOTH, images=16, target=Target(kind, 0.6))
    report = decompose(scheme="auto", calibration=target, exclude=["conv3"])
    found = report.data[key]
    assert found["after"] <= 0.6 * found["before"]
    assert report.plan.scheme == "auto"
    shares = [layer["error_share"] for layer in report.data["calibration"]["layers"]]
    assert 0 < sum(shares) <= 1 + 1e-9
    reasons = {layer.name: layer.reason for layer in report.plan.layers}
    assert reasons["conv3"] == "excluded by --exclude"
    assert "the stem" in str(reasons["stem"])
    assert read_plan(report.path / bundle.PLAN).options["exclude"] == ["conv3"]


def test_an_error_and_a_drop_that_are_allowed(decompose: Callable[..., BundleReport]) -> None:
    def to(out: str, kind: Any, value: float) -> dict[str, Any]:
        target = CalibrationSettings(BOTH, images=16, target=Target(kind, value))
        return dict(decompose(out, include=["conv2"], calibration=target).data)

    error = to("error", "error", 0.2)
    assert error["calibration"]["output_error"] <= 0.2
    assert error["macs"]["ratio"] > 1
    drop = to("drop", "drop", 20)["calibration"]["top1"]
    assert drop["before"] == 100  # by how the labels were made
    assert drop["after"] >= 80
    assert (drop["images"], drop["split"]) == (16, "test")


def test_what_can_not_be_met(decompose: Callable[..., BundleReport], tmp_path: Path) -> None:
    def to(kind: Any, value: float) -> None:
        target = CalibrationSettings(BOTH, images=16, target=Target(kind, value))
        decompose(calibration=target)

    for kind, value in (("macs", 0.01), ("params", 0.01), ("error", 1e-6)):
        with pytest.raises(NothingToDoError, match="the best") as caught:
            to(kind, value)
        assert caught.value.exit_code == 3
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_table_is_measured_once(
    decompose: Callable[..., BundleReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to(share: float) -> BundleReport:
        target = CalibrationSettings(BOTH, images=16, target=Target("macs", share))
        return decompose(f"{share}", include=["conv1"], calibration=target)

    to(0.9)
    (table,) = (tmp_path / "cache").iterdir()
    content = table.read_bytes()
    monkeypatch.setattr("trpexport.choose.table._measure", lambda *_, **__: pytest.fail("measured"))
    to(0.8)
    monkeypatch.undo()
    damage = (b"", content[:-9], b"[]", content.replace(b'"macs": ', b'"macs": "x", "z": '))
    for index, damaged in enumerate(damage):
        table.write_bytes(damaged)
        to(0.71 + index / 100)
        assert table.read_bytes() == content


def test_images_to_judge_by_are_not_those_of_the_calibration(
    decompose: Callable[..., BundleReport],
) -> None:
    alone = dataset(test=pixels(24))
    target = CalibrationSettings(alone, images=16, target=Target("drop", 50))
    top1 = decompose(calibration=target).data["calibration"]["top1"]
    assert (top1["images"], top1["split"]) == (8, "other test")
    with pytest.raises(DataError, match="give fewer --calib-images"):
        decompose("all", calibration=replace(target, images=24))
    few = CalibrationSettings(alone, images=512)
    notes = decompose("few", criterion="rank:2", calibration=few).data["notes"]
    assert any("all 24 images, 512 were asked for" in note for note in notes)


@pytest.mark.parametrize(
    "images", [np.zeros((4, *SHAPE[1:]), np.uint8), np.repeat(pixels(1), 4, axis=0), pixels(1)]
)
def test_poor_images_make_a_sound_bundle(
    decompose: Callable[..., BundleReport], images: NDArray[np.uint8]
) -> None:
    settings = CalibrationSettings(dataset(train=images), target=Target("macs", 0.6))
    report = decompose(calibration=settings)
    state = load_bundle(report.path, model="tests.artifact.networks:tiny").module.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    json.loads((report.path / bundle.REPORT).read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        (CalibrationSettings(dataset(train=pixels(8)[:, :, :8])), RANK, "3x8x16, the network"),
        (CalibrationSettings(GREY), RANK, "1x16x16, the network"),
        (None, {"scheme": "auto"}, "--scheme auto .* --target-macs"),
        (CalibrationSettings(BOTH), {"scheme": "auto"}, "--scheme auto .* --target-macs"),
        (
            CalibrationSettings(BOTH, target=Target("macs", 0.5)),
            RANK,
            "--criterion and a target exclude each other",
        ),
        (
            CalibrationSettings(BOTH, target=Target("macs", 0.5)),
            {"keep_expensive": True},
            "--keep-expensive and a target",
        ),
        (CalibrationSettings(BOTH, cache=Path("/proc/no")), RANK, "cache"),
        (
            CalibrationSettings(replace(BOTH, classes=("a", "b")), target=Target("drop", 1)),
            {},
            r"\[5\] an image, the data has 2 classes",
        ),
    ],
)
def test_misuse_is_one_line(
    decompose: Callable[..., BundleReport],
    settings: CalibrationSettings | None,
    options: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises((DataError, PlanError, OutputError), match=message) as caught:
        decompose(calibration=settings, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0.0, 1.0, 1.5, -1.0, float("nan"), float("inf")])
def test_targets_out_of_range(value: float) -> None:
    with pytest.raises(PlanError, match=r"--target-macs .* out of range"):
        Target("macs", value)


def test_images_are_spread_over_the_split() -> None:
    chosen = spread(1000, 10, seed=3)
    assert [index // 100 for index in chosen] == list(range(10))
    assert not np.array_equal(chosen, spread(1000, 10, seed=4))
    assert spread(5, 5, seed=0).tolist() == [0, 1, 2, 3, 4]
    assert spread(0, 0, seed=0).tolist() == []


@pytest.mark.parametrize(("sets", "block"), [(["avx2", "avx512f"], 16), (["avx", "avx2"], 8)])
def test_the_block_of_this_processor(
    sets: list[str], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "machine_facts", lambda: {"instruction_sets": sets})
    assert automatic_multiple() == block
    monkeypatch.setattr(machine, "machine_facts", lambda: {"instruction_sets": ["asimd"]})
    with pytest.raises(PlanError, match="give a number"):
        automatic_multiple()
