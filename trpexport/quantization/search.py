"""Which nodes have to stay in float32: ranked by what each alone does, found by trial."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trpexport.compare import Comparison, compare_outputs
from trpexport.errors import ModelError, NothingToDoError
from trpexport.onnxfile.naming import module_name
from trpexport.quantization.bounds import bound_factor
from trpexport.quantization.formats import NumberFormat
from trpexport.quantization.linear import CHANNEL_AXIS
from trpexport.quantization.observing import batches
from trpexport.quantization.ort import Quantizer, quantizable, serialized
from trpexport.quantization.ranges import Range
from trpexport.quantization.settings import QuantizationSettings
from trpexport.runtime.session import Session, open_session
from trpexport.tensors import Array, Arrays

if TYPE_CHECKING:
    from onnx import ModelProto

# What goes with the node before it: it computes in whichever numbers that one gives.
_ACTIVATIONS = frozenset({"Relu", "Clip"})
_MOVES = frozenset(
    {
        *("ArgMax", "Flatten", "Gather", "GatherElements", "MaxPool", "Pad", "Reshape", "Slice"),
        *("Split", "Squeeze", "TopK", "Transpose", "Unsqueeze"),
    }
)
PASSED_ON = _ACTIVATIONS | _MOVES
"""Operators that compute in whichever numbers they get."""

_MEMORY = 1 << 28  # bytes of outputs that are kept to compare with
_RANKED_VALUES = 1 << 16  # of outputs that nodes are ranked by
_RANKED_IMAGES = (4, 32)
_NAMED = 5  # nodes that a message names


@dataclass(frozen=True)
class Unit:
    """Nodes that are quantized together, or not at all: one, and the activations behind it.

    Attributes:
        label: what the author of the network knows it by: its layer, or the first node's name.
        operator: that of the first one.
        nodes: names of all.
    """

    label: str
    operator: str
    nodes: tuple[str, ...]

    @property
    def is_linear(self) -> bool:
        """Whether it is where the multiplications are."""
        return self.operator in CHANNEL_AXIS


def nodes_of(units: Iterable[Unit]) -> frozenset[str]:
    """Return the names of all nodes of some units."""
    return frozenset(name for unit in units for name in unit.nodes)


def find_units(model: ModelProto, numbers: NumberFormat, tensors: Collection[str]) -> list[Unit]:
    """Return the units of a graph, in the order in which they run.

    Args:
        model: the network.
        numbers: in which it is to be written.
        tensors: names of those of float32.
    """
    users: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    taken = quantizable(numbers)
    units = []
    for node in model.graph.node:
        is_own = node.op_type in taken and node.op_type not in PASSED_ON
        if not is_own or not any(name in tensors for name in (*node.input, *node.output)):
            continue
        nodes, last = [node.name], node
        while len(behind := users.get(last.output[0], [])) == 1:
            if behind[0].op_type not in _ACTIVATIONS:
                break
            last = behind[0]
            nodes.append(last.name)
        layer = module_name(node.input[1]) if node.op_type in CHANNEL_AXIS else None
        units.append(Unit(layer or node.name, node.op_type, tuple(nodes)))
    return units


@dataclass(frozen=True)
class Error:
    """How far a network is off.

    Attributes:
        value: the error of its worst output on held-out images, relative to how much that varies.
        bound: what it is below on other images of the kind, at a confidence of 95 %.
    """

    value: float
    bound: float


class Trials:
    """Tells how far quantized networks are from the network on held-out images.

    Args:
        model: the network.
        inputs: the images, by input name; as many are used as there is room for their outputs.
    """

    def __init__(self, model: ModelProto, inputs: Arrays) -> None:
        session = open_session(serialized(model))
        self._batches: list[tuple[dict[str, Array], dict[str, Array]]] = []
        room = _MEMORY
        for batch in batches(session, inputs):
            outputs = session.run(batch)
            _check_numbers(outputs)
            self._batches.append((batch, outputs))
            room -= sum(array.nbytes for array in outputs.values())
            if room <= 0:
                break
        self.count = sum(_images(batch) for batch, _ in self._batches)

    def error(self, content: bytes | Path) -> Error:
        """Return how far a network is off."""
        session = open_session(content)
        pairs = [(expected, session.run(batch)) for batch, expected in self._batches]
        compared = compare_outputs(pairs)
        bounds = [
            _error(found) * _factor([(one[name], other[name]) for one, other in pairs], self.count)
            for name, found in compared.items()
        ]
        return Error(_worst(compared), max(bounds))

    def ranking(
        self, units: Sequence[Unit], ranges: Mapping[str, Range], quantize: Quantizer
    ) -> list[tuple[Unit, float]]:
        """Return units and the error that quantizing each alone makes, the worst first."""
        some = list(self._first_images())
        ranked = []
        for unit in units:
            alone = quantize(ranges, only=unit.nodes)
            session = open_session(serialized(alone))
            ranked.append((unit, _worst(self._compared(session, some))))
        return sorted(ranked, key=lambda one: -one[1])

    def _first_images(self) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        """Yield as many images as it takes for an error that tells nodes apart."""
        inputs, outputs = self._batches[0]
        values = sum(array.size for array in outputs.values()) / _images(inputs)
        wanted = int(np.clip(_RANKED_VALUES // values, *_RANKED_IMAGES))
        for one, expected in self._batches:
            yield one, expected
            wanted -= _images(one)
            if wanted <= 0:
                return

    @staticmethod
    def _compared(
        session: Session, pairs: Sequence[tuple[dict[str, Array], dict[str, Array]]]
    ) -> dict[str, Comparison]:
        return compare_outputs((expected, session.run(batch)) for batch, expected in pairs)


@dataclass(frozen=True)
class Found:
    """A quantized network that keeps within the limits.

    Attributes:
        model: it.
        excluded: units that stay in float32, the worst first.
        error: how far it is off.
        drop: how much worse it is by the judge; None where nobody judges.
    """

    model: ModelProto
    excluded: tuple[Unit, ...]
    error: Error
    drop: float | None


@dataclass(frozen=True)
class Search:
    """Excludes the worst units until the limits hold.

    Attributes:
        quantize: writes the network.
        ranges: of its tensors.
        always: names of nodes that can't be quantized.
        trials: tells errors.
        settings: with the limits.
    """

    quantize: Quantizer
    ranges: Mapping[str, Range]
    always: frozenset[str]
    trials: Trials
    settings: QuantizationSettings

    def __call__(self, ranking: Sequence[tuple[Unit, float]]) -> Found:
        """Return the network with the fewest units excluded, by bisection; what it is was measured.

        Args:
            ranking: all units, the worst first.

        Raises:
            NothingToDoError: the limits do not hold while any linear operator is quantized.
        """
        units = [unit for unit, _ in ranking]
        found = self._without(units[:0])
        if self._holds(found):
            return found
        linear = [index for index, unit in enumerate(units) if unit.is_linear]
        most = linear[-1] if linear else 0  # the last linear operator remains
        best = self._without(units[:most])
        if not self._holds(best):
            raise self._unmet(ranking, found, best)
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            tried = self._without(units[:middle])
            if self._holds(tried):
                high, best = middle, tried
            else:
                low = middle
        return best

    def _without(self, units: Sequence[Unit]) -> Found:
        names = self.always | nodes_of(units)
        model = self.quantize(self.ranges, without=names)
        content = serialized(model)
        error = self.trials.error(content)
        drop = None
        if self.settings.judge is not None:
            with tempfile.TemporaryDirectory(prefix="trpexport-") as folder:
                file = Path(folder) / "int8.onnx"
                file.write_bytes(content)
                drop = self.settings.judge(file)
        return Found(model, tuple(units), error, drop)

    def _holds(self, found: Found) -> bool:
        limits = self.settings
        is_near = limits.max_error is None or found.error.bound <= limits.max_error
        return is_near and (
            limits.max_drop is None or found.drop is None or found.drop <= limits.max_drop
        )

    def _unmet(
        self, ranking: Sequence[tuple[Unit, float]], whole: Found, least: Found
    ) -> NothingToDoError:
        worst = ", ".join(f"{unit.label} ({error:.2g})" for unit, error in ranking[:_NAMED])
        told, told_least = self._told(whole), self._told(least)
        return NothingToDoError(
            f"int8 can't keep within {self._limits()}: {told} with all nodes quantized, "
            f"{told_least} with all but the best of {len(ranking)} in float32; the worst, by the "
            f"error of each alone: {worst}: allow more, or choose fp16",
            parameters=("max_error", "max_drop", "precision"),
        )

    def _told(self, found: Found) -> str:
        error = found.error
        text = f"the error is {error.value:.2g}"
        if self.settings.max_error is not None and error.bound > error.value:
            text += f" on {self.trials.count} held-out images, up to {error.bound:.2g} on others"
        return text if found.drop is None else f"{text} and the drop {found.drop:.3g}"

    def _limits(self) -> str:
        limits = (
            (self.settings.max_error, "an error of {:.2g}"),
            (self.settings.max_drop, f"a drop of {{:g}} {self.settings.unit}"),
        )
        return " and ".join(text.format(limit) for limit, text in limits if limit is not None)


def _worst(outputs: Mapping[str, Comparison]) -> float:
    return max(map(_error, outputs.values()))


def _error(found: Comparison) -> float:
    return found.variation_error if found.agreement is None else 1 - found.agreement


def _factor(pairs: Sequence[tuple[Array, Array]], images: int) -> float:
    """Return by how much an output's error may be larger on other images; 1 if it counts none."""
    first, _ = pairs[0]
    is_by_image = all(one.ndim and one.shape[1:] == first.shape[1:] for one, _ in pairs)
    if not is_by_image or sum(len(one) for one, _ in pairs) != images:
        return 1.0
    if first.dtype.kind != "f":
        wrong = [_by_image(one != other) for one, other in pairs]
        errors = np.concatenate(wrong)
        return bound_factor(errors, np.ones(images), is_root=False)
    mean = sum(one.sum(0, dtype=np.float64) for one, _ in pairs) / images
    errors = np.concatenate([_by_image(other - one) for one, other in pairs])
    sizes = np.concatenate([_by_image(one - mean) for one, _ in pairs])
    return bound_factor(errors, sizes, is_root=True)


def _by_image(values: Array) -> Array:
    """Return the sum of squares of each image."""
    squares: Array = np.square(values, dtype=np.float64).reshape(len(values), -1).sum(1)
    return squares


def _images(inputs: Arrays) -> int:
    return len(next(iter(inputs.values())))


def _check_numbers(outputs: Arrays) -> None:
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError(
                f"the network gives what is no finite number in {name} for these images: give "
                "images that it is made for"
            )
