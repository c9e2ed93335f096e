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
        help="After calibration, train the factors for this long towards the original network's "
        "outputs, on the images of --calib, without labels. Keeps what is closest on held-out "
        "images; resumes if it was stopped.",
    ),
]
RefineImages = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of images that --refine trains on, starting with those of --images. Default: "
        "all of --calib, up to 10,000 or half a gigabyte.",
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
