"""Calibrated networks: closer to the original than the SVD's, finite whatever the images are."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from trpexport.choose.layerwise import Calibrated, calibrate
from trpexport.choose.planner import make_plan
from trpexport.networks.torch.factorize import factorize, merge

from tests.artifact.networks import SHAPE, tiny
from trpexport.errors import DataError, PlanError
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.torch.trace import conv_spec
from trpexport.plan import parse_plan


def smooth(count: int, seed: int = 0) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).standard_normal((count, *SHAPE[1:]))
    return (noise.cumsum(2).cumsum(3) / 8).astype(np.float32)


def error(model: nn.Module, candidate: nn.Module, x: NDArray[np.float32]) -> float:
    with torch.no_grad():
        wanted, given = (
            copy.deepcopy(network).eval()(torch.from_numpy(x)).double().flatten(1)
            for network in (model, candidate)
        )
    variation = (wanted - wanted.mean(0)).square().sum()
    return float(((given - wanted).square().sum() / variation).sqrt())


def calibrated(scheme: str, x: NDArray[np.float32]) -> Calibrated:
    model = tiny()
    plan = make_plan(model, input_shape=SHAPE, scheme=scheme, criterion="rank:2")
    return calibrate(model, plan, x)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_closer_than_the_svd_on_other_images(scheme: str) -> None:
    model = tiny()
    plan = make_plan(model, input_shape=SHAPE, scheme=scheme, criterion="rank:2")
    result = calibrate(model, plan, smooth(64))
    assert result.error == pytest.approx(error(model, result.network, smooth(64)), rel=1e-3)
    other = smooth(64, seed=1)
    assert len(result.layers) == len(plan.rewritten) > 0
    assert error(model, result.network, other) < 0.7 * error(model, factorize(model, plan), other)
    for layer in result.layers:
        assert layer.error_after < layer.error_before
        assert layer.weight_error > 0


def test_modes_are_left_as_they_were() -> None:
    model = tiny().train()
    calibrate(model, make_plan(model, input_shape=SHAPE, criterion="rank:2"), smooth(130))
    assert torch.is_grad_enabled()
    assert model.training


def test_the_plan_is_that_of_the_network() -> None:
    result = calibrated("spatial", smooth(16))
    for layer in result.plan.rewritten:
        chain = result.network.get_submodule(layer.name)
        assert isinstance(chain, nn.Sequential)
        assert [conv_spec(factor) for factor in chain] == list(layer.factors)  # type: ignore[arg-type]
    assert parse_plan(result.plan.to_json()).rewritten == result.plan.rewritten
    assert result.plan.macs_after < result.plan.macs_before


@pytest.mark.parametrize("scheme", SCHEMES)
def test_merged_it_is_the_architecture_again(scheme: str) -> None:
    result = calibrated(scheme, smooth(16))
    network = merge(result.network, result.plan, SHAPE).eval()
    state, original = network.state_dict(), tiny().state_dict()
    assert {name: x.shape for name, x in state.items()} == {
        name: x.shape for name, x in original.items()
    }
    x = torch.from_numpy(smooth(4, seed=1))
    torch.testing.assert_close(network(x), result.network(x), rtol=1e-4, atol=1e-4)


def test_a_bias_that_no_batch_norm_takes_up_is_one_line() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.ReLU(), nn.BatchNorm2d(16)).eval()
    plan = make_plan(model, input_shape=SHAPE, criterion="rank:2", include=("0",))
    result = calibrate(model, plan, smooth(4))
    with pytest.raises(PlanError, match="0 has a bias from calibration and no batch norm behind"):
        merge(result.network, result.plan, SHAPE)


def test_the_order_of_the_images_does_not_matter() -> None:
    x = smooth(40)
    one, other = calibrated("spatial", x), calibrated("spatial", x[::-1].copy())
    for a, b in zip(one.layers, other.layers, strict=True):
        assert a.ridge == b.ridge
        assert a.error_after == pytest.approx(b.error_after, rel=1e-4)
    assert error(one.network, other.network, x) < 1e-3


def test_the_same_images_give_the_same_weights_bit_by_bit() -> None:
    one, other = calibrated("spatial", smooth(40)), calibrated("spatial", smooth(40))
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor, other.network.state_dict()[name])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "x",
    [
        smooth(1),
        np.repeat(smooth(1), 9, axis=0),
        np.zeros((4, *SHAPE[1:]), np.float32),
        np.full((3, *SHAPE[1:]), 1e4, np.float32),
    ],
    ids=["one image", "all the same", "black", "huge"],
)
def test_poor_images_leave_finite_weights(scheme: str, x: NDArray[np.float32]) -> None:
    result = calibrated(scheme, x)
    assert all(torch.isfinite(tensor).all() for tensor in result.network.state_dict().values())


def test_dead_channels_and_dead_layers_leave_finite_weights() -> None:
    model = tiny()
    with torch.no_grad():
        model.get_parameter("conv1.weight").zero_()
        model.get_parameter("bn1.weight").zero_()
        model.get_parameter("conv3.weight")[:, 3:].zero_()
    plan = make_plan(model, input_shape=SHAPE, criterion="rank:2")
    result = calibrate(model, plan, smooth(8))
    assert "conv1" in [layer.name for layer in result.layers]
    assert all(torch.isfinite(tensor).all() for tensor in result.network.state_dict().values())


class Parallel(nn.Module):
    """A residual block whose shortcut the layer can mend: the sum is linear in its input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.project = nn.Conv2d(8, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        shortcut = self.project(x)
        y: torch.Tensor = self.conv(x) + shortcut
        return y


def test_a_layer_makes_up_for_the_shortcut() -> None:
    # Rank 2 spoils the shortcut; the layer at nearly full rank can put all of it right.
    model = Parallel().eval()
    plan = make_plan(
        model, input_shape=SHAPE, scheme="channel", criterion="rank:2", include=["project"]
    )
    both = make_plan(
        model,
        input_shape=SHAPE,
        scheme="channel",
        criterion="rank:7",
        include=["conv"],
        keep_expensive=True,
    )
    layers = {layer.name: layer for layer in both.layers} | {
        layer.name: layer for layer in plan.rewritten
    }
    mixed = replace(both, layers=tuple(layers[layer.name] for layer in both.layers))
    x = smooth(64)
    shortcut_alone = error(model, calibrate(model, plan, x).network, x)
    assert error(model, calibrate(model, mixed, x).network, x) < 0.6 * shortcut_alone


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3, 8, 8), np.float32), "2x3x8x8 do not fit"),
        (np.zeros((3, 16, 16), np.float32), "3x16x16 do not fit"),
        (np.zeros((0, 3, 16, 16), np.float32), "no calibration images"),
        (np.full((2, 3, 16, 16), np.nan, np.float32), "NaN"),
        (np.zeros((2, 3, 16, 16), np.uint8), "uint8"),
    ],
)
def test_images_that_do_not_fit_are_one_line(images: NDArray[np.float32], message: str) -> None:
    model = tiny()
    plan = make_plan(model, input_shape=SHAPE, criterion="rank:2")
    with pytest.raises(DataError, match=message) as caught:
        calibrate(model, plan, images)
    assert "\n" not in str(caught.value)


def test_a_plan_of_another_network_is_refused() -> None:
    plan = make_plan(tiny(), input_shape=SHAPE, criterion="rank:2")
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)).eval()
    with pytest.raises(PlanError, match="another network"):
        calibrate(other, plan, smooth(2))


def test_activations_that_overflow_are_one_line() -> None:
    model = tiny()
    with torch.no_grad():
        model.get_parameter("bn.weight").fill_(3e38)
    plan = make_plan(model, input_shape=SHAPE, criterion="rank:2")
    with pytest.raises(DataError, match="NaN or infinity on calibration images"):
        calibrate(model, plan, smooth(2))
