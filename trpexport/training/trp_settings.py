"""What trained rank pruning can be told, and of which layers it is."""

from __future__ import annotations

from collections.abc import Sequence

from trpexport.choose.selection import Selection
from trpexport.errors import TrainingError, TrpexportError
from trpexport.lowrank.schemes import SCHEMES, MatrixScheme, matrix_schemes
from trpexport.networks.torch.modules import CONVOLUTIONS
from trpexport.networks.torch.trace import TorchLayer, Trace

# Of the nuclear norm: far beyond any use, and within the range of float16.
_LARGEST_WEIGHT = 1000.0


def trainable(name: str) -> MatrixScheme:
    """Return the scheme of a name.

    Raises:
        TrpexportError: there is none.
        TrainingError: its factors are not those of one low-rank matrix.
    """
    scheme = SCHEMES[name]
    if isinstance(scheme, MatrixScheme):
        return scheme
    raise TrainingError(
        f"no network can be trained for {name}, which cuts two matrices of a kernel: train it "
        f"for one of {', '.join(matrix_schemes())}"
    )


def check(
    *,
    energy: float | None,
    period: int,
    nuclear_weight: float,
    target_macs: float | None,
    total_steps: int | None,
    input_shape: Sequence[int] | None,
) -> None:
    """Refuse settings that mean nothing.

    Raises:
        TrpexportError: naming the first such setting.
    """
    if energy is not None and not 0 < energy <= 1:
        raise TrpexportError(f"energy {energy:g} is out of range: it must be above 0, at most 1")
    if not isinstance(period, int) or period < 1:
        raise TrpexportError(f"period {period} is out of range: it must be a whole number above 0")
    if not 0 <= nuclear_weight <= _LARGEST_WEIGHT:
        raise TrpexportError(
            f"nuclear_weight {nuclear_weight:g} is out of range: 0 to {_LARGEST_WEIGHT:g}, as 3e-4"
        )
    if target_macs is None:
        if energy is None and nuclear_weight == 0:
            raise TrpexportError(
                "neither projection nor nuclear norm is left: give an energy, as in 0.9, "
                "or a nuclear_weight, as in 3e-4"
            )
        return
    if not 0 < target_macs < 1:
        raise TrpexportError(
            f"target_macs {target_macs:g} is out of range: it is a share of the MACs, as in 0.35"
        )
    if input_shape is None or total_steps is None:
        raise TrpexportError("target_macs needs input_shape, to count MACs, and total_steps")
    if not isinstance(total_steps, int) or total_steps < 1:
        raise TrpexportError(f"total_steps {total_steps} is out of range: at least 1")


def trained(traced: Trace, selection: Selection, scheme: MatrixScheme) -> list[TorchLayer]:
    """Return the layers of a network that are trained low-rank.

    Args:
        traced: the network.
        selection: the layers that may be rewritten.
        scheme: what will rewrite them.

    Raises:
        PlanError: a pattern matches no layer.
        TrainingError: there are none.
    """
    staying = selection.reasons_to_stay(traced, scheme)
    reasons = {
        layer.name: staying[layer.name] or _untrained(layer, scheme) for layer in traced.layers
    }
    found = [
        layer
        for layer in traced.layers
        if reasons[layer.name] is None and layer.shares is None  # its weight once is enough
    ]
    if not found:
        convolutions = (x for x in traced.layers if isinstance(x.module, CONVOLUTIONS))
        why = next((reasons[x.name] for x in convolutions), "it has none")
        raise TrainingError(f"no convolution of the network can be trained low-rank: {why}")
    return found


def _untrained(layer: TorchLayer, scheme: MatrixScheme) -> str | None:
    """Say why a layer that could be decomposed is not trained for it, or None."""
    if not isinstance(layer.module, CONVOLUTIONS):
        return "only convolutions are trained low-rank"
    if not isinstance(scheme.form(layer.op), MatrixScheme):
        return "only what is cut as one matrix is trained low-rank"
    return None
