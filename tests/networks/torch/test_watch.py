"""What a watch keeps, and that what it gives is what the network gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.artifact.networks import SHAPE, tiny
from trpexport.errors import DataError
from trpexport.lowrank.chain import truncated
from trpexport.networks.samples import Samples, checked_samples
from trpexport.networks.torch.network import TorchNetwork
from trpexport.networks.torch.watch import derived_on

X = np.random.default_rng(0).standard_normal((150, *SHAPE[1:])).astype(np.float32)


@pytest.mark.parametrize(("memory", "runs"), [(0, 2), (1 << 20, 1)])
def test_outputs_are_those_of_the_network_kept_or_not(memory: int, runs: int) -> None:
    network = TorchNetwork.open(tiny(), SHAPE)
    samples = Samples({"input": X})
    watch = network.watch(samples, memory=memory)
    seen = list[int]()
    network.model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    first, second = (
        torch.cat([watch.outputs(index)["output"] for index in range(samples.batches)])
        for _ in range(2)
    )
    assert sum(seen) == runs * len(X)
    with torch.no_grad():
        expected = tiny()(torch.from_numpy(X)).flatten(1).double()
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(first, second)


class InPlace(nn.Module):
    """Scales its input where it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 14 * 14, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.conv(x.mul_(0.5)).flatten(1))
        return y


@pytest.mark.parametrize("is_writable", [True, False])
def test_samples_stay_as_they_are_whatever_the_network_does_to_its_input(is_writable: bool) -> None:
    """Arrays that can only be read, as those of mapped files, are no reason to warn."""
    torch.manual_seed(0)
    model = InPlace().eval()
    x = X[:4].copy()
    x.flags.writeable = is_writable
    watch = TorchNetwork.open(model, SHAPE).watch(Samples({"input": x}), memory=0)
    first, second = (watch.outputs(0)["output"] for _ in range(2))
    assert torch.equal(first, second)
    watch.metric("conv")
    watch.observe("conv", 0)
    assert np.array_equal(x, X[:4])


def test_a_chain_in_one_place_and_a_candidate_that_gets_one_after_the_other() -> None:
    network = TorchNetwork.open(tiny(), SHAPE)
    samples = Samples({"input": X[:8]})
    watch = network.watch(samples)
    chains = {}
    for layer in network.layers[1:3]:
        weight, bias = network.weights(layer.name)
        chains[layer.name] = truncated(weight, bias, layer.op, scheme="channel", rank=2)
    candidate = watch.candidate()
    for number, (name, chain) in enumerate(chains.items(), start=1):
        alone = network.rewritten({name: chain}).run({"input": X[:8]})["output"]
        found = watch.outputs_with(name, chain, 0)["output"].numpy()
        np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)
        candidate.put(name, chain)
        so_far = dict(list(chains.items())[:number])
        together = network.rewritten(so_far).run({"input": X[:8]})["output"]
        np.testing.assert_allclose(
            candidate.outputs(0)["output"].numpy(), together, rtol=1e-4, atol=1e-5
        )
    # The network itself is what it was.
    expected = TorchNetwork.open(tiny(), SHAPE).run({"input": X[:8]})["output"]
    np.testing.assert_allclose(watch.outputs(0)["output"].numpy(), expected, rtol=1e-4, atol=1e-5)


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
def test_images_that_do_not_fit_are_one_line(
    images: np.ndarray[tuple[int, ...], np.dtype[np.float32]], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        checked_samples(images, SHAPE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("end", "columns"),
    [
        (lambda y: y, 5),
        (lambda y: y.argmax(1), 1),
        (lambda y: {"a": y, "b": [y[:, :2], y.mean()]}, 8),
        (lambda y: (y, torch.arange(3.0), y[:, :0]), 8),
        (lambda y: y[:0], 0),
        (lambda y: y.repeat_interleave(2, 0), 10),
    ],
)
def test_outputs_of_every_kind_are_rows(end: Callable[[Tensor], Any], columns: int) -> None:
    class Ends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny()

        def forward(self, x: Tensor) -> Any:
            return end(self.net(x))

    network = TorchNetwork.open(Ends(), SHAPE)
    assert network.identity()
    found = torch.cat(list(network.watch(Samples({"input": X[:4]})).outputs(0).values()), 1)
    assert (found.shape, found.dtype) == ((4, columns), torch.float64)
    if columns == 10:
        expected = tiny()(torch.from_numpy(X[:4])).double()
        torch.testing.assert_close(found, expected.repeat(1, 2), rtol=1e-5, atol=1e-6)


def test_a_network_that_returns_no_tensors_is_one_line() -> None:
    class Silent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> str:
            return str(self.conv(x).shape)

    watch = TorchNetwork.open(Silent(), SHAPE).watch(Samples({"input": X[:4]}))
    with pytest.raises(DataError, match="returns no tensor"):
        watch.outputs(0)


@pytest.mark.parametrize(
    ("macs", "images"), [(41e6, 128), (4.1e9, 128), (12e9, 50), (17.8e9, 33), (1e12, 32), (0, 128)]
)
def test_the_derivative_of_a_costly_network_is_taken_on_fewer_images(
    macs: float, images: int
) -> None:
    assert derived_on(macs) == images


def test_batches_are_small_where_layers_put_out_much() -> None:
    network = TorchNetwork.open(nn.Conv2d(3, 64, 3, padding=1).eval(), (1, 3, 224, 224))
    samples = Samples({"input": np.zeros((8, 3, 224, 224), np.float32)})
    assert samples.batch_size == 6  # a million numbers
    # 64 x 224 x 224 x 4 bytes are 12.8 MB: of two, malloc keeps the 26 MB.
    assert network.watch(samples).samples.batch_size == 2
    assert network.watch(samples).samples.digest == samples.digest
    small = TorchNetwork.open(nn.Conv2d(3, 16, 3, stride=2).eval(), (1, 3, 224, 224))
    assert small.watch(samples).samples.batch_size == 6
