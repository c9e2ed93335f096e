"""Whole numbers for weights: not the nearest ones, but those that change the outputs least.

For an output with the weights w, in steps of s, rounding to s·q changes it on inputs x by
``(w - s q)ᵀ x``, whose mean square is ``(w - s q)ᵀ H (w - s q)`` with ``H`` the mean of ``x xᵀ``.
Nearest numbers minimise it only where inputs do not correlate. Here they are chosen one after the
other, and after each the weights that are still free make up for what it changed, as well as they
can (OBQ, Frantar and Alistarh 2022; GPTQ, Frantar et al. 2023). With ``R`` the upper triangular
factor of ``H = R Rᵀ``, it is the square of ``Rᵀ d``, ``d = w - s q``. Later weights have no part in
the j-th number of that, and can make zero of all that come after it. So it is made small by ::

    s q_j  ≈  w_j + Σ_(i<j) R_ij d_i / R_jj

Inputs with the most energy come first, while all others are there to make up for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trpexport.quantization.formats import NumberFormat, RoundedWeight
from trpexport.quantization.linear import data_input, kernel_view, stored_tensors, uses_of
from trpexport.quantization.observing import batches, watched
from trpexport.quantization.patches import sampled_patches
from trpexport.tensors import Array, Arrays

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_DAMPING = 0.01  # of the mean of H's diagonal, added to it
_BLOCK = 128  # columns whose changes are carried over to all later ones at once
_MEMORY = 1 << 30  # bytes of H of the layers that are watched in one pass over the images
_MOST_COLUMNS = 6144  # beyond, H and its inverse take minutes
_PATCHES = 3  # as many for each unknown
_FEWEST, _COMPARED = 4096, 1024  # patches to choose by, and those that say whether it is better
_SEED = 0

Floats = NDArray[np.float64]


def rounded_weights(
    model: ModelProto, inputs: Arrays, numbers: NumberFormat
) -> dict[str, RoundedWeight]:
    """Return the weights of linear operators that are better off without the nearest numbers.

    Left out are transposed convolutions, weights that several operators use, and those with more
    than 6,144 inputs an output.

    Args:
        model: the network.
        inputs: images, by input name.
        numbers: which weights there are.
    """
    layers = _layers(model)
    found = {}
    for some in _in_memory(layers):
        _gather(model, some, inputs)
        for layer in some:
            weight = layer.rounded(numbers.largest_weight)
            layer.clear()
            if weight is not None:
                found[layer.node.input[1]] = weight
    return found


def compensated(kernel: Floats, steps: Floats, moment: Floats, largest: int) -> Floats:
    """Return whole numbers that together change the outputs little.

    Args:
        kernel: (groups, outputs, columns), both of a group.
        steps: (groups, outputs, 1).
        moment: H, (groups, columns, columns).
        largest: absolute value.
    """
    columns = kernel.shape[-1]
    energy = np.einsum("gii->gi", moment)
    order = np.argsort(-energy, axis=1, kind="stable")
    # The last one first: LAPACK's factor is the lower triangular one.
    backwards = order[:, ::-1]
    groups = np.arange(len(moment))[:, None, None]
    turned = moment[groups, backwards[:, :, None], backwards[:, None, :]]
    damping = _DAMPING * energy.mean(1) + np.finfo(np.float64).tiny
    turned[:, range(columns), range(columns)] += np.maximum(damping, _DAMPING**4)[:, None]
    factor = np.ascontiguousarray(np.linalg.cholesky(turned)[:, ::-1, ::-1])
    free = np.take_along_axis(kernel, order[:, None], 2)
    chosen, carried = np.empty_like(free), np.zeros_like(free)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        off = np.empty((*free.shape[:2], stop - start))
        for j in range(start, stop):
            wanted = free[..., j] + carried[..., j] / factor[:, None, j, j]
            chosen[..., j] = nearest(wanted[..., None], steps, largest)[..., 0]
            off[..., j - start] = free[..., j] - chosen[..., j] * steps[..., 0]
            carried[..., j:stop] += off[..., j - start, None] * factor[:, None, j, j:stop]
        carried[..., stop:] += off @ factor[:, start:stop, stop:]
    result = np.empty_like(chosen)
    np.put_along_axis(result, np.broadcast_to(order[:, None], chosen.shape), chosen, 2)
    return result


def nearest(kernel: Floats, steps: Floats, largest: int) -> Floats:
    """Return the nearest whole numbers."""
    return np.clip(np.round(kernel / steps), -largest, largest)


@dataclass
class _Layer:
    """A linear operator whose inputs are looked at.

    Attributes:
        node: it.
        data: name of its input.
        weight: its weight.
        kernel: the view of it as (groups, outputs, inputs · taps).
        moment: the sum of ``x xᵀ``.
        compared: patches that are kept to compare on.
        rng: draws patches.
    """

    node: NodeProto
    data: str
    weight: Array
    kernel: Floats
    moment: Floats = field(default_factory=lambda: np.zeros(()))
    compared: list[Array] = field(default_factory=list)
    rng: Any = field(default_factory=lambda: np.random.default_rng(_SEED))

    @property
    def nbytes(self) -> int:
        """How much H takes."""
        groups, _, columns = self.kernel.shape
        return int(8 * groups * columns**2)

    def add(self, data: Array, share: float) -> None:
        """Take in the input of some images, which are a share of all."""
        wanted = max(_PATCHES * self.kernel.shape[-1], _FEWEST) + _COMPARED
        most = int(np.ceil(share * wanted))
        found = sampled_patches(self.node, self.weight.shape, data, most, self.rng)
        is_compared = np.zeros(found.shape[1], bool)
        is_compared[:: max(wanted // _COMPARED, 2)] = True
        self.compared.append(found[:, is_compared])
        some = found[:, ~is_compared]
        self.moment = self.moment + (some.swapaxes(1, 2) @ some).astype(np.float64)

    def clear(self) -> None:
        """Forget what it got: that is far larger than its weight."""
        self.moment, self.compared = np.zeros(()), []

    def rounded(self, largest: int) -> RoundedWeight | None:
        """Return the weight in whole numbers; None where the nearest ones are as good."""
        peak = np.abs(self.kernel).max(2, keepdims=True)
        steps = np.where(peak > 0, peak / largest, 1)
        plain = nearest(self.kernel, steps, largest)
        better = compensated(self.kernel, steps, self.moment, largest)
        patches = np.concatenate(self.compared, axis=1).astype(np.float64)
        before, after = (
            float(np.square(patches @ (one * steps - self.kernel).swapaxes(1, 2)).sum())
            for one in (plain, better)
        )
        if not after < before:
            return None
        values = np.zeros(self.weight.shape, np.int8)
        view = kernel_view(self.node, values)
        view[...] = better.reshape(view.shape)
        return RoundedWeight(values, steps.reshape(-1).astype(np.float32), after / before)


def _layers(model: ModelProto) -> list[_Layer]:
    from onnx import numpy_helper

    stored, uses = stored_tensors(model), uses_of(model)
    layers = []
    for node in model.graph.node:
        data = data_input(node, stored, uses)
        if data is None or node.op_type == "ConvTranspose":
            continue
        weight = numpy_helper.to_array(stored[node.input[1]])
        view = kernel_view(node, weight)
        kernel = view.reshape(*view.shape[:2], -1).astype(np.float64)
        if 0 < kernel.shape[2] <= _MOST_COLUMNS and np.isfinite(kernel).all():
            layers.append(_Layer(node, data, weight, kernel))
    return layers


def _in_memory(layers: Sequence[_Layer]) -> Iterator[list[_Layer]]:
    """Yield layers a few at a time, as many as there is room for."""
    some: list[_Layer] = []
    for layer in layers:
        if some and sum(one.nbytes for one in some) + layer.nbytes > _MEMORY:
            yield some
            some = []
        some.append(layer)
    if some:
        yield some


def _gather(model: ModelProto, layers: Sequence[_Layer], inputs: Mapping[str, Array]) -> None:
    """Watch what layers get on the images."""
    session = watched(model, {layer.data for layer in layers} - inputs.keys())
    total = len(next(iter(inputs.values())))
    for batch in batches(session, inputs):
        tensors = batch | session.run(batch)
        share = len(next(iter(batch.values()))) / total
        for layer in layers:
            layer.add(tensors[layer.data], share)
