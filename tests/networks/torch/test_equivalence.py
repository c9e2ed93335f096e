"""A rewrite that is wrong is found, and the layer is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trpexport.choose.by_criterion import ByCriterion
from trpexport.networks.torch.chain_check import relative_rms
from trpexport.networks.torch.equivalence import check_layers, first_drift
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import decompose_network
from trpexport.plan import Plan

SHAPE = (2, 3, 10, 10)


def pair() -> tuple[nn.Module, nn.Module, Plan]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, stride=2),
        nn.Flatten(),
        nn.Linear(128, 3),
    ).eval()
    small = decompose_network(TorchNetwork(model, SHAPE), ByCriterion("spatial", "rank:4"))
    return model, small.module, small.plan


def test_a_right_rewrite_passes() -> None:
    model, small, plan = pair()
    checks = check_layers(model, small, plan, torch.randn(SHAPE))
    assert [check.name for check in checks] == ["2", "4"]
    assert all(check.is_equivalent for check in checks)
    # The approximation is not the equivalence: rank 4 of 24 loses a lot.
    assert all((check.output_error or 0.0) > 0.1 for check in checks)


def test_wrong_weights_are_found() -> None:
    model, small, plan = pair()
    small.get_submodule("4.1").get_parameter("weight").data[0, 0, 0, 0] += 1e-2
    good, bad = check_layers(model, small, plan, torch.randn(SHAPE))
    assert good.is_equivalent
    assert not bad.is_equivalent
    assert bad.factor_error is not None
    assert bad.factor_error > 1e-5


def test_wrong_geometry_is_found() -> None:
    model, small, plan = pair()
    small.get_submodule("2.0").padding = (0, 0)  # type: ignore[assignment]
    small.get_submodule("2.1").padding = (1, 1)  # type: ignore[assignment]
    bad, good = check_layers(model, small, plan, torch.randn(SHAPE))
    assert good.is_equivalent
    assert bad.factor_error is not None
    assert bad.factor_error <= 1e-5
    assert bad.equivalence_error > 1e-3


def test_nan_is_no_equivalence() -> None:
    model, small, plan = pair()
    small.get_submodule("2.0").get_parameter("weight").data[0] = float("nan")
    assert not check_layers(model, small, plan, torch.randn(SHAPE))[0].is_equivalent


def test_the_first_drift_is_named() -> None:
    model, _, _ = pair()
    other, _, _ = pair()
    x = torch.randn(SHAPE)
    assert first_drift(model, other, ["0", "2", "4"], x, 1e-4) is None
    other.get_submodule("2").get_parameter("weight").data *= 1.01
    assert first_drift(model, other, ["0", "2", "4"], x, 1e-4) == "2"


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [([3.0, 4.0], [3.0, 4.0], 0.0), ([3.0, 4.0], [3.0, 9.0], 1.0), ([0.0], [0.0], 0.0)],
)
def test_relative_rms_by_hand(
    reference: list[float], candidate: list[float], expected: float
) -> None:
    assert relative_rms(torch.tensor(reference), torch.tensor(candidate)) == expected


def test_relative_to_nothing_is_infinite() -> None:
    assert relative_rms(torch.zeros(2), torch.ones(2)) == float("inf")
