"""Static int8: ranges come from images, ONNX Runtime's quantizer writes the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trpexport.errors import DataError
from trpexport.files import staged_file
from trpexport.measure.machine import instruction_sets
from trpexport.onnxfile.precision import check_float32
from trpexport.quantization.chains import find_links, rescale
from trpexport.quantization.formats import NumberFormat, number_format
from trpexport.quantization.observing import channel_statistics, histograms
from trpexport.quantization.ort import Quantizer, ready, serialized
from trpexport.quantization.ranges import METHODS, Range
from trpexport.quantization.rounding import rounded_weights
from trpexport.quantization.search import Search, Trials, Unit, nodes_of
from trpexport.quantization.settings import QuantizationSettings, Quantized
from trpexport.quantization.wiring import staying, wire
from trpexport.runtime.session import open_session
from trpexport.tensors import Array, Arrays

if TYPE_CHECKING:
    from onnx import ModelProto

# Where no others are given, one image in five is held out; of fewer than 320 as many as 64 or half:
# what an error is on other images can't be told by a handful, and ranges need no more.
_KEPT_BACK, _MIN_KEPT = 5, 64
# Of so many held-out images half chooses, and the other half says what the error is.
_MIN_HALVED = 16


def quantize_static(source: Path, target: Path, settings: QuantizationSettings) -> Quantized:
    """Write a network with int8 weights and activations.

    Of the methods that choose ranges, the one that loses least on half of the held-out images is
    taken; the other half says whether limits hold. The
    diagonal between operators that follow each other directly is chosen for the quantizer. Nodes
    are ranked by what the quantization of each alone does to the outputs, and the worst stay in
    float32 until the limits hold.

    Args:
        source: an ONNX file of float32.
        target: where the quantized one goes; ``source`` is allowed.
        settings: images, limits, and who will run it.

    Returns:
        Facts: ``numbers``; ``method`` and the error of each in ``methods``; ``chains``, with how
        much the expected error falls between each two operators; ``rounding``, by weight, how much
        the error of its rounding falls; ``ranking``; ``excluded``;
        ``error``, which ``error_bound`` is an upper bound of on other images, and ``drop``; how
        many ``images``.

    Raises:
        ModelError: the file is quantized already or can't be, or the provider has no int8.
        DataError: there are no images, or they say nothing.
        NothingToDoError: the limits can't be met.
    """
    ranked = _ranked(source, settings)
    measured, quantize = ranked.measured, ranked.quantize
    judge = Trials(ranked.model, ranked.judging)
    search = Search(quantize, ranked.ranges, ranked.float_nodes, judge, settings)
    found = search(ranked.ranking)
    with staged_file(target) as file:
        file.write(serialized(found.model))
    excluded = [unit.label for unit in ranked.staying + found.excluded]
    excluded += sorted(measured.unbounded)
    facts = {
        "numbers": ranked.numbers.name,
        "provider": settings.provider,
        "method": ranked.method,
        "methods": ranked.errors,
        "chains": ranked.chains,
        "rounding": {name: one.error_ratio for name, one in quantize.weights.items()},
        "ranking": [
            {"layer": unit.label, "nodes": unit.nodes, "operator": unit.operator, "error": error}
            for unit, error in ranked.ranking
        ],
        "excluded": excluded,
        "error": found.error.value,
        "error_bound": found.error.bound,
        "drop": found.drop,
        "images": ranked.images,
    }
    return Quantized(facts, _note(excluded))


def layer_errors(source: Path, settings: QuantizationSettings) -> dict[str, float]:
    """Return the output error of a network if one layer alone is in int8, by layer.

    In the units of :func:`quantize_static`, on half of the held-out images.

    Args:
        source: an ONNX file of float32.
        settings: images, and who will run it.

    Raises:
        ModelError: the file is quantized already or can't be, or the provider has no int8.
        DataError: there are no images, or they say nothing.
    """
    ranking = _ranked(source, settings).ranking
    return {unit.label: error for unit, error in ranking if unit.is_linear}


@dataclass(frozen=True)
class _Ranked:
    """A network that is ready to be quantized.

    Attributes:
        model: it.
        numbers: in which it is to be written.
        measured: what its tensors hold.
        quantize: writes it.
        method: the one by which ranges are chosen.
        errors: by method, what it loses.
        chains: between which operators what was rescaled.
        staying: units that stay in float32, as was chosen before.
        ranking: the others, and what each alone loses, the worst first.
        judging: held-out images by which nothing was chosen.
        images: how many there are of each kind.
    """

    model: ModelProto
    numbers: NumberFormat
    measured: _Measured
    quantize: Quantizer
    method: str
    errors: Mapping[str, float]
    chains: list[dict[str, Any]]
    staying: tuple[Unit, ...]
    ranking: list[tuple[Unit, float]]
    judging: Arrays
    images: Mapping[str, int]

    @property
    def ranges(self) -> Mapping[str, Range]:
        """Ranges of its tensors."""
        return self.measured.ranges[self.method]

    @property
    def float_nodes(self) -> frozenset[str]:
        """Names of the nodes that stay in float32."""
        return self.measured.unbounded | nodes_of(self.staying)


def _ranked(source: Path, settings: QuantizationSettings) -> _Ranked:
    """Measure a network on images, and rank its units."""
    numbers = number_format(settings.provider, instruction_sets())
    check_float32(source)
    session = open_session(source)
    calibration = _checked(session.named(settings.calibration), "the calibration images")
    if settings.held_out:
        held_out = _checked(session.named(settings.held_out), "the held-out images")
    else:
        calibration, held_out = _divided(calibration)
    del session
    model = ready(source)
    chains = _rescaled(model, calibration, numbers)
    measured = _measured(model, calibration)
    wiring = wire(model, numbers, dict.fromkeys(measured.tensors, 1))
    stay = staying(wiring, settings.layers)
    excluded = measured.unbounded | nodes_of(stay)
    # What is chosen by images looks better on these than on others: the error is told by the rest.
    choosing, judging = _halves(held_out)
    trials = Trials(model, choosing)
    quantize = Quantizer(model, numbers, rounded_weights(model, calibration, numbers))
    method, errors = _best_method(quantize, measured.ranges, excluded, trials)
    tried = [unit for unit in wiring.units if excluded.isdisjoint(unit.nodes)]
    ranges = measured.ranges[method]
    ranking = trials.ranking(tried, ranges, quantize) if settings.is_ranked else []
    images = {"calibration": _count(calibration), "held_out": _count(held_out)}
    return _Ranked(
        model, numbers, measured, quantize, method, errors, chains, stay, ranking, judging, images
    )


def quantize_blank(path: Path, settings: QuantizationSettings) -> None:
    """Write a network with int8 weights and activations, where only its speed counts.

    All nodes are quantized, whatever is lost, or the layers that were chosen.

    Args:
        path: an ONNX file of float32, which is replaced.
        settings: any inputs, and who will run it.

    Raises:
        ModelError: the file can't be quantized, or the provider has no int8.
    """
    numbers = number_format(settings.provider, instruction_sets())
    model = ready(path)
    measured = _measured(model, settings.calibration, [next(iter(METHODS))])
    (ranges,) = measured.ranges.values()
    wiring = wire(model, numbers, dict.fromkeys(measured.tensors, 1))
    excluded = measured.unbounded | nodes_of(staying(wiring, settings.layers))
    content = serialized(Quantizer(model, numbers)(ranges, without=excluded))
    with staged_file(path) as file:
        file.write(content)


@dataclass(frozen=True)
class _Measured:
    """What tensors take.

    Attributes:
        ranges: by method and tensor.
        tensors: names of all of float32.
        unbounded: names of nodes that touch values which are not finite.
    """

    ranges: Mapping[str, Mapping[str, Range]]
    tensors: frozenset[str]
    unbounded: frozenset[str]


def _measured(
    model: ModelProto, calibration: Arrays, methods: Iterable[str] = METHODS
) -> _Measured:
    found = histograms(model, calibration)
    endless = {name for name, histogram in found.items() if not histogram.is_finite}
    unbounded = (
        node.name
        for node in model.graph.node
        if not endless.isdisjoint((*node.input, *node.output))
    )
    ranges = {
        method: {name: METHODS[method](histogram) for name, histogram in found.items()}
        for method in methods
    }
    return _Measured(ranges, frozenset(found), frozenset(unbounded))


def _best_method(
    quantize: Quantizer,
    ranges: Mapping[str, Mapping[str, Range]],
    excluded: frozenset[str],
    trials: Trials,
) -> tuple[str, dict[str, float]]:
    errors = {
        method: trials.error(serialized(quantize(some, without=excluded))).value
        for method, some in ranges.items()
    }
    return min(errors, key=lambda method: errors[method]), errors


def _rescaled(
    model: ModelProto, calibration: Arrays, numbers: NumberFormat
) -> list[dict[str, Any]]:
    links = find_links(model)
    if not links:
        return []
    channels = channel_statistics(model, {link.tensor: link.axis for link in links}, calibration)
    facts = []
    for link in links:
        found = rescale(model, link, channels[link.tensor], is_symmetric=numbers.is_symmetric)
        gain = found.before / found.after if found.after else 1.0
        facts.append({"nodes": [link.first.name, link.second.name], "error_ratio": 1 / gain})
    return facts[::-1]


def _checked(inputs: Arrays, label: str) -> dict[str, Array]:
    """Return images that say something of ranges.

    Raises:
        DataError: they don't.
    """
    counts = {len(array) if array.ndim else 0 for array in inputs.values()}
    if counts == {0} or not counts:
        raise DataError(f"{label} are none: int8 takes its ranges from some", parameters=("calib",))
    if len(counts) > 1:
        raise DataError(f"{label} are not as many in every input: {sorted(counts)}")
    floats = [array for array in inputs.values() if array.dtype.kind == "f"]
    for array in floats:
        if not np.isfinite(array).all():
            raise DataError(f"{label} hold NaN or infinite values: leave those images out")
    if floats and all(_is_flat(array) for array in floats):
        raise DataError(
            f"{label} are each of a single value, from which no ranges follow: give real ones",
            parameters=("calib",),
        )
    return dict(inputs)


def _is_flat(array: Array) -> bool:
    """Whether each image is one value all over."""
    rows = array.reshape(len(array), -1)
    return rows.shape[1] > 1 and bool((rows == rows[:, :1]).all())


def _divided(inputs: Arrays) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return what ranges come from and what they are compared on; all of a few for both."""
    total = _count(inputs)
    held_out = max(total // _KEPT_BACK, min(_MIN_KEPT, total // 2))
    if not held_out:
        return dict(inputs), dict(inputs)
    rows = np.arange(total)
    others = (rows[:held_out] * total + total - 1) // held_out  # evenly, the last one too
    kept = np.setdiff1d(rows, others)
    return (
        {name: array[kept] for name, array in inputs.items()},
        {name: array[others] for name, array in inputs.items()},
    )


def _halves(inputs: Arrays) -> tuple[Arrays, Arrays]:
    """Return every other image, and the rest; all of a few for both."""
    if _count(inputs) < _MIN_HALVED:
        return inputs, inputs
    first, second = ({name: array[start::2] for name, array in inputs.items()} for start in (0, 1))
    return first, second


def _count(inputs: Arrays) -> int:
    return len(next(iter(inputs.values())))


def _note(excluded: Sequence[str]) -> str | None:
    return f"stays in float32: {', '.join(excluded)}" if excluded else None
