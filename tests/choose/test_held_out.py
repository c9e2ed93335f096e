"""Errors on images that nothing was fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.artifact.networks import SHAPE, tiny
from tests.choose.networks import smooth
from trpexport.choose.by_budget import ByBudget
from trpexport.choose.by_criterion import ByCriterion
from trpexport.choose.held_out import HeldOut, error_facts
from trpexport.datasets.calibration import ArrayImages
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import Decomposed, decompose_network


class Scaled(nn.Module):
    """Gives its input times a factor, and times another one."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a, b = self.factors
        return {"a": a * x, "b": b * x}


def test_errors_by_hand() -> None:
    inputs = np.array([1.0, 3.0], dtype=np.float32).reshape(2, 1)
    original, other = (TorchNetwork.open(Scaled(*f), (1, 1)) for f in ((1, 100), (1.5, 100)))
    held_out = HeldOut(original, "other", inputs)
    # Off by 0.5 and 1.5, and they vary by 1 and 1; b is the same, large as it is.
    expected = {"a": pytest.approx(((0.25 + 2.25) / 2) ** 0.5), "b": 0.0}
    assert held_out.errors(other) == expected
    assert held_out.facts(other) == {
        **{"images": 2, "split": "other", "output_error": expected["a"], "worst_output": "a"},
        **{"output_errors": expected},
    }


@pytest.mark.parametrize(("passes", "count"), [(1000.0, 256), (100.0, 100), (1.0, 64)])
def test_a_costly_network_is_measured_on_fewer_images(
    passes: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = TorchNetwork.open(tiny(), SHAPE)
    monkeypatch.setattr("trpexport.choose.held_out._MACS", passes * network.cost.macs)
    values = np.random.default_rng(0).standard_normal((600, *SHAPE[1:]), dtype=np.float32)
    held_out = HeldOut.of(network, ArrayImages(values, count=32))
    facts = held_out.facts(network)
    assert facts is not None
    assert facts["images"] == count
    assert facts["output_error"] == 0.0


def test_nothing_is_measured_without_images() -> None:
    network = TorchNetwork.open(Scaled(1, 1), (1, 1))
    held_out = HeldOut(network, "other", np.zeros((0, 1), np.float32))
    assert held_out.errors(network) == {}
    assert held_out.facts(network) is None
    assert error_facts({}) == {"output_error": 0.0, "worst_output": None, "output_errors": {}}


class WithFeature(nn.Module):
    """The tiny network, and beside its output what its stem gives, which nothing rewrites."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), 10 * self.net.get_submodule("stem")(x)


def decomposed(module: nn.Module, images: NDArray[np.float32], **budget: Any) -> Decomposed:
    network = TorchNetwork.open(module, SHAPE)
    chooser = ByBudget(**budget, include=["*conv1", "*conv2"]) if budget else ByCriterion()
    return decompose_network(network, chooser, ArrayImages(images))


def ranks(small: Decomposed) -> dict[str, int | None]:
    return {layer.name.removeprefix("net."): layer.rank for layer in small.plan.layers}


@pytest.mark.parametrize("budget", [{"error": 0.3}, {"macs": 0.8}])
def test_a_feature_map_beside_the_logits_buys_nothing(budget: dict[str, float]) -> None:
    images = smooth(40, SHAPE)
    alone, beside = (decomposed(net, images, **budget) for net in (tiny(), WithFeature()))
    assert ranks(alone) == ranks(beside)
    facts = [small.plan.options["calibration"] for small in (alone, beside)]
    assert facts[1]["output_errors"]["output_1"] == pytest.approx(0, abs=1e-6)
    assert facts[1]["worst_output"] == facts[1]["held_out"]["worst_output"] == "output_0"
    for errors in (facts, [one["held_out"] for one in facts]):
        assert errors[0]["output_error"] == pytest.approx(errors[1]["output_error"], rel=1e-3)


def test_an_allowed_error_is_kept_on_images_that_nothing_was_fitted_to() -> None:
    images = smooth(40, SHAPE)
    small = decomposed(tiny(), images, error=0.3)
    facts = small.plan.options["calibration"]
    assert (facts["images"], facts["held_out"]["images"]) == (32, 8)
    # Measured anew, by another way.
    others = images[4::5]
    feeds = {"input": others}
    wanted, given = (net.run(feeds)["output"] for net in (small.original, small.network))
    error = np.sqrt(np.square(given - wanted).sum() / np.square(wanted - wanted.mean(0)).sum())
    assert facts["held_out"]["output_error"] == pytest.approx(float(error), rel=1e-3)
    assert error <= 0.3
    assert small.images is not None
    assert torch.equal(torch.from_numpy(small.images.unseen()), torch.from_numpy(others))
