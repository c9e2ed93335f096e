"""Factorization schemes: one file each, found by being in this folder."""

from __future__ import annotations

import importlib
import pkgutil

from trpexport.lowrank.schemes.base import Scheme
from trpexport.registry import Registry

__all__ = ["SCHEMES", "Scheme"]

SCHEMES: Registry[Scheme] = Registry("scheme")

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
