"""Reading a pickle that holds NumPy arrays and plain values, and nothing else.

Not even NumPy's own reconstruction runs, which is not memory-safe on a forged dtype: stand-ins
take what a pickle says of an array, and the array is made of its bytes, checked.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.locations import damaged
from trpexport.errors import DataError
from trpexport.pickles import DataUnpickler, ForbiddenGlobalError, StandIn
from trpexport.text import printable

_PLAIN_NUMBERS = frozenset("biuf")


class _DType(StandIn):
    """Stands for ``numpy.dtype``: numbers of a fixed size."""

    __slots__ = ("byte_order", "code")

    def __init__(self, code: object = "", *_: object) -> None:
        self.code = str(code)
        self.byte_order: Literal["<", ">"] = "<"

    def restore(self, state: Any) -> None:
        self.byte_order = ">" if state[1] == ">" else "<"

    def real(self) -> np.dtype[Any]:
        dtype = np.dtype(self.code)
        if dtype.kind not in _PLAIN_NUMBERS:
            raise ValueError(f"an array of {dtype}")
        return dtype.newbyteorder(self.byte_order)


class _Array(StandIn):
    """Stands for ``numpy.ndarray`` and its reconstruction, as pickle protocols up to 4 ask."""

    __slots__ = ("state",)

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def restore(self, state: Any) -> None:
        self.state = state

    def real(self) -> NDArray[Any]:
        *_, shape, dtype, is_fortran, data = self.state
        return _from_bytes(data, dtype, shape, "F" if is_fortran else "C")


class _Buffer(StandIn):
    """Stands for ``numpy.core.numeric._frombuffer``, as pickle protocol 5 asks."""

    __slots__ = ("parts",)

    def __init__(self, data: Any, dtype: Any, shape: Any, order: Any, *_: object) -> None:
        self.parts = data, dtype, shape, order

    def restore(self, state: Any) -> None:
        raise ValueError("an array with a state")

    def real(self) -> NDArray[Any]:
        return _from_bytes(*self.parts)


class _Scalar(StandIn):
    """Stands for ``numpy.core.multiarray.scalar``."""

    __slots__ = ("parts",)

    def __init__(self, dtype: Any, data: Any) -> None:
        self.parts = data, dtype, (), "C"

    def restore(self, state: Any) -> None:
        raise ValueError("a number with a state")

    def real(self) -> NDArray[Any]:
        return _from_bytes(*self.parts)


def _latin1(text: str = "", encoding: str = "latin1") -> bytes:
    """Stand for ``_codecs.encode`` and ``bytes``, as protocols up to 2 hold Python 3's bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes as {encoding}")
    return text.encode("latin1")


_MAKERS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _DType,
    "numpy.ndarray": _Array,
    "_codecs.encode": _latin1,
    "builtins.bytes": _latin1,
}
for _core in ("numpy.core", "numpy._core"):
    _MAKERS[f"{_core}.multiarray._reconstruct"] = _Array
    _MAKERS[f"{_core}.multiarray.scalar"] = _Scalar
    _MAKERS[f"{_core}.numeric._frombuffer"] = _Buffer


def read_pickle(data: bytes, source: object) -> Any:
    """Read a pickle, also of Python 2, whose strings become str.

    Arrays at the top level, or in a dict or list there, come out as NumPy arrays.

    Args:
        data: the pickle.
        source: where it comes from, for the message.

    Raises:
        DataError: it asks for anything but NumPy arrays, or is damaged.
    """
    try:
        found = DataUnpickler(io.BytesIO(data), _MAKERS).load()
        if isinstance(found, dict):
            return {_text(key): _real(value) for key, value in found.items()}
        return _real(found)
    except ForbiddenGlobalError as error:
        raise DataError(
            f"{printable(source)} holds pickled code (it asks for {printable(error)}), which is "
            "not run: get the file from the data set's own page, or use its binary version"
        ) from None
    except Exception as error:  # a damaged pickle fails in any way
        raise damaged(source, error) from error


def _real(value: Any) -> Any:
    if isinstance(value, list):
        return [_real(item) for item in value]
    return value.real() if isinstance(value, _Array | _Buffer | _Scalar) else value


def _text(key: Any) -> Any:
    return key.decode("latin1") if isinstance(key, bytes) else key


def _from_bytes(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    if isinstance(data, str):  # a string of Python 2
        data = data.encode("latin1")
    if not (isinstance(data, bytes | bytearray) and isinstance(dtype, _DType)):
        raise ValueError("an array without its bytes")
    real, shape = dtype.real(), tuple(map(int, shape))
    if min(shape, default=0) < 0 or math.prod(shape) * real.itemsize != len(data):
        raise ValueError(f"an array of {shape} {real} in {len(data)} bytes")
    return np.frombuffer(data, real).reshape(shape, order="F" if order == "F" else "C")
