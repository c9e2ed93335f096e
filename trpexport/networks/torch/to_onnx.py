"""PyTorch to an ONNX file: the exporters, their quirks, and what is checked of their result."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trpexport.errors import MissingDependencyError, ModelError
from trpexport.files import FULL
from trpexport.foreign import cause_of, told
from trpexport.garbage import unsearched
from trpexport.inputs import Inputs, InputsLike
from trpexport.installing import install_command
from trpexport.networks.dynamic import Dynamic
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.open_sizes import size_free_forwards
from trpexport.networks.torch.outputs import is_flat, named_tensors
from trpexport.networks.torch.running import (
    evaluating,
    example_input,
    forwards_replaced,
    outputs_of,
)

LEGACY_OPSETS = range(9, 21)
# Protocol buffers end at 2 GiB; what the graph itself needs is far below the difference.
ONE_FILE_LIMIT = 2_000_000_000


def to_onnx(
    model: nn.Module, inputs: InputsLike, path: Path, settings: OnnxSettings | None = None
) -> None:
    """Write ``model`` as an ONNX file, batch norms folded into the kernels before them or not.

    The file holds no trace of the machine it was made on. Weights of 2 GB and more stand beside
    it, in ``path`` with ``.data`` added.

    Args:
        model: the network; it is not changed.
        inputs: what it takes, or the shape of its only input, batch first.
        path: the file to write.
        settings: how to write it; the defaults where it is None.

    Raises:
        ModelError: the exporter can't express the network, or can't write the opset.
        MissingDependencyError: a package that the exporter needs is not installed.
        OSError: there is no space left.
    """
    settings = settings or OnnxSettings()
    if settings.is_legacy and settings.opset not in LEGACY_OPSETS:
        raise ModelError(
            f"opset {settings.opset} can't be written by the legacy exporter: choose an opset from "
            f"{LEGACY_OPSETS.start} to {LEGACY_OPSETS.stop - 1}"
        )
    # torch.export takes a dimension of 1 for a constant.
    inputs = Inputs.of(inputs)
    inputs = inputs.with_batch(max(2, inputs.batch)) if settings.dynamic_batch else inputs
    x = example_input(model, inputs)
    outputs = outputs_of(model, x)
    names = list(named_tensors(outputs, inputs))
    as_named = nullcontext() if is_flat(outputs) else _returning_tensors(model)
    as_open = forwards_replaced(size_free_forwards(model) if settings.dynamic else {})
    lasting = nullcontext() if settings.is_legacy else unsearched()  # imports, and the trace
    write = _write_legacy if settings.is_legacy else _write_dynamo
    options = {"opset_version": settings.opset, "input_names": list(inputs), "output_names": names}
    if settings.keep_norms:
        options |= {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    try:
        with evaluating(model), as_named, as_open, _quiet(), lasting:
            write(model, x, path, _open_axes(inputs, settings), options)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the exporter needs {error.name}: {install_command('cpu')}"
        ) from error
    except Exception as error:  # the exporters raise whatever their passes raise
        for cause in _causes(error):
            if isinstance(cause, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            if isinstance(cause, OSError) and cause.errno in FULL:
                raise cause from None
        other = "without" if settings.is_legacy else "with"
        raise ModelError(
            f"the {settings.exporter} exporter failed ({told(cause_of(error))}): "
            f"try it {other} legacy_exporter, or another opset"
        ) from error
    _check_written(path, settings, _open_axes(inputs, settings))


def _returning_tensors(model: nn.Module) -> AbstractContextManager[None]:
    """Let a network return its tensors as a tuple within the block, as they are named."""
    forward = model.forward

    @wraps(forward)  # torch.export matches dimensions with the parameters' names
    def flat(*inputs: Any, **keywords: Any) -> tuple[Tensor, ...]:
        return tuple(named_tensors(forward(*inputs, **keywords)).values())

    return forwards_replaced({model: flat})


def _write_dynamo(
    model: nn.Module, x: Arguments, path: Path, axes: Dynamic, options: dict[str, Any]
) -> None:
    # Sizes may be bound to multiples, which only torch.export finds: a batch never is.
    batch = torch.export.Dim("batch")
    dims = {
        name: {axis: torch.export.Dim.AUTO if axis else batch for axis in axes.get(name, {})}
        for name in x.tensors
    }
    dynamic: Any = dims if x.are_keywords else tuple(dims.values())
    program = torch.onnx.export(
        model,
        x.by_place,
        kwargs=x.by_name,
        dynamo=True,
        optimize=True,
        verbose=False,
        dynamic_shapes=dynamic if axes else None,
        **options,
    )
    assert program is not None
    _forget_machine(program.model.graph)
    _name_axes(program.model.graph.inputs, axes)
    program.save(path, external_data=_needs_two_files(model))


def _write_legacy(
    model: nn.Module, x: Arguments, path: Path, axes: Dynamic, options: dict[str, Any]
) -> None:
    torch.onnx.export(
        model,
        x.by_place,
        path,
        kwargs=x.by_name,
        dynamo=False,
        dynamic_axes=_with_outputs(axes, model, x, options["output_names"]),
        external_data=_needs_two_files(model),
        **options,
    )
    _name_outputs(path, options["output_names"])


def _open_axes(inputs: Inputs, settings: OnnxSettings) -> dict[str, dict[int, str]]:
    """Return by input the names of its axes that are left open."""
    batch = {0: "batch"} if settings.dynamic_batch else {}
    axes = {name: {**batch, **settings.dynamic.get(name, {})} for name in inputs}
    return axes if any(axes.values()) else {}


def _with_outputs(
    axes: Dynamic, model: nn.Module, x: Arguments, outputs: Sequence[str]
) -> dict[str, dict[int, str]] | None:
    """Return open axes by input and by output: all of an output that may follow from them."""
    if not axes:
        return None
    found = {name: dict(each) for name, each in axes.items()}
    is_batch_open = any(0 in each for each in axes.values())
    is_size_open = any(set(each) - {0} for each in axes.values())
    named = named_tensors(outputs_of(model, x), x.tensors)
    for name, output in zip(outputs, named.values(), strict=True):
        open_ = range(1, output.ndim) if is_size_open else ()
        found[name] = {axis: f"{name}_{axis}" for axis in open_}
        if is_batch_open:
            found[name][0] = "batch"
    return found


def _name_axes(inputs: Sequence[Any], axes: Dynamic) -> None:
    """Give the open axes of a graph's inputs their names where torch.export chose others."""
    import onnx_ir

    for value in inputs:
        sizes = list(value.shape)
        for axis, name in axes.get(value.name, {}).items():
            if not isinstance(sizes[axis], int):
                sizes[axis] = name
        value.shape = onnx_ir.Shape(sizes)


def _name_outputs(path: Path, names: Sequence[str]) -> None:
    """Give the outputs their names where the legacy exporter did not: constants have none."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    if [output.name for output in model.graph.output] == list(names):
        return
    for output, name in zip(model.graph.output, names, strict=True):
        if output.name != name:
            model.graph.node.append(onnx.helper.make_node("Identity", [output.name], [name]))
            output.name = name
    onnx.save(model, path)


def _forget_machine(graph: Any) -> None:
    """Drop the stack traces, file names and export details that the exporter leaves on nodes."""
    for node in graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
    graph.metadata_props.clear()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came of: exporters, and Python's own C code, make others of it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__


def _check_written(path: Path, settings: OnnxSettings, axes: Dynamic) -> None:
    """Check what the exporters are known to get wrong without a word."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    written = {entry.domain: entry.version for entry in model.opset_import}[""]
    if written != settings.opset:
        raise ModelError(
            f"the exporter wrote opset {written} where {settings.opset} was asked for: "
            f"choose opset {written}"
        )
    for info in model.graph.input:
        dims = info.type.tensor_type.shape.dim
        for axis, name in axes.get(info.name, {}).items():
            if not dims[axis].HasField("dim_param"):
                what, setting = (name, "dynamic") if axis else ("the batch size", "dynamic_batch")
                raise ModelError(
                    f"the exporter fixed {what} to {dims[axis].dim_value}, since the network's "
                    f"forward depends on it: export it without {setting}, or with legacy_exporter"
                )


def _needs_two_files(model: nn.Module) -> bool:
    size: int = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    return size >= ONE_FILE_LIMIT


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' remarks to their developers; their errors are exceptions."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
