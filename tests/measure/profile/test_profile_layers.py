from __future__ import annotations

import pytest

from tests.measure.profile.profiled import CONV1, FACTORS, PLAN, RANK, STEM, layer, plan_of
from trpexport.errors import PlanError
from trpexport.measure.profile.matching import Product
from trpexport.measure.profile.planned_layers import assign_layers, module_path
from trpexport.onnxfile.graph import Node

STEM_SHAPE, CONV1_SHAPE, CONV2_SHAPE = (16, 8, 3, 3), (16, 16, 3, 3), (16, 16, 5, 5)
FIRST, SECOND = (RANK, 16, 3, 1), (16, RANK, 1, 3)


def product(shape: tuple[int, ...] | None, name: str = "", *, operator: str = "Conv") -> Product:
    node = Node(name, ("", operator), ("x", "onnx::Conv_7"), ("y",), {})
    return Product(node, shape, None)


@pytest.mark.parametrize(
    ("node_name", "module"),
    [
        ("/conv1/Conv", "conv1"),
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/layer1/layer1.0/conv1/conv1.0/Conv", "layer1.0.conv1.0"),
        (
            "/layer2/layer2.0/downsample/downsample.0/downsample.0.1/Conv",
            "layer2.0.downsample.0.1",
        ),
        ("/layer1/layer1.0/conv1_1/Conv", "layer1.0.conv1"),  # a module's second call
        ("node_Conv_12", ""),
        ("", ""),
    ],
)
def test_the_module_in_a_node_s_name(node_name: str, module: str) -> None:
    assert module_path(node_name) == module


def test_layers_by_the_module_of_the_node() -> None:
    """The TorchScript exporter gives folded weights new names; onnxsim may change the order."""
    products = [
        product(CONV2_SHAPE, "/block/conv2/Conv"),
        product(FIRST, "/block/conv1/conv1.0/Conv"),
        product((4, 16), "/fc/Gemm", operator="Gemm"),
        product(SECOND, "/block/conv1/conv1.1/Conv"),
        product(STEM_SHAPE, "/stem/Conv"),
    ]
    assert assign_layers(products, PLAN, "net.onnx") == {
        "stem": (4,),
        "block.conv1": (1, 3),
        "block.conv2": (0,),
    }


def test_layers_by_place_and_shape_where_no_name_tells() -> None:
    pairs = [product(STEM_SHAPE), product(FIRST), product(SECOND), product(CONV2_SHAPE)]
    assert assign_layers(pairs, PLAN, "net.onnx") == {
        "stem": (0,),
        "block.conv1": (1, 2),
        "block.conv2": (3,),
    }
    base = [product(STEM_SHAPE), product(CONV1_SHAPE), product(CONV2_SHAPE)]
    assert assign_layers(base, PLAN, "net.onnx")["block.conv1"] == (1,)


def test_names_go_before_places() -> None:
    products = [
        product(CONV2_SHAPE, "/block/conv2/Conv"),
        product(STEM_SHAPE),
        product(CONV1_SHAPE),
    ]
    assert assign_layers(products, PLAN, "net.onnx") == {
        "stem": (1,),
        "block.conv1": (2,),
        "block.conv2": (0,),
    }


def test_a_layer_may_have_several_calls() -> None:
    plan = plan_of(layer("stem", STEM), layer("twice", CONV1, *FACTORS, calls=2))
    products = [
        product(STEM_SHAPE, "/stem/Conv"),
        product(FIRST, "/twice/twice.0/Conv"),
        product(FIRST, "/twice/twice.0_1/Conv"),
        product(SECOND, "/twice/twice.1/Conv"),
        product(SECOND, "/twice/twice.1_1/Conv"),
    ]
    assert assign_layers(products, plan, "net.onnx")["twice"] == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("products", "layer_name"),
    [
        ([], "stem"),
        ([product(None)], "stem"),
        ([product(CONV1_SHAPE)], "stem"),
        ([product(STEM_SHAPE), product(FIRST), product(CONV2_SHAPE)], "block.conv1"),
        ([product(STEM_SHAPE), product(SECOND), product(FIRST)], "block.conv1"),
        ([product(CONV1_SHAPE, "/stem/Conv")], "stem"),
        ([product(STEM_SHAPE), product(FIRST, "/block/conv1/conv1.0/Conv")], "block.conv1"),
    ],
)
def test_another_network(products: list[Product], layer_name: str) -> None:
    with pytest.raises(PlanError, match=rf"plan is not that of net\.onnx.* {layer_name}"):
        assign_layers(products, PLAN, "net.onnx")


def test_without_a_plan_convolutions_of_one_name_are_one_layer() -> None:
    products = [product(STEM_SHAPE, "a"), product(CONV1_SHAPE, "b"), product(STEM_SHAPE, "a")]
    assert assign_layers(products, None, "net.onnx") == {"a": (0, 2), "b": (1,)}
