"""ONNX Runtime's own quantizer: a graph made ready for it, and written by it. It says nothing."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trpexport.errors import ModelError
from trpexport.foreign import first_line
from trpexport.onnxfile.graph import load_proto
from trpexport.quantization.formats import NumberFormat, RoundedWeight
from trpexport.quantization.holding import hold_float32
from trpexport.quantization.linear import stored_tensors
from trpexport.quantization.ranges import Range
from trpexport.runtime.session import import_onnxruntime

if TYPE_CHECKING:
    from onnx import ModelProto

_PER_CHANNEL_SINCE = 13  # operator set in which QuantizeLinear has an axis
_IR_OF_IT = 7
_DEFAULTS_SINCE_IR = 4  # until then each weight had to be an input; since, it is a default
_LARGEST = (1 << 31) - 1  # bytes of a protobuf
_MARK = "onnxruntime.quant"  # what its steps write into a file's metadata


def ready(path: Path) -> ModelProto:
    """Return a network as the quantizer wants it: batch norms folded, shapes inferred, all named.

    Raises:
        ModelError: it can't be opened, or its operator set can't be brought up to date.
    """
    import onnx

    import_onnxruntime()
    with _silence(), tempfile.TemporaryDirectory(prefix="trpexport-") as folder:
        from onnxruntime.quantization.shape_inference import quant_pre_process

        whole, made = Path(folder) / "whole.onnx", Path(folder) / "ready.onnx"
        try:
            onnx.save(onnx.load(path), whole)  # weights that lie in other files get lost in between
            # Types that inference does not find are seen when the network runs, so that the slow
            # symbolic inference of shapes, which needs sympy, is not missed.
            quant_pre_process(str(whole), str(made), skip_symbolic_shape=True)
            model = onnx.load(made)
            if _opset(model) < _PER_CHANNEL_SINCE:
                model = onnx.version_converter.convert_version(model, _PER_CHANNEL_SINCE)
                model.ir_version = max(model.ir_version, _IR_OF_IT)
        except Exception as error:  # the system's, protobuf's, onnx's, ONNX Runtime's
            raise ModelError(
                f"{path} can't be made ready for quantization ({first_line(error)}): export it "
                f"again, with operator set {_PER_CHANNEL_SINCE} or later"
            ) from error
    source = load_proto(path)
    _name_nodes(model)
    if source.ir_version < _DEFAULTS_SINCE_IR:
        _stored_only(model)
    del model.metadata_props[:]
    model.metadata_props.extend(source.metadata_props)
    used = {node.domain for node in model.graph.node} | {""}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


@dataclass(frozen=True)
class Quantizer:
    """Puts nodes of a network between pairs of QuantizeLinear and DequantizeLinear.

    Attributes:
        model: a network that is :func:`ready`.
        numbers: in which its activations and weights are written.
        weights: whole numbers to store in place of the nearest ones, by the weight's name.
    """

    model: ModelProto
    numbers: NumberFormat
    weights: Mapping[str, RoundedWeight] = field(default_factory=dict)

    def __call__(
        self,
        ranges: Mapping[str, Range],
        *,
        only: Collection[str] = (),
        without: Collection[str] = (),
    ) -> ModelProto:
        """Return the quantized network.

        Args:
            ranges: of its tensors, by name.
            only: names of the only nodes; all if empty. They are quantized also where what comes
                before them is not, which a reshape, for one, otherwise waits for.
            without: names of nodes that stay as they are.

        Raises:
            ModelError: the quantizer fails.
        """
        import_onnxruntime()
        with _silence():
            quantizer = self._prepared(ranges, only, without)
            try:
                quantizer.quantize_model()
                quantizer.model.topological_sort()
            except Exception as error:  # bare ones of many types
                raise ModelError(f"the network can't be quantized: {first_line(error)}") from error
        result: ModelProto = quantizer.model.model
        marks = [prop for prop in result.metadata_props if prop.value == _MARK]
        for mark in marks:
            result.metadata_props.remove(mark)
        self._store_weights(result)
        hold_float32(result)
        return result

    def _prepared(
        self, ranges: Mapping[str, Range], only: Collection[str], without: Collection[str]
    ) -> Any:
        from onnxruntime.quantization import CalibrationMethod, QuantType
        from onnxruntime.quantization.calibrate import TensorData, TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        data = {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in ranges.items()
        }
        copy = type(self.model)()
        copy.CopyFrom(self.model)
        copy.metadata_props.add(key="onnx.infer", value=_MARK)  # shapes are there: infer none
        options: dict[str, Any] = {
            "ActivationSymmetric": self.numbers.is_symmetric,
            "WeightSymmetric": True,
            "ForceQuantizeNoInputCheck": bool(only),
        }
        return QDQQuantizer(
            copy,
            per_channel=True,
            reduce_range=self.numbers.is_reduced,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if self.numbers.is_signed else QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, data),
            nodes_to_quantize=list(only),
            nodes_to_exclude=list(without),
            op_types_to_quantize=sorted(quantizable(self.numbers)),
            extra_options=options,
        )

    def _store_weights(self, model: ModelProto) -> None:
        """Put the chosen whole numbers where the quantizer uses the steps they are made for."""
        from onnx import numpy_helper

        stored = stored_tensors(model)
        for name, weight in self.weights.items():
            written, steps = (stored.get(f"{name}_{what}") for what in ("quantized", "scale"))
            if written is None or steps is None:
                continue  # it stays in float32
            used = numpy_helper.to_array(steps)
            if used.shape == weight.steps.shape and np.allclose(used, weight.steps, rtol=1e-5):
                written.CopyFrom(numpy_helper.from_array(weight.values, written.name))


def quantizable(numbers: NumberFormat) -> frozenset[str]:
    """Return the operators that the quantizer takes and that gain by it."""
    import_onnxruntime()
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return frozenset({*QLinearOpsRegistry, *QDQRegistry}) - numbers.float_operators


def serialized(model: ModelProto) -> bytes:
    """Return a network as the content of a file.

    Raises:
        ModelError: it is too large for one.
    """
    if model.ByteSize() > _LARGEST:
        raise ModelError("the network is above 2 GB, which the quantizer can't write: cut it up")
    content: bytes = model.SerializeToString()
    return content


def _opset(model: ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 0)


def _name_nodes(model: ModelProto) -> None:
    """Name the nodes that have no name."""
    taken = {node.name for node in model.graph.node}
    for index, node in enumerate(model.graph.node):
        if not node.name:
            free = f"{node.op_type}_{index}"
            while free in taken:
                free += "_"
            taken.add(free)
            node.name = free


def _stored_only(model: ModelProto) -> None:
    """Take weights off the inputs, where each had to be."""
    stored = {tensor.name for tensor in model.graph.initializer}
    own = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(own)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what the quantizer prints, logs and warns of to itself; its errors are exceptions."""
    root, handler = logging.getLogger(), logging.NullHandler()
    disabled = root.manager.disable
    root.addHandler(handler)  # without one, logging adds one that prints, and leaves it there
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.removeHandler(handler)
