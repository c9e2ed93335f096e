"""What to do where outputs differ that should not."""

from __future__ import annotations

from trpexport.compare import Comparison
from trpexport.errors import TrpexportError
from trpexport.networks.base import Network
from trpexport.tensors import Arrays

# Two ways to round are about as far from each other as from what is exact.
_TIMES_ROUNDING = 4.0


def remedy(network: Network, feeds: Arrays, broken: Comparison, usual: str) -> str:
    """Return what to do about outputs that differ: the usual, unless the network rounds so itself.

    Args:
        network: what the outputs are compared with.
        feeds: inputs by name.
        broken: how far the outputs are apart.
        usual: what to do where that is not rounding.
    """
    try:
        rounding = max(network.rounding(feeds).values(), default=0.0)
    except TrpexportError:  # some of it is made for float32 alone
        return usual
    if not rounding * _TIMES_ROUNDING >= broken.rms_error:
        return usual
    return (
        f"the network itself, in float32, is {rounding:.2g} off from what it gives in float64: its "
        "weights amplify rounding, so that nothing can be told of it; are they the trained ones? "
        "else give inputs of the kind that it was trained on"
    )
