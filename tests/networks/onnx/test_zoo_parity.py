"""A network of the zoo, exported and decomposed as ONNX, is what the torch route makes of it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.networks.torch.presets import preset
from trpexport.choose.by_criterion import ByCriterion
from trpexport.networks.torch.network import TorchNetwork
from trpexport.onnx_files import OnnxFileSource
from trpexport.pipeline import decompose_network

CHOOSER = ByCriterion("spatial", "energy:0.5")
SLOW = ("alexnet", "densenet-40-12", "preresnet20", "resnet18-cifar", "wrn-16-4", "vgg11_bn")


@pytest.mark.parametrize(
    "name", ["resnet20", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)]
)
def test_the_graph_is_decomposed_as_the_module_is(name: str, tmp_path: Path) -> None:
    shape, path = (1, 3, 32, 32), tmp_path / "net.onnx"
    model = preset(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Batch norms stay where they are: multiplied into kernels, they change the spectra.
        torch.onnx.export(
            model, (torch.zeros(shape),), path, dynamo=False, opset_version=13,
            training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
            input_names=["input"], output_names=["output"],
        )  # fmt: skip
    theirs = decompose_network(TorchNetwork.open(model, shape), CHOOSER)
    ours = OnnxFileSource(path).decompose(CHOOSER)
    ranks = {layer.name: layer.rank for layer in theirs.plan.layers}
    assert {layer.name: layer.rank for layer in ours.plan.layers} == ranks
    assert any(ranks.values())
    assert (ours.plan.macs_before, ours.plan.macs_after) == (
        theirs.plan.macs_before, theirs.plan.macs_after,
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = theirs.network.run({"input": x})["output"]
    assert (
        np.abs(ours.network.run({"input": x})["output"] - expected).max()
        <= 1e-4 * np.abs(expected).max()
    )
