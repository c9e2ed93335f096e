"""Loading what ``torch.save`` wrote: with ``weights_only=True``, or with full pickle on request.

Training scripts put small objects beside the weights that ``weights_only=True`` refuses: an
``argparse.Namespace``, a NumPy scalar. Their classes are not allowed here either. While a file is
read, their names stand for inert objects that swallow their arguments, so that none of their code
runs; NumPy's own reconstruction is not memory-safe on a forged dtype.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trpexport.checkpoints.factory import importable_working_directory
from trpexport.checkpoints.formats import Format, pickle_protocol
from trpexport.checkpoints.wording import one_line
from trpexport.errors import CheckpointError, UnsafeCheckpointError

TRUST = "or, if you trust whoever made the file, have its code run"


class _PythonObject:
    """Stands for an object that is not wanted; nothing that the file says of it is kept."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _PlainDict:
    """Becomes a plain dict, whatever subclass of it the file asks for."""

    def __new__(cls, *_: object) -> dict[object, object]:  # type: ignore[misc]
        return {}


_OBJECT_NAMES = (
    "argparse.Namespace",
    "builtins.bool",
    "builtins.dict",
    "builtins.float",
    "builtins.int",
    "builtins.list",
    "builtins.str",
    "datetime.datetime",
    "datetime.timedelta",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "torch.torch_version.TorchVersion",
    "types.SimpleNamespace",
)
_DICT_NAMES = (
    "collections.defaultdict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((_PythonObject, name) for name in _OBJECT_NAMES),
    *((_PlainDict, name) for name in _DICT_NAMES),
]


def load_weights_only(path: Path, file_format: Format) -> object:
    """Load a zip or legacy file of ``torch.save`` on the CPU without running any code from it.

    Raises:
        UnsafeCheckpointError: it asks for a class or function, which is named.
        CheckpointError: it is damaged.
    """
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            return _load(path, file_format, weights_only=True)
    except Exception as error:  # a broken pickle fails in any way: KeyError, IndexError, struct...
        raise _explained(path, file_format, error) from error


def load_with_pickle(path: Path, file_format: Format) -> object:
    """Load a file of ``torch.save`` with full pickle, **which runs whatever code it asks for**.

    Raises:
        CheckpointError: its classes can't be imported or made, or it is damaged.
    """
    try:
        with importable_working_directory():
            return _load(path, file_format, weights_only=False)
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{path} needs the module {error.name}: run from the folder that has it, or install it"
        ) from error
    except Exception as error:  # foreign code runs here
        raise CheckpointError(
            f"{path} can't be unpickled ({type(error).__name__}: {one_line(error)}): make its "
            "classes importable, or save the state_dict instead"
        ) from error


def _load(path: Path, file_format: Format, *, weights_only: bool) -> object:
    # A file object, because torch.load judges a path by its suffix.
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # torch's words to its own developers
        root = torch.load(file, map_location="cpu", weights_only=weights_only)
        left = path.stat().st_size - file.tell()
    if file_format == "legacy" and left:
        # Where the list of storages is damaged, some are never filled and keep random memory.
        raise ValueError(f"{left} bytes belong to no tensor")
    return root


def _explained(path: Path, file_format: Format, error: Exception) -> CheckpointError:
    text = str(error)
    found = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module \S+ is blocked)", text)
    if found is not None:
        return UnsafeCheckpointError(
            f"{path} holds pickled code (it asks for {one_line(found[1])}), which is not run: save "
            f"the weights alone with torch.save(model.state_dict(), 'weights.pth'), {TRUST}"
        )
    protocol = pickle_protocol(path, file_format)
    if protocol > 2:
        return UnsafeCheckpointError(
            f"{path} was pickled with protocol {protocol}, which can't be read without running "
            f"its code: save it again with torch.save's own pickle_protocol, {TRUST}"
        )
    if isinstance(error, MemoryError) or "allocate memory" in text:
        reason = "it asks for more memory than there is"
    else:
        cause = re.search(r"WeightsUnpickler error:\s*(.+)", text)
        reason = one_line(cause[1] if cause else text) or type(error).__name__
    return CheckpointError(f"{path} is truncated or damaged ({reason}): download or save it again")
