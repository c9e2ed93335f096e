"""The zoo: one file an architecture family, found by being in this folder."""

from __future__ import annotations

import importlib
import pkgutil

from .family import (
    FAMILIES,
    PRESETS,
    Architecture,
    Family,
    infer_architecture,
    parse_architecture,
    register,
)

__all__ = [
    "FAMILIES",
    "PRESETS",
    "Architecture",
    "Family",
    "infer_architecture",
    "parse_architecture",
    "register",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
