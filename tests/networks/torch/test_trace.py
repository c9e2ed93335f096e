"""Which convolutions run, however they are called, and which may be rewritten."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks.torch.plain import FULL, SHAPE, Plain, decomposed, images
from trpexport.choose.by_criterion import ByCriterion
from trpexport.errors import PlanError
from trpexport.networks.torch.network import TorchNetwork

OF_C2 = 8 * 8 * 16 * 16 * 9  # MACs of one call on 8x8


class ByForward(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.c2.forward(self.c1.forward(x).relu()))


class ByFunction(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.end(
            functional.conv2d(self.c1(x).relu(), self.c2.weight, self.c2.bias, padding=1)
        )


class ByBoth(Plain):
    def forward(self, x: Tensor) -> Tensor:
        x = self.c2.forward(self.c1(x).relu()).relu()
        return self.end(functional.conv2d(x, self.c2.weight, padding=1))


class ByBoundMethod(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.run = self.c2.forward

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.run(self.c1(x).relu()))


class WithoutGradients(Plain):
    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@pytest.mark.parametrize(
    ("kind", "calls", "is_fixed"),
    [
        (Plain, 1, False),
        (ByForward, 1, False),
        (WithoutGradients, 1, False),
        (ByFunction, 1, True),
        (ByBoth, 2, True),
        (ByBoundMethod, 1, True),
    ],
)
def test_a_layer_runs_however_it_is_called(
    kind: Callable[[], Plain], calls: int, is_fixed: bool
) -> None:
    network = TorchNetwork.open(kind(), SHAPE)
    layer = next(layer for layer in network.layers if layer.name == "c2")
    assert sum(call.places for call in layer.calls) == calls
    assert layer.fixed == (
        "its kernel is used by a function as well, which a rewrite would not make cheaper"
        if is_fixed
        else None
    )
    stem = 8 * 8 * 16 * 3 * 9
    assert network.cost.macs == stem + calls * OF_C2 + 16 * 10
    assert not network.cost.uncounted
    assert network.other_macs == 0
    assert (network.stem, network.heads) == ("c1", ("fc",))


@pytest.mark.parametrize("calibrated", [False, True])
def test_layers_called_by_their_forward_are_rewritten(calibrated: bool) -> None:
    model = ByForward().eval()
    small = decomposed(model, FULL, images() if calibrated else None)
    assert [layer.name for layer in small.plan.rewritten] == ["c2"]
    x = torch.randn(4, *SHAPE[1:])
    torch.testing.assert_close(small.module(x), model(x), rtol=1e-3, atol=1e-3)
    assert small.verify(seconds=0).equivalence["output"].is_equivalent()


@pytest.mark.parametrize("kind", [ByFunction, ByBoth, ByBoundMethod])
def test_other_layers_are_calibrated_beside_one_that_functions_use(
    kind: Callable[[], Plain],
) -> None:
    chooser = ByCriterion("spatial", "rank:9", keep_expensive=True, include=("c?",))
    small = decomposed(kind(), chooser, images())
    assert [layer.name for layer in small.plan.rewritten] == ["c1"]


class Fixes(nn.Conv2d):
    """Only fixes arguments."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, padding=1)

    def extra_repr(self) -> str:
        return "fixed"

    def reset_parameters(self) -> None:
        super().reset_parameters()


class Standardizes(Fixes):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight, self.bias, padding=1)


class Pads(Fixes):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.conv2d(functional.pad(x, (2, 0, 2, 0)), weight, bias)


class Activates(Fixes):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.act = nn.ReLU()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Fixes, None),
        (type("Grandchild", (Fixes,), {}), None),
        (Standardizes, "Standardizes may compute more than its base class"),
        (type("Grandchild", (Standardizes,), {}), "Grandchild may compute more"),
        (Pads, None),  # it was tried
        (Activates, "holds other modules"),
    ],
)
def test_a_subclass_that_computes_no_more_is_a_convolution(
    kind: Callable[[int], Fixes], reason: str | None
) -> None:
    model = Plain()
    model.c2 = kind(16)
    layer = next(layer for layer in TorchNetwork.open(model, SHAPE).layers if layer.name == "c2")
    if reason is None:
        assert layer.fixed is None
        assert [each.name for each in decomposed(model, FULL).plan.rewritten] == ["c2"]
    else:
        assert layer.fixed is not None
        assert layer.fixed.startswith(reason)


def test_a_forward_that_casts_to_half_precision_is_told_so() -> None:
    class Casts(Plain):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().forward(x).float()

    with pytest.raises(PlanError, match="computes in bfloat16 in its forward"):
        _ = TorchNetwork.open(Casts(), SHAPE).layers


def test_a_recurrent_layer_behind_the_last_convolution_is_the_head() -> None:
    class Reads(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.LSTM(16, 4)  # type: ignore[assignment]

        def end(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(x.mean(2).permute(2, 0, 1))[0]
            return y

    assert TorchNetwork.open(Reads(), SHAPE).heads == ()
