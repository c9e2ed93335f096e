"""Which layers are rewritten, at which rank, and why the others stay."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trpexport.choose.planner import analyse, keep_all, make_plan
from trpexport.choose.revision import revise_plan
from trpexport.networks.torch.factorize import dense_twin, factorize

from trpexport.choose.survey import Choice, mildest, survey
from trpexport.errors import PlanError, TrpexportError
from trpexport.plan import Plan, parse_plan, read_plan

SHAPE = (1, 3, 12, 12)


def low_rank_(conv: nn.Conv2d, rank: int) -> None:
    """Give a convolution a kernel whose channel matrix has exactly ``rank``."""
    torch.manual_seed(0)
    out = conv.out_channels
    kernel = torch.randn(out, rank) @ torch.randn(rank, conv.weight[0].numel())
    conv.weight.data = kernel.reshape_as(conv.weight) / kernel.norm() * 10


class Small(nn.Module):
    """Stem, a plain, a strided and a pointwise convolution, one that never runs, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.plain = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.strided = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.unused = nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(16, 5)
        for conv in (self.plain, self.strided, self.pointwise):
            low_rank_(conv, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.strided(self.plain(self.stem(x))))
        y: Tensor = self.fc(self.pointwise(x).mean((2, 3)))
        return y


@pytest.fixture
def model() -> nn.Module:
    return Small().eval()


def ranks(plan: Plan) -> dict[str, int | None]:
    return {layer.name: layer.rank for layer in plan.layers}


def reasons(plan: Plan) -> dict[str, str]:
    return {layer.name: layer.reason for layer in plan.layers if layer.reason is not None}


def test_the_rank_of_each_layer_is_found(model: nn.Module) -> None:
    plan = make_plan(model, scheme="channel", input_shape=SHAPE)
    assert ranks(plan) == {
        "stem": None,
        "plain": 2,
        "strided": 2,
        "pointwise": 2,
        "unused": None,
    }
    assert "stem" in reasons(plan)["stem"]
    assert "never runs" in reasons(plan)["unused"]
    # plain: 2 filters of 8x3x3 and a 1x1 to 16, on 12x12 pixels.
    assert plan.layers[1].factor_macs == (2 * 8 * 9 + 16 * 2) * 144
    assert plan.layers[1].weight_error == pytest.approx(0, abs=1e-6)
    assert plan.other_macs == 16 * 5
    dense = {"stem": 8 * 27 * 144, "plain": 16 * 72 * 144, "strided": 16 * 144 * 36}
    assert plan.macs_before == sum(dense.values()) + 16 * 16 * 36 + 80


def test_the_model_is_untouched(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    factorize(model, make_plan(model, scheme="channel", input_shape=SHAPE))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_layer_that_would_cost_more_stays(model: nn.Module) -> None:
    plan = make_plan(model, scheme="channel", criterion="fraction:1", input_shape=SHAPE)
    assert not plan.rewritten
    assert "rank 16 of 16 costs" in reasons(plan)["plain"]
    # 16 filters of 72 weights against rank x (72 + 16): 13 x 88 = 1144 < 1152 = 16 x 72.
    assert "cheaper up to rank 13" in reasons(plan)["plain"]
    assert plan.macs_after == plan.macs_before
    forced = make_plan(
        model, scheme="channel", criterion="fraction:1", input_shape=SHAPE, keep_expensive=True
    )
    assert ranks(forced)["plain"] == 16


def test_equal_cost_is_not_cheaper() -> None:
    # 4 -> 4 pointwise at rank 2: 2 x (4 + 4) = 16 = 4 x 4.
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.LazyLinear(2))
    model(torch.zeros(1, 3, 4, 4))
    plan = make_plan(model, scheme="channel", criterion="rank:2", input_shape=(1, 3, 4, 4))
    assert "costs 1.00x" in reasons(plan)["1"]


def test_patterns_choose_layers(model: nn.Module) -> None:
    def chosen(**options: Any) -> set[str]:
        plan = make_plan(model, scheme="channel", input_shape=SHAPE, **options)
        return {layer.name for layer in plan.rewritten}

    assert chosen() == {"plain", "strided", "pointwise"}
    assert chosen(include=["p*"]) == {"plain", "pointwise"}
    assert chosen(include=["p*"], exclude=["*wise"]) == {"plain"}
    assert chosen(stride_1_only=True) == {"plain", "pointwise"}
    low_rank_(model.get_submodule("stem"), 1)  # type: ignore[arg-type]
    assert "stem" not in chosen()
    assert chosen(include=["stem"]) == {"stem"}


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_is_an_error(model: nn.Module, option: str) -> None:
    with pytest.raises(PlanError, match=rf"--{option} 'layer\*' matches no convolution.*stem"):
        make_plan(model, input_shape=SHAPE, **{option: ["layer*"]})  # type: ignore[arg-type]


def test_a_convolution_that_ends_the_network_is_the_classifier() -> None:
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3) for _ in range(3)))
    plan = make_plan(model, scheme="channel", criterion="rank:1", input_shape=SHAPE)
    assert "the classifier" in reasons(plan)["2"]
    assert ranks(plan)["1"] == 1


def test_what_a_rewrite_would_break_stays() -> None:
    class Scaled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    hooked = nn.Conv2d(4, 4, 3)
    hooked.register_forward_hook(lambda module, inputs, output: output + 1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Scaled(4, 4, 3), hooked, nn.Flatten())
    plan = make_plan(model, scheme="channel", criterion="rank:1", input_shape=SHAPE)
    assert "Scaled may compute more" in reasons(plan)["1"]
    assert "forward hooks" in reasons(plan)["2"]


def test_a_shared_convolution_counts_each_call_and_is_replaced_everywhere() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.first = nn.Conv2d(8, 8, 3, padding=1)
            self.second = self.first
            self.fc = nn.Linear(8, 2)
            low_rank_(self.first, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(self.stem(x))
            y: Tensor = self.fc(self.second(x[:, :, ::2, ::2]).mean((2, 3)))
            return y

    model = Shared().eval()
    plan = make_plan(model, scheme="channel", input_shape=SHAPE)
    layer = plan.rewritten[0]
    assert layer.input_sizes == ((12, 12), (6, 6))
    assert layer.macs == 8 * 72 * (144 + 36)
    assert layer.factor_macs == (72 + 8) * (144 + 36)
    small = factorize(model, plan)
    assert small.first is small.second
    x = torch.randn(SHAPE)
    torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-5)


def test_dense_twin_undoes_the_rewrite(model: nn.Module) -> None:
    plan = make_plan(model, scheme="spatial", criterion="rank:2", input_shape=SHAPE)
    small = factorize(model, plan)
    twin = dense_twin(small, plan)
    assert [name for name, _ in twin.named_modules()] == [name for name, _ in model.named_modules()]
    x = torch.randn(SHAPE)
    torch.testing.assert_close(twin(x), small(x), rtol=1e-4, atol=1e-5)


def test_rank_above_full_rank(model: nn.Module) -> None:
    plan = make_plan(model, scheme="decoupling", criterion="rank:9", input_shape=SHAPE)
    assert "rank 9 is above its full rank 8" in reasons(plan)["plain"]
    assert "costs" in reasons(plan)["strided"]
    with pytest.raises(PlanError, match="rank:99 is above the full rank of every layer"):
        make_plan(model, scheme="channel", criterion="rank:99", input_shape=SHAPE)


def test_wrong_names_and_shapes(model: nn.Module) -> None:
    with pytest.raises(TrpexportError, match="did you mean spatial"):
        make_plan(model, scheme="spacial", input_shape=SHAPE)
    with pytest.raises(PlanError, match=r"can't run an input of shape 1x1x12x12.*--input-shape"):
        make_plan(model, input_shape=(1, 1, 12, 12))


def test_plans_survive_json(model: nn.Module, tmp_path: Path) -> None:
    plan = make_plan(model, scheme="channel", input_shape=SHAPE, architecture="small")
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan.to_json()))
    again = read_plan(path)
    assert json.dumps(again.to_json()) == json.dumps(plan.to_json())
    revised = revise_plan(model, again)
    assert [layer.factors for layer in revised.layers] == [layer.factors for layer in plan.layers]
    assert revised.macs_after == plan.macs_after


def edit(plan: Plan, layer_name: str, /, **changes: object) -> Plan:
    layers = tuple(
        replace(layer, **changes) if layer.name == layer_name else layer  # type: ignore[arg-type]
        for layer in plan.layers
    )
    return replace(plan, layers=layers)


def test_edited_ranks_and_schemes_are_derived_again(model: nn.Module) -> None:
    plan = make_plan(model, scheme="channel", input_shape=SHAPE)
    edited = edit(edit(plan, "plain", rank=1, scheme="spatial"), "strided", scheme=None)
    revised = revise_plan(model, edited, source="mine.json")
    assert ranks(revised)["plain"] == 1
    assert revised.layers[1].factor_macs == (8 * 3 + 16 * 3) * 144
    assert ranks(revised)["strided"] is None
    assert "mine.json" in revised.criterion
    guarded = revise_plan(model, edit(plan, "plain", rank=16))
    assert "costs" in reasons(guarded)["plain"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rank": 0}, "rank 0, it must be from 1 to 16"),
        ({"rank": 17}, "rank 17, it must be from 1 to 16"),
        ({"rank": None}, "rank None"),
        ({"scheme": "tucker"}, "unknown scheme 'tucker'"),
        ({"name": "other"}, "another network: it has a layer other"),
    ],
)
def test_plans_that_do_not_fit(model: nn.Module, changes: dict[str, object], says: str) -> None:
    plan = make_plan(model, scheme="channel", input_shape=SHAPE)
    with pytest.raises(TrpexportError, match=says):
        revise_plan(model, edit(plan, "plain", **changes))


def test_a_plan_for_a_network_of_other_shapes(model: nn.Module) -> None:
    plan = make_plan(model, scheme="channel", input_shape=SHAPE)
    other = edit(plan, "plain", conv=replace(plan.layers[1].conv, out_channels=99))
    with pytest.raises(PlanError, match="plain is 8->99 3x3 in it and 8->16 3x3 in the network"):
        revise_plan(model, other)
    with pytest.raises(PlanError, match="another network"):
        factorize(nn.Sequential(nn.Conv2d(1, 1, 1)), plan)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "no 'layers'"),
        ({"layers": []}, "schema version None"),
        ({"layers": [], "schema_version": 99}, "schema version 99"),
        ({"layers": [{}], "schema_version": 1}, "lacks the field 'name'"),
        ({"layers": [3], "schema_version": 1}, "must be an object"),
        ({"layers": [{"name": "a", "rank": "two"}], "schema_version": 1}, "'rank' must be int"),
        ({"layers": [{"name": "a", "rank": True}], "schema_version": 1}, "'rank' must be int"),
        ({"layers": [], "schema_version": 1}, "lacks the field"),
    ],
)
def test_malformed_plans(data: object, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        parse_plan(data)


def test_unreadable_plan_files(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="can't read"):
        read_plan(tmp_path / "none.json")
    for text in ("{", "[" * 100_000):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(PlanError, match="not JSON"):
            read_plan(tmp_path / "bad.json")


def test_keep_all_rewrites_nothing(model: nn.Module) -> None:
    plan = keep_all(model, input_shape=SHAPE)
    assert not plan.rewritten
    assert plan.macs_before == plan.macs_after > 0


def test_survey_shows_what_would_save(model: nn.Module) -> None:
    analysis = analyse(model, input_shape=SHAPE, scheme="channel")
    choices = {choice.criterion: choice for choice in survey(analysis)}
    assert choices["value:0.05"].layers == 3
    assert choices["value:0.05"].weight_error == pytest.approx(0, abs=1e-6)
    assert choices["rank:8"].macs_ratio > 1
    plan = make_plan(model, scheme="channel", input_shape=SHAPE)
    assert choices["value:0.05"].macs_ratio == plan.macs_before / plan.macs_after


def test_the_mildest_choice_that_saves_a_fair_share() -> None:
    none = Choice("none", 0, 1.0, 0.0)
    little = Choice("little", 1, 1.1, 0.1)
    fair = Choice("fair", 2, 1.3, 0.2)
    harsh = Choice("harsh", 3, 4.0, 0.7)
    assert mildest([harsh, none, fair, little]) is fair
    assert mildest([none, little]) is little
    assert mildest([none]) is None
