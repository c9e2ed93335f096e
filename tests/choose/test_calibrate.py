"""Calibrated networks: closer to the original than the SVD's, finite whatever the images are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tests.artifact.networks import SHAPE, tiny
from tests.choose.networks import gatherer_of, planned, smooth
from trpexport.artifact.reference import ReferenceRuns
from trpexport.artifact.verification import verify_factorization
from trpexport.choose.calibrate import Calibrated, calibrate, truncations
from trpexport.errors import DataError, PlanError, VerificationError
from trpexport.lowrank.fit import narrowing
from trpexport.lowrank.fit.layer import layer_fit
from trpexport.lowrank.fit.moments import LayerMoments
from trpexport.lowrank.fit.patches import grouped
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.torch.modules import FactorChain, op_of
from trpexport.networks.torch.network import TorchNetwork
from trpexport.networks.torch.rewrite import merge
from trpexport.ops import LinearOp
from trpexport.plan import Plan, parse_plan

Images = NDArray[np.float32]


def calibrated(
    network: TorchNetwork, plan: Plan, images: Images
) -> tuple[Calibrated, TorchNetwork]:
    found = calibrate(network, plan, gatherer_of(network, images))
    return found, network.rewritten(found.chains)


def at_rank_2(scheme: str, images: Images) -> tuple[Calibrated, TorchNetwork]:
    network = TorchNetwork.open(tiny(), SHAPE)
    return calibrated(network, planned(network, scheme, "rank:2"), images)


def error(network: TorchNetwork, candidate: TorchNetwork, x: Images) -> float:
    wanted, given = (net.run({"input": x})["output"].astype(float) for net in (network, candidate))
    variation = np.square(wanted - wanted.mean(0)).sum()
    return float((np.square(given - wanted).sum() / variation) ** 0.5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_closer_than_the_svd_on_other_images(scheme: str) -> None:
    network = TorchNetwork.open(tiny(), SHAPE)
    plan = planned(network, scheme, "rank:2")
    result, small = calibrated(network, plan, smooth(64, SHAPE))
    assert result.error == pytest.approx(error(network, small, smooth(64, SHAPE)), rel=1e-3)
    other = smooth(64, SHAPE, seed=1)
    assert len(result.layers) == len(plan.rewritten) > 0
    plain = network.rewritten(truncations(network, plan))
    assert error(network, small, other) < 0.7 * error(network, plain, other)
    for layer in result.layers:
        assert layer.error_after < layer.error_before
        assert layer.weight_error > 0


def test_modes_are_left_as_they_were() -> None:
    network = TorchNetwork.open(tiny().train(), SHAPE)
    _, small = calibrated(network, planned(network, "spatial", "rank:2"), smooth(130, SHAPE))
    assert torch.is_grad_enabled()
    for model in (network.model, small.model):
        assert all(module.training for module in model.modules())


def test_the_plan_is_that_of_the_network() -> None:
    result, small = at_rank_2("spatial", smooth(16, SHAPE))
    for layer in result.plan.rewritten:
        chain = small.model.get_submodule(layer.name)
        assert isinstance(chain, FactorChain)
        assert [op_of(factor) for factor in chain] == list(layer.factors)  # type: ignore[arg-type]
        assert not chain.is_truncation
    assert parse_plan(result.plan.to_json()).rewritten == result.plan.rewritten
    assert result.plan.macs_after < result.plan.macs_before


def test_a_calibrated_network_is_its_own_products() -> None:
    network = TorchNetwork.open(tiny(), SHAPE)
    plan = planned(network, "spatial", "rank:3")
    result, small = calibrated(network, plan, smooth(24, SHAPE))
    runs = ReferenceRuns.of(small, SHAPE, plan.macs_after)
    for original in (network, None):
        check = verify_factorization(original, small, result.plan, runs, seconds=0)
        assert all(layer.factor_error is None for layer in check.layers)
        assert ("decompose" in [step.name for step in check.steps]) == (original is not None)
    # Layers had no bias, their factors have: the dense twin keeps it.
    assert tiny().get_submodule("conv1").bias is None
    assert small.dense().model.get_parameter("conv1.bias").abs().max() > 0


def test_a_wrong_geometry_is_still_found() -> None:
    network = TorchNetwork.open(tiny(), SHAPE)
    result, small = calibrated(network, planned(network, "spatial", "rank:3"), smooth(24, SHAPE))
    chain = small.model.get_submodule("conv1")
    chain.get_submodule("0").padding, chain.get_submodule("1").padding = (0, 1), (1, 0)  # type: ignore[assignment]
    runs = ReferenceRuns.of(small, SHAPE, result.plan.macs_after)
    with pytest.raises(VerificationError, match=r"conv1 drifts: .* their product"):
        verify_factorization(network, small, result.plan, runs, seconds=0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_merged_it_is_the_architecture_again(scheme: str) -> None:
    _, small = at_rank_2(scheme, smooth(16, SHAPE))
    network = merge(small.model, SHAPE).eval()
    state, original = network.state_dict(), tiny().state_dict()
    assert {name: x.shape for name, x in state.items()} == {
        name: x.shape for name, x in original.items()
    }
    x = torch.from_numpy(smooth(4, SHAPE, seed=1))
    torch.testing.assert_close(network(x), small.model(x), rtol=1e-4, atol=1e-4)


def test_a_bias_that_no_batch_norm_takes_up_is_one_line() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.ReLU(), nn.BatchNorm2d(16)).eval()
    network = TorchNetwork.open(model, SHAPE)
    plan = planned(network, "spatial", "rank:2", include=("0",))
    _, small = calibrated(network, plan, smooth(4, SHAPE))
    with pytest.raises(PlanError, match=r"calibration added \(0\) can't be taken back"):
        merge(small.model, SHAPE)


def test_the_order_of_the_images_does_not_matter() -> None:
    x = smooth(40, SHAPE)
    (one, small), (other, same) = at_rank_2("spatial", x), at_rank_2("spatial", x[::-1].copy())
    for a, b in zip(one.layers, other.layers, strict=True):
        assert a.ridge == b.ridge
        assert a.error_after == pytest.approx(b.error_after, rel=1e-4)
    assert error(small, same, x) < 1e-3


def test_the_same_images_give_the_same_weights_bit_by_bit() -> None:
    (_, one), (_, other) = (at_rank_2("spatial", smooth(40, SHAPE)) for _ in range(2))
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "x",
    [
        smooth(1, SHAPE),
        np.repeat(smooth(1, SHAPE), 9, axis=0),
        np.zeros((4, *SHAPE[1:]), np.float32),
        np.full((3, *SHAPE[1:]), 1e4, np.float32),
    ],
    ids=["one image", "all the same", "black", "huge"],
)
def test_poor_images_leave_finite_weights(scheme: str, x: Images) -> None:
    _, small = at_rank_2(scheme, x)
    assert all(torch.isfinite(tensor).all() for tensor in small.model.state_dict().values())


def test_dead_channels_and_dead_layers_leave_finite_weights() -> None:
    model = tiny()
    with torch.no_grad():
        model.get_parameter("conv1.weight").zero_()
        model.get_parameter("bn1.weight").zero_()
        model.get_parameter("conv3.weight")[:, 3:].zero_()
    network = TorchNetwork.open(model, SHAPE)
    result, small = calibrated(network, planned(network, "spatial", "rank:2"), smooth(8, SHAPE))
    assert "conv1" in [layer.name for layer in result.layers]
    assert all(torch.isfinite(tensor).all() for tensor in small.model.state_dict().values())


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
    network = TorchNetwork.open(Parallel().eval(), SHAPE)
    plan = planned(network, "channel", "rank:2", include=["project"])
    both = planned(network, "channel", "rank:7", include=["conv"], keep_expensive=True)
    layers = {layer.name: layer for layer in both.layers} | {
        layer.name: layer for layer in plan.rewritten
    }
    mixed = replace(both, layers=tuple(layers[layer.name] for layer in both.layers))
    x = smooth(64, SHAPE)
    shortcut_alone = error(network, calibrated(network, plan, x)[1], x)
    assert error(network, calibrated(network, mixed, x)[1], x) < 0.6 * shortcut_alone


def test_a_plan_of_another_network_is_refused() -> None:
    network = TorchNetwork.open(tiny(), SHAPE)
    plan = planned(network, "spatial", "rank:2")
    other = TorchNetwork.open(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), SHAPE)
    with pytest.raises(PlanError, match="another network"):
        calibrate(other, plan, gatherer_of(other, smooth(2, SHAPE)))
    first, *rest = plan.rewritten
    wrong = replace(first, op=LinearOp(1, 1))
    with pytest.raises(PlanError, match=f"another network: it has no layer {first.name}"):
        truncations(network, replace(plan, layers=(wrong, *rest)))


def test_activations_that_overflow_are_one_line() -> None:
    model = tiny()
    with torch.no_grad():
        model.get_parameter("bn.weight").fill_(3e38)
    network = TorchNetwork.open(model, SHAPE)
    with pytest.raises(DataError, match="NaN or infinity on calibration images"):
        calibrated(network, planned(network, "spatial", "rank:2"), smooth(2, SHAPE))


def test_a_wide_layer_is_calibrated_through_fewer_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = TorchNetwork.open(tiny(), SHAPE), smooth(64, SHAPE)
    for scheme in SCHEMES:
        plan = planned(network, scheme, "rank:2")
        whole, _ = calibrated(network, plan, images)
        # conv2 and conv3 have 16 input channels, conv1 has 8: two are seen of twelve.
        with monkeypatch.context() as patch:
            patch.setattr(narrowing, "MAX_UNKNOWNS", 12 * 9)
            narrow, small = calibrated(network, plan, images)
        assert narrow.error != whole.error
        assert narrow.error < 1.3 * whole.error, scheme
        plain = network.rewritten(truncations(network, plan))
        other = smooth(64, SHAPE, seed=1)
        assert error(network, small, other) < 0.8 * error(network, plain, other), scheme
        for layer in narrow.plan.rewritten:
            assert [kernel.shape for kernel in narrow.chains[layer.name].kernels] == [
                (op.out_channels, op.in_channels // op.groups, *op.kernel) for op in layer.factors
            ]


@pytest.mark.parametrize("scheme", ["spatial", "channel", "decoupling", "input-channel"])
def test_what_a_rank_has_left_over_goes_to_inputs_that_are_not_seen(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images = TorchNetwork.open(tiny(), SHAPE), smooth(32, SHAPE)
    monkeypatch.setattr(narrowing, "MAX_UNKNOWNS", 18)
    moments = gatherer_of(network, images).gather(layer := network.layers[1])
    assert isinstance(moments, LayerMoments)
    kernel, _ = network.weights(layer.name)
    fit = layer_fit(kernel, layer.op, scheme, moments)
    # Two channels of eight are seen: at some rank that is all there is to fit.
    most = max(rank for rank in range(1, 60) if fit.is_seen(rank))
    whole = fit.chain(most)
    for more in (1, 3):
        chain = fit.chain(most + more)
        assert [tuple(kernel.shape) for kernel in chain.kernels] == [
            (op.out_channels, op.in_channels // op.groups, *op.kernel)
            for op in SCHEMES[scheme].factor_ops(layer.op, most + more)
        ]
        # Of what is seen it makes the same, of all inputs more of what the layer does.
        seen = [moments.seen_kernels(grouped(one.product, layer.op)) for one in (whole, chain)]
        torch.testing.assert_close(*seen)
        away = [float((one.product - kernel).norm()) for one in (chain, whole)]
        assert away[0] < away[1]


def test_a_rank_above_what_is_seen_keeps_the_svd(monkeypatch: pytest.MonkeyPatch) -> None:
    network = TorchNetwork.open(tiny(), SHAPE)
    lines: list[str] = []
    plan = planned(network, "tucker2", "rank:7", keep_expensive=True)
    monkeypatch.setattr(narrowing, "MAX_UNKNOWNS", 6 * 9)
    gatherer = gatherer_of(network, smooth(16, SHAPE))
    found = calibrate(network, plan, gatherer, announce=lines.append)
    expected = truncations(network, plan)
    assert not found.layers
    assert all(chain.is_truncation for chain in found.chains.values())
    for name, chain in found.chains.items():
        for ours, theirs in zip(chain.kernels, expected[name].kernels, strict=True):
            assert torch.equal(ours, theirs)
    most = len(found.chains)
    for place, (line, name) in enumerate(zip(lines, found.chains, strict=True), start=1):
        assert line.startswith(f"{place} of {most}")
        assert line.endswith(f": {name}: not fitted")
    assert found.notes == (
        f"not fitted to the images: {', '.join(found.chains)} (their ranks are above what is "
        "fitted for layers so wide; they have the SVD's factors)",
    )
    small = network.rewritten(found.chains)
    runs = ReferenceRuns.of(small, SHAPE, plan.macs_after)
    assert verify_factorization(network, small, found.plan, runs, seconds=0)
