"""Chains are put in and multiplied out again; biases that calibration added are taken back."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trpexport.choose.by_criterion import ByCriterion
from trpexport.datasets.calibration import ArrayImages
from trpexport.errors import PlanError, TrpexportError
from trpexport.networks.torch.network import TorchNetwork
from trpexport.networks.torch.rewrite import dense, merge, with_factors
from trpexport.pipeline import Decomposed, decompose_network
from trpexport.plan import parse_plan

SHAPE = (1, 3, 8, 8)
IMAGES = np.random.default_rng(0).standard_normal((16, *SHAPE[1:]), dtype=np.float32)


class Net(nn.Module):
    """A stem, and a convolution without a bias whose output goes to batch norms in some way."""

    def __init__(self, end: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.n1, self.n2 = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 10)
        self.end = end
        for norm in (self.n1, self.n2):
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.end(self, self.stem(x).relu()).relu().mean((2, 3)))
        return y


def calibrated(model: nn.Module) -> Decomposed:
    network = TorchNetwork.open(model.eval(), SHAPE)
    return decompose_network(network, ByCriterion("spatial", "rank:4"), ArrayImages(IMAGES))


@pytest.mark.parametrize(
    "end",
    [
        lambda net, x: net.n1(net.conv(x)),
        lambda net, x: net.n1(net.conv(x)) + x,
        lambda net, x: net.n2(net.conv(net.n1(net.conv(x)).relu())),  # shared, two norms
        lambda net, x: net.n1(net.conv(x)) + net.n2(net.conv(x)),
        lambda net, x: net.n1(2 * net.conv(x)),
        lambda net, x: net.n1(x + net.conv(x)),
        # Before activation, as in wide residual networks: the sums carry a bias to both norms.
        lambda net, x: net.n2((h := x + net.conv(x)) + net.conv(net.n1(h).relu())),
    ],
)
def test_a_merged_network_computes_what_its_factors_do(
    end: Callable[[Net, Tensor], Tensor],
) -> None:
    model = Net(end)
    small = calibrated(model)
    merged = merge(small.module, SHAPE)
    assert merged.state_dict().keys() == model.state_dict().keys()
    x = torch.from_numpy(IMAGES)
    with torch.no_grad():
        torch.testing.assert_close(merged(x), small.module(x), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(merged(x), model(x), rtol=1e-2)


@pytest.mark.parametrize(
    "end",
    [
        lambda net, x: (h := net.conv(x)) + net.n1(h),  # goes around the norm as well
        lambda net, x: net.n1(net.conv(x)) + net.n1(x),  # the norm is another's too
        lambda net, x: net.n1(net.conv(x).relu()),
    ],
)
def test_a_bias_that_can_not_be_taken_back_is_refused(
    end: Callable[[Net, Tensor], Tensor],
) -> None:
    small = calibrated(Net(end))
    before = {name: tensor.clone() for name, tensor in small.module.state_dict().items()}
    with pytest.raises(PlanError, match=r"bias.*conv|conv.* bias") as error:
        merge(small.module, SHAPE)
    assert "\n" not in str(error.value)
    assert all(torch.equal(t, before[name]) for name, t in small.module.state_dict().items())


def test_a_dense_network_is_the_products_of_its_chains() -> None:
    small = calibrated(Net(lambda net, x: net.n1(net.conv(x))))
    twin = dense(small.module)
    first, second = (
        small.module.get_submodule(f"conv.{i}").get_parameter("weight") for i in (0, 1)
    )
    # A 3 x 1 kernel, then a 1 x 3 one: their product over the 4 channels between.
    expected = torch.einsum("rihx,oryw->oihw", first, second)
    torch.testing.assert_close(twin.get_submodule("conv").get_parameter("weight"), expected)


FORGERIES: list[Callable[[dict[str, object]], object]] = [
    lambda layer: layer.update(scheme="x"),
    lambda layer: layer.update(scheme="decoupling"),
    lambda layer: layer.update(rank=0),
    lambda layer: layer.update(rank=10**9),
    lambda layer: layer.update(rank="4"),
    lambda layer: layer.update(rank=5),
    lambda layer: layer.update(weight_error="x"),
    lambda layer: layer.update(full_rank="x"),
    lambda layer: layer.update(calls=[{"places": 1, "size": "x"}]),
    lambda layer: layer.update(spectrum=["x"]),
    lambda layer: layer.update(factors=layer["factors"][:1]),  # type: ignore[index]
    *[
        lambda layer, change=change: layer["factors"][0].update(change)
        for change in (
            {"groups": 3},
            {"groups": 0},
            {"groups": 16},
            {"in_channels": 16.0},
            {"out_channels": 10**12},
            {"out_channels": -4},
            {"bias": True},
        )
    ],
    *[
        lambda layer, change=change: layer["factors"][0]["window"].update(change)
        for change in (
            {"kernel": [-1, 1]},
            {"kernel": [1, 1, 1, 1], "stride": [1] * 4, "dilation": [1] * 4, "pads": [[0, 0]] * 4},
            {"stride": [0, 1]},
            {"pads": [[-1, 0], [0, 0]]},
            {"pads": [[1], [1]]},
            {"pad_mode": "x"},
            {"transposed": True},
            {"kernel": None},
        )
    ],
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_forged_plan_is_one_line(forge: Callable[[dict[str, object]], object]) -> None:
    model = Net(lambda net, x: net.n1(net.conv(x)))
    data = json.loads(json.dumps(calibrated(model).plan.to_json()))
    forge(next(layer for layer in data["layers"] if layer["factors"]))
    with pytest.raises(TrpexportError) as error:
        with_factors(model, parse_plan(data))
    assert "\n" not in str(error.value)


def test_a_plan_that_shares_with_a_layer_of_no_network() -> None:
    model = Net(lambda net, x: net.n1(net.conv(x)))
    data = json.loads(json.dumps(calibrated(model).plan.to_json()))
    expected = with_factors(model, parse_plan(data)).state_dict().keys()
    next(layer for layer in data["layers"] if layer["factors"])["shares"] = "nowhere"
    assert with_factors(model, parse_plan(data)).state_dict().keys() == expected
