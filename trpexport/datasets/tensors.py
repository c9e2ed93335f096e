"""Raw tensors by the name of a network's input, and what the network should make of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from trpexport.arrays import read_arrays
from trpexport.datasets.base import Reader
from trpexport.datasets.locations import damaged, existing, unreadable
from trpexport.datasets.registry import DATASETS
from trpexport.errors import DataError, TrpexportError
from trpexport.files import check_plain
from trpexport.inputs import GOLDEN_INPUT, GOLDEN_OUTPUT, rows
from trpexport.tensors import Array, Arrays, shape_text
from trpexport.text import printable

USAGE = "tensors:FILE.npz"
TARGET = "target"
_OF_OUTPUT = f"{TARGET}."
_SUFFIX = ".npy"
_REMEDY = "save arrays of numbers, as in numpy.savez(file, input=..., target=...)"


@dataclass(frozen=True)
class TensorSet:
    """Samples that are a network's input as they are.

    Attributes:
        name: what the user typed, as in ``tensors:FILE.npz``.
        inputs: by input (samples, *shape of one); may be memory maps.
        targets: what the network should put out, by output; under :data:`TARGET` where it is for
            no output by name.
    """

    name: str
    inputs: Arrays
    targets: Arrays

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def checked(self, source: object) -> Self:
        """Return it once it holds samples: numbers, as many of each.

        Args:
            source: where they come from, for the message.

        Raises:
            DataError: it does not.
        """
        named = {n if n == TARGET else f"{_OF_OUTPUT}{n}": a for n, a in self.targets.items()}
        arrays = {**self.inputs, **named}
        for name, array in arrays.items():
            if array.dtype.kind not in "fiub" or not array.ndim:
                raise DataError(
                    f"{printable(source)}: {printable(name)} is {array.dtype} of shape "
                    f"{shape_text(array.shape) or '()'}, not numbers of several samples: {_REMEDY}"
                )
        if not self.inputs:
            raise DataError(f"{printable(source)} holds no inputs of a network: {_REMEDY}")
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{count} of {printable(name)}" for name, count in counts.items())
            raise DataError(
                f"{printable(source)} holds {said}: the first dimension counts samples, give as "
                "many of each"
            )
        if not len(self):
            raise DataError(f"{printable(source)} holds no samples: save at least one")
        return self

    @property
    def has_classes(self) -> bool:
        """Whether what should come out is one class a sample."""
        targets = [*self.targets.values()]
        return len(targets) == 1 and targets[0].ndim == 1 and targets[0].dtype.kind in "iu"

    def inputs_of(self, names: Iterable[str]) -> dict[str, Array]:
        """Return the arrays of a network's inputs; the only one's may have any name.

        Raises:
            DataError: one is missing, or there are more.
        """
        names = list(names)
        if len(names) == len(self.inputs) == 1:
            return dict(zip(names, self.inputs.values(), strict=True))
        if set(names) != set(self.inputs):
            raise DataError(
                f"{printable(self.name)} holds {printable(', '.join(self.inputs))}, the network "
                f"takes {', '.join(names)}: save one array for each input, under its name"
            )
        return {name: self.inputs[name] for name in names}

    def given(self, names: Iterable[str]) -> Array | Arrays:
        """Return what :meth:`inputs_of` does, of the only input without its name."""
        named = self.inputs_of(names)
        return named if len(named) > 1 else next(iter(named.values()))

    @property
    def known_targets(self) -> Array | Arrays | None:
        """What should come out for all samples: of one output, or of several; None if unknown."""
        if not self.targets:
            return None
        return self.targets if len(self.targets) > 1 else next(iter(self.targets.values()))

    def target(self, which: Sequence[int] | Array, output: str | None = None) -> Array | Arrays:
        """Return what should come out for some samples.

        Args:
            which: numbers of the samples.
            output: the output; of all where it is None.

        Returns:
            One array, where there is one target or an output was named; else arrays by output.

        Raises:
            DataError: there are none, or none for this output.
        """
        if not self.targets:
            raise DataError(
                f"{printable(self.name)} has no targets to judge by: save them with the inputs, as "
                f"{TARGET}, or as {_OF_OUTPUT}NAME for the output NAME"
            )
        if output is not None and len(self.targets) > 1:
            if output not in self.targets:
                raise DataError(
                    f"{printable(self.name)} has targets for "
                    f"{printable(', '.join(self.targets))}, none for {output}: save them as "
                    f"{_OF_OUTPUT}{output}"
                )
            return np.asarray(self.targets[output][which])
        chosen: Arrays = rows(self.targets, which)
        return chosen if len(chosen) > 1 else next(iter(chosen.values()))


def open_tensors(location: str | None) -> TensorSet:
    """Open arrays by the names of a network's inputs; their first dimension counts samples.

    Of a bundle's golden arrays they are the inputs.

    They are a file of numpy.savez; or a folder with one ``.npy`` each, which are not read but
    mapped into memory. Targets are ``target``, or ``target.NAME`` for the output NAME.

    Raises:
        DataError: they can't be read, are no numbers, differ in number, or are all targets.
    """
    path = existing(location, USAGE)
    arrays = _mapped(path) if path.is_dir() else _read(path)
    inputs = {name: a for name, a in arrays.items() if not is_target(name)}
    targets = {n.removeprefix(_OF_OUTPUT): a for n, a in arrays.items() if is_target(n)}
    return TensorSet(f"tensors:{location}", inputs, targets).checked(path)


def are_tensors(name: str) -> bool:
    """Whether what a user typed for data names raw tensors."""
    return name.partition(":")[0] == USAGE.partition(":")[0]


def is_target(name: str) -> bool:
    """Whether an array of this name says what should come out."""
    return name == TARGET or name.startswith(_OF_OUTPUT)


def _read(path: Path) -> Mapping[str, Array]:
    try:
        arrays = read_arrays(path, remedy=_REMEDY, error=DataError)
    except TrpexportError as error:
        raise DataError(printable(error)) from error
    return {
        name.removeprefix(GOLDEN_INPUT): array
        for name, array in arrays.items()
        if not name.startswith(GOLDEN_OUTPUT)
    }


def mapped(path: Path) -> Array:
    """Return the array of a file of numpy.save, which is mapped into memory.

    Raises:
        DataError: it can't be read, or is damaged.
    """
    try:
        check_plain(path)
        # Copy on write: what is read alone PyTorch warns of, and the file stays as it is.
        array: Array = np.lib.format.open_memmap(path, mode="c")
    except OSError as error:
        unreadable(error)
    except Exception as error:  # numpy raises what it likes for a damaged file
        raise damaged(path, error) from error
    return array


def _mapped(folder: Path) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        arrays[path.name.removesuffix(_SUFFIX)] = mapped(path)
    if not arrays:
        raise DataError(
            f"{printable(folder)} holds no {_SUFFIX} files: save one for each input, as in "
            f"numpy.save(folder / 'input{_SUFFIX}', ...), and target{_SUFFIX} with them"
        )
    return arrays


DATASETS.register("tensors", Reader(USAGE, "a network's inputs as they are, by name", open_tensors))
