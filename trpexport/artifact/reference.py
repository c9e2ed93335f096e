"""What a file is compared with: inputs, and what the network makes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain, repeat
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch

from trpexport.compare import Comparison, compare_outputs
from trpexport.errors import ModelError
from trpexport.inputs import Input, Inputs, InputsLike, images_of, rows
from trpexport.networks.dynamic import Dynamic, other_sizes
from trpexport.networks.torch.arguments import drawn
from trpexport.runtime.session import open_session, run_in_batches
from trpexport.tensors import Array, Arrays

MIN_INPUTS = 8
MAX_INPUTS = 1024
# What one batch may cost: enough to keep the cores busy, little enough to fit in memory.
_BATCH_MACS = 2_000_000_000
_BATCH_ELEMENTS = 4_000_000
_LARGEST_BATCH = 64
_REMEMBERED_ELEMENTS = 1_000_000  # of one batch: the outputs of classifiers, not of segmentation

Comparisons = dict[str, Comparison]


class Runnable(Protocol):
    """Gives outputs on inputs: all that a comparison asks of a network."""

    def run(self, feeds: Arrays) -> Arrays:
        """Return the outputs by name for inputs by name; first dimensions count images.

        Raises:
            ModelError: these inputs can't be run.
        """


class OnnxFile:
    """An ONNX file, run by ONNX Runtime in batches of its own size where that is fixed.

    Args:
        path: the file.
        provider: a name in :data:`trpexport.runtime.providers.PROVIDERS`.

    Raises:
        ModelError: it can't be opened, or the provider does not run it.
    """

    def __init__(self, path: Path, provider: str = "cpu") -> None:
        self._session = open_session(path, provider=provider)

    def run(self, feeds: Arrays) -> Arrays:
        """Return its outputs."""
        return run_in_batches(self._session, feeds)


@dataclass(frozen=True)
class ReferenceRuns:
    """Inputs, and what the network that is being verified makes of them: the same every time.

    Several files and networks are compared with it, so its outputs are remembered.

    Attributes:
        network: the network.
        inputs: what it takes.
        macs: its MACs for one image, which set the batch size.
        given: real inputs by name; standard normal ones are drawn where it is None.
        batch: the only batch size to run; None for several of them.
        takes_others: whether the network runs other batch sizes, and gives as much for each image.
        dtype: numpy's name of the type of floats among the inputs.
        others: inputs of other sizes, on which files are compared as well.
    """

    network: Runnable
    inputs: Inputs
    macs: int
    given: Arrays | None = None
    batch: int | None = None
    takes_others: bool = True
    dtype: str = "float32"
    others: tuple[Inputs, ...] = ()
    _remembered: dict[int, Arrays] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of(
        cls,
        network: Runnable,
        inputs: InputsLike,
        macs: int,
        given: Array | Arrays | None = None,
        dtype: str = "float32",
    ) -> Self:
        """Choose the inputs to run, and their batch size where that makes a difference.

        Raises:
            ModelError: the network can't run such inputs; those given do not fit it, or are too
                few; or it gives NaN, or something else each time.
        """
        inputs = Inputs.of(inputs)
        batch = inputs.batch
        if given is not None:
            given = inputs.named(given, "the inputs to verify on", ModelError)
            given = {name: _typed(array, inputs[name], dtype) for name, array in given.items()}
        few = arrays_for(inputs, 0, dtype) if given is None else rows(given, slice(batch))
        if images_of(few) == batch:
            check_repeats(network, few, is_drawn=given is None)
        uses = batch_use(network, inputs, dtype)
        only = None if uses is BatchUse.ANY else batch
        if given is not None and images_of(given) < (only or 1):
            raise ModelError(
                f"{images_of(given)} inputs to verify on are not enough: give at least {only or 1}"
            )
        return cls(network, inputs, macs, given, only, uses is not BatchUse.ONE, dtype)

    def golden(self) -> Arrays:
        """Return the first inputs: ``batch`` of them, or at least 1 and at most 8."""
        few = max(1, min(MIN_INPUTS, _BATCH_ELEMENTS // self._elements))
        return self._feeds(0, self.batch or few)

    def runs(
        self, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> Iterator[tuple[Arrays, Arrays]]:
        """Yield (inputs, outputs) for ``seconds``, but at least 8 images and at most 1,024 in all.

        Unless there is only one batch size to run, the first two batches hold 1 and 3 images, so
        that a batch size that is said to be open is.
        """
        total = MAX_INPUTS if self.given is None else min(MAX_INPUTS, images_of(self.given))
        if self.batch is not None:
            total = max(1, total // self.batch) * self.batch
        sizes = self._batch_sizes()
        end = clock() + seconds
        start = 0
        while start < total and (start < MIN_INPUTS or clock() < end):
            size = min(next(sizes), total - start)
            feeds = self._feeds(start, size)
            yield feeds, self._outputs(start, feeds)
            start += size

    def compare(self, candidate: Runnable, *, seconds: float) -> Comparisons:
        """Compare a candidate with the network for ``seconds``, by output.

        Raises:
            ModelError: the candidate can't run the inputs, or its outputs are of another kind.
        """
        runs = chain(self.runs(seconds), self.resized_runs())
        return compare_outputs((outputs, candidate.run(feeds)) for feeds, outputs in runs)

    def at_other_sizes(self, dynamic: Dynamic) -> Self:
        """Return it with inputs of other sizes, those that the network runs.

        Args:
            dynamic: by input, the names of the axes whose sizes change.
        """
        groups = other_sizes(self.inputs, dynamic)
        found = [next(filter(self._runs, sizes), None) for sizes in groups]
        return replace(self, others=tuple(inputs for inputs in found if inputs is not None))

    def _runs(self, inputs: Inputs) -> bool:
        """Whether the network runs inputs of another size, and gives numbers for them."""
        try:
            outputs = self.network.run(arrays_for(inputs, 0, self.dtype))
            check_numbers(outputs, is_drawn=True)
        except ModelError:
            return False
        return True

    def resized_runs(self) -> Iterator[tuple[Arrays, Arrays]]:
        """Yield (inputs, outputs) of each other size."""
        for inputs in self.others:
            feeds = arrays_for(inputs, 0, self.dtype)
            yield feeds, self.network.run(feeds)

    def _batch_sizes(self) -> Iterator[int]:
        if self.batch is not None:
            return repeat(self.batch)
        most = min(_LARGEST_BATCH, _BATCH_ELEMENTS // self._elements)
        return chain((1, 3), repeat(max(1, min(most, _BATCH_MACS // max(1, self.macs)))))

    @property
    def _elements(self) -> int:
        return max(1, self.inputs.elements)

    def _feeds(self, start: int, size: int) -> Arrays:
        if self.given is not None:
            found: Arrays = rows(self.given, slice(start, start + size))
            return found
        return arrays_for(self.inputs.with_batch(size), start, self.dtype)

    def _outputs(self, start: int, feeds: Arrays) -> Arrays:
        if start in self._remembered:
            return self._remembered[start]
        outputs = self.network.run(feeds)
        check_numbers(outputs, is_drawn=self.given is None)
        if sum(array.size for array in outputs.values()) <= _REMEMBERED_ELEMENTS:
            self._remembered[start] = outputs
        return outputs


def arrays_for(inputs: Inputs, seed: int, dtype: str) -> dict[str, Array]:
    """Return drawn inputs, floats of one type: the same for the same seed."""
    return {
        name: _typed(tensor.numpy(), inputs[name], dtype)
        for name, tensor in drawn(inputs, seed).items()
    }


def _typed(array: Array, one: Input, dtype: str) -> Array:
    return np.ascontiguousarray(array, dtype=one.dtype or dtype)


def check_numbers(outputs: Arrays, *, is_drawn: bool) -> None:
    """Refuse outputs with NaN, or with infinities that can't be compared: nothing is told by them.

    Raises:
        ModelError: one does.
    """
    for name, values in outputs.items():
        if not np.isfinite(values).all() and not _agree({name: values}, {name: values}):
            kind = "NaN" if np.isnan(values).any() else "infinities"
            text = f"the network's {name} holds {kind} for"
            if not is_drawn:
                raise ModelError(f"{text} the inputs given: prepare them as in its training")
            raise ModelError(
                f"{text} standard normal inputs, by which nothing can be told: give inputs of the "
                "kind that it was trained on",
                parameters=("inputs",),
            )


def check_repeats(network: Runnable, feeds: Arrays, *, is_drawn: bool = False) -> None:
    """Refuse a network that gives something else for the same inputs, or NaN.

    Raises:
        ModelError: it does, or can't run them.
    """
    others = {name: np.roll(values, 1, axis=-1) for name, values in feeds.items()}
    with torch.random.fork_rng(devices=()):
        runs = []
        for seed, inputs in ((0, feeds), (0, others), (0, feeds), (1, feeds)):
            torch.manual_seed(seed)
            runs.append(network.run(inputs))
    first, _, again, drawn = runs
    check_numbers(first, is_drawn=is_drawn)
    if not _agree(first, again):
        raise ModelError(
            "the network gives something else each time for the same input: its forward must not "
            "keep anything of the runs before, or draw random numbers, in evaluation mode"
        )
    if not _agree(first, drawn):
        raise ModelError(
            "the network draws random numbers in evaluation mode, so that no two runs agree: "
            "switch that off there, as F.dropout(x, training=self.training) does"
        )


def _agree(one: Arrays, other: Arrays) -> bool:
    try:
        return all(found.is_equivalent() for found in compare_outputs([(one, other)]).values())
    except ModelError:  # they are of other shapes, or of no elements
        return one.keys() == other.keys() and all(
            np.array_equal(one[name], other[name]) for name in one
        )


class BatchUse(Enum):
    """What a network makes of its batch."""

    ANY = "an image's outputs are the same in any batch"
    MIXED = "an image's outputs depend on the others in its batch"
    ONE = "one batch size alone runs, or has outputs by image"


def batch_use(network: Runnable, inputs: InputsLike, dtype: str = "float32") -> BatchUse:
    """Return what a network makes of its batch, found by running it on several.

    An image's outputs depend on the others where statistics are taken over the batch, or where the
    batch holds the frames of one clip: such a network, and one that takes one batch size alone, can
    only be compared at the batch size that it is used at.

    Args:
        network: the network.
        inputs: what it takes, or the shape of its only input, batch first.
        dtype: numpy's name of the type of floats among them.

    Raises:
        ModelError: it can't run such inputs.
    """
    inputs = Inputs.of(inputs)
    x = arrays_for(inputs.with_batch(inputs.batch + 1), 0, dtype)
    own = network.run(rows(x, slice(inputs.batch)))
    try:
        other, both = network.run(rows(x, slice(inputs.batch, None))), network.run(x)
        parts = {name: np.concatenate([own[name], other[name]]) for name in own}
        comparisons = compare_outputs([(both, parts)])
    except (ModelError, ValueError):  # it runs no other batch, or its outputs count no images
        return BatchUse.ONE
    same = all(comparison.is_equivalent() for comparison in comparisons.values())
    return BatchUse.ANY if same else BatchUse.MIXED
