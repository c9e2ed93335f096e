"""Opening and running ONNX files with ONNX Runtime."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from trpexport.errors import MissingDependencyError, ModelError
from trpexport.installing import install_command
from trpexport.onnxfile.input_values import GUESS, Choice, whole_numbers
from trpexport.onnxfile.recognition import check_onnx_file, check_onnx_head
from trpexport.runtime.allowance import Allowance
from trpexport.runtime.feeds import drawn, named_arrays
from trpexport.runtime.load_failures import (
    explain_load_failure,
    is_out_of_memory,
    out_of_memory,
    plain_text,
)
from trpexport.runtime.providers import (
    CPU,
    NO_OPTIONS,
    Options,
    Provider,
    check_options,
    check_placement,
    configure,
    find_provider,
    node_placement,
    refused_options,
)
from trpexport.runtime.session_options import make_session_options, quiet, record
from trpexport.tensors import (
    NO_SHAPES,
    UNNAMED,
    Array,
    Arrays,
    Shapes,
    TensorInfo,
    free_dimensions,
    resolve_shapes,
    shape_text,
    with_usual_shapes,
)

_NUMPY_NAMES = {
    **{"float": "float32", "double": "float64"},
    **{name: name for name in ("float16", "int8", "int16", "int32", "int64", "bool")},
    **{name: name for name in ("uint8", "uint16", "uint32", "uint64")},
}


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
            f"onnxruntime can't be imported ({error}): {install_command('edge')}"
        ) from None


class Session:
    """A network that is ready to run; made by :func:`open_session`.

    Attributes:
        label: what it is called in messages: its path.
        provider: the provider that was asked for, and that runs it.
        placement: number of its nodes, before fusions, by ONNX Runtime's name of the provider
            that runs them; None where this ONNX Runtime does not tell (before 1.24).
        inputs: its inputs, in the file's order.
        outputs: its outputs, in the file's order.
    """

    def __init__(
        self,
        runtime: Any,
        label: str,
        provider: Provider,
        allowance: Allowance,
        model: Path | bytes,
    ) -> None:
        self._runtime = runtime
        self._model = model
        self._allowance = allowance
        self.label = label
        self.provider = provider
        self.placement = node_placement(runtime)
        infos = (_tensor_info(value, label) for value in runtime.get_inputs())
        metadata = runtime.get_modelmeta().custom_metadata_map
        self.inputs = tuple(with_usual_shapes(infos, metadata))
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
        with self.guarded(inputs):
            try:
                outputs = self._runtime.run(None, dict(inputs))
            except Exception as error:  # ONNX Runtime's exceptions have no common base but this
                raise self._failure(error) from error
        return {info.name: array for info, array in zip(self.outputs, outputs, strict=True)}

    def prepared(
        self, inputs: Arrays, *, device: str | None = None, device_id: int = 0
    ) -> Callable[[], None]:
        """Return a function that runs the network once on ``inputs`` and drops the outputs.

        Everything that can be done beforehand is, so that timing it measures the network.

        Args:
            inputs: an array for every input, by name.
            device: where inputs are put once and outputs stay, as ONNX Runtime calls it ("cuda");
                None for the host's memory.
            device_id: which one of them.

        Raises:
            ModelError: as for :meth:`run`; what fails while it runs is raised by the function.
        """
        self._check(inputs)
        run = self._bound_run(inputs, device, device_id) if device else self._host_run(inputs)

        def checked_run() -> None:
            try:
                run()
            except Exception as error:  # ONNX Runtime's exceptions have no common base but this
                raise self._failure(error) from error

        return checked_run

    def _host_run(self, inputs: Arrays) -> Callable[[], None]:
        names = [info.name for info in self.outputs]
        feed = dict(inputs)

        def run() -> None:
            self._runtime.run(names, feed)

        return run

    def _bound_run(self, inputs: Arrays, device: str, device_id: int) -> Callable[[], None]:
        ort_value = import_onnxruntime().OrtValue
        binding = self._runtime.io_binding()
        try:
            for name, array in inputs.items():
                value = ort_value.ortvalue_from_numpy(array, device, device_id)
                binding.bind_ortvalue_input(name, value)
            for info in self.outputs:
                binding.bind_output(info.name, device, device_id)
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            raise self._failure(error) from error

        def run() -> None:
            self._runtime.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run

    def guarded(self, inputs: Arrays) -> AbstractContextManager[None]:
        """Return the limits that a first run on ``inputs`` is to keep within.

        A network's activations grow with its inputs, and so does the memory that it may take.
        """
        return self._allowance.running(self.label, sum(array.nbytes for array in inputs.values()))

    def _failure(self, error: Exception) -> ModelError:
        if is_out_of_memory(error):
            return out_of_memory(self.label)
        text = f"{self.label} failed while running: {plain_text(error)}"
        if guesses := self._guesses():
            text += f"; if {guesses} can't be any number, give real inputs"
        return ModelError(text, parameters=("inputs", "data") if guesses else ())

    def end_profiling(self) -> Path:
        """Stop the profiler of a session with a ``profile_prefix`` and return its trace."""
        return Path(self._runtime.end_profiling())

    def random_inputs(
        self, batch: int = 1, seed: int = 0, overrides: Shapes = NO_SHAPES
    ) -> dict[str, Array]:
        """Return inputs to run the network with.

        Floats are standard normal, from 0.5 to 1.5 where they are a single number; whole numbers
        are such as the network takes (:mod:`.onnxfile.input_values`), bytes any. What it does not
        say of an input, 0 or 1, is named if it fails on that.

        Args:
            batch: the first dimension, where it is dynamic.
            seed: same seed, same arrays.
            overrides: whole shapes by input name, needed where a later dimension is dynamic.

        Raises:
            ModelError: an override is for no input or does not fit; or a later dimension is
                dynamic and has none.
        """
        shapes = resolve_shapes(self.inputs, overrides, batch)
        self._allowance.check_inputs(self.inputs, shapes)
        generator = np.random.default_rng(seed)
        return {
            info.name: drawn(info, shapes[info.name], self._choices.get(info.name), generator)
            for info in self.inputs
        }

    def named(self, arrays: Arrays) -> dict[str, Array]:
        """Return arrays by input name; a single one belongs to a single input whatever its name.

        Floats get the input's precision, and whole numbers its type where that can hold them.

        Raises:
            ModelError: there is none for an input.
        """
        return named_arrays(self.label, self.inputs, arrays)

    @cached_property
    def _choices(self) -> dict[str, Choice]:
        wanted = [info.name for info in self.inputs if info.dtype.kind in "iu"]
        known = whole_numbers(self._model) if wanted else {}
        return {name: known.get(name, GUESS) for name in wanted}

    def _guesses(self) -> str:
        """Return the inputs whose values are guesses, for a message."""
        names = [
            str(info)
            for info in self.inputs
            if (info.dtype.kind in "iu" and self._choices[info.name].is_guess)
            or (info.dtype.kind == "f" and not info.shape)
        ]
        return ", ".join(names)

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


def open_session(
    model: Path | bytes,
    *,
    threads: int | None = None,
    provider: str = "cpu",
    provider_options: Options = NO_OPTIONS,
    graph_optimization: str = "all",
    allow_spinning: bool | None = None,
    arena: bool = True,
    memory_pattern: bool = True,
    prepacking: bool = True,
    profile_prefix: Path | None = None,
    optimized_path: Path | None = None,
) -> Session:
    """Open a network to run on one provider, and make sure that it does run there.

    Operators run one after another; what they spread over threads is their own work.

    Args:
        model: an ONNX file or its content.
        threads: threads that one operator is spread over; None leaves it to ONNX Runtime.
        provider: a name in :data:`trpexport.runtime.providers.PROVIDERS`.
        provider_options: the provider's options.
        graph_optimization: a name in :data:`trpexport.runtime.session_options.GRAPH_OPTIMIZATIONS`.
        allow_spinning: whether waiting threads keep their cores busy; None for ONNX Runtime's way.
        arena: whether memory is kept for the next run instead of being given back.
        memory_pattern: whether the memory of a whole run is planned and taken at once.
        prepacking: whether weights are laid out for their kernels when the network is opened.
        profile_prefix: run under the profiler; its trace gets this path and a suffix.
        optimized_path: where to write the optimized graph.

    Raises:
        ModelError: it is no ONNX file, is damaged, or needs something this runtime lacks; or the
            provider refuses its options, or would leave all of the network to another one.
        MissingDependencyError: ONNX Runtime is not installed, or lacks the provider.
        TrpexportError: ``threads`` is below 1, or a name is unknown.
    """
    if isinstance(model, bytes):
        label = "the network"
        check_onnx_head(model, label)
    else:
        label = str(model)
        check_onnx_file(model)
    chosen = find_provider(provider)
    check_options(chosen, provider_options)
    onnxruntime = import_onnxruntime()
    options = make_session_options(
        onnxruntime,
        threads=threads,
        graph_optimization=graph_optimization,
        allow_spinning=allow_spinning,
        arena=arena,
        memory_pattern=memory_pattern,
        prepacking=prepacking,
    )
    record(options, profile_prefix, optimized_path)
    # Weights in other files lie beside the file itself, not beside a link to it.
    content = model if isinstance(model, bytes) else os.path.realpath(model)
    allowance = Allowance.of(model, is_bounded=chosen.ort_name == CPU)
    with quiet(onnxruntime, chosen):
        providers = configure(onnxruntime, options, chosen, provider_options, threads)
        try:
            with allowance.opening(label):
                # Its fallback prints, and would run on another provider than the one asked for.
                runtime = onnxruntime.InferenceSession(
                    content, options, providers, enable_fallback=0
                )
            session = Session(runtime, label, chosen, allowance, model)
        except ModelError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            if provider_options and "option" in str(error):
                raise refused_options(chosen, provider_options, error) from error
            raise explain_load_failure(label, error, onnxruntime.__version__) from error
    check_placement(chosen, provider_options, runtime.get_providers(), session.placement, label)
    return session


def run_in_batches(session: Session, inputs: Arrays) -> dict[str, Array]:
    """Run any number of images through a network, also where its batch size is fixed.

    A last batch is filled up with copies of the last image, whose outputs are cut off again.

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
    shape = free_dimensions(tuple(UNNAMED if n is None else n for n in value.shape))
    return TensorInfo(value.name, shape, np.dtype(name))
