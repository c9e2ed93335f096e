"""Real inputs for ONNX files, of any data. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from trpexport.arrays import write_arrays
from trpexport.judge.classify import find_preprocessing, locate
from trpexport.measure.inputs import read_inputs
from trpexport.measure.settings import BenchSettings
from trpexport.runtime.session import open_session
from trpexport.tensors import Arrays

if TYPE_CHECKING:  # the data sets come from above: a device that only benches has none
    from trpexport.datasets.preprocessing import Preprocessing

_MOST_IMAGES = 256
_ARRAYS = (".npy", ".npz")


def real_inputs(
    data: Any,
    models: Sequence[Path],
    preprocessing: Preprocessing | None = None,
    count: int | None = None,
) -> Arrays:
    """Return inputs for ONNX files by name.

    Args:
        data: what :func:`trpexport.datasets.given.data_from` takes; of a file of NumPy all arrays,
            those that do not count samples too.
        models: files or bundles; they are for the first, prepared as the first says that does.
        preprocessing: how images become input; None takes what the bundles say.
        count: how many samples; None for all, of images no more than 256.

    Raises:
        DataError: they can't be read, do not fit, or nobody says how images become input.
        ModelError: a network can't be read.
    """
    from trpexport.datasets import TensorSet
    from trpexport.datasets.given import data_from
    from trpexport.datasets.ready import ready_inputs

    if (file := arrays_file(data)) is not None:
        return read_inputs(file)
    found = data_from(data)
    session = open_session(locate(models[0])[0])
    shapes = {info.name: info.shape for info in session.inputs}
    if isinstance(found, TensorSet):
        return ready_inputs(found, shapes, None, count)
    how = found.prepared_by(preprocessing) or _told(models)
    return ready_inputs(found, shapes, how, count or _MOST_IMAGES)


@contextmanager
def with_inputs(
    settings: BenchSettings, data: Any, preprocessing: Preprocessing | None = None
) -> Iterator[BenchSettings]:
    """Yield settings that measure on :func:`real_inputs`, which last as long as the block.

    Args:
        settings: what to measure; as they are where there are no data.
        data: as for :func:`real_inputs`; None for none.
        preprocessing: likewise.

    Raises:
        DataError: as :func:`real_inputs`.
        ModelError: likewise.
    """
    if data is None or (file := arrays_file(data)) is not None:
        yield settings if data is None else replace(settings, data=str(file))
        return
    models = [Path(model.path) for model in settings.models]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "inputs.npz"
        write_arrays(path, real_inputs(data, models, preprocessing, settings.batch))
        yield replace(settings, data=str(path))


def arrays_file(data: Any) -> Path | None:
    """Return the file of NumPy that data are, as long as its arrays are no images; else None."""
    from trpexport.datasets.kinds import kind_of
    from trpexport.datasets.locations import expanded
    from trpexport.datasets.opening import open_data
    from trpexport.datasets.registry import DATASETS
    from trpexport.datasets.tensors import TensorSet

    if not isinstance(data, str | os.PathLike):
        return None
    text = os.fspath(data)
    path = expanded(text)
    if text.partition(":")[0] in DATASETS or path.suffix not in _ARRAYS or path.is_dir():
        return None
    if kind_of(path) == "tensors" or not path.exists():
        return path  # whose reader says what is wrong
    return path if isinstance(open_data(text), TensorSet) else None


def _told(models: Sequence[Path]) -> Preprocessing:
    manifests = [locate(path)[1] for path in models]
    known = next((m for m in manifests if m is not None and "preprocessing" in m), None)
    return find_preprocessing(str(models[0]), known)
