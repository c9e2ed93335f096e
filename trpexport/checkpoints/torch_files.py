"""Reading what ``torch.save`` wrote as data: no code of it runs, and every value is the file's.

``torch.load`` is not asked, not even with ``weights_only=True``: it hands out memory as it was
where a file holds no values for a tensor, lets a file set attributes of tensors and nest keys
until the process dies, and leaves what it read of a zip archive to a reader of its own. Here a
storage is made of bytes of the file, and a tensor is a view within one storage.

Training scripts put small objects beside the weights: an ``argparse.Namespace``, a NumPy scalar.
Inert objects stand for them.
"""

from __future__ import annotations

import io
import math
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trpexport.checkpoints.formats import Format
from trpexport.checkpoints.wording import one_line
from trpexport.errors import CheckpointError, UnsafeCheckpointError
from trpexport.pickles import DataUnpickler, ForbiddenGlobalError, Global, StandIn, plain_dict

TRUST = "or, if you trust whoever made the file, have its code run"
_LEGACY_VERSION = 1001

QUANTIZED = "is quantized: give the float checkpoint that it was made from"
SPARSE = "is a sparse or nested tensor: save it dense, with to_dense()"
META = "was saved without its values (meta device): save the network that has them"
_STRANGE = "is a tensor of a kind of its own: save it as a plain tensor"

_STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "QInt32Storage": torch.qint32,
    "QInt8Storage": torch.qint8,
    "QUInt2x4Storage": torch.quint2x4,
    "QUInt4x2Storage": torch.quint4x2,
    "QUInt8Storage": torch.quint8,
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}
_DTYPES = {f"torch.{name}": d for name, d in vars(torch).items() if isinstance(d, torch.dtype)}


class OddTensor(StandIn):
    """Stands for a tensor that is no plain weight.

    Attributes:
        complaint: why it can't be taken, and what to do.
    """

    __slots__ = ("complaint",)

    def __init__(self, complaint: str) -> None:
        self.complaint = complaint


@dataclass(frozen=True, eq=False, slots=True)
class _Storage:
    dtype: torch.dtype
    content: Tensor  # bytes, flat


def read_torch_file(path: Path, file_format: Format) -> object:
    """Read a zip or legacy file of ``torch.save``.

    Returns:
        What it holds, of dicts, lists and plain values; its tensors on the CPU, those that are no
        plain weights as :class:`OddTensor`.

    Raises:
        UnsafeCheckpointError: it asks for a class or function, which is named.
        CheckpointError: it is damaged.
    """
    try:
        if file_format == "zip":
            return _read_zip(path)
        if file_format == "legacy":
            return _read_legacy(path.read_bytes())
        raise ValueError("another kind of file")
    except ForbiddenGlobalError as error:
        raise UnsafeCheckpointError(
            f"{path} holds pickled code (it asks for {one_line(error)}), which is not run: save "
            f"the weights alone with torch.save(model.state_dict(), 'weights.pth'), {TRUST}"
        ) from None
    except Exception as error:  # a damaged file fails in any way
        reason = one_line(error) or type(error).__name__
        raise CheckpointError(
            f"{path} is truncated or damaged ({reason}): download or save it again"
        ) from error


def _read_zip(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        if not any(record.CRC for record in archive.infolist()):
            for record in archive.infolist():  # it was saved without checksums
                record.CRC = None  # type: ignore[assignment]
        names = archive.namelist()
        pickled = next(name for name in names if name.rpartition("/")[2] == "data.pkl")
        folder = pickled.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in names and archive.read(order).decode() != sys.byteorder:
            raise ValueError("its numbers have another byte order")
        contents: dict[str, Tensor] = {}

        def persistent(pid: Any) -> _Storage:
            dtype, key, size = _parsed(pid)
            if key not in contents:
                contents[key] = _bytes(bytearray(archive.read(f"{folder}data/{key}")))
            if len(contents[key]) != size:
                raise ValueError(f"storage {key} has {len(contents[key])} bytes, not {size}")
            return _Storage(dtype, contents[key])

        return DataUnpickler(io.BytesIO(archive.read(pickled)), _MAKERS, persistent).load()


def _read_legacy(content: bytes) -> object:
    """Read a file of pickles: a magic number, a version, facts, the data, keys; then storages."""
    file = io.BytesIO(content)
    DataUnpickler(file, {}).load()
    if DataUnpickler(file, {}).load() != _LEGACY_VERSION:
        raise ValueError("another version of the format")
    DataUnpickler(file, {}).load()
    unread: dict[str, tuple[bytearray, torch.dtype]] = {}

    def persistent(pid: Any) -> _Storage:
        dtype, key, size = _parsed(pid)
        if key not in unread:
            if sum(len(buffer) for buffer, _ in unread.values()) + size > len(content):
                raise ValueError("its tensors are larger than the file")
            unread[key] = bytearray(size), dtype
        whole = _bytes(unread[key][0])
        if len(whole) != size:
            raise ValueError(f"storage {key} has two sizes")
        return _Storage(dtype, whole if pid[5] is None else _part(whole, dtype, pid[5]))

    root = DataUnpickler(file, _MAKERS, persistent).load()
    for key in DataUnpickler(file, {}).load():
        buffer, dtype = unread.pop(key)
        values = int.from_bytes(file.read(8), "little", signed=True)
        if values * dtype.itemsize != len(buffer) or file.readinto(buffer) < len(buffer):
            raise ValueError(f"storage {key} is not whole")
    if unread:
        raise ValueError(f"storage {next(iter(unread))} is not in the file")
    if left := len(content) - file.tell():
        raise ValueError(f"{left} bytes belong to no tensor")
    return root


def _parsed(pid: Any) -> tuple[torch.dtype, str, int]:
    """Return the type, the key and the size in bytes of the storage that an id stands for."""
    kind, storage, key, _, values, *_ = pid
    name = storage.name.rpartition(".")[2] if isinstance(storage, Global) else None
    if kind != "storage" or name not in _STORAGES or not isinstance(key, str):
        raise ValueError("an id of no storage")
    dtype = _STORAGES[name]
    return dtype, key, _count(values) * dtype.itemsize


def _part(whole: Tensor, dtype: torch.dtype, view: Any) -> Tensor:
    _, first, values = view
    start, size = _count(first) * dtype.itemsize, _count(values) * dtype.itemsize
    if start + size > len(whole):
        raise ValueError("a view beyond its storage")
    return whole[start : start + size]


def _bytes(content: bytearray) -> Tensor:
    # torch can't make a tensor of an empty buffer.
    return torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0).byte()


def _count(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"a count that is a {type(number).__name__} or negative")
    return number


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor | OddTensor:
    return _view(storage, storage.dtype, offset, size, stride)


def _tensor_of_type(storage: Any, *rest: Any) -> Tensor | OddTensor:
    offset, size, stride, _, _, dtype, *_ = rest  # gradient and hooks are not wanted
    return _view(storage, _DTYPES[dtype.name], offset, size, stride)


def _view(
    storage: _Storage, dtype: torch.dtype, offset: Any, size: Any, stride: Any
) -> Tensor | OddTensor:
    """Return the tensor that is a view of a storage, all of which lies within."""
    if str(dtype).removeprefix("torch.").startswith("q"):
        return OddTensor(QUANTIZED)
    shape, steps = tuple(map(_count, size)), tuple(map(_count, stride))
    content = storage.content
    values = content[: len(content) // dtype.itemsize * dtype.itemsize].view(dtype)
    last = _count(offset) + sum((n - 1) * s for n, s in zip(shape, steps, strict=True))
    if math.prod(shape) and last >= len(values):
        raise ValueError("a tensor beyond its storage")
    return values.as_strided(shape, steps, values.storage_offset() + offset)


def _rebuilt(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """Return a tensor without the class and the attributes that it had."""
    return function.make(*arguments)


def _first(value: Any, *_: Any) -> Any:
    return value


def _odd(complaint: str) -> Callable[..., OddTensor]:
    return lambda *_: OddTensor(complaint)


def _empty_dict(*_: Any) -> dict[Any, Any]:
    return {}


_INERT = (
    *("_codecs.encode", "argparse.Namespace", "collections.Counter", "datetime.datetime"),
    *("datetime.timedelta", "numpy.dtype", "numpy.ndarray", "types.SimpleNamespace"),
    *(f"builtins.{name}" for name in ("bool", "bytearray", "complex", "dict", "float", "int")),
    *(f"builtins.{name}" for name in ("list", "set", "str")),
    *(
        f"numpy.{core}.multiarray.{name}"
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    *(
        f"pathlib{local}.{name}"
        for local in ("", "._local")
        for name in ("PosixPath", "WindowsPath")
    ),
    *("torch.Size", "torch.Tensor", "torch.device", "torch.nn.parameter.Parameter"),
    *("torch.serialization._get_layout", "torch.torch_version.TorchVersion"),
    *(f"torch.{name}" for name, value in vars(torch).items() if isinstance(value, torch.qscheme)),
    *(f"torch{place}.{name}" for place in ("", ".cuda", ".storage") for name in _STORAGES),
    *(f"torch{place}.{name[:-7]}Tensor" for place in ("", ".cuda") for name in _STORAGES),
    *_DTYPES,
)
_MAKERS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(_INERT, StandIn),
    "collections.OrderedDict": plain_dict,
    "collections.defaultdict": _empty_dict,
    "lightning.fabric.utilities.data.AttributeDict": _empty_dict,
    "lightning_fabric.utilities.data.AttributeDict": _empty_dict,
    "pytorch_lightning.utilities.parsing.AttributeDict": _empty_dict,
    "torch._tensor._rebuild_from_type_v2": _rebuilt,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": _odd(_STRANGE),
    "torch._utils._rebuild_meta_tensor_no_storage": _odd(META),
    "torch._utils._rebuild_nested_tensor": _odd(SPARSE),
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_qtensor": _odd(QUANTIZED),
    "torch._utils._rebuild_sparse_tensor": _odd(SPARSE),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_wrapper_subclass": _odd(_STRANGE),
}
