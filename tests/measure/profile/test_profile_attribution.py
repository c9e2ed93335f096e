from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.measure.profile.profiled import (
    CONV1,
    CONV2,
    MACS,
    PLAN,
    RANK,
    SIZE,
    STEM,
    Ran,
    convolve,
    layer,
    node,
    plan_of,
    profile_of,
    residual,
    weight,
)
from tests.strategies import conv_op
from trpexport.errors import PlanError
from trpexport.measure.profile.attribution import Attribution, LayerTime, OtherTime, attribute
from trpexport.measure.profile.matching import match_nodes
from trpexport.measure.profile.optimized_graph import read_optimized
from trpexport.measure.profile.profile import ProfileSettings, profile_model

WriteOnnx = Callable[..., Path]
LEVELS = ("disable", "basic", "extended", "all")
KERNELS = {
    "stem": [(3, 3)],
    "block.conv1": [(3, 1), (1, 3)],
    "block.conv2": [(5, 5)],
}


@pytest.fixture(scope="module")
def pair(write_onnx: WriteOnnx) -> Path:
    return residual(write_onnx, pair=True)


@pytest.fixture(scope="module")
def dense(write_onnx: WriteOnnx) -> Path:
    return residual(write_onnx, pair=False)


def rows(attribution: Attribution) -> dict[str, tuple[str, ...]]:
    return {row.name: row.nodes for row in attribution.layers}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("level", LEVELS)
def test_each_layer_gets_its_own_convolutions(
    write_onnx: WriteOnnx, level: str, named: bool
) -> None:
    """Each convolution has another kernel, which the trace tells and no name plays a part in."""
    path = residual(write_onnx, pair=True, named=named)
    profile = profile_model(path, ProfileSettings(graph_optimization=level, runs=3))
    result = attribute(profile, path, PLAN)
    times = {time.name: time for time in profile.nodes}
    for row in result.layers:
        convolutions = [times[name] for name in row.nodes if "Conv" in times[name].operator]
        assert [t.input_shapes[1][2:] for t in convolutions] == KERNELS[row.name]
        assert len(row.computes) == len(convolutions)
    assert {row.name: row.macs for row in result.layers} == {
        "stem": MACS["stem"],
        "block.conv1": MACS["block.conv1.0"] + MACS["block.conv1.1"],
        "block.conv2": MACS["block.conv2"],
    }
    assert not any("Conv" in row.operator for row in result.others)


@pytest.mark.parametrize("level", LEVELS)
def test_the_rows_add_up_to_the_nodes(pair: Path, level: str) -> None:
    profile = profile_model(pair, ProfileSettings(graph_optimization=level, runs=5))
    result = attribute(profile, pair, PLAN)
    assert result.seconds == pytest.approx(profile.node_seconds, rel=1e-12)
    every: tuple[LayerTime | OtherTime, ...] = result.layers + result.others
    assert sum(row.share for row in every) == pytest.approx(1)
    names = [name for row in every for name in row.nodes]
    assert sorted(names) == sorted(time.name for time in profile.nodes)
    assert result.coverage == pytest.approx(profile.coverage)


@pytest.mark.parametrize("level", LEVELS)
def test_the_original_is_attributed_with_the_plan_of_the_pairs(dense: Path, level: str) -> None:
    profile = profile_model(dense, ProfileSettings(graph_optimization=level, runs=1))
    result = attribute(profile, dense, PLAN)
    assert [(row.name, len(row.computes)) for row in result.layers] == [
        ("stem", 1),
        ("block.conv1", 1),
        ("block.conv2", 1),
    ]
    assert result.layers[1].macs == MACS["block.conv1"]


def test_what_is_fused_in_is_told(pair: Path) -> None:
    profile = profile_model(pair, ProfileSettings(graph_optimization="extended", runs=1))
    result = attribute(profile, pair, PLAN)
    assert [row.computes for row in result.layers] == [
        ("Conv+Relu",),
        ("Conv", "Conv+Relu"),
        ("Conv",),
    ]
    others = {row.operator: (row.kind, row.nodes) for row in result.others}
    assert others["Gemm"] == ("other", ("fc/Gemm",))
    assert others["Relu"] == ("other", ("block/Relu2",))


def test_without_a_plan_the_convolutions_of_the_file_are_the_rows(pair: Path) -> None:
    result = attribute(profile_model(pair, ProfileSettings(runs=1)), pair)
    assert [row.name for row in result.layers] == [
        "stem",
        "block.conv1.0",
        "block.conv1.1",
        "block.conv2",
    ]


NCHWC = [
    Ran("ReorderInput", "ReorderInput", "x", "t0", (3, 3, 9)),
    Ran("Conv", "s_nchwc", "t0 t1 b", "t2", (10, 11, 12), activation="Relu"),
    Ran("ReorderOutput", "ReorderOutput_token_7", "t2", "s", (2, 2, 2)),
    Ran("Conv", "p_nchwc", "t2 t3 b", "t4", (20, 22, 21)),
    Ran("ReorderOutput", "ReorderOutput", "t4", "p", (4, 5, 6)),
    Ran("FusedConv", "block.conv1.1/Conv", "p w b", "r", (30, 30, 33), activation="Relu"),
    Ran("ReorderInput", "ReorderInput_token_2", "r", "t5", (1, 1, 1)),
    Ran("Conv", "d_nchwc_token_3", "t5 t6 b t2", "t7", (40, 40, 40), activation="Relu"),
    Ran("GlobalAveragePool", "g_nchwc", "t7", "t8", (2, 2, 2)),
    Ran("ReorderOutput", "ReorderOutput_token_9", "t8", "g", (1, 1, 1)),
    Ran("Flatten", "flatten", "g", "h", (0, 0, 0)),
    Ran("FusedGemm", "fused fc/Gemm", "h fc.weight", "y", (5, 5, 5)),
]


def test_a_blocked_graph(pair: Path) -> None:
    """As ONNX Runtime 1.31 names what it blocks on AVX2, where the rank is no multiple of 8."""
    result = attribute(profile_of(*NCHWC), pair, PLAN)
    assert rows(result) == {
        "stem": ("s_nchwc",),
        "block.conv1": ("p_nchwc", "ReorderOutput", "block.conv1.1/Conv"),
        "block.conv2": ("d_nchwc_token_3",),
    }
    stem, first, second = result.layers
    assert first.computes == ("Conv", "Conv+Relu")
    assert second.computes == ("Conv+Add+Relu",)
    assert first.seconds == pytest.approx((21 + 5 + 30) * 1e-6)
    assert first.reordering_seconds == pytest.approx(5e-6)
    assert first.mad == pytest.approx(3e-6)  # of 54, 57, 60
    assert (stem.reordering_seconds, second.reordering_seconds) == (0, 0)
    total = 3 + 11 + 2 + 56 + 1 + 40 + 2 + 1 + 0 + 5
    assert first.share == pytest.approx(56 / total)
    assert [(row.kind, row.operator, row.seconds) for row in result.others] == [
        ("reordering", "ReorderInput", pytest.approx(4e-6)),
        ("reordering", "ReorderOutput", pytest.approx(3e-6)),
        ("other", "GlobalAveragePool", pytest.approx(2e-6)),
        ("other", "Flatten", 0),
        ("other", "FusedGemm", pytest.approx(5e-6)),
    ]
    facts = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert facts["seconds"] == pytest.approx(total * 1e-6)


def test_reordering_inside_a_pair_is_the_pair_s(pair: Path) -> None:
    profile = profile_model(pair, ProfileSettings(runs=1))
    assert profile.optimized is not None
    graph = read_optimized(profile.optimized)
    inside = [n.name for n in graph if n.operator == "ReorderOutput" and n.outputs == ("p",)]
    if not inside:
        pytest.skip("on this processor ONNX Runtime does not block this pair")
    row = attribute(profile, pair, PLAN).layers[1]
    assert set(inside) < set(row.nodes)
    assert row.reordering_seconds <= row.seconds


def test_names_alone_lead_far(pair: Path) -> None:
    """Without the optimized graph, only what is fused in and what is inside a pair is unknown."""
    result = attribute(profile_of(*NCHWC, written=False), pair, PLAN)
    assert rows(result) == {
        "stem": ("s_nchwc",),
        "block.conv1": ("p_nchwc", "block.conv1.1/Conv"),
        "block.conv2": ("d_nchwc_token_3",),
    }
    assert result.layers[2].computes == ("Conv",)


def test_convolutions_without_any_name_are_taken_by_shape_and_order(pair: Path) -> None:
    ran = [
        Ran("Conv", "Conv_9", "x w b", "o1", weight=(16, 16, 3, 1)),
        Ran("Conv", "Conv_4", "x w b", "o2", weight=(16, RANK, 1, 3)),
        Ran("Conv", "Conv_5", "x w b", "o3", weight=(16, 8, 3, 3)),
        Ran("Conv", "Conv_6", "x w b", "o4", weight=(99, 99, 7, 7)),
    ]
    result = attribute(profile_of(*ran), pair, PLAN)
    assert rows(result) == {
        "stem": ("Conv_5",),
        "block.conv1": ("Conv_9", "Conv_4"),  # its first factor's 5 channels fill a block of 16
        "block.conv2": (),
    }
    assert not result.layers[2].is_measured
    assert [row.nodes for row in result.others] == [("Conv_6",)]


@pytest.mark.parametrize(
    ("ran", "product"),
    [
        (Ran("QLinearConv", "stem/Conv_token_8", "q w", "o"), "stem"),
        (Ran("FusedConv", "Conv_3", "q ConvBnFusion_W_stem.weight", "o"), "stem"),
        (Ran("FusedConv", "Conv_3", "q w", "r"), "block.conv1.1"),
        (Ran("Conv", "r_nchwc_token_12", "q w", "o"), "block.conv1.1"),
        (Ran("FusedGemm", "fused fc/Gemm", "q w", "o"), "fc"),
        (Ran("Conv", "f_nchwc", "q w", "o"), None),  # made of two convolutions
        (Ran("Relu", "Relu_3", "q", "r"), None),
    ],
)
def test_what_leads_to_a_convolution(pair: Path, ran: Ran, product: str | None) -> None:
    matching = match_nodes(profile_of(ran), pair)
    (executed,) = matching.executed
    found = None if executed.product is None else matching.products[executed.product].name
    assert found == product


def test_transposes_that_were_inserted_are_reordering(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [node("Transpose", ["x"], ["y"], name="mine")], {"x": (2, 3)}, {"y": (3, 2)}, {}
    )
    ran = [Ran("Transpose", "mine", "x", "y"), Ran("Transpose", "Transpose_token_4", "y", "z")]
    memory = Ran("MemcpyToHost", "Memcpy", "z", "w")
    result = attribute(profile_of(*ran, memory, shapes={"x": (2, 3)}), path)
    assert [(row.kind, row.nodes) for row in result.others] == [
        ("other", ("mine",)),
        ("reordering", ("Transpose_token_4",)),
        ("copying", ("Memcpy",)),
    ]


def test_batch_norms_that_are_folded_in(write_onnx: WriteOnnx) -> None:
    """ONNX Runtime folds them itself, and runs the second of two branches first."""
    statistics = {name: np.ones(16, np.float32) for name in ("s", "b", "m", "v")}
    path = write_onnx(
        [
            convolve("x", "stem", STEM, "a"),
            node("BatchNormalization", ["a", "s", "b", "m", "v"], ["an"], name="bn"),
            node("Relu", ["an"], ["ar"], name="relu"),
            convolve("ar", "one", CONV2, "c"),
            node("BatchNormalization", ["c", "s", "b", "m", "v"], ["cn"], name="bn2"),
            convolve("x", "two", STEM, "e"),
            node("Add", ["cn", "e"], ["y"], name="add"),
        ],
        {"x": (1, 8, SIZE, SIZE)},
        {"y": None},
        statistics
        | {f"{n}.bias": np.zeros(16, np.float32) for n in ("stem", "one", "two")}
        | {"stem.weight": weight(STEM), "one.weight": weight(CONV2), "two.weight": weight(STEM)},
    )
    plan = plan_of(layer("stem", STEM), layer("one", CONV2), layer("two", STEM))
    for level in LEVELS:
        profile = profile_model(path, ProfileSettings(graph_optimization=level, runs=1))
        matching = match_nodes(profile, path)
        order = [e.product for e in matching.executed if e.product is not None]
        assert sorted(order) == [0, 1, 2]
        assert order.index(0) < order.index(1)  # the one feeds the other
        assert all(row.is_measured for row in attribute(profile, path, plan).layers)


def test_a_layer_that_is_called_twice(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [
            convolve("x", "stem", STEM, "a"),
            convolve("a", "twice", CONV1, "b"),
            node("Sigmoid", ["b"], ["c"], name="middle"),
            node("Conv", ["c", "twice.weight", "twice.bias"], ["y"], name="again", pads=[1] * 4),
        ],
        {"x": (1, 8, SIZE, SIZE)},
        {"y": None},
        {
            "stem.weight": weight(STEM),
            "twice.weight": weight(CONV1),
            "stem.bias": np.zeros(16, np.float32),
            "twice.bias": np.zeros(16, np.float32),
        },
    )
    plan = plan_of(layer("stem", STEM), layer("twice", CONV1, calls=2))
    for level in LEVELS:
        profile = profile_model(path, ProfileSettings(graph_optimization=level, runs=1))
        twice = attribute(profile, path, plan).layers[1]
        assert len(twice.computes) == 2
        assert twice.macs == 2 * MACS["block.conv1"]


@pytest.mark.parametrize(
    "plan",
    [
        plan_of(layer("stem", STEM), layer("block.conv1", CONV1), layer("block.conv2", CONV2)),
        plan_of(*PLAN.layers, layer("block.conv3", CONV2)),
        plan_of(PLAN.layers[0], PLAN.layers[1], layer("block.conv2", CONV1)),
        plan_of(
            PLAN.layers[0],
            layer("block.conv1", CONV1, conv_op(16, 6, (3, 1), (1, 1), (1, 0), (1, 1)), STEM),
            PLAN.layers[2],
        ),
    ],
)
def test_a_plan_of_another_network(pair: Path, plan: object) -> None:
    with pytest.raises(PlanError, match=r"plan is not that of net\.onnx.*block\.conv"):
        attribute(profile_of(*NCHWC), pair, plan)  # type: ignore[arg-type]
