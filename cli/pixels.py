"""How pixels become a network's input, as it is typed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from trpexport.errors import TrpexportError

if TYPE_CHECKING:
    from trpexport.datasets.preprocessing import Preprocessing


def normalisation(mean: str | None, std: str | None) -> Preprocessing | None:
    """Return how pixels become input, as it was typed; None where it was not.

    Raises:
        TrpexportError: a part is missing or is not what it should be.
    """
    from trpexport.datasets.preprocessing import Preprocessing

    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise TrpexportError("--mean and --std belong together: give both")
    means, deviations = _numbers("mean", mean), _numbers("std", std)
    if len(means) != len(deviations) or min(deviations) <= 0:
        raise TrpexportError("--std must be above 0, with as many numbers as --mean has")
    return Preprocessing(means, deviations)


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(abs(number) < float("inf") for number in numbers):
        raise TrpexportError(f"--{name} {text!r} must look like 0.485,0.456,0.406")
    return numbers


def read_size(text: str | None) -> tuple[int, int] | None:
    """Return the height and width that were typed; None where they were not.

    Raises:
        TrpexportError: they are none.
    """
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5})?", text):
        raise TrpexportError(f"--size {text!r} must look like 224 or 192x256")
    height, _, width = text.partition("x")
    return int(height), int(width or height)
