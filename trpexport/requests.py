"""What was asked for, as data: equal for jobs that are to make the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from trpexport.datasets.base import Dataset
from trpexport.datasets.given import fingerprint
from trpexport.datasets.tensors import TensorSet


def told(value: Any) -> Any:
    """Return settings as JSON-ready data, equal for what is the same from run to run."""
    if isinstance(value, Dataset | TensorSet):
        return fingerprint(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: told(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): told(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [told(one) for one in value]
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)
