"""A network of the zoo, exported and decomposed as ONNX, is what the torch route makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.networks.torch.presets import preset
from trpexport.choose.by_criterion import ByCriterion
from trpexport.networks.onnx_settings import OnnxSettings
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
    # Batch norms stay where they are: multiplied into kernels, they change the spectra.
    network = TorchNetwork.open(model, shape)
    network.write_onnx(path, OnnxSettings(opset=13, keep_norms=True))
    theirs = decompose_network(network, CHOOSER)
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
