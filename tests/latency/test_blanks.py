"""Networks that are timed have the chains' shapes, and nodes whose layer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.latency.networks import SHAPE, twins
from trpexport.errors import ModelError
from trpexport.latency.blanks import Blanks, check_found, paired
from trpexport.latency.ways import Way
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.reading import OnnxSource, read_model
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.network import TorchNetwork
from trpexport.runtime.session import open_session


def kernels(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each convolution's kernel, by its node."""
    graph = onnx.load(path).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return {node.name: shapes[node.input[1]] for node in graph.node if node.op_type == "Conv"}


def test_chains_stand_in_the_place_of_layers(blanks: Blanks, tmp_path: Path) -> None:
    assert blanks.layers == {"stem", "first", "second", "wide", "fc"}
    path = tmp_path / "blank.onnx"
    owners = blanks.write(path, {"first": Way("spatial", 7), "wide": Way("channel", 9)})
    by_layer: dict[str, list[tuple[int, ...]]] = {}
    for node, shape in kernels(path).items():
        by_layer.setdefault(owners[node], []).append(shape)
    assert by_layer == {
        "stem": [(16, 3, 3, 3)],
        "first": [(7, 16, 3, 1), (16, 7, 1, 3)],
        "second": [(16, 16, 3, 3)],
        "wide": [(9, 16, 3, 3), (32, 9, 1, 1)],
    }
    outputs = open_session(path).run({"input": np.ones(SHAPE, np.float32)})
    assert all(np.isfinite(array).all() for array in outputs.values())


def test_without_ways_it_is_the_original(blanks: Blanks, tmp_path: Path) -> None:
    path = tmp_path / "blank.onnx"
    blanks.write(path, {})
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    (expected,) = twins().run({"input": x}).values()
    (actual,) = open_session(path).run({"input": x}).values()
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_another_batch_needs_an_open_one(tmp_path: Path) -> None:
    path = tmp_path / "blank.onnx"
    Blanks(twins(), tmp_path, batch=4).write(path, {"second": Way("spatial", 3)})
    assert open_session(path).run({"input": np.ones((4, *SHAPE[1:]), np.float32)})


class Recurrent(nn.Module):
    """One convolution that is called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.relu(self.conv(x))
        return x


def test_all_calls_of_a_layer_take_its_way(tmp_path: Path) -> None:
    network = TorchNetwork.open(Recurrent().eval(), (1, 8, 6, 6))
    blanks = Blanks(network, tmp_path)
    path = tmp_path / "blank.onnx"
    owners = blanks.write(path, {"conv": Way("spatial", 2)})
    assert len(kernels(path)) == 6
    assert {owners[node] for node in kernels(path)} == {"conv"}


def test_made_up_names_are_paired_by_order(tmp_path: Path) -> None:
    network = twins()
    path = tmp_path / "named.onnx"
    network.write_onnx(path, OnnxSettings())
    model = read_model(path)
    for index, value in enumerate(list(model.graph.initializers.values())):
        value.name = f"onnx__{index}"
    nodes = OnnxNetwork.open(OnnxSource(path, model)).layers
    assert {node.name for node in nodes}.isdisjoint({layer.name for layer in network.layers})
    found = paired(network.layers, nodes)
    assert {name: node.op.out_channels for name, (node,) in found.items()} == {
        **{"stem": 16, "first": 16, "second": 16, "wide": 32, "fc": 5}
    }
    # Of two layers that compute the same, one alone can't be told from the other.
    assert "first" not in paired(network.layers, nodes[:1] + nodes[2:])


def test_a_network_none_of_whose_layers_is_found(blanks: Blanks) -> None:
    check_found(blanks, {"first": []})
    with pytest.raises(ModelError, match="give the ONNX file itself"):
        check_found(blanks, {"elsewhere": []})
