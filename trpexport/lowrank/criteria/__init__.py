"""Rank criteria: one file each, found by being in this folder. No torch."""

from __future__ import annotations

import importlib
import pkgutil

from trpexport.lowrank.criteria.base import Criterion
from trpexport.registry import Registry

__all__ = ["CRITERIA", "DEFAULT", "Criterion", "parse_criterion"]

CRITERIA: Registry[type[Criterion]] = Registry("criterion")
DEFAULT = "value:0.05"

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def parse_criterion(text: str) -> Criterion:
    """Return the criterion that ``NAME:VALUE`` names, as in ``energy:0.9``.

    Raises:
        TrpexportError: the name is unknown, or the value is out of its range.
    """
    name, colon, value = text.strip().partition(":")
    return CRITERIA[name].parse(value if colon else None)
