"""What networks are benched on: the same arrays for all of them, drawn or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trpexport.arrays import read_arrays
from trpexport.errors import ModelError
from trpexport.inputs import GOLDEN_INPUT, GOLDEN_OUTPUT
from trpexport.measure.settings import BenchSettings
from trpexport.runtime.session import Session
from trpexport.tensors import Array, Arrays, Shapes, TensorInfo, shapes_by_network


def bench_inputs(sessions: Sequence[Session], settings: BenchSettings) -> list[dict[str, Array]]:
    """Return the inputs of each network; those that have the same inputs share the arrays.

    Raises:
        ModelError: a shape is missing, does not fit or is for no input; a batch size is fixed to
            another one; the file with inputs can't be read or does not fit; or the networks run
            different numbers of images at a time, so that their times can't be compared.
    """
    shapes = shapes_by_network([session.inputs for session in sessions], settings.shapes)
    given = None if settings.data is None else read_inputs(Path(settings.data))
    drawn: dict[tuple[object, ...], dict[str, Array]] = {}
    all_inputs = []
    for session, model, common in zip(sessions, settings.models, shapes, strict=True):
        inputs = _inputs_of(session, settings, given, {**common, **model.shapes})
        key = tuple((name, array.shape, array.dtype) for name, array in inputs.items())
        all_inputs.append(drawn.setdefault(key, inputs))
    counts = [image_count(inputs) for inputs in all_inputs]
    for session, count in zip(sessions, counts, strict=True):
        if settings.batch not in (None, count):
            raise ModelError(
                f"{session.label} gets {count} images at a time from its shape, and the batch is "
                f"{settings.batch}: give one of them"
            )
        if count != counts[0]:
            raise ModelError(
                f"{sessions[0].label} runs {counts[0]} images at a time and {session.label} "
                f"{count}: export them with the same batch size, or bench them apart"
            )
    return all_inputs


def check_batch(session: Session, batch: int | None) -> None:
    """Refuse a number of images at a time that a network can't take.

    Raises:
        ModelError: its batch size is fixed to another one.
    """
    fixed = session.batch_size
    if fixed is not None and batch not in (None, fixed):
        raise ModelError(
            f"{session.label} runs {fixed} images at a time, not {batch}: leave the batch out, or "
            "export it again with a dynamic one",
            parameters=("batch", "dynamic_batch"),
        )


def image_count(inputs: Arrays) -> int:
    """Return how many images one run takes: the first dimension of the first input."""
    first = next(iter(inputs.values()), None)
    return len(first) if first is not None and first.ndim else 1


def _inputs_of(
    session: Session, settings: BenchSettings, given: Arrays | None, shapes: Shapes
) -> dict[str, Array]:
    batch = settings.batch or 1
    check_batch(session, settings.batch)
    if given is None:
        return session.random_inputs(batch, settings.seed, shapes)
    arrays = session.named(given)
    return {info.name: _first(arrays[info.name], info, batch) for info in session.inputs}


def _first(array: Array, info: TensorInfo, batch: int) -> Array:
    """Return as many leading entries as the input takes."""
    if not info.shape or not array.ndim:
        return array
    count = info.shape[0] if isinstance(info.shape[0], int) else batch
    if len(array) < count:
        raise ModelError(
            f"the data for the input {info} have {len(array)} entries, and {count} are needed: "
            "give more of them, or choose a smaller batch",
            parameters=("data", "batch"),
        )
    return array[:count]


def read_inputs(path: Path) -> dict[str, Array]:
    """Read a ``.npy`` or ``.npz`` file, also a bundle's golden arrays; nothing in it is executed.

    Raises:
        ModelError: the file can't be read, or is no such file.
    """
    arrays = read_arrays(path, remedy="give a file of numpy.save or numpy.savez")
    return {
        name.removeprefix(GOLDEN_INPUT): array
        for name, array in arrays.items()
        if not name.startswith(GOLDEN_OUTPUT)
    }
