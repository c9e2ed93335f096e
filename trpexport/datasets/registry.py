"""Kinds of data sets by name; each registers itself."""

from __future__ import annotations

from trpexport.datasets.base import Reader
from trpexport.registry import Registry

DATASETS: Registry[Reader] = Registry("data set")
