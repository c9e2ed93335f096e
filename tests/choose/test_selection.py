"""Which layers may be rewritten, and why the others may not."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from tests.choose.networks import SHAPE, Small, low_rank_, planned, ranks, reasons
from trpexport.choose.selection import Selection
from trpexport.errors import PlanError
from trpexport.networks.torch.network import TorchNetwork


def test_patterns_choose_layers() -> None:
    model = Small().eval()
    low_rank_(model.stem, 1)
    network = TorchNetwork.open(model, SHAPE)

    def chosen(**options: Any) -> set[str]:
        return {layer.name for layer in planned(network, **options).rewritten}

    assert chosen() == {"plain", "strided", "pointwise"}
    assert chosen(include=["p*"]) == {"plain", "pointwise"}
    assert chosen(include=["p*"], exclude=["*wise"]) == {"plain"}
    assert chosen(stride_1_only=True) == {"plain", "pointwise"}
    assert chosen(include=["stem"]) == {"stem"}
    assert chosen(include=["stem"], exclude=["*"]) == set()


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_is_an_error(option: str) -> None:
    network = TorchNetwork.open(Small().eval(), SHAPE)
    options: dict[str, Any] = {option: ["layer*"]}
    with pytest.raises(PlanError, match=rf"{option} 'layer\*' matches no layer.*stem"):
        planned(network, **options)


def test_a_convolution_that_ends_the_network_is_a_head() -> None:
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3) for _ in range(3)))
    plan = planned(TorchNetwork.open(model, SHAPE), criterion="rank:1")
    assert "a head" in reasons(plan)["2"]
    assert ranks(plan)["1"] == 1
    with_linear = nn.Sequential(*model, nn.Flatten(), nn.Linear(3 * 6 * 6, 2))
    assert ranks(planned(TorchNetwork.open(with_linear, SHAPE), criterion="rank:1"))["2"] == 1


def test_what_a_rewrite_would_break_stays() -> None:
    class Scaled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    hooked, patched = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
    hooked.register_forward_hook(lambda module, inputs, output: output + 1)
    patched.forward = lambda x: x  # type: ignore[assignment,method-assign]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Scaled(4, 4, 3), hooked, patched, nn.Flatten())
    network = TorchNetwork.open(model, SHAPE)
    plan = planned(network, criterion="rank:1")
    assert not plan.rewritten
    assert "Scaled may compute more" in reasons(plan)["1"]
    assert "forward hooks" in reasons(plan)["2"]
    assert "a forward of its own" in reasons(plan)["3"]
    # Not even where it is asked for by name.
    assert not planned(network, criterion="rank:1", include=["[123]"]).rewritten


def test_the_options_of_a_plan_say_what_was_selected() -> None:
    selection = Selection(include=["p*"], exclude=("x", "y"), stride_1_only=True)
    wanted = {"include": ["p*"], "exclude": ["x", "y"], "stride_1_only": True}
    assert selection.options == wanted
    network = TorchNetwork.open(Small().eval(), SHAPE)
    assert planned(network, include=["p*"]).options == {
        "include": ["p*"],
        "exclude": [],
        "stride_1_only": False,
        "keep_expensive": False,
        "rank_multiple": 1,
        "rank_multiple_reason": "given",
    }
