"""How long a calibration takes is told from counts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.latency.networks import SHAPE, twins
from trpexport.choose.estimate import calibration_seconds, fitting_macs, measured_pace
from trpexport.choose.sampling import share_of

NETWORK = twins()
LAYERS = {layer.name: layer for layer in NETWORK.layers}
PIXELS = SHAPE[2] * SHAPE[3]


@pytest.mark.parametrize("images", [1, 40, 2000])
def test_a_layer_takes_the_products_of_its_patches(images: int) -> None:
    # 16 channels and 9 taps give 144 numbers for each output pixel that is used.
    products = images * PIXELS * share_of(images * PIXELS, 144) * 144**2
    once, twice = (fitting_macs(LAYERS["first"], images, schemes) for schemes in (1, 2))
    assert once - (twice - once) == pytest.approx(products)


def test_more_images_layers_schemes_and_passes_take_longer() -> None:
    def seconds(names: tuple[str, ...] = ("first",), images: int = 40, **how: int) -> float:
        return calibration_seconds(NETWORK, names, images, pace=1e9, **how)

    assert seconds() < seconds(images=80) < 2.01 * seconds()
    assert seconds() < seconds(("first", "wide"))
    assert seconds() < seconds(schemes=2)
    one, two, three, four = (seconds(images=20_000, passes=passes) for passes in (1, 2, 3, 4))
    assert four - three == pytest.approx(three - two)
    # One pass is of layers on their own, which takes fewer pixels.
    assert two - one > 1.01 * (three - two)
    # A machine that is twice as fast takes half as long.
    assert calibration_seconds(NETWORK, ["first"], 40, pace=2e9) == pytest.approx(seconds() / 2)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_the_pace_is_that_of_a_product_that_nothing_held_up(share: float) -> None:
    held_up = np.random.default_rng(0).random(1000) < share  # each product for 50 ms
    seconds = 0.004 + 0.05 * held_up
    assert not held_up[:30].all()
    times = iter(np.concatenate([[0.0], seconds.cumsum()]).tolist())
    assert measured_pace(lambda: next(times)) == pytest.approx(512 * 576**2 / 0.004)
