"""What is gathered of a layer: from which images, and nothing that is NaN."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.artifact.networks import SHAPE, tiny
from tests.choose.networks import gatherer_of, smooth
from trpexport.choose.gathering import Gatherer
from trpexport.errors import DataError
from trpexport.lowrank.fit.moments import LayerMoments, Moments
from trpexport.lowrank.fit.rows import LayerRows
from trpexport.networks.base import Candidate
from trpexport.networks.torch.network import TorchNetwork

X = np.random.default_rng(0).standard_normal((40, *SHAPE[1:])).astype(np.float32)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_layer_that_gets_or_gives_nan_or_infinity_is_one_line(bad: float) -> None:
    network = TorchNetwork.open(tiny(), SHAPE)
    first, second, *_ = network.layers
    gatherer = gatherer_of(network, X)
    candidate = TorchNetwork.open(tiny(), SHAPE).watch(gatherer.watch.samples).candidate()
    with torch.no_grad():
        first.module.weight[0] = bad
    with pytest.raises(DataError, match=f"{first.name} gets or gives NaN or infinity"):
        gatherer.gather(first, candidate)
    with pytest.raises(DataError, match=f"{second.name} gets or gives NaN or infinity"):
        gatherer.gather(second)


def moments_of(
    gatherer: Gatherer, network: TorchNetwork, candidate: Candidate | None = None
) -> LayerMoments:
    found = gatherer.gather(network.layers[0], candidate)
    assert isinstance(found, LayerMoments)
    return found


def assert_same(ours: Moments, expected: Moments) -> None:
    assert ours.count == expected.count
    for name in ("input_covariance", "cross_covariance", "target_covariance"):
        theirs = getattr(expected, name)
        torch.testing.assert_close(getattr(ours, name), theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.mean_y, expected.mean_y, rtol=1e-5, atol=1e-6)
    assert ours.power() == pytest.approx(expected.power(), rel=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
def test_what_a_layer_gives_itself_is_what_it_was_seen_to_give(groups: int) -> None:
    torch.manual_seed(groups)
    conv = nn.Conv2d(3, 6, 3, groups=groups, stride=2, padding=1)
    network = TorchNetwork.open(nn.Sequential(conv, nn.ReLU()), SHAPE)
    gatherer = gatherer_of(network, X)
    itself = moments_of(gatherer, network)
    seen = moments_of(gatherer, network, gatherer.watch.candidate())
    assert itself.held_out is None
    assert_same(itself.everything, seen.everything)


class Frames(nn.Module):
    """Convolves the frames of each input: all at once, in turns, or image by image."""

    def __init__(self, way: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 4, 3)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self.conv, x)


def folded(conv: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = conv(x.flatten(0, 1)).reshape(len(x), -1)
    return y


def frame_by_frame(conv: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([conv(frame) for frame in x.unbind(1)], dim=1).flatten(1)


def image_by_image(conv: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([conv(image) for image in x]).flatten(1)


@pytest.mark.parametrize("way", [folded, frame_by_frame, image_by_image])
def test_all_frames_of_an_image_are_held_out_with_it(
    way: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    frames = 5
    shape = (1, frames, 2, 6, 6)
    x = smooth(69, shape)  # the last batch has as many images as an image has frames
    network = TorchNetwork.open(Frames(way), shape)
    gatherer = gatherer_of(network, x)
    found = moments_of(gatherer, network, gatherer.watch.candidate())
    assert found.held_out is not None
    samples = gatherer.watch.samples
    assert samples.batches > 1
    out = np.concatenate([samples.held_out(index) for index in range(samples.batches)])
    assert 5 < out.sum() < 35
    # 4 x 4 pixels each; means by the definition of a convolution's patches.
    for moments, some in ((found.fit, x[~out]), (found.held_out, x[out])):
        assert moments.count == len(some) * frames * 16
        patches = np.lib.stride_tricks.sliding_window_view(some, (3, 3), axis=(3, 4))
        expected = patches.mean(axis=(0, 1, 3, 4), dtype=np.float64).reshape(1, -1)
        np.testing.assert_allclose(moments.mean_p.numpy(), expected, rtol=1e-5, atol=1e-6)


class Behind(nn.Module):
    """A matrix product of many values, of all an image has or of a few parts of it."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.parts = parts
        self.fc = nn.Linear(SHAPE[1] * SHAPE[2] * SHAPE[3] // parts, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x.reshape(len(x), self.parts, -1)).flatten(1)
        return y


@pytest.mark.parametrize(("parts", "is_few"), [(1, True), (3, True), (8, False)])
def test_rows_are_kept_where_they_are_fewer_than_the_inputs(parts: int, is_few: bool) -> None:
    network = TorchNetwork.open(Behind(parts), SHAPE)
    gatherer = gatherer_of(network, X)
    found = gatherer.gather(layer := network.layers[0])
    assert isinstance(found, LayerRows) == is_few == (40 * parts < layer.op.in_channels)
    if not isinstance(found, LayerRows):
        return
    samples = gatherer.watch.samples
    out = np.concatenate([samples.held_out(index) for index in range(samples.batches)])
    weight, bias = network.weights("fc")
    assert bias is not None
    for rows, some in ((found.fit, X[~out]), (found.held_out, X[out])):
        assert rows.count == len(some) * parts
        np.testing.assert_array_equal(rows.p.numpy(), some.reshape(rows.count, -1))
        expected = rows.p.double() @ weight.double().mT + bias.double()
        torch.testing.assert_close(rows.y, expected, rtol=1e-4, atol=1e-5)
