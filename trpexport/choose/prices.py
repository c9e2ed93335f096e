"""What is scarce: MACs, parameters."""

from __future__ import annotations

from collections.abc import Sequence

from trpexport.choose.base import Price
from trpexport.cost import macs, parameter_count
from trpexport.errors import PlanError
from trpexport.networks.base import Network
from trpexport.ops import Layer, LinearOp
from trpexport.registry import Registry

# A target for the whole network means little where more than this share of it is not known.
_MAX_UNKNOWN = 0.1

SECONDS = "seconds"
"""Time on a device: no price of an operator alone, but measured inside its network."""

PRICES: Registry[Price] = Registry("resource")


class Macs:
    """Multiply-adds for one image."""

    resource = "macs"

    def whole(self, network: Network) -> float:
        """Return the MACs of the whole network, as far as they are known."""
        calls = sum(macs((layer.op,), layer.calls) for layer in network.layers)
        return network.other_macs + calls

    def of(self, layer: Layer, ops: Sequence[LinearOp]) -> float:
        """Return the MACs of ``ops`` in the place of a layer, all its calls together."""
        return macs(ops, layer.calls)


class Parameters:
    """Weights and biases."""

    resource = "parameters"

    def whole(self, network: Network) -> float:
        """Return the parameters of the whole network; those that are shared count once."""
        return network.cost.parameters

    def of(self, layer: Layer, ops: Sequence[LinearOp]) -> float:
        """Return the parameters of ``ops``."""
        return sum(map(parameter_count, ops))


def check_known(network: Network) -> None:
    """Refuse a share of the MACs where much of them is not known.

    Raises:
        PlanError: it is.
    """
    cost = network.cost
    if cost.uncounted_macs > _MAX_UNKNOWN * (cost.macs + cost.uncounted_macs):
        names = ", ".join(sorted(cost.uncounted))
        raise PlanError(
            f"a share of the MACs can't be kept: those of {names} are not known, and may be many; "
            "ask for a share of the parameters, or for an output error"
        )


PRICES.register(Macs.resource, Macs())
PRICES.register(Parameters.resource, Parameters())
