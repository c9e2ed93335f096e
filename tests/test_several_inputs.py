"""Networks with several inputs, or outputs of several kinds, through the whole job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import trpexport
from tests.networks.torch.several import Detector, Masked, Tokens
from trpexport.artifact.reference import ReferenceRuns
from trpexport.checkpoints import load_checkpoint
from trpexport.errors import DataError, PlanError, TrpexportError
from trpexport.golden import read_golden
from trpexport.inputs import Inputs
from trpexport.networks.samples import Samples, checked_samples
from trpexport.networks.torch.network import TorchNetwork
from trpexport.plan import read_plan

RNG = np.random.default_rng(0)
IMAGE, MASK = (RNG.standard_normal((24, 2, 8, 8)).astype(np.float32) for _ in range(2))
IDS, ATTENTION = RNG.integers(0, 50, (24, 10)), RNG.random((24, 10)) > 0.3
MASKED = {"image": (1, 2, 8, 8), "mask": (1, 2, 8, 8)}
RANK = trpexport.ByCriterion("spatial", "rank:3")
CASES: list[tuple[type[nn.Module], dict[str, Any]]] = [
    (Masked, {"image": IMAGE, "mask": MASK}),
    (Tokens, {"ids": IDS, "attention": ATTENTION}),
]


def session(bundle: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("network", "arrays"), CASES)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_takes_and_computes_what_the_network_does(
    tmp_path: Path, network: type[nn.Module], arrays: dict[str, Any], legacy: bool
) -> None:
    small = trpexport.decompose(
        network(), trpexport.ByBudget(macs=0.7, scheme="channel"), images=arrays
    )
    assert {name: one.shape for name, one in small.plan.inputs.items()} == {
        name: (1, *array.shape[1:]) for name, array in arrays.items()
    }
    out = tmp_path / "out"
    trpexport.export(small, out, dynamic_batch=True, legacy_exporter=legacy, verify_seconds=0)
    file = session(out)
    assert [one.name for one in file.get_inputs()] == list(arrays)
    tensors = [torch.from_numpy(array) for array in arrays.values()]
    expected = small.module(*tensors)
    expected = list(expected.values()) if isinstance(expected, dict) else [expected]
    for ours, theirs in zip(file.run(None, arrays), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert trpexport.verify(out).is_equivalent
    golden = read_golden(out / "golden.npz")
    assert [a.dtype for a in golden.inputs.values()] == [a.dtype for a in arrays.values()]
    # The bundle says what it takes, and its plan and weights are read back.
    assert read_plan(out / "plan.json").inputs == small.plan.inputs
    assert json.loads((out / "manifest.json").read_text())["inputs"].keys() == arrays.keys()


def test_drawn_inputs_of_equal_shape_are_not_equal() -> None:
    network = TorchNetwork.open(Masked(), Inputs.of(MASKED))
    small = trpexport.decompose(Masked(), RANK, example=MASKED)
    x = ReferenceRuns.of(network, small.plan.inputs, 1).golden()
    assert not np.array_equal(x["image"], x["mask"])


@pytest.mark.parametrize(
    "example",
    [
        MASKED,
        dict(reversed(MASKED.items())),
        (torch.zeros(1, 2, 8, 8), np.zeros((1, 2, 8, 8))),
        [(1, 2, 8, 8), torch.Size((1, 2, 8, 8))],
    ],
)
def test_examples_are_given_in_many_ways(example: Any) -> None:
    small = trpexport.decompose(Masked(), RANK, example=example)
    assert small.plan.inputs == Inputs.of(MASKED)
    assert small.network.cost.macs == trpexport.count(small.module, example=example).macs
    assert all(found.is_equivalent() for found in small.verify(seconds=0).equivalence.values())


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ((1, 2, 8, 8), "give inputs by name, it takes image, mask"),
        ({"image": (1, 2, 8, 8)}, "give inputs by name, it takes image, mask"),
        ({**MASKED, "more": (1, 2)}, "takes image, mask, and no more"),
        ({"image": (1, 2, 8, 8), "mask": (2, 2, 8, 8)}, "same first dimension"),
    ],
)
def test_other_inputs_are_refused_in_one_line(example: Any, words: str) -> None:
    with pytest.raises(TrpexportError, match=words) as caught:
        trpexport.decompose(Masked(), RANK, example=example)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, DataError | PlanError)
    assert caught.value.parameters == ("input_shape",)


def test_calibration_knows_each_input_by_its_name() -> None:
    small = trpexport.decompose(Masked(), RANK, images={"mask": MASK, "image": IMAGE})
    other = trpexport.decompose(Masked(), RANK, images={"mask": IMAGE, "image": MASK})
    facts, others = (one.plan.options["calibration"] for one in (small, other))
    assert facts["output_error"] != others["output_error"]
    assert facts["images_sha256"] != others["images_sha256"]
    with pytest.raises(DataError, match="holds image, the network takes image, mask"):
        trpexport.export(small, "never", inputs={"image": IMAGE})


def test_factors_are_loaded_from_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    small = trpexport.decompose(Masked(), RANK, example=MASKED)
    quick: dict[str, Any] = {"opset": 17, "legacy_exporter": True, "simplify": False}
    trpexport.export(small, tmp_path / "out", verify_seconds=0, **quick)
    factory = "tests.networks.torch.several:Masked"
    checkpoint = load_checkpoint(tmp_path / "out" / "model.safetensors", model=factory)
    assert checkpoint.inputs == Inputs.of(MASKED)


DETECTED = RNG.standard_normal((24, 3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize(("as_mapping", "legacy"), [(True, False), (False, True)])
def test_outputs_of_all_kinds_are_named_and_the_rest_is_noted(
    tmp_path: Path, as_mapping: bool, legacy: bool
) -> None:
    model = Detector(as_mapping=as_mapping)
    small = trpexport.decompose(model, trpexport.ByBudget(error=0.9), images=DETECTED)
    errors = small.plan.options["calibration"]["output_errors"]
    assert list(errors) == ["boxes_0", "scores", "features"]
    how: dict[str, Any] = {"dynamic_batch": True, "legacy_exporter": legacy, "verify_seconds": 0}
    report = trpexport.export(small, tmp_path / "out", **how)
    assert "left out of the outputs, as it is no tensor: stride (int)" in report.data["notes"]
    assert [one.name for one in session(tmp_path / "out").get_outputs()] == list(errors)


def test_the_outputs_that_count_are_picked() -> None:
    network = TorchNetwork.open(Detector(), (1, 3, 16, 16))
    everything = trpexport.decompose(Detector(), RANK, images=DETECTED)
    picked = trpexport.decompose(Detector(), RANK, images=DETECTED, outputs=["feat*"])
    assert list(picked.plan.options["calibration"]["output_errors"]) == ["features"]
    # What comes behind the features makes no difference to them: nothing is fitted for it.
    assert picked.network.watch(samples()).metric("third") is None
    assert network.watch(samples()).metric("third") is not None
    assert any("features" in note or "feat*" in note for note in picked.notes)
    assert list(everything.verify(seconds=0).equivalence) == ["boxes_0", "scores", "features"]
    assert list(picked.verify(seconds=0).equivalence) == ["boxes_0", "scores", "features"]
    with pytest.raises(DataError, match=r"no output 'boxs\*': choose from boxes_0, scores, feat"):
        trpexport.decompose(Detector(), RANK, images=DETECTED, outputs=["boxs*"])


def samples() -> Samples:
    return checked_samples(DETECTED, (1, 3, 16, 16))
