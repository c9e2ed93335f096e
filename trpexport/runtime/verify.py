"""Whether two networks compute the same, judged with ONNX Runtime alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trpexport.bundle import FLOAT32 as FLOAT32_FILE
from trpexport.bundle import GOLDEN, advice_of, locate, read_manifest, split_name
from trpexport.compare import FLOAT32, Comparison, Tolerance, compare_outputs, note_on_still
from trpexport.errors import ModelError
from trpexport.golden import read_golden
from trpexport.runtime.session import Session, open_session, run_in_batches
from trpexport.runtime.session_options import recommended
from trpexport.shown import Shown
from trpexport.tensors import NO_SHAPES, Array, Arrays, Shapes

_BATCH = 8  # images in memory at a time


@dataclass(frozen=True, repr=False)
class Verification(Shown):
    """The outcome of comparing a network with its reference.

    Attributes:
        outputs: a comparison an output, by the reference's name for it.
        tolerance: how far they were allowed to differ.
    """

    outputs: Mapping[str, Comparison]
    tolerance: Tolerance = FLOAT32

    @property
    def is_equivalent(self) -> bool:
        """Whether every output keeps within the tolerance."""
        return all(output.is_equivalent(self.tolerance) for output in self.outputs.values())

    @property
    def note(self) -> str | None:
        """What a reader should know of it: outputs by which little is told."""
        return note_on_still(self.outputs, "the inputs compared")

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON-ready data."""
        return {
            "is_equivalent": self.is_equivalent,
            "tolerance": asdict(self.tolerance),
            "outputs": {name: output.to_json() for name, output in self.outputs.items()},
            "note": self.note,
        }

    def __str__(self) -> str:
        return "\n".join(f"{name}: {output}" for name, output in self.outputs.items())

    def shown(self) -> dict[str, object]:
        """Return what to show of it in a session."""
        worst = max((one.rms_error for one in self.outputs.values()), default=0.0)
        return {
            "is_equivalent": self.is_equivalent,
            "outputs": len(self.outputs),
            "error": f"{worst:.1e}",
        }


def verify_models(
    reference: Path,
    candidate: Path,
    *,
    inputs: Arrays | None = None,
    count: int = 8,
    seconds: float | None = None,
    seed: int = 0,
    shapes: Shapes = NO_SHAPES,
    tolerance: Tolerance = FLOAT32,
) -> Verification:
    """Compare two ONNX files on the same inputs.

    Inputs and outputs are matched by name; where the names are not the same, by order.

    Args:
        reference: the network that is right.
        candidate: the network in question.
        inputs: arrays by the reference's input names, or a single one for a single input; random
            ones if None. With arrays given, ``count``, ``seconds``, ``seed`` and ``shapes`` play no
            part.
        count: least number of random inputs.
        seconds: go on with fresh random inputs for at least this long.
        seed: seed of the random inputs.
        shapes: whole input shapes, needed where a dimension other than the first is dynamic.
        tolerance: how far the outputs may differ.

    Raises:
        ModelError: a file can't be run, or the two can't be compared: they differ in the number,
            shapes or types of inputs or outputs, or one of them is random or puts out NaN.
    """
    truth, suspect = open_session(reference), open_session(candidate)
    first: dict[str, Array] = {}

    def outputs() -> Iterator[tuple[Arrays, Arrays]]:
        batches = (
            _random_batches(truth, count, seconds, seed, shapes)
            if inputs is None
            else _given_batches(truth, inputs)
        )
        for batch in batches:
            expected = run_in_batches(truth, batch)
            _check_numbers(truth, expected)
            in_order = {info.name: batch[info.name] for info in truth.inputs}
            first.update(first or in_order)
            yield expected, _run_matched(suspect, in_order, list(expected))

    result = Verification(compare_outputs(outputs()), tolerance)
    _check_repeatable(truth, first)  # two random ones may draw the same numbers
    if not result.is_equivalent:
        _check_repeatable(suspect, first)
    return result


def verify_bundle(path: Path, *, tolerance: Tolerance | None = None) -> Verification:
    """Compare a bundle's network with the golden outputs that its export wrote down.

    It runs with the session options that the bundle recommends for the CPU, if any.

    Args:
        path: the bundle, or one in another precision, as in ``DIR@int8``.
        tolerance: how far the outputs may differ; None allows float32 rounding, or twice
            what this precision was off when it was written.

    Raises:
        ModelError: it is no bundle, a file was changed since the export, it has no such precision,
            or the network can't be run here.
    """
    named = split_name(path)
    if named is None:
        raise ModelError(f"{path} is not a bundle: make one with trpexport decompose")
    directory, precision = named
    file, manifest = locate(path)
    allowed = tolerance or _tolerance_of(manifest or {}, precision)
    advice = advice_of(manifest, file)
    # What is computed does not hang on the number of threads.
    options = {} if advice is None else recommended(advice, "cpu", advice["threads"])
    return _verify_golden(file, directory, allowed, options)


def _tolerance_of(manifest: Mapping[str, Any], precision: str) -> Tolerance:
    """Return how far a variant may be off."""
    if precision == FLOAT32_FILE:
        return FLOAT32
    return Tolerance(**manifest["variants"][precision]["tolerance"])


def verify_against_golden(
    model: Path, bundle: Path, *, tolerance: Tolerance = FLOAT32
) -> Verification:
    """Compare any ONNX file with the golden outputs of a bundle.

    Args:
        model: the network in question, converted or quantized from the bundle's.
        bundle: directory of the export.
        tolerance: how far the outputs may differ.

    Raises:
        ModelError: ``bundle`` is no bundle or was changed, or the network can't be run on its
            inputs.
    """
    read_manifest(bundle)
    return _verify_golden(model, bundle, tolerance, {})


def _verify_golden(
    model: Path, bundle: Path, tolerance: Tolerance, session_options: Mapping[str, Any]
) -> Verification:
    """Compare an ONNX file, opened with some options, with the golden outputs of a bundle."""
    golden = read_golden(bundle / GOLDEN)
    session = open_session(model, **session_options)
    outputs = _run_matched(session, golden.inputs, list(golden.outputs))
    result = Verification(compare_outputs([(golden.outputs, outputs)]), tolerance)
    if not result.is_equivalent:
        _check_repeatable(session, golden.inputs)
    return result


def _check_numbers(session: Session, outputs: Arrays) -> None:
    """Refuse NaN: two networks that put it out may differ in anything."""
    for name, array in outputs.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise ModelError(
                f"{session.label} puts out NaN in {name} for these inputs, which tells nothing of "
                "it: give real inputs",
                parameters=("inputs",),
            )


def _check_repeatable(session: Session, inputs: Arrays) -> None:
    """Refuse a network that differs from itself: it draws random numbers."""
    names = [info.name for info in session.outputs]
    one, other = (_run_matched(session, inputs, names) for _ in range(2))
    for name, array in one.items():
        if not np.array_equal(array, other[name], equal_nan=array.dtype.kind == "f"):
            raise ModelError(
                f"{session.label} is random: {name} differs between two runs on the same inputs; "
                "export it without dropout, noise and sampling"
            )


def _run_matched(session: Session, inputs: Arrays, outputs: Sequence[str]) -> dict[str, Array]:
    """Run a network on arrays that bear another network's names; its outputs get those too."""
    inner = _match([info.name for info in session.inputs], list(inputs), "input", session)
    outer = _match([info.name for info in session.outputs], outputs, "output", session)
    results = run_in_batches(session, {name: inputs[inner[name]] for name in inner})
    return {outer[name]: array for name, array in results.items()}


def _match(
    own: Sequence[str], foreign: Sequence[str], kind: str, session: Session
) -> dict[str, str]:
    """Map a network's names to another's: each to itself if they are the same, else by order."""
    if len(own) != len(foreign):
        raise ModelError(
            f"{session.label} can't be compared: its {kind}s are {', '.join(own) or '(none)'}, "
            f"those of the reference {', '.join(foreign) or '(none)'}"
        )
    return dict(zip(own, own if set(own) == set(foreign) else foreign, strict=True))


def _given_batches(session: Session, given: Arrays) -> Iterator[dict[str, Array]]:
    """Yield inputs a few images at a time, where all of them count images and their number is free.

    Raises:
        ModelError: there is none for an input.
    """
    inputs = session.named(given)
    counts = {array.shape[:1] for array in inputs.values()}
    is_free = all(info.shape and isinstance(info.shape[0], str) for info in session.inputs)
    if not is_free or len(counts) != 1:
        yield inputs
        return
    ((count,),) = counts
    for start in range(0, count, _BATCH):
        yield {name: array[start : start + _BATCH] for name, array in inputs.items()}


def _random_batches(
    session: Session, count: int, seconds: float | None, seed: int, shapes: Shapes
) -> Iterator[dict[str, Array]]:
    """Yield ``count`` random images in batches, then more until ``seconds`` have passed."""
    end = time.perf_counter() + (seconds or 0.0)
    seen = 0
    while seen < count or time.perf_counter() < end:
        left = count - seen
        batch = min(left, _BATCH) if left > 0 else _BATCH
        inputs = session.random_inputs(batch, seed, shapes)
        yield inputs
        seen += max((len(array) for array in inputs.values() if array.ndim), default=1)
        seed += 1
