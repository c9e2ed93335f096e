"""What is in 8 bits where layers are chosen, and where tensors are converted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from tests.quantization.networks import classifier, images
from trpexport.quantization.formats import NumberFormat
from trpexport.quantization.ort import ready
from trpexport.quantization.settings import QuantizationSettings
from trpexport.quantization.static import quantize_blank, quantize_static
from trpexport.quantization.wiring import Wiring, layers_of, staying, tensor_sizes, wire

Write = Callable[..., Path]
NUMBERS = NumberFormat()
# Of the network: stem, two factors of a chain, their sum with the stem's output, a pooling, a head.
STEM, LEFT, RIGHT, SUM, POOL, HEAD = range(6)
LAYERS = ("stem", "chain", "head")


@pytest.fixture
def wiring(write_onnx: Write) -> Wiring:
    model = ready(classifier(write_onnx, batch=1))
    return wire(model, NUMBERS, tensor_sizes(model))


def test_tensors_go_from_unit_to_unit(wiring: Wiring) -> None:
    found = {(flow.source, flow.users): flow.elements for flow in wiring.flows}
    assert found == {
        (None, frozenset({STEM})): 3 * 64,
        (STEM, frozenset({LEFT, SUM})): 8 * 64,
        (LEFT, frozenset({RIGHT})): 4 * 64,
        (RIGHT, frozenset({SUM})): 8 * 64,
        (SUM, frozenset({POOL})): 8 * 64,
        (POOL, frozenset({HEAD})): 8,  # through a reshape, which only passes it on
        (HEAD, frozenset({None})): 10,
    }


def test_factors_are_their_layer_s(wiring: Wiring) -> None:
    assert layers_of(wiring.units, LAYERS) == {
        STEM: "stem",
        LEFT: "chain",
        RIGHT: "chain",
        HEAD: "head",
    }
    assert layers_of(wiring.units, ("chain.0", "chain.1")) == {LEFT: "chain.0", RIGHT: "chain.1"}


@pytest.mark.parametrize(
    ("int8", "inside"),
    [
        ((), set()),
        (("stem",), {STEM}),
        (("chain",), {LEFT, RIGHT}),
        (("stem", "chain"), {STEM, LEFT, RIGHT, SUM, POOL}),
        (("head",), {HEAD}),
        (LAYERS, {STEM, LEFT, RIGHT, SUM, POOL, HEAD}),
    ],
)
def test_what_follows_is_in_8_bits_where_all_that_it_gets_is(
    wiring: Wiring, int8: tuple[str, ...], inside: set[int]
) -> None:
    chosen = precisions(*int8)
    assert wiring.in_int8(layers_of(wiring.units, LAYERS), chosen) == inside
    stay = {unit.label for unit in staying(wiring, chosen)}
    assert stay == {unit.label for i, unit in enumerate(wiring.units) if i not in inside}


def test_what_nobody_chose_of_is_quantized_as_a_whole(wiring: Wiring) -> None:
    assert staying(wiring, {}) == ()


def test_what_a_loop_uses_is_used(write_onnx: Write) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["y"], ["z"])],
        "body",
        [],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)],
    )
    model = ready(classifier(write_onnx, batch=1))
    sizes = tensor_sizes(model)
    branch = helper.make_node("If", ["c"], ["out"], then_branch=body, else_branch=body, name="if")
    model.graph.node.append(branch)
    flows = wire(model, NUMBERS, sizes).flows
    assert next(flow for flow in flows if flow.source == HEAD).users == {None}


def precisions(*int8: str) -> Mapping[str, str]:
    return {name: "int8" if name in int8 else "fp32" for name in LAYERS}


def stored_in_8_bits(file: Path) -> set[str]:
    stored = onnx.load(file).graph.initializer
    return {t.name.removesuffix(".weight_quantized") for t in stored if "weight_q" in t.name}


@pytest.mark.parametrize("is_ranked", [True, False])
def test_a_file_is_quantized_as_was_chosen(
    write_onnx: Write, tmp_path: Path, is_ranked: bool
) -> None:
    source, target = classifier(write_onnx), tmp_path / "int8.onnx"
    settings = QuantizationSettings(
        calibration={"x": images(32)},
        held_out={"x": images(32, seed=1)},
        layers=precisions("chain"),
        is_ranked=is_ranked,
    )
    found = quantize_static(source, target, settings)
    assert stored_in_8_bits(target) == {"chain.0", "chain.1"}
    staying_labels: list[Any] = found.facts["excluded"]
    assert {"stem", "head"} <= set(staying_labels)
    assert found.note is not None and "stem" in found.note
    ranked = {one["layer"] for one in found.facts["ranking"]}
    assert ranked == ({"chain.0", "chain.1"} if is_ranked else set())


def test_a_blank_file_is_quantized_as_was_chosen(write_onnx: Write, tmp_path: Path) -> None:
    file = tmp_path / "blank.onnx"
    file.write_bytes(classifier(write_onnx).read_bytes())
    settings = QuantizationSettings(calibration={"x": images(2)}, layers=precisions("stem", "head"))
    quantize_blank(file, settings)
    assert stored_in_8_bits(file) == {"stem", "head"}
