"""Factorization schemes: one file each, found by being in this folder."""

from __future__ import annotations

import importlib
import pkgutil

from trpexport.lowrank.schemes.base import MatrixScheme, Scheme
from trpexport.registry import Registry

__all__ = ["SCHEMES", "MatrixScheme", "Scheme", "matrix_schemes"]

SCHEMES: Registry[Scheme] = Registry("scheme")

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def matrix_schemes() -> dict[str, MatrixScheme]:
    """Return the schemes of one unfolded matrix, by name: those that TRP can train for."""
    return {name: one for name, one in SCHEMES.items() if isinstance(one, MatrixScheme)}
