"""Passes: one file each, found by being in this folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trpexport.artifact.passes.base import Approximate, Claim, Context, Equivalent, Pass, Step
from trpexport.artifact.passes.precision import Precision
from trpexport.artifact.reference import OnnxFile
from trpexport.registry import Registry

__all__ = [
    "PASSES",
    "PRECISIONS",
    "Approximate",
    "Claim",
    "Context",
    "Equivalent",
    "Pass",
    "Precision",
    "Step",
    "run_passes",
]

PASSES: Registry[Pass] = Registry("pass")
PRECISIONS: Registry[Precision] = Registry("precision")

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def run_passes(
    names: Sequence[str], file: Path, context: Context, *, seconds: float = 0.0
) -> tuple[Step, ...]:
    """Run passes over a file, one after another.

    Args:
        names: the passes, in their order.
        file: the file; the first pass writes it where it does not stand yet.
        context: what the passes may ask for.
        seconds: how long the last file is compared; those before it as briefly as can be.

    Raises:
        TrpexportError: a name is unknown, or as :meth:`Pass.__call__`.
    """
    steps = []
    for name in names:
        one = PASSES[name]
        step = one(file, context, seconds=seconds if name == names[-1] else 0.0)
        if isinstance(one.claim, Approximate):
            # What follows claims something of the network as it is now.
            context = replace(context, reference=replace(context.reference, network=OnnxFile(file)))
        steps.append(step)
    return tuple(steps)
