"""Options of the commands that run networks and measure them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trpexport.errors import TrpexportError

from . import completion

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...", help="ONNX files or bundles; the others are compared with the first."
    ),
]
Provider = Annotated[
    str,
    typer.Option(
        help="ONNX Runtime execution provider: cpu, arm, cuda, ... A wrong name lists all.",
        autocompletion=completion.providers,
    ),
]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option(help="Option for the execution provider, as key=value. Repeatable."),
]
Threads = Annotated[
    str, typer.Option(help="Threads within an operator; bench takes several numbers, as in 1,2,4.")
]
Batch = Annotated[
    int | None,
    typer.Option(
        min=1, help="Batch size. Default: that of the file, of the input shape, or of the recipe."
    ),
]
Host = Annotated[
    str | None, typer.Option(help="Measure on another machine, user@device, over your own ssh.")
]
Python = Annotated[str, typer.Option(help="Python interpreter on the machine of --host.")]
MinTime = Annotated[
    float, typer.Option(help="Shortest time to measure each network for, in seconds.")
]
MaxTime = Annotated[
    float,
    typer.Option(
        help="Longest time to measure for, in seconds, when a busy machine makes timings noisy."
    ),
]
MinRuns = Annotated[int, typer.Option(help="Fewest runs of each network to time.")]
GraphOptimization = Annotated[
    str | None,
    typer.Option(
        help="Level of ONNX Runtime's graph optimization: disable, basic, extended or all. "
        "Default: what the bundle recommends, or all."
    ),
]
AllowSpinning = Annotated[
    bool | None,
    typer.Option("--allow-spinning/--no-spinning", help="Whether idle threads spin."),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="auto|ADDRESS",
        help="Work on the machines of this Ray cluster; auto for the one that runs here.",
    ),
]
DEVICE_LABEL = typer.Option(help="Ray resource that marks the nodes to time on.")
Save = Annotated[
    Path | None,
    typer.Option(help="Write the result to this file, as JSON; predictions of eval as .npz."),
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
