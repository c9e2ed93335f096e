"""Options of the commands that run networks and measure them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trpexport.errors import TrpexportError

from . import completion

Models = Annotated[
    list[str],
    typer.Argument(metavar="MODEL...", help="ONNX files or bundles; the first is the base."),
]
Provider = Annotated[
    str,
    typer.Option(
        help="Provider that runs the network: cpu, arm, cuda, ...; a wrong name lists all.",
        autocompletion=completion.providers,
    ),
]
ProviderOption = Annotated[
    list[str] | None, typer.Option(help="An option of the provider, key=value. Repeatable.")
]
Threads = Annotated[
    str, typer.Option(help="Threads of one operator; bench takes several, as in 1,2,4.")
]
Batch = Annotated[
    int | None,
    typer.Option(
        min=1, help="Images at a time; else as the file, the input shape or the recipe says."
    ),
]
Host = Annotated[
    str | None, typer.Option(help="Measure on this machine, user@device, over your own ssh.")
]
Python = Annotated[str, typer.Option(help="The Python to run on --host.")]
MinTime = Annotated[float, typer.Option(help="Seconds to time each network, at least.")]
MaxTime = Annotated[
    float, typer.Option(help="Seconds at most, where a busy machine blurs the speed-ups.")
]
MinRuns = Annotated[int, typer.Option(help="Runs of each network to time, at least.")]
GraphOptimization = Annotated[
    str | None,
    typer.Option(
        help="ONNX Runtime's: disable, basic, extended or all; else as the bundle recommends, or "
        "all."
    ),
]
AllowSpinning = Annotated[
    bool | None,
    typer.Option("--allow-spinning/--no-spinning", help="Whether waiting threads keep cores busy."),
]
Save = Annotated[
    Path | None,
    typer.Option(help="Write what was found to this file: predictions as .npz, else JSON."),
]


def numbers_of_threads(text: str) -> tuple[int, ...]:
    """Return the numbers of threads that were typed.

    Raises:
        TrpexportError: one is no number of at least 1.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        raise TrpexportError(f"--threads {text!r} must look like 1 or 1,2,4")
    return found


def number_of_threads(text: str) -> int:
    """Return the number of threads that was typed, where there can be but one.

    Raises:
        TrpexportError: there are several, or one is no number of at least 1.
    """
    found = numbers_of_threads(text)
    if len(found) > 1:
        raise TrpexportError(f"--threads {text} is several numbers: give one, bench takes several")
    return found[0]
