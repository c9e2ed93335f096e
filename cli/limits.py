"""Options that say how far a decomposed network may be from the original one."""

from __future__ import annotations

from typing import Annotated

import typer

from trpexport.errors import TrpexportError

MIN_AGREEMENT = (
    "Smallest share of inputs with the same top-1 as the original, in percent, as in 98."
)
MinAgreement = Annotated[float | None, typer.Option(help=MIN_AGREEMENT)]
MaxError = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Largest output error to accept, as a share of the output's variation: 0.05 is 5 %. "
        "Of the network against the original, and of each --precision against float32.",
    ),
]


def agreement(percent: float | None) -> float | None:
    """Return the least agreement that was typed, as a share.

    Raises:
        TrpexportError: it is out of range.
    """
    if percent is None:
        return None
    if not 0 <= percent <= 100:
        raise TrpexportError(f"--min-agreement {percent:g} is out of range: give 0 to 100, in %")
    return percent / 100
