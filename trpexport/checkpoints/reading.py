"""Reading a checkpoint file into plain CPU tensors, without running any code from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from trpexport.checkpoints.formats import Format, check_zip, recognise_format
from trpexport.checkpoints.keys import MAX_TENSORS
from trpexport.checkpoints.programs import is_program, read_program
from trpexport.checkpoints.torch_files import (
    META,
    QUANTIZED,
    SPARSE,
    TRUST,
    OddTensor,
    read_torch_file,
)
from trpexport.checkpoints.unpickling import load_with_pickle
from trpexport.checkpoints.wording import one_line
from trpexport.checkpoints.wrappers import unwrap
from trpexport.errors import CheckpointError, UnsafeCheckpointError
from trpexport.files import sha256_of
from trpexport.inputs import Inputs

# What no network has, and what would take hours or all memory.
_MAX_NAME, _MAX_PARTS = 500, 30  # characters, dots
_MAX_HEADER = 2**25  # bytes of safetensors' JSON, which takes thirty times as much in memory
_MAX_DIMENSIONS = 64  # of torch's own operations
# Layers may share their weights. As float32 all names together may claim so many times the file,
# and so many bytes more.
_MAX_SHARING, _FREE_BYTES = 4, 2**28


@dataclass(frozen=True)
class StateFile:
    """What a checkpoint file holds.

    Attributes:
        path: the file.
        sha256: its SHA-256 as hexadecimal text.
        tensors: parameters and buffers by the names in the file, on the CPU, in the file's types.
        metadata: the header's texts of a safetensors file.
        notes: what was taken and what was left, for the reader.
        module: the network, where it was pickled or exported whole and that was allowed.
        inputs: what that takes, where the file says so.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    module: nn.Module | None = None
    inputs: Inputs | None = None


def read_state_dict(path: str | Path, *, unsafe_pickle: bool = False) -> StateFile:
    """Read a ``.pth``, ``.th`` or ``.safetensors`` file; its content decides, not its name.

    Files of ``torch.save``, both the zip format and the one before torch 1.6, are read as data:
    every value is one of the file. Weights saved on an accelerator come to the CPU.

    A zip file's checksums are compared, so a flipped bit is found. The older format and
    safetensors carry none: there a damaged structure is found, and later NaN and infinity, but a
    weight that merely changed can't be.

    Args:
        path: the file.
        unsafe_pickle: load a file that holds pickled code as well, **which runs that code**.

    Raises:
        UnsafeCheckpointError: the file holds pickled code, and ``unsafe_pickle`` is False.
        CheckpointError: it can't be read, is damaged, or holds no weights that can be used.
    """
    path = Path(path)
    file_format = recognise_format(path)
    sha256 = sha256_of(path)
    if file_format == "zip" and is_program(path):
        module, inputs = read_program(path, unsafe_pickle=unsafe_pickle)
        weights = {name: tensor.detach() for name, tensor in module.state_dict().items()}
        return StateFile(path, sha256, weights, module=module, inputs=inputs)
    if file_format == "safetensors":
        tensors, metadata = _read_safetensors(path)
        root: object = tensors
    else:
        metadata = {}
        root = _read_pickle(path, file_format, unsafe_pickle)
    try:
        contents = unwrap(root)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from error
    plain = _plain(path, contents.tensors)
    return StateFile(path, sha256, plain, metadata, contents.notes, contents.module)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    import safetensors

    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > _MAX_HEADER:
        raise CheckpointError(
            f"{path} is damaged: a header of {header} bytes is larger than any network's"
        )
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as tensors:
            names = list(tensors.keys())
            _check_count(path, names)
            found = {name: tensors.get_tensor(name) for name in names}
            return found, dict(tensors.metadata() or {})
    except CheckpointError:
        raise
    except Exception as error:  # SafetensorError, and what torch raises on a strange dtype or size
        raise CheckpointError(
            f"{path} is truncated or damaged ({one_line(error)}): download or save it again"
        ) from error


def _read_pickle(path: Path, file_format: Format, unsafe_pickle: bool) -> object:
    if file_format == "zip":
        check_zip(path)
    try:
        if file_format == "tar":
            raise UnsafeCheckpointError(
                f"{path} is a tar archive: unpack it first; if torch.save wrote it (before 2017), "
                f"load it with that torch and save its state_dict again, {TRUST}"
            )
        return read_torch_file(path, file_format)
    except UnsafeCheckpointError:
        if not unsafe_pickle:
            raise
    return load_with_pickle(path)


def _plain(path: Path, tensors: Mapping[str, Tensor | OddTensor]) -> dict[str, Tensor]:
    """Return the tensors, none of which claims more than the file can hold."""
    size = path.stat().st_size
    _check_count(path, tensors)
    plain = {}
    for name, tensor in tensors.items():
        complaint = _name_complaint(name) or _complaint(tensor, size)
        if complaint is not None:
            raise CheckpointError(f"{path}: {one_line(name)} {complaint}")
        assert isinstance(tensor, Tensor)
        plain[name] = tensor.detach()
    claimed = sum(tensor.numel() for tensor in plain.values())
    if 4 * claimed > _MAX_SHARING * size + _FREE_BYTES:
        raise CheckpointError(
            f"{path}: its tensors share their values: {claimed} in {size} bytes are too many"
        )
    return plain


def _check_count(path: Path, names: Collection[str]) -> None:
    if len(names) > MAX_TENSORS:
        raise CheckpointError(f"{path} holds {len(names)} tensors, more than any network: save one")


def _name_complaint(name: str) -> str | None:
    if len(name) > _MAX_NAME or name.count(".") > _MAX_PARTS:
        return f"is a name of {len(name)} characters, as no network has: save the weights again"
    return None


def _complaint(tensor: Tensor | OddTensor, file_size: int) -> str | None:
    """Say why a tensor can't be taken; its values are not looked at."""
    if isinstance(tensor, OddTensor):
        return tensor.complaint
    if tensor.is_quantized:
        return QUANTIZED
    if tensor.layout is not torch.strided or tensor.is_nested:
        return SPARSE
    if tensor.is_meta:
        return META
    if type(tensor) not in (Tensor, nn.Parameter):
        return f"is a {type(tensor).__name__}: save it as a plain tensor"
    if tensor.numel() == 0:
        return "has no values: save the network after it was built in full"
    if tensor.ndim > _MAX_DIMENSIONS:
        return f"has {tensor.ndim} dimensions, as no weight has: save it in its own shape"
    # A forged stride of 0 makes a few bytes look like terabytes.
    if tensor.numel() * tensor.element_size() > file_size:
        return f"claims {tensor.numel()} values, more than the file holds: download it again"
    return None
