"""The option that trains calibrated factors further."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trpexport.refining.refinement import Refinement

Refine = Annotated[
    float | None,
    typer.Option(
        metavar="MINUTES",
        help="Then train the factors so long on the images of --calib, towards the original "
        "network, without labels; what is closest on images held out stays. Goes on where it was "
        "stopped.",
    ),
]
RefineImages = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Images that --refine trains on, those of --images first; else all, up to "
        "10,000 or half a gigabyte.",
    ),
]


def refinement(
    minutes: float | None, cache: Path | None, images: int | None = None, device: str = "auto"
) -> Refinement | None:
    """Return how factors are trained further, as it was typed; None where it was not.

    Raises:
        TrpexportError: the time makes no sense, or ``cache`` can't be written.
    """
    if minutes is None:
        return None
    from trpexport.files import cache_folder
    from trpexport.refining.refinement import Refinement

    found = Refinement(minutes, images=images, cache=cache_folder(cache), device=device)
    found.check()
    return found
