"""What two networks put out for the same samples, output by output, without labels. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trpexport.errors import DataError, ModelError
from trpexport.runtime.session import run_in_batches
from trpexport.tensors import Array, Arrays, Shapes, has_channels_last, shape_text

if TYPE_CHECKING:
    from trpexport.judge.examples import Examples, Judged

_BATCH = 32  # samples at a time, where the network leaves that open


@dataclass(frozen=True, eq=False)
class OutputPair:
    """One output of two networks, sample by sample.

    Attributes:
        name: as the first network calls it.
        differences: sum of the squared differences of each sample, (n,); None of whole numbers,
            whose differences mean nothing.
        squares: sum of the squares of the first network's, (n,).
        differing: share of a sample's places at which the two say another class, (n,): the largest
            of the channels, or a whole number; None where there is nothing to choose between.
        broken: samples for which either put out NaN or infinity.
    """

    name: str
    differences: NDArray[np.float64] | None
    squares: NDArray[np.float64]
    differing: NDArray[np.float64] | None
    broken: int


@dataclass(frozen=True, eq=False)
class Compared:
    """Two networks on the same samples.

    Attributes:
        pairs: one an output.
        data: the data as the user typed them.
        split: which part of them.
        samples: how many.
        fingerprint: tells whether two comparisons are of the same samples.
        inputs: shapes of the inputs of one sample as each network took them, batch first.
    """

    pairs: tuple[OutputPair, ...]
    data: str
    split: str
    samples: int
    fingerprint: str
    inputs: tuple[Shapes, ...]

    def facts(self) -> dict[str, Any]:
        """Return error and agreement of each output, JSON-ready; None for what has none."""
        return {pair.name: _facts(pair) for pair in self.pairs}


def _facts(pair: OutputPair) -> dict[str, Any]:
    error = agreement = None
    if pair.differences is not None and not pair.broken and pair.squares.sum() > 0:
        error = float(np.sqrt(pair.differences.sum() / pair.squares.sum()))
    if pair.differing is not None:
        agreement = 1 - float(pair.differing.mean())
    return {"error": error, "agreement": agreement}


@dataclass
class OutputTally:
    """Compares outputs batch by batch.

    Attributes:
        channels_last: whether the channels of maps are their last dimension.
    """

    channels_last: bool = False
    _parts: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)

    def add(self, first: Arrays, second: Arrays, count: int) -> None:
        """Take in what both networks put out for so many samples.

        Raises:
            ModelError: an output has another shape than the other network's, or not one entry a
                sample; or there are others.
        """
        for name, other in _matched(first, second).items():
            one, two = first[name], second[other]
            if one.shape != two.shape or one.shape[:1] != (count,):
                raise ModelError(
                    f"the output {name} is {shape_text(one.shape) or 'a scalar'} of one network "
                    f"and {shape_text(two.shape) or 'a scalar'} of the other for {count} samples: "
                    "choose an output with one entry a sample, of both",
                    parameters=("output",),
                )
            self._parts.setdefault(name, []).append(self._compared(one, two))

    def pairs(self) -> tuple[OutputPair, ...]:
        """Return what was found, one an output."""
        return tuple(
            OutputPair(
                name,
                None if parts[0][0] is None else np.concatenate([part[0] for part in parts]),
                np.concatenate([part[1] for part in parts]),
                None if parts[0][2] is None else np.concatenate([part[2] for part in parts]),
                sum(part[3] for part in parts),
            )
            for name, parts in self._parts.items()
        )

    def _compared(self, one: Array, two: Array) -> tuple[Any, ...]:
        rows = len(one)
        if one.dtype.kind != "f":
            differing = (one != two).reshape(rows, -1).mean(axis=1)
            return None, np.zeros(rows), differing, 0
        flat, other = (a.reshape(rows, -1).astype(np.float64) for a in (one, two))
        broken = ~(np.isfinite(flat) & np.isfinite(other)).all(axis=1)
        with np.errstate(invalid="ignore", over="ignore"):
            differences, squares = np.square(other - flat).sum(axis=1), np.square(flat).sum(axis=1)
        axis = one.ndim - 1 if self.channels_last else 1
        differing = None
        if one.ndim > 1 and one.shape[axis] > 1:
            found = one.argmax(axis) != two.argmax(axis)
            differing = found.reshape(rows, -1).mean(axis=1)
            differing[broken] = 1
        return differences, squares, differing, int(broken.sum())


def compare_networks(
    models: Sequence[Judged],
    examples: Examples,
    *,
    batch: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> Compared:
    """Run two networks on the same samples and compare what they put out.

    Args:
        models: the two, the baseline first.
        examples: what to run them on; labels are of no matter.
        batch: samples in memory at a time; also the network's batch, where it leaves that open.
        advance: called with the number of samples after each batch.

    Raises:
        DataError: the samples do not fit a network.
        ModelError: a network can't be run, or their outputs can't be compared.
    """
    if batch is not None and batch < 1:
        raise DataError(f"a batch can't be {batch}: choose 1 or more", parameters=("batch",))
    size = batch or _BATCH
    tally = OutputTally(has_last_channels(models[0]))
    shapes: list[Shapes] = [{} for _ in models]
    for start in range(0, len(examples.indices), size):
        which = examples.indices[start : start + size]
        found: list[Arrays] = []
        for place, model in enumerate(models):
            feeds = examples.feeds(model, which)
            shapes[place] = {name: array.shape for name, array in feeds.items()}
            found.append(judged_outputs(model, run_in_batches(model.session, feeds)))
        tally.add(found[0], found[1], len(which))
        if advance is not None:
            advance(len(which))
    return Compared(
        tally.pairs(),
        examples.data,
        examples.split,
        len(examples.indices),
        examples.sha256(),
        tuple(shapes),
    )


def judged_outputs(model: Judged, outputs: Arrays) -> Arrays:
    """Return the output to judge by its name, all where none is chosen."""
    return outputs if model.output is None else {model.output: outputs[model.output]}


def has_last_channels(model: Judged) -> bool:
    """Whether a network's images have their channels last, and so its maps."""
    shape = model.session.inputs[0].shape
    return len(shape) == 4 and any(has_channels_last(shape, count) for count in (1, 3))


def _matched(first: Arrays, second: Arrays) -> dict[str, str]:
    """Return by each output of the first network that of the second: by name, else by place.

    Raises:
        ModelError: they have different numbers of outputs.
    """
    if first.keys() == second.keys():
        return {name: name for name in first}
    if len(first) != len(second):
        raise ModelError(
            f"one network puts out {', '.join(first)}, the other {', '.join(second)}: choose an "
            "output of both",
            parameters=("output",),
        )
    return dict(zip(first, second, strict=True))
