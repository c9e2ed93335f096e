"""The SVDs of a network's layers: each computed once, for the choice of a rank and for the cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trpexport.lowrank.chain import Chain, truncated
from trpexport.lowrank.schemes import SCHEMES, MatrixScheme, Scheme
from trpexport.lowrank.spectrum import Basis
from trpexport.networks.base import Network
from trpexport.ops import Layer

# Bytes of bases that are kept: those of VGG-16 take 0.3 GB.
_KEPT_BYTES = 1 << 30


class Factorizer:
    """Tells spectra of a network's layers, and truncates these.

    Args:
        network: the network.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._bases: dict[tuple[str, str], Basis] = {}
        self._free = _KEPT_BYTES

    def spectrum(self, layer: Layer, scheme: Scheme) -> NDArray[np.float64]:
        """Return what each rank of a layer adds, as :meth:`Scheme.spectrum` does.

        Raises:
            PlanError: the kernel holds NaN or infinity.
        """
        weight, _ = self._network.weights(layer.name)
        basis = self._basis(weight, layer, scheme)
        values = scheme.spectrum(weight, layer.op) if basis is None else basis.values
        return values.cpu().numpy()

    def chain(self, layer: Layer, scheme: str, rank: int) -> Chain:
        """Return the factors of a layer, cut to ``rank``.

        Raises:
            PlanError: the kernel holds NaN or infinity.
        """
        weight, bias = self._network.weights(layer.name)
        basis = self._basis(weight, layer, SCHEMES[scheme])
        return truncated(weight, bias, layer.op, scheme=scheme, rank=rank, basis=basis)

    def _basis(self, weight: Tensor, layer: Layer, scheme: Scheme) -> Basis | None:
        """Return that of a layer; None where the scheme is not one of an unfolded matrix."""
        form = scheme.form(layer.op)
        if not isinstance(form, MatrixScheme):
            return None
        key = layer.name, scheme.name
        basis = self._bases.get(key) or form.basis(weight, layer.op)
        if key not in self._bases and basis.vectors.nbytes <= self._free:
            self._bases[key] = basis
            self._free -= basis.vectors.nbytes
        return basis
