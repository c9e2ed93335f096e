"""A part of the pixels stands for all: evenly spread, the same whatever the order and threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.choose.networks import SHAPE, Small, gatherer_of, planned, smooth
from trpexport.choose import sampling
from trpexport.choose.calibrate import calibrate
from trpexport.choose.sampling import Sampling, share_of
from trpexport.lowrank.fit.moments import LayerMoments
from trpexport.networks.samples import Samples
from trpexport.networks.torch.network import TorchNetwork


def of_images(count: int, seed: int = 0) -> Sampling:
    values = np.random.default_rng(seed).standard_normal((count, 1, 2, 2)).astype(np.float32)
    return Sampling.of(Samples({"input": values}), 0, calls_of_one=1)


@settings(deadline=None, max_examples=50)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    share=st.floats(0.02, 1.0),
    seed=st.integers(0, 9),
)
def test_each_image_gives_its_share_within_a_few_pixels(
    height: int, width: int, share: float, seed: int
) -> None:
    some = of_images(12, seed)
    fit, held_out = some.pixels(12, height * width, 0, 1, share)
    assert not some.held_out[fit.rows].any()
    assert some.held_out[held_out.rows].all()
    counts = torch.bincount(torch.cat([fit.rows, held_out.rows]), minlength=12)
    # The discrepancy of such a lattice grows with the logarithm of its points.
    assert float((counts - share * height * width).abs().max()) <= 5


@pytest.mark.parametrize(("size", "share"), [(8, 0.5), (8, 0.125), (14, 1 / 14), (55, 0.01)])
def test_rows_columns_and_borders_have_their_share(size: int, share: float) -> None:
    # Sizes and steps that divide each other, or are Fibonacci numbers, are the awkward ones.
    images = 64
    both = of_images(images).pixels(images, size * size, 0, 1, share)
    places = torch.cat([some.places for some in both])
    for along in (places // size, places % size):
        counts = torch.bincount(along, minlength=size).double()
        expected = images * size * share
        assert float(counts.min()) > 0.5 * expected - 3
        assert float(counts.max()) < 1.5 * expected + 3


def test_few_pixels_are_all_used() -> None:
    assert share_of(65_536, 9) == 1.0
    assert share_of(10**6, 4608) == pytest.approx(64 * 4608 / 10**6)
    # Where nothing is regressed, an eighth of them does.
    assert share_of(10**6, 4608, implied=True) == pytest.approx(8 * 4608 / 10**6)
    assert share_of(8_192, 9, implied=True) == 1.0
    fit, held_out = of_images(5).pixels(5, 49, 0, 1, 1.0)
    assert len(fit) + len(held_out) == 5 * 49


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a sixth of the pixels do."""
    monkeypatch.setattr(sampling, "_PIXELS", 300)
    monkeypatch.setattr(sampling, "_PIXELS_PER_INPUT", 2)
    monkeypatch.setattr(sampling, "_IMPLIED", 1)
    yield


@pytest.mark.usefixtures("few")
def test_a_part_says_nearly_what_all_pixels_say(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = TorchNetwork.open(Small(), SHAPE), smooth(200, SHAPE)
    some = gatherer_of(network, x).gather(layer := network.layers[1])
    monkeypatch.setattr(sampling, "_PIXELS", 10**9)
    every = gatherer_of(network, x).gather(layer)
    assert isinstance(some, LayerMoments)
    assert isinstance(every, LayerMoments)
    assert 300 <= some.fit.count < 0.1 * every.fit.count
    a, b = some.fit.input_covariance, every.fit.input_covariance
    assert float((a - b).norm() / b.norm()) < 0.2


def outputs_of_calibrated(x: NDArray[np.float32]) -> NDArray[np.float32]:
    torch.manual_seed(0)
    network = TorchNetwork.open(Small(), SHAPE)
    found = calibrate(network, planned(network, "spatial", "rank:2"), gatherer_of(network, x))
    (output,) = network.rewritten(found.chains).run({"input": smooth(32, SHAPE, seed=1)}).values()
    return output


@pytest.mark.usefixtures("few")
def test_calibration_is_the_same_in_any_order_and_on_any_threads() -> None:
    x = smooth(96, SHAPE)
    first, threads = outputs_of_calibrated(x), torch.get_num_threads()
    np.testing.assert_array_equal(outputs_of_calibrated(x), first)
    others = [outputs_of_calibrated(x[np.random.default_rng(1).permutation(len(x))])]
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        others.append(outputs_of_calibrated(x))
    finally:
        torch.set_num_threads(threads)
    for other in others:
        assert np.sqrt(np.square(other - first).mean()) < 1e-4 * first.std(0).mean()
