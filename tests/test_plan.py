"""Plans go through JSON and back, also those of the schema before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trpexport.errors import PlanError
from trpexport.ops import Call, LinearOp, Window
from trpexport.plan import LayerPlan, Plan, parse_plan

OP = LinearOp(16, 32, 2, True, Window((3, 2), (2, 1), ((1, 1), (0, 1)), (1, 2), "reflect"))
PLAN = Plan(
    scheme="spatial",
    criterion="rank:4",
    input_shape=(1, 3, 8, 8),
    layers=(
        LayerPlan("a", OP, (Call(4, (8, 8)),), "spatial", 4, 32, (OP, OP), None, 0.5, 9, 7, (2.0,)),
        LayerPlan("b", OP, (), None, None, None, (), "the stem", None, 9, 9, shares="a"),
    ),
    other_macs=5,
    architecture="net",
    options={"include": ["a"]},
    unknown={"fft": 2},
)


def through_json(data: Any) -> Any:
    return json.loads(json.dumps(data))


def test_a_plan_comes_back() -> None:
    assert parse_plan(through_json(PLAN.to_json())) == PLAN
    assert PLAN.to_json()["schema_version"] == 2


def conv(**changes: Any) -> dict[str, Any]:
    return {
        **{"in_channels": 3, "out_channels": 8, "kernel_size": [3, 4], "stride": [1, 1]},
        **{"padding": [1, 2], "dilation": [1, 2], "groups": 1, "bias": False},
        **{"padding_mode": "zeros", **changes},
    }


def schema_1(conv: dict[str, Any]) -> dict[str, Any]:
    layer = {
        **{
            "name": "a",
            "conv": conv,
            "input_sizes": [[8, 8], [4, 4]],
            "scheme": None,
            "rank": None,
        },
        **{"full_rank": None, "factors": [], "reason": "kept", "weight_error": None},
        **{"macs": 1, "factor_macs": 1, "spectrum": []},
    }
    return {
        **{"schema_version": 1, "scheme": "none", "criterion": "none", "input_shape": [1, 3, 8, 8]},
        **{"layers": [layer], "other_macs": 0, "architecture": None, "options": {}},
    }


@pytest.mark.parametrize(
    ("padding", "pads"),
    [([1, 2], ((1, 1), (2, 2))), ("same", ((1, 1), (3, 3)))],
)
def test_schema_1_is_read(padding: Any, pads: tuple[tuple[int, int], ...]) -> None:
    (layer,) = parse_plan(schema_1(conv(padding=padding))).layers
    assert layer.op == LinearOp(3, 8, window=Window((3, 4), (1, 1), pads, (1, 2)))
    assert layer.calls == (Call(1, (8, 8)), Call(1, (4, 4)))


def test_same_padding_of_schema_1_puts_the_odd_pixel_after() -> None:
    (layer,) = parse_plan(schema_1(conv(padding="same", dilation=[1, 1]))).layers
    assert layer.op.window.pads == ((1, 1), (1, 2))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"schema_version": 3}, "schema version 3"),
        ({"schema_version": None}, "schema version None"),
        ({"layers": 5}, "plan:"),
        ({"layers": [5]}, "must be an object"),
        ({"other_macs": "5"}, "'other_macs' must be int"),
        ({"unknown": 5}, "plan:"),
        ({"input_shape": [1.0]}, "whole numbers"),
        ({"architecture": 5}, "'architecture' must be str"),
    ],
)
def test_damage_is_one_line(damage: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError, match=words) as error:
        parse_plan(through_json(PLAN.to_json()) | damage)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change", [{"padding": "x"}, {"padding": None}, {"kernel_size": []}, {"groups": 5}]
)
def test_damage_in_schema_1_is_one_line(change: dict[str, Any]) -> None:
    with pytest.raises(PlanError) as error:
        parse_plan(schema_1(conv(**change)))
    assert "\n" not in str(error.value)
