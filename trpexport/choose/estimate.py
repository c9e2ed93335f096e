"""How long a calibration is going to take, told before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from itertools import pairwise
from math import prod

import torch

from trpexport.choose.sampling import share_of
from trpexport.cost import macs
from trpexport.lowrank.fit.narrowing import MAX_UNKNOWNS
from trpexport.networks.base import Network
from trpexport.ops import Layer

# Multiply-adds in float32 that the decompositions of a matrix of n columns take the time of, in
# n^3: of its eigenvectors in float64, and of a few Cholesky factors.
_SOLVING = 8.0
# Convolutions and the products of patches reach such a share of the pace of a plain product.
_EFFICIENCY = 0.4
# Of the product that tells the pace: it takes less than the time for which others leave a core.
_ROWS, _COLUMNS = 512, 576
_PACED, _MIN_PRODUCTS = 0.1, 10  # seconds, and how many products at least


def calibration_seconds(
    network: Network,
    names: Collection[str],
    images: int,
    *,
    schemes: int = 1,
    passes: int = 2,
    pace: float | None = None,
) -> float:
    """Return about how long it takes to fit layers of a network to images once, in seconds.

    It is a guess from counts: right within a factor of two or so, where the machine is idle.

    Args:
        network: the network.
        names: of the layers that are fitted.
        images: how many there are.
        schemes: how many schemes each layer is fitted under.
        passes: through networks that the images take: 2 for a calibration, whose layers get what
            those before them give; 1 where each layer is taken on its own.
        pace: multiply-adds a second; measured here, in a moment, where it is None.
    """
    passed = passes * images * network.cost.macs
    fitted = sum(
        fitting_macs(one, images, schemes, implied=passes == 1)
        for one in network.layers
        if one.name in names
    )
    return (passed + fitted) / (_EFFICIENCY * (measured_pace() if pace is None else pace))


def fitting_macs(layer: Layer, images: int, schemes: int = 1, *, implied: bool = False) -> float:
    """Return the multiply-adds of fitting a layer: products of its patches, and solutions.

    Args:
        layer: the layer.
        images: how many it is fitted to.
        schemes: how many schemes it is fitted under.
        implied: whether its outputs follow from its inputs, where it is taken on its own.
    """
    op = layer.op
    taps = prod(op.kernel)
    inputs = min(op.in_channels // op.groups * taps, MAX_UNKNOWNS)
    each = op.out_channels * (op.in_channels // op.groups) * taps
    pixels = images * macs((op,), layer.calls) / each
    used = pixels * share_of(int(pixels), inputs, implied=implied)
    return op.groups * (used * inputs**2 + schemes * _SOLVING * inputs**3)


def measured_pace(clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how many multiply-adds in float32 this machine makes in a second.

    By the fastest of some products: on a busy machine the others had to wait.

    Args:
        clock: tells seconds.
    """
    rows = torch.ones(_ROWS, _COLUMNS)
    _ = rows.mT @ rows  # threads are started
    times = [clock()]
    while len(times) <= _MIN_PRODUCTS or times[-1] - times[0] < _PACED:
        _ = rows.mT @ rows
        times.append(clock())
    fastest = min(after - before for before, after in pairwise(times))
    return _ROWS * _COLUMNS**2 / max(fastest, 1e-9)
