"""PyTorch to an ONNX file: the exporters, their quirks, and what is checked of their result."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trpexport.errors import MissingDependencyError, ModelError
from trpexport.networks.torch.outputs import INPUT, named_tensors
from trpexport.networks.torch.running import evaluating, example_input

DEFAULT_OPSET = 18
# The dynamo exporter translates to this opset and converts from there, upwards only.
DYNAMO_LOWEST_OPSET = 18
LEGACY_OPSETS = range(9, 21)
# Protocol buffers end at 2 GiB; what the graph itself needs is far below the difference.
ONE_FILE_LIMIT = 2_000_000_000


def to_onnx(
    model: nn.Module,
    input_shape: Sequence[int],
    path: Path,
    *,
    opset: int = DEFAULT_OPSET,
    dynamic_batch: bool = False,
    legacy_exporter: bool = False,
) -> str:
    """Write ``model`` as an ONNX file, batch norms folded into the convolutions before them.

    The file holds no trace of the machine it was made on. Weights of 2 GB and more stand beside
    it, in ``path`` with ``.data`` added.

    Args:
        model: the network; it is not changed.
        input_shape: shape of its input, batch first.
        path: the file to write.
        opset: the ONNX operator set to write.
        dynamic_batch: leave the batch size open.
        legacy_exporter: use the TorchScript-based exporter.

    Returns:
        The exporter that was used: ``"dynamo"`` or ``"legacy"``. Opsets below 18 need the
        legacy one, which is then taken without being asked for.

    Raises:
        ModelError: the exporter can't express the network, or can't write the opset.
        MissingDependencyError: a package that the exporter needs is not installed.
    """
    legacy = legacy_exporter or opset < DYNAMO_LOWEST_OPSET
    if legacy and opset not in LEGACY_OPSETS:
        raise ModelError(
            f"opset {opset} can't be written by the legacy exporter: choose --opset from "
            f"{LEGACY_OPSETS.start} to {LEGACY_OPSETS.stop - 1}"
        )
    # torch.export takes a dimension of 1 for a constant.
    batch = 2 if dynamic_batch else input_shape[0]
    x = example_input(model, (batch, *input_shape[1:]))
    with evaluating(model):
        outputs = list(named_tensors(model(x)))
    write = _write_legacy if legacy else _write_dynamo
    options = {"opset_version": opset, "input_names": [INPUT], "output_names": outputs}
    try:
        with evaluating(model), _quiet():
            write(model, x, path, dynamic_batch, options)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'the exporter needs {error.name}: pip install "trpexport[cpu]"'
        ) from error
    except Exception as error:  # the exporters raise whatever their passes raise
        other = "without" if legacy else "with"
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise ModelError(
            f"the {'legacy' if legacy else 'dynamo'} exporter failed ({reason.strip()}): "
            f"try {other} --legacy-exporter, or another --opset"
        ) from error
    _check_written(path, opset, dynamic_batch)
    return "legacy" if legacy else "dynamo"


def annotate(path: Path, metadata: Mapping[str, str]) -> None:
    """Replace the metadata of an ONNX file; the rest of it stays byte for byte the same."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)


def _write_dynamo(
    model: nn.Module, x: torch.Tensor, path: Path, dynamic_batch: bool, options: dict[str, Any]
) -> None:
    dynamic: Any = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
    program = torch.onnx.export(
        model, (x,), dynamo=True, optimize=True, verbose=False, dynamic_shapes=dynamic, **options
    )
    assert program is not None
    _forget_machine(program.model.graph)
    program.save(path, external_data=_needs_two_files(model))


def _write_legacy(
    model: nn.Module, x: torch.Tensor, path: Path, dynamic_batch: bool, options: dict[str, Any]
) -> None:
    names = [*options["input_names"], *options["output_names"]]
    torch.onnx.export(
        model,
        (x,),
        path,
        dynamo=False,
        dynamic_axes={name: {0: "batch"} for name in names} if dynamic_batch else None,
        external_data=_needs_two_files(model),
        **options,
    )


def _forget_machine(graph: Any) -> None:
    """Drop the stack traces, file names and export details that the exporter leaves on nodes."""
    for node in graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
    graph.metadata_props.clear()


def _check_written(path: Path, opset: int, dynamic_batch: bool) -> None:
    """Check what the exporters are known to get wrong without a word."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    written = {entry.domain: entry.version for entry in model.opset_import}[""]
    if written != opset:
        raise ModelError(
            f"the exporter wrote opset {written} where {opset} was asked for: use --opset {written}"
        )
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    if dynamic_batch and not batch.HasField("dim_param"):
        raise ModelError(
            f"the exporter fixed the batch size to {batch.dim_value}, since the network's forward "
            "depends on it: export without --dynamic-batch, or with --legacy-exporter"
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
