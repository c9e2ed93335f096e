"""``trpexport compare``: two records of bench, and what has changed between them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt
from .console import show, show_json


def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="JSON file of bench.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="A later JSON file of bench.")],
    allow_other_machine: Annotated[
        bool,
        typer.Option("--allow-other-machine", help="Compare even if they are from two machines."),
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Compare two results of bench: what became faster, and what slower.

    Results from different machines are refused: their difference says nothing about the networks.

    Example:
        trpexport compare old.json new.json
    """
    from trpexport.measure.records import compare_records, read_record
    from trpexport.report.views.bench import changes_view

    changes = compare_records(
        read_record(old), read_record(new), allow_other_machine=allow_other_machine
    )
    if as_json:
        show_json([change.to_json() for change in changes])
    else:
        show(*changes_view(changes))
