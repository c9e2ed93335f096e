"""The arithmetic of the TRP step: spectra, truncation and subgradient of many matrices at once.

A large matrix that the last projection left at a low rank goes by
:func:`~trpexport.lowrank.subspace.leading`, others by
:func:`~trpexport.lowrank.subspace.of_a_whole`, where an energy says how much of them is sought.
Both give up where they can't vouch for the rank and the truncation that an exact SVD gives: then
:func:`trpexport.lowrank.spectrum.svd` decomposes in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trpexport.lowrank.schemes import MatrixScheme
from trpexport.lowrank.spectrum import Svd, svd
from trpexport.lowrank.subspace import energy_of, leading, of_a_whole
from trpexport.networks.torch.trace import TorchLayer
from trpexport.training.sharing import Team

# Below this share of the largest singular value a direction is rounding, not weight: its part of
# U V^T would be a random rotation. Any contraction is a subgradient there, so 0 is one.
NEGLIGIBLE = 1e-6
# Matrices are stacked while their Gram matrices together have at most this many elements: 14
# of 48 x 48. Larger ones gain nothing by it, and alone they can be shared out among workers.
STACK_ELEMENTS = 2**15
# From this size on a low-rank matrix is cheaper by subspace iteration than as a whole, as long as
# its rank is at most this share of the full one.
SUBSPACE_FROM = 128
SUBSPACE_SHARE = 0.4
# Below this size a CUDA device waits longer for its eigensolver's many small steps than the
# processor takes for the whole, the way to it and back included.
CUDA_FROM = 512


@dataclass(frozen=True)
class Spectrum:
    """What a rank is chosen by: the singular values of one layer, of its whole batch of matrices.

    Attributes:
        shares: (n,), entry r - 1 the share of the energy that rank r holds in the matrix of the
            batch where it holds least. Never decreasing; the last is 1.
        values: (n,), the largest singular value over the batch at each place.
        known: how many of them are known. All that is left of the energy is put into the next
            place, as if it were one singular value: more than any of the rest can hold.
    """

    shares: Tensor
    values: Tensor
    known: int

    def energy_rank(self, energy: float) -> int:
        """Return the smallest rank that holds ``energy`` in every matrix: at least 1."""
        return min(int((self.shares < energy).sum()) + 1, len(self.shares))

    @property
    def packed(self) -> Tensor:
        """All of it in one tensor, (2 n + 1,), to be sent."""
        return torch.cat([self.shares, self.values, self.shares.new_tensor([self.known])])

    @classmethod
    def unpacked(cls, packed: Tensor) -> Spectrum:
        """Return what :attr:`packed` was made of."""
        shares, values = packed[:-1].chunk(2)
        return cls(shares, values, int(packed[-1]))

    @property
    def gains(self) -> Tensor:
        """What each rank adds to the share of the energy, (n,), never rising.

        Several matrices share one rank, and the one that holds least may change from rank to rank:
        a rank counts for at least as much as any behind it.
        """
        gains = torch.diff(self.shares, prepend=self.shares.new_zeros(1))
        return gains.flip(0).cummax(0).values.flip(0)

    def value_rank(self, value: float) -> int:
        """Return how many singular values of at least ``value`` any matrix has: at least 1."""
        return max(1, int((self.values >= value).sum()))


def spectrum_of(known: Tensor, matrices: Tensor) -> Spectrum:
    """Return what ranks are chosen by.

    Args:
        known: singular values (batch, n) of one layer, or the leading ones.
        matrices: the layer's matrices, (batch, rows, columns).
    """
    energy = known.to(torch.float64).square()
    batch, count = known.shape
    full = min(matrices.shape[1:])
    shares = torch.ones(batch, full, dtype=torch.float64, device=known.device)
    values = torch.zeros_like(shares)
    values[:, :count] = known
    total = energy.sum(dim=1, keepdim=True)
    if count < full:
        held, total = total, energy_of(matrices)[:, None]
        values[:, count:] = (total - held).clamp_min(0).sqrt()
    # A zero matrix holds all of its energy in any rank.
    shares[:, :count] = torch.where(total > 0, energy.cumsum(dim=1) / total, 1.0)
    shares[:, -1] = 1.0
    return Spectrum(shares.amin(dim=0), values.amax(dim=0), count)


def exact_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type to multiply matrices of ``dtype`` in.

    float32, unless it would lose digits: where the weights are float64, or where the user let
    float32 products be rounded to TF32 or bfloat16, as ``set_float32_matmul_precision`` does.
    """
    try:
        rounded = torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # set in the newer way, backend by backend
        rounded = True
    return torch.float64 if rounded or dtype == torch.float64 else torch.float32


def truncate(found: Svd, ranks: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Cut each matrix of a batch to its rank.

    Args:
        found: the SVD of matrices (batch, rows, columns).
        ranks: one a matrix.
        dtype: what to multiply in, and of the result.

    Returns:
        (2, batch, rows, columns): the truncations, and U V^T of each, which is a subgradient of
        the nuclear norm there
        (Watson, "Characterization of the subdifferential of some matrix norms", 1992).
    """
    top = max(ranks)
    values = found.values[:, :top]
    places = torch.arange(top, device=values.device)
    kept = places < torch.tensor(ranks, device=values.device)[:, None]
    kept &= values > NEGLIGIBLE * values[:, :1]
    # For the truncation singular values stay as they are, for U V^T they become 1.
    scales = torch.stack([kept.to(values.dtype), torch.where(kept, 1 / values, 0.0)])
    left, right = found.left[:, :, :top], found.right[:, :top]
    if found.left_is_basis:
        return left.to(dtype) @ (scales[..., None] * right).to(dtype)
    return (left * scales[:, :, None, :]).to(dtype) @ right.to(dtype)


@dataclass(frozen=True)
class Stack:
    """Layers whose matrices have one shape, and are decomposed in one go.

    Attributes:
        scheme: how their kernels unfold.
        layers: at least one.
    """

    scheme: MatrixScheme
    layers: tuple[TorchLayer, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The (batch, rows, columns) of each layer."""
        return self.scheme.matrix_shape(self.layers[0].op)

    @property
    def cost(self) -> float:
        """Multiply-adds of the Gram matrices, to which the whole work is proportional."""
        batch, rows, columns = self.shape
        return len(self.layers) * batch * float(min(rows, columns)) ** 2 * max(rows, columns)

    def unfold(self, kernels: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the matrices of all layers, where and in the type to multiply them.

        Args:
            kernels: tensors in the place of the layers' weights, by name.
        """
        found = [
            self.scheme.unfold(x.module.weight if kernels is None else kernels[x.name], x.op)
            for x in self.layers
        ]
        stacked = torch.cat(found) if len(found) > 1 else found[0]
        small = min(stacked.shape[1:]) < CUDA_FROM
        place = torch.device("cpu") if small else stacked.device
        return stacked.detach().to(place, exact_dtype(found[0].dtype))

    def decompose(
        self,
        energy: float | None,
        ranks: Mapping[str, int],
        subgradients: Mapping[str, Tensor],
        multiple: int = 1,
    ) -> tuple[Svd, dict[str, Spectrum]]:
        """Decompose the weights.

        Args:
            energy: no rank above that of this energy, rounded up, will be asked for; None if any
                may be.
            ranks: of the last projection, by layer name: about as many are sought for without an
                energy. Empty to find all.
            subgradients: of the last projection, by layer name.
            multiple: what ranks are rounded up to multiples of.

        Returns:
            The SVD of the stack, or its leading part, and the spectrum of each layer.
        """
        matrices = self.unfold()
        side = min(matrices.shape[1:])
        rank = ranks.get(self.layers[0].name, side)
        found = None
        if len(self.layers) == 1 and side >= SUBSPACE_FROM and rank <= SUBSPACE_SHARE * side:
            found = leading(matrices, self.unfold(subgradients), rank, energy, multiple)
        if found is None and energy is not None:
            found = of_a_whole(matrices, energy, multiple)
        if found is None:
            found = svd(matrices)
        batch = self.shape[0]
        spectra = {
            layer.name: spectrum_of(found.values[i : i + batch], matrices[i : i + batch])
            for layer, i in zip(self.layers, range(0, len(matrices), batch), strict=True)
        }
        return found, spectra

    def lacks(self, spectra: Mapping[str, Spectrum], needed: Mapping[str, int]) -> bool:
        """Say whether less is known of any layer than is needed."""
        return any(spectra[x.name].known < needed[x.name] for x in self.layers)

    def truncated(self, found: Svd | None, ranks: Mapping[str, int]) -> Tensor:
        """Return the truncations and subgradients, (2, matrices, rows, columns), by the weights.

        Args:
            found: the SVD of the stack; None for a place to write what another process found.
            ranks: of each layer, by name.
        """
        batch, rows, columns = self.shape
        weight = self.layers[0].module.weight
        dtype = exact_dtype(weight.dtype)
        if found is None:
            size = (2, len(self.layers) * batch, rows, columns)
            return torch.empty(size, dtype=dtype, device=weight.device)
        each = [ranks[layer.name] for layer in self.layers for _ in range(batch)]
        return truncate(found, each, dtype).to(weight.device)

    def fold(self, matrices: Tensor) -> dict[str, Tensor]:
        """Return the kernels that the matrices of all layers stand for, by layer name."""
        batch = self.shape[0]
        return {
            layer.name: self.scheme.fold(matrices[i : i + batch], layer.op)
            for layer, i in zip(self.layers, range(0, len(matrices), batch), strict=True)
        }


def stacks(layers: Sequence[TorchLayer], scheme: MatrixScheme) -> list[Stack]:
    """Group layers of equal shapes; the same for any number of workers, so their bits are too."""
    found: list[list[TorchLayer]] = []
    still_open: dict[tuple[Any, ...], list[TorchLayer]] = {}
    for layer in layers:
        batch, rows, columns = shape = scheme.matrix_shape(layer.op)
        key = (*shape, layer.module.weight.dtype, layer.module.weight.device)
        stack = still_open.get(key)
        room = STACK_ELEMENTS // (batch * min(rows, columns) ** 2)
        if stack is None or len(stack) >= room:
            still_open[key] = stack = []
            found.append(stack)
        stack.append(layer)
    return [Stack(scheme, tuple(stack)) for stack in found]


def exchange(
    own: Mapping[str, Spectrum], stacked: Sequence[Stack], team: Team
) -> dict[str, Spectrum]:
    """Return the spectra of all layers: this process's own, and what the others found."""
    layers = [(layer, min(stack.shape[1:])) for stack in stacked for layer in stack.layers]
    device = layers[0][0].module.weight.device
    sizes = [2 * full + 1 for _, full in layers]
    parts = [
        own[layer.name].packed.to(device)
        if layer.name in own
        else torch.zeros(2 * full + 1, dtype=torch.float64, device=device)
        for layer, full in layers
    ]
    combined = torch.split(team.combine(torch.cat(parts)).cpu(), sizes)
    return {
        layer.name: Spectrum.unpacked(part)
        for (layer, _), part in zip(layers, combined, strict=True)
    }
