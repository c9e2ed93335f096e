"""``trpexport arm-setup``: prepare the emulation of ARM processors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import progress, show, show_json
from .interrupts import tell_written
from .options import Json


def arm_setup(
    directory: Annotated[
        Path | None,
        typer.Option(help="Where to put it; in your cache folder if not given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download an aarch64 Python with ONNX Runtime, and QEMU to run it: for bench --emulate.

    Says what it downloads: about 70 MB, 180 MB on disk. Installs nothing on the system. Running it
    again finds it ready.
    """
    from trpexport.device.emulate.arm_setup import default_location, prepare
    from trpexport.report.blocks import Role, Text

    tell_written(directory or default_location())
    with progress() as stages:
        environment = prepare(directory, announce=stages.say)
    if as_json:
        show_json(
            {
                "directory": str(environment.root),
                "versions": dict(environment.versions),
                "counts_unavailable": environment.counts_unavailable,
            }
        )
        return
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    show(Text(f"ready in {environment.root}"), Text(versions))
    if environment.counts_unavailable:
        show(Text(f"instructions can't be counted: {environment.counts_unavailable}", Role.NOTE))
