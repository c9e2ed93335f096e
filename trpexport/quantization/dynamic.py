"""Dynamic int8: weights are stored in 8 bits, activations are quantized while the network runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_ir as ir

from trpexport.errors import ModelError
from trpexport.foreign import first_line
from trpexport.quantization import graphs
from trpexport.quantization.settings import QuantizationSettings, Quantized
from trpexport.runtime.session import import_onnxruntime

_KINDS = ("Conv", "MatMul")
_INTEGER = {"ConvInteger", "MatMulInteger"}
_NOTE = (
    "int8-dynamic finds the range of every tensor anew in each run, and convolutions are seldom "
    "faster so: measure it against float32 and, with images to calibrate on, against int8"
)


def quantize_dynamic(source: Path, target: Path, settings: QuantizationSettings) -> Quantized:
    """Write a network with int8 weights and activations whose ranges are found as it runs.

    Args:
        source: the float32 file.
        target: the file to write, which may be the same.
        settings: who will run it.

    Raises:
        ModelError: nothing in it can be quantized, or the quantizer fails.
    """
    import_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = graphs.read(source)
    for node in list(model.graph):
        if node.op_type == "Gemm" and graphs.has_weight(node) and _is_plain(node):
            _split_gemm(model, node)
    linear = [node for node in model.graph if node.op_type in _KINDS]
    kept = [str(node.name) for node in linear if not graphs.has_weight(node)]
    if len(kept) == len(linear):
        raise ModelError(
            f"{source.name} has no convolution or matrix product with weights that are stored: "
            "there is nothing to quantize"
        )
    with graphs.prepared(model) as (prepared, written):
        try:
            quantize_dynamic(
                prepared,
                written,
                op_types_to_quantize=["Conv", "MatMul"],
                nodes_to_exclude=kept,
                per_channel=True,
                weight_type=QuantType.QUInt8,  # which ConvInteger takes in every version
                use_external_data_format=graphs.weight_bytes(model) > graphs.WHOLE_BYTES,
            )
            result = graphs.read(written)
        except Exception as error:  # the quantizer's own have no common base
            raise ModelError(
                f"ONNX Runtime's dynamic quantizer fails on {source.name} ({first_line(error)}): "
                "choose another precision"
            ) from error
    graphs.write(result, target, precision="int8-dynamic")
    kinds = Counter(node.op_type for node in result.graph if node.op_type in _INTEGER)
    left = [str(node.name) for node in result.graph if node.op_type in ("Gemm", *_KINDS)]
    facts = {"nodes": dict(kinds), "float32": left}
    return Quantized(facts, _NOTE if "ConvInteger" in kinds else None)


def _split_gemm(model: ir.Model, gemm: ir.Node) -> None:
    """Put MatMul and Add in the place of a Gemm, which has no integer form.

    ONNX Runtime's own rewrite takes a weight that two of them share for one that is its alone.
    """
    x, weight, *bias = gemm.inputs
    assert weight is not None
    assert weight.const_value is not None
    stored = weight.const_value.numpy()
    kernel = ir.val(
        f"{gemm.name}_kernel",
        const_value=ir.tensor(stored.T.copy() if _is_set(gemm, "transB") else stored),
    )
    model.graph.register_initializer(kernel)
    output = gemm.outputs[0]
    product = ir.node("MatMul", [x, kernel], name=f"{gemm.name}_MatMul")
    new = [product]
    if bias and bias[0] is not None:
        new.append(ir.node("Add", [product.outputs[0], bias[0]], name=f"{gemm.name}_Add"))
    ir.convenience.replace_nodes_and_values(
        model.graph, gemm, [gemm], new, [output], [new[-1].outputs[0]]
    )


def _is_plain(gemm: ir.Node) -> bool:
    """Whether a Gemm is a product and a sum, no factors and no transposed input."""
    factors = (gemm.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    return all(factor == 1.0 for factor in factors) and not _is_set(gemm, "transA")


def _is_set(node: ir.Node, name: str) -> bool:
    return bool(node.attributes.get_int(name, 0))
