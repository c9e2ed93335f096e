"""An ONNX graph is rewritten in place: as exact as its chains, and the rest as it was."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.networks.onnx.graphs import CASES, Case, kept_cases, node, numbers
from trpexport.choose.by_criterion import ByCriterion
from trpexport.inputs import Inputs
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.reading import OnnxSource, read_model
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.runtime.session import open_session
from trpexport.stages import Stages
from trpexport.tensors import Array

EVERY = ByCriterion("channel", "fraction:1", include=["*"], keep_expensive=True)


def opened(path: Path) -> OnnxNetwork:
    return OnnxNetwork.open(OnnxSource(path, read_model(path)))


def rewritten(network: OnnxNetwork, chooser: ByCriterion = EVERY) -> OnnxNetwork:
    return network.rewritten(chooser(network, None, Stages(), "net").chains)


def output(path: Path, x: Array) -> Array:
    return open_session(path).run({"x": x})["y"]


@pytest.mark.parametrize("name", CASES)
def test_at_full_rank_the_new_file_computes_what_the_old_one_did(name: str, tmp_path: Path) -> None:
    case = CASES[name]()
    network = opened(case.save(tmp_path))
    (layer,) = network.layers
    assert layer.fixed is None
    small, target = rewritten(network), tmp_path / "small.onnx"
    small.write_onnx(target, OnnxSettings())
    x = np.random.default_rng(1).standard_normal(case.shape).astype(np.float32)
    expected = output(network.source.path, x)
    assert np.abs(output(target, x) - expected).max() <= 1e-5 * np.abs(expected).max()
    twin = small.dense().run({"x": x})["y"]
    assert np.abs(twin - expected).max() <= 1e-5 * np.abs(expected).max()
    assert not small.cost.uncounted
    onnx.checker.check_model(str(target), full_check=True)
    new, old = onnx.load(target), onnx.load(network.source.path)
    assert new.opset_import == old.opset_import
    assert new.metadata_props == old.metadata_props
    assert new.graph.doc_string == old.graph.doc_string
    assert new.graph.output == old.graph.output
    assert [i for i in new.graph.input if i.name == "x"] == list(old.graph.input[:1])
    used = {name for node in new.graph.node for name in node.input}
    assert {tensor.name for tensor in new.graph.initializer} <= used
    kinds = {layer.node.op_type, "Conv"} if layer.op.ndim else {layer.node.op_type}
    assert len([n for n in new.graph.node if n.op_type in kinds]) == 2
    assert not [n for n in new.graph.node if n.op_type == "BatchNormalization"]


@pytest.mark.parametrize("name", kept_cases())
def test_what_can_not_be_rewritten_is_listed_with_the_reason(name: str, tmp_path: Path) -> None:
    case, reason = kept_cases()[name]
    layers = opened(case.save(tmp_path)).layers
    assert layers
    assert all(reason in (layer.fixed or "") for layer in layers)


def two_of_one_weight(second: onnx.NodeProto) -> Case:
    first = onnx.helper.make_node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1])
    return Case([first, second], {"w": numbers(4, 4, 3, 3)})


def test_layers_that_share_a_weight_share_its_factors(tmp_path: Path) -> None:
    network = opened(two_of_one_weight(node("Conv", "h", "w")).save(tmp_path))
    first, second = network.layers
    assert second.shares == first.name
    small = rewritten(network)
    assert len(small.model.graph.initializers) == 2
    x = np.random.default_rng(1).standard_normal((2, 4, 9, 8)).astype(np.float32)
    assert np.allclose(small.run({"x": x})["y"], network.run({"x": x})["y"], atol=1e-5)


def test_a_pickled_network_needs_no_file(tmp_path: Path) -> None:
    path = two_of_one_weight(node("Conv", "h", "w")).save(tmp_path)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w", size_threshold=0)
    network = rewritten(opened(path))
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 4, 9, 8)).astype(np.float32)}
    expected = network.run(feeds)
    content = pickle.dumps(network)  # also once it has run: sessions can't be pickled
    for file in (path, path.with_name("w")):
        file.unlink()
    found = pickle.loads(content)
    assert np.array_equal(found.run(feeds)["y"], expected["y"])
    assert [layer.name for layer in found.layers] == [layer.name for layer in network.layers]
    assert found.inputs == network.inputs


def test_a_weight_that_is_read_in_two_ways_stays(tmp_path: Path) -> None:
    case = two_of_one_weight(node("ConvTranspose", "h", "w"))
    assert all("used elsewhere" in (x.fixed or "") for x in opened(case.save(tmp_path)).layers)


def test_a_name_is_that_of_the_module_or_of_the_node(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x", "encoder.0.weight", output="a"),
        onnx.helper.make_node("Relu", ["a"], ["b"]),
        node("Conv", "b", "v", output="c"),
        onnx.helper.make_node("Conv", ["c", "u"], ["y"]),
    ]
    stored = {"encoder.0.weight": numbers(6, 4, 1, 1), "v": numbers(6, 6, 1, 1),
              "u": numbers(3, 6, 1, 1)}  # fmt: skip
    network = opened(Case(nodes, stored).save(tmp_path))
    assert [layer.name for layer in network.layers] == ["encoder.0", "author/Conv", "Conv_3"]
    assert [row.name for row in network.cost.layers] == ["encoder.0", "author/Conv", "Conv_3"]
    small = rewritten(network)
    assert "encoder.0.0.weight" in small.model.graph.initializers


def test_padding_that_keeps_the_size_does_so_at_any_size(tmp_path: Path) -> None:
    case = CASES["same upper"]()
    case.sizes = ("n", 4, "h", "w")
    path, target = case.save(tmp_path), tmp_path / "small.onnx"
    source = OnnxSource(path, read_model(path))
    network = OnnxNetwork.open(source, Inputs.of({"x": (1, 4, 9, 8)}))
    rewritten(network).write_onnx(target, OnnxSettings())
    for size in ((1, 4, 9, 8), (3, 4, 12, 13)):
        x = np.random.default_rng(1).standard_normal(size).astype(np.float32)
        assert np.allclose(output(target, x), output(path, x), atol=1e-5)


def test_half_precision_stays(tmp_path: Path) -> None:
    case = Case(
        [node("Conv", "x", "w")], {"w": numbers(6, 4, 3, 3, dtype=np.float16)},
        dtype=onnx.TensorProto.FLOAT16,
    )  # fmt: skip
    small = rewritten(opened(case.save(tmp_path)))
    types = {str(value.dtype) for value in small.model.graph.initializers.values()}
    assert types == {"FLOAT16"}


def test_a_shape_that_nothing_tells_is_measured(tmp_path: Path) -> None:
    nodes = [
        onnx.helper.make_node("NonZero", ["x"], ["places"]),
        onnx.helper.make_node("Cast", ["places"], ["h"], to=1),
        onnx.helper.make_node("Transpose", ["h"], ["rows"], perm=[1, 0]),
        node("MatMul", "rows", "w"),
    ]
    case = Case(nodes, {"w": numbers(2, 8)}, (1, 16))
    (layer,) = opened(case.save(tmp_path)).layers
    (call,) = layer.calls
    assert call.places == 16  # standard normal numbers are not zero


def test_the_original_is_never_changed(tmp_path: Path) -> None:
    network = opened(CASES["norm behind"]().save(tmp_path))
    before = network.identity()
    small = rewritten(network)
    assert small.identity() != before
    assert network.identity() == before
    assert opened(network.source.path).identity() == before
