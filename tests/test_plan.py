"""Plans go through JSON and back, also those of the schema before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trpexport.errors import PlanError
from trpexport.inputs import Inputs
from trpexport.ops import Call, LinearOp, Window
from trpexport.plan import LayerPlan, Plan, parse_plan, read_plan

OP = LinearOp(16, 32, 2, True, Window((3, 2), (2, 1), ((1, 1), (0, 1)), (1, 2), "reflect"))
PLAN = Plan(
    scheme="spatial",
    criterion="rank:4",
    inputs=Inputs.of((1, 3, 8, 8)),
    layers=(
        LayerPlan("a", OP, (Call(4, (8, 8)),), "spatial", 4, 32, (OP, OP), None, 0.5, 9, 7, (2.0,)),
        LayerPlan("b", OP, (), None, None, None, (), "the stem", None, 9, 9, shares="a"),
    ),
    other_macs=5,
    architecture="net",
    options={"include": ["a"]},
    uncounted={"fft": 2},
)


def through_json(data: Any) -> Any:
    return json.loads(json.dumps(data))


def test_a_plan_comes_back() -> None:
    assert parse_plan(through_json(PLAN.to_json())) == PLAN
    assert PLAN.to_json()["schema_version"] == 3
    assert "unknown" not in PLAN.to_json()


def test_precisions_of_layers_are_kept_and_forged_ones_are_none() -> None:
    chosen = {"a": "int8", "b": "fp32"}
    plan = replace(PLAN, options={"precisions": chosen})
    assert parse_plan(through_json(plan.to_json())).precisions == chosen
    assert PLAN.precisions == {}
    for forged in (5, ["int8"], {"a": 8}, None):
        assert replace(PLAN, options={"precisions": forged}).precisions == {}


def test_schema_2_called_what_is_not_counted_unknown() -> None:
    older = through_json(PLAN.to_json()) | {"schema_version": 2}
    older["unknown"] = older.pop("uncounted")
    assert parse_plan(older) == PLAN
    with pytest.raises(PlanError, match="'unknown' must be numbers by name"):
        parse_plan(older | {"unknown": ["fft"]})


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
        ({"schema_version": 4}, "schema version 4, this trpexport reads 1 to 3"),
        ({"schema_version": True}, "schema version True"),
        ({"schema_version": None}, "schema version None"),
        ({"layers": 5}, "plan:"),
        ({"layers": [5]}, "must be an object"),
        ({"other_macs": "5"}, "'other_macs' must be int"),
        ({"uncounted": 5}, "plan:"),
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


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "no 'layers'"),
        ({"schema_version": 2}, "no 'layers'"),
        ({"layers": []}, "schema version None"),
        ({"layers": [], "schema_version": 2}, "lacks the field 'scheme'"),
        ({"layers": [{}], "schema_version": 1}, "lacks the field 'name'"),
        ({"layers": [{"name": "a"}], "schema_version": 2}, "layer 'a' lacks the field 'op'"),
        ({"layers": [{"name": "a", "conv": 3}], "schema_version": 1}, "plan: "),
    ],
)
def test_what_is_no_plan_is_one_line(data: object, words: str) -> None:
    with pytest.raises(PlanError, match=words) as error:
        parse_plan(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("rank",), "two", "'rank' must be int"),
        (("rank",), True, "'rank' must be int"),
        (("op", "groups"), 3, "there is no operator"),
        (("op", "in_channels"), 0, "there is no operator"),
        (("op", "window", "stride"), [1], "there is no operator"),
        (("op", "window", "pads"), [[0], [0]], "there is no operator"),
        (("op", "window", "pad_mode"), "nothing", "there is no operator"),
        (("op", "window", "kernel"), "33", "must be a list of whole numbers"),
        (("op", "window"), None, "."),
        (("calls",), [{"size": [3, 3]}], "lacks the field 'places'"),
        (("calls",), 3, "."),
        (("factors",), [[]], "."),
        (("spectrum",), ["much"], "much"),
    ],
)
def test_a_damaged_layer_is_named(place: tuple[str, ...], value: object, words: str) -> None:
    data = through_json(PLAN.to_json())
    where = data["layers"][0]
    for key in place[:-1]:
        where = where[key]
    where[place[-1]] = value
    with pytest.raises(PlanError, match=f"layer 'a'.*{words}") as error:
        parse_plan(data)
    assert "\n" not in str(error.value)


def test_unreadable_plan_files(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="can't read"):
        read_plan(tmp_path / "none.json")
    for text in ("{", "[" * 100_000):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(PlanError, match="not JSON"):
            read_plan(tmp_path / "bad.json")
