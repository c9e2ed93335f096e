"""``trpexport arm-setup``: prepare the emulation of ARM processors."""

from __future__ import annotations

from . import options as opt
from .console import progress, show, show_json
from .interrupts import tell_written


def arm_setup(
    out: opt.Out = None,
    as_json: opt.Json = False,
) -> None:
    """Download QEMU and an aarch64 Python with ONNX Runtime, for trpexport emulate.

    Downloads about 70 MB (180 MB on disk) to --out, or to your cache folder, and lists what.
    Installs nothing on the system; run again, it finds everything in place.

    Example:
        trpexport arm-setup
    """
    from trpexport.device.emulate.arm_setup import default_location, prepare
    from trpexport.report.blocks import Role, Text

    tell_written(out or default_location())
    with progress() as stages:
        environment = prepare(out, announce=stages.say)
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
