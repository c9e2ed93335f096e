"""What people hand over from Python: arrays, tensors, loaders, iterables of samples or batches."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trpexport.datasets.arrays import data_of
from trpexport.datasets.base import Dataset
from trpexport.datasets.locations import expanded
from trpexport.datasets.opening import open_data
from trpexport.datasets.tensors import TARGET, TensorSet
from trpexport.errors import DataError
from trpexport.inputs import Inputs
from trpexport.tensors import Array, Arrays

_NAME = "array"
_TARGETS = ("label", "labels", "target", "targets", "y")
_MAYBE_INPUTS = ("y",)  # of a network whose inputs nobody knows
_IMAGE_RANK, _BATCH_RANK = 3, 4


def data_from(
    given: Any, inputs: Inputs | None = None, *, limit: int | None = None
) -> Dataset | TensorSet:
    """Return what was handed over as data.

    Args:
        given: data; a name of data, or a path; an array or tensor of samples, or several by the
            names of a network's inputs; or an iterable, a ``DataLoader`` say, of such arrays, of
            (array, label), or of mappings, in batches or one by one. Bytes of pictures are images,
            everything else a network's input as it is.
        inputs: the network's, which say what is a batch and what is one sample, where known.
        limit: how many samples to take of an iterable, the first; None for all.

    Raises:
        DataError: it is none of that, holds nothing, or its samples differ in shape.
        TrpexportError: as :func:`~trpexport.datasets.opening.open_data`.
    """
    if isinstance(given, Dataset | TensorSet):
        return given
    if isinstance(given, str | os.PathLike):
        return open_data(os.fspath(given))
    targets: dict[str, Array]
    if _is_array(given):
        arrays, targets = {_name(inputs): _array(given)}, {}
    elif isinstance(given, Mapping):
        arrays, targets = {name: _array(value) for name, value in given.items()}, {}
        if inputs is not None:
            arrays, targets = _split(arrays, inputs)
    elif isinstance(given, Iterable) or hasattr(given, "__getitem__"):
        arrays, targets = _gathered(given, inputs, limit)
    else:
        raise DataError(
            f"images can't be a {type(given).__name__}: give an array, a tensor, a loader, an "
            "iterable of them, or the name of data, as in 'cifar10:DIR'"
        )
    if inputs is not None and inputs.first.dtype is not None:  # whose bytes are no pictures
        return TensorSet(f"tensors:{_NAME}", arrays, targets)
    return data_of(_NAME, arrays, targets)


def fingerprint(data: Dataset | TensorSet) -> str:
    """Return what tells data from others, from run to run.

    Their name, with names, sizes and times of the files that it leads to; of what was handed over,
    the content.
    """
    if data.name.partition(":")[2] != _NAME:
        return _state(data)
    if isinstance(data, TensorSet):
        arrays = [*data.inputs.items(), *data.targets.items()]
    else:
        images = data.images("test").in_memory()
        arrays = [] if images is None else [("images", images)]
    digest = hashlib.sha256()
    for name, array in arrays:
        digest.update(f"{name}:{array.dtype}:{array.shape}:".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return f"{data.name}:{digest.hexdigest()}"


def _state(data: Dataset | TensorSet) -> str:
    """Return the name of data, and a hash of what is known of the files that they are read from."""
    location = data.name.partition(":")[2]
    found = list(data.files) if isinstance(data, Dataset) else []
    if location:
        place = expanded(location)
        found += [place, *place.rglob("*")]
    digest = hashlib.sha256()
    for path in sorted(filter(Path.is_file, found)):
        status = path.stat()
        digest.update(f"{path}:{status.st_size}:{status.st_mtime_ns}\n".encode())
    return f"{data.name}:{digest.hexdigest()}"


def is_at_hand(given: Any) -> bool:
    """Whether what was handed over is all in memory: arrays, which are meant as a whole."""
    return _is_array(given) or isinstance(given, Mapping)


def _gathered(
    given: Any, inputs: Inputs | None, limit: int | None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the samples of an iterable and their labels, if it gives any.

    Raises:
        DataError: there are none, or they differ in what they hold.
    """
    in_batches = getattr(given, "batch_size", None) is not None
    found: dict[str, list[Array]] = {}
    labels: dict[str, list[Array]] = {}
    count = 0
    for item in _items(given):
        arrays, targets = _item(item, inputs)
        first = next(iter(arrays.values()), None)
        if first is None:
            raise DataError("the images come as empty items: give tensors")
        if not (in_batches or _is_batch(first, targets, inputs)):
            arrays, targets = (
                {name: np.asarray(one)[np.newaxis] for name, one in some.items()}
                for some in (arrays, targets)
            )
        for gathered, some in ((found, arrays), (labels, targets)):
            for name, array in some.items():
                gathered.setdefault(name, []).append(array)
        count += len(next(iter(arrays.values())))
        if limit is not None and count >= limit:
            break
    if not found:
        raise DataError("there are no images: the iterable gave nothing, or was used up before")
    try:
        joined = [
            {name: np.concatenate(parts)[:limit] for name, parts in some.items()}
            for some in (found, labels)
        ]
    except ValueError as error:
        raise DataError(f"the images can't be put together: {error}") from error
    return joined[0], joined[1]


def _items(given: Any) -> Iterable[Any]:
    """Return the items of an iterable, or of what only has numbered items, as data sets of torch.

    Python asks such for items until an IndexError, which not all of them raise.
    """
    if isinstance(given, Iterable):
        return given
    return (given[index] for index in range(len(given)))


def _item(item: Any, inputs: Inputs | None) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return arrays and targets of one item by name."""
    if isinstance(item, Mapping):
        return _split({name: _array(value) for name, value in item.items()}, inputs)
    if not isinstance(item, tuple | list):
        return {_name(inputs): _array(item)}, {}
    names = [*inputs] if inputs is not None and len(inputs) > 1 else [_name(inputs)]
    parts = [_array(part) for part in item]
    targets = {TARGET: parts[len(names)]} if len(parts) > len(names) else {}
    return dict(zip(names, parts, strict=False)), targets


def _split(
    arrays: Mapping[str, Array], inputs: Inputs | None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Tell inputs from targets by name: those that the network has are inputs."""
    known = (*_MAYBE_INPUTS,) if inputs is None else (*inputs,)
    targets = {
        name: array for name, array in arrays.items() if name in _TARGETS and name not in known
    }
    found = {name: array for name, array in arrays.items() if name not in targets}
    return found, {TARGET: next(iter(targets.values()))} if targets and found else {}


def _is_batch(first: Array, targets: Arrays, inputs: Inputs | None) -> bool:
    """Whether an item holds several samples: by the network's inputs, its label, its shape."""
    if inputs is not None and first.dtype != np.uint8:
        return first.ndim == len(inputs.first.shape)
    label = next(iter(targets.values()), None)
    if label is not None:
        return label.ndim > 0 and len(label) == len(first) and first.ndim != _IMAGE_RANK
    return first.ndim != _IMAGE_RANK if first.dtype.kind == "f" else first.ndim == _BATCH_RANK


def _name(inputs: Inputs | None) -> str:
    return "input" if inputs is None else next(iter(inputs))


def _is_array(given: Any) -> bool:
    return hasattr(given, "__array__") and hasattr(given, "shape")


def _array(values: Any) -> Array:
    """Return an array, a tensor of PyTorch, or a picture of Pillow, as an array.

    Raises:
        DataError: it is none.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"a sample is no array: {error}") from error
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"a sample is a {type(values).__name__}, no array of numbers: give arrays or tensors"
        )
    return array
