"""``trpexport compare``: two records of bench, and what has changed between them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt
from .console import show, show_json


def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A record of bench, as JSON.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="A later one.")],
    allow_other_machine: Annotated[
        bool, typer.Option("--allow-other-machine", help="Even if they are of two machines.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Compare two records that bench wrote: what became faster, and what slower.

    Records of two machines are refused, as times of two machines say nothing of networks.

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
