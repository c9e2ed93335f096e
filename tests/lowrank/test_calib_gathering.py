"""What is gathered of the original network: kept where it is small, and nothing that is NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.export.networks import SHAPE, tiny
from trpexport.errors import DataError
from trpexport.lowrank.calibration.gathering import Gatherer
from trpexport.lowrank.trace import conv_spec

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
def test_a_layer_that_gives_nan_or_infinity_is_one_line(bad: float) -> None:
    model = tiny().eval()
    name, conv = next((n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d))
    gatherer = Gatherer(model, X, SHAPE)
    conv.register_forward_hook(
        lambda module, inputs, output: output.index_fill(1, torch.tensor(0), bad)
    )
    with pytest.raises(DataError, match=f"{name} gets or gives NaN or infinity"):
        gatherer.gather(name, conv_spec(conv))
