"""Data sets: one file each, found by being in this folder. No torch."""

from __future__ import annotations

import importlib
import pkgutil

from trpexport.datasets.base import Dataset, Reader
from trpexport.datasets.opening import open_data, open_dataset
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.registry import DATASETS
from trpexport.datasets.splits import ArraySplit, Split
from trpexport.datasets.tensors import TensorSet

__all__ = [
    "DATASETS",
    "ArraySplit",
    "Dataset",
    "Preprocessing",
    "Reader",
    "Split",
    "TensorSet",
    "open_data",
    "open_dataset",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
