"""Opening and running ONNX files with ONNX Runtime."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from trpexport.errors import MissingDependencyError, ModelError, TrpexportError
from trpexport.runtime.load_failures import explain_load_failure, plain_text
from trpexport.runtime.onnx_file import check_onnx_file, check_onnx_head
from trpexport.runtime.tensors import (
    NO_SHAPES,
    UNNAMED,
    Array,
    Arrays,
    Shapes,
    TensorInfo,
    resolve_shapes,
    shape_text,
)

_NUMPY_NAMES = {
    "float": "float32",
    "double": "float64",
    **{name: name for name in ("float16", "int8", "int16", "int32", "int64", "bool")},
    **{name: name for name in ("uint8", "uint16", "uint32", "uint64")},
}
_SILENT = 4  # ONNX Runtime's "fatal": its errors reach us as exceptions, so nothing is lost


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with its telemetry off; every use of the package goes through here.

    Since 1.31 it reports to its makers unless ``ORT_DISABLE_TELEMETRY`` says otherwise before the
    import. A value that the user has set is kept.

    Raises:
        MissingDependencyError: the package is not installed, or does not load.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingDependencyError(
            f'onnxruntime can\'t be imported ({error}): pip install "trpexport[edge]"'
        ) from None


class Session:
    """A network that is ready to run; made by :func:`open_session`.

    Attributes:
        label: what it is called in messages: its path.
        inputs: its inputs, in the file's order.
        outputs: its outputs, in the file's order.
    """

    def __init__(self, runtime: Any, label: str) -> None:
        self._runtime = runtime
        self.label = label
        self.inputs = tuple(_tensor_info(value, label) for value in runtime.get_inputs())
        self.outputs = tuple(_tensor_info(value, label) for value in runtime.get_outputs())

    @property
    def batch_size(self) -> int | None:
        """The first dimension that all inputs are fixed to; None if there is no such one."""
        first = {info.shape[0] if info.shape else None for info in self.inputs}
        size = first.pop() if len(first) == 1 else None
        return size if isinstance(size, int) else None

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Run the network once.

        Args:
            inputs: an array for every input, by name.

        Returns:
            An array for every output, by name.

        Raises:
            ModelError: an input is missing, unknown, or of the wrong type or shape; or the
                network fails while it runs.
        """
        self._check(inputs)
        try:
            outputs = self._runtime.run(None, dict(inputs))
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            raise ModelError(f"{self.label} failed while running: {plain_text(error)}") from error
        return {info.name: array for info, array in zip(self.outputs, outputs, strict=True)}

    def random_inputs(
        self, batch: int = 1, seed: int = 0, overrides: Shapes = NO_SHAPES
    ) -> dict[str, Array]:
        """Return inputs to run the network with: standard normal floats, zeros for other types.

        Args:
            batch: the first dimension, where it is dynamic.
            seed: same seed, same arrays.
            overrides: whole shapes by input name, needed where a later dimension is dynamic.

        Raises:
            ModelError: an override is for no input or does not fit; or a later dimension is
                dynamic and has none.
        """
        shapes = resolve_shapes(self.inputs, overrides, batch)
        generator = np.random.default_rng(seed)
        return {
            info.name: generator.standard_normal(shapes[info.name]).astype(info.dtype)
            if info.dtype.kind == "f"
            else np.zeros(shapes[info.name], info.dtype)
            for info in self.inputs
        }

    def _check(self, inputs: Arrays) -> None:
        expected = {info.name: info for info in self.inputs}
        if inputs.keys() != expected.keys():
            raise ModelError(
                f"{self.label} has the inputs {', '.join(map(str, self.inputs))}, "
                f"but was given {', '.join(inputs) or 'none'}"
            )
        for name, array in inputs.items():
            info = expected[name]
            if array.dtype != info.dtype or not info.accepts(array.shape):
                raise ModelError(
                    f"{self.label} needs the input {info}, "
                    f"but was given {array.dtype}[{shape_text(array.shape)}]"
                )


def open_session(model: Path | bytes, *, threads: int | None = None) -> Session:
    """Open a network to run on the CPU.

    Args:
        model: an ONNX file or its content.
        threads: threads that one operator is spread over; None leaves it to ONNX Runtime.

    Raises:
        ModelError: it is no ONNX file, is damaged, or needs something this runtime lacks.
        MissingDependencyError: ONNX Runtime is not installed.
        TrpexportError: ``threads`` is below 1.
    """
    if isinstance(model, bytes):
        label = "the network"
        check_onnx_head(model, label)
    else:
        label = str(model)
        check_onnx_file(model)
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    if threads is not None:
        if threads < 1:
            raise TrpexportError(f"can't run on {threads} threads: choose 1 or more")
        options.intra_op_num_threads = threads
    content = model if isinstance(model, bytes) else str(model)
    try:
        # Its fallback prints, and would run on another provider than the one that was asked for.
        runtime = onnxruntime.InferenceSession(
            content, options, ["CPUExecutionProvider"], enable_fallback=0
        )
        return Session(runtime, label)
    except ModelError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this
        raise explain_load_failure(label, error, onnxruntime.__version__) from error


def run_in_batches(session: Session, inputs: Arrays) -> dict[str, Array]:
    """Run any number of images through a network, also where its batch size is fixed.

    A last batch that is not full is filled up with copies of the last image, whose outputs are
    cut off again.

    Args:
        session: the network.
        inputs: an array for every input, by name; the first dimension counts images.

    Raises:
        ModelError: the inputs can't be split into the network's batches, or as for
            :meth:`Session.run`.
    """
    size = session.batch_size
    counts = {array.shape[:1] for array in inputs.values()}
    if size is None or counts == {(size,)}:
        return session.run(inputs)
    count = max((n for shape in counts for n in shape), default=0)
    if counts != {(count,)} or count == 0:
        shapes = ", ".join(f"{name} {shape_text(array.shape)}" for name, array in inputs.items())
        raise ModelError(f"{session.label} takes {size} images at a time, not {shapes or 'none'}")
    parts = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        parts.append(session.run({name: array[rows] for name, array in inputs.items()}))
    for name, array in parts[0].items():
        if array.shape[:1] != (size,):
            raise ModelError(
                f"the output {name} of {session.label} does not have one entry an image: "
                f"run exactly {size} images"
            )
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def _tensor_info(value: Any, label: str) -> TensorInfo:
    kind = str(value.type)
    name = _NUMPY_NAMES.get(kind.removeprefix("tensor(").removesuffix(")"))
    if name is None:
        raise ModelError(
            f"{label} can't be run from Python: {value.name} is a {kind}, which numpy does not "
            "have; export with float32 or float16 inputs and outputs"
        )
    return TensorInfo(
        value.name, tuple(UNNAMED if n is None else n for n in value.shape), np.dtype(name)
    )
