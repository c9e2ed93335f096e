"""What is gathered of the original network: kept where it is small, and nothing that is NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.artifact.networks import SHAPE, tiny
from trpexport.choose.gathering import Gatherer
from trpexport.errors import DataError
from trpexport.networks.torch.trace import conv_spec

X = np.random.default_rng(0).standard_normal((40, *SHAPE[1:])).astype(np.float32)


@pytest.mark.parametrize(("cache_bytes", "runs"), [(0, 2), (1 << 20, 1)])
def test_outputs_are_those_of_the_network_kept_or_not(cache_bytes: int, runs: int) -> None:
    model = tiny().eval()
    gatherer = Gatherer(model, X, SHAPE, cache_bytes=cache_bytes)
    seen = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    first, second = (torch.cat(list(gatherer.outputs())) for _ in range(2))
    assert sum(seen) == runs * len(X)
    with torch.no_grad():
        expected = model(torch.from_numpy(X)).flatten(1).double()
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(first, second)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_layer_that_gets_or_gives_nan_or_infinity_is_one_line(bad: float) -> None:
    model = tiny().eval()
    (first, conv), (second, behind), *_ = (
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    )
    gatherer = Gatherer(model, X, SHAPE)
    conv.register_forward_hook(
        lambda module, inputs, output: output.index_fill(1, torch.tensor(0), bad)
    )
    with pytest.raises(DataError, match=f"{first} gets or gives NaN or infinity"):
        gatherer.gather(first, conv_spec(conv), gatherer.replay(tiny().eval()))
    with pytest.raises(DataError, match=f"{second} gets or gives NaN or infinity"):
        gatherer.gather(second, conv_spec(behind))


@pytest.mark.parametrize("groups", [1, 3])
def test_what_a_layer_gives_itself_is_what_it_was_seen_to_give(groups: int) -> None:
    torch.manual_seed(groups)
    conv = torch.nn.Conv2d(3, 6, 3, groups=groups, stride=2, padding=1)
    model = torch.nn.Sequential(conv, torch.nn.ReLU()).eval()
    gatherer = Gatherer(model, X, SHAPE)
    itself = gatherer.gather("0", conv_spec(conv))
    seen = gatherer.gather("0", conv_spec(conv), gatherer.replay(model))
    for ours, expected in ((itself.fit, seen.fit), (itself.held_out, seen.held_out)):
        assert ours.count == expected.count
        torch.testing.assert_close(ours.covariance, expected.covariance, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.mean_y, expected.mean_y, rtol=1e-5, atol=1e-6)
        assert ours.power() == pytest.approx(expected.power(), rel=1e-5)
