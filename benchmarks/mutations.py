"""Ways in which an ONNX file may be broken: each makes the content of another file of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from random import Random

from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

Change = Callable[[ModelProto, Random], None]


def broken(content: bytes, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of files that are broken in every way once, by chance.

    Args:
        content: of a sound ONNX file.
        seed: chooses places.
    """
    for name, change in BYTES.items():
        yield name, change(content, Random(f"{name}{seed}"))
    model = ModelProto.FromString(content)
    for name, mutation in GRAPH.items():
        other = deepcopy(model)
        try:
            mutation(other, Random(f"{name}{seed}"))
        except IndexError:  # it has nothing of the kind
            continue
        yield name, other.SerializeToString()


def _truncated(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def _flipped(count: int) -> Callable[[bytes, Random], bytes]:
    def flip(content: bytes, random: Random) -> bytes:
        damaged = bytearray(content)
        for _ in range(count):
            damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
        return bytes(damaged)

    return flip


def _flipped_structure(content: bytes, random: Random) -> bytes:
    """Flip bits where the structure is: of a file without the numbers of its weights."""
    model = ModelProto.FromString(content)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 1024:
            tensor.ClearField("raw_data")
            tensor.float_data.extend([0.0])
    return _flipped(3)(model.SerializeToString(), random)


def _doubled(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + content


def _zeroed(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + bytes(64) + content[place + 64 :]


BYTES: dict[str, Callable[[bytes, Random], bytes]] = {
    "empty": lambda *_: b"",
    "truncated": _truncated,
    "truncated near the end": lambda content, _: content[:-3],
    "one bit": _flipped(1),
    "many bits": _flipped(40),
    "bits of the structure": _flipped_structure,
    "twice": _doubled,
    "zeros": _zeroed,
}


def _node(model: ModelProto, random: Random) -> NodeProto:
    nodes: list[NodeProto] = list(model.graph.node)
    return random.choice(nodes)


def _weight(model: ModelProto, random: Random) -> TensorProto:
    weights: list[TensorProto] = [one for one in model.graph.initializer if len(one.dims) > 1]
    return random.choice(weights)


def _layer(model: ModelProto, random: Random) -> NodeProto:
    kinds = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    layers: list[NodeProto] = [node for node in model.graph.node if node.op_type in kinds]
    return random.choice(layers)


def _missing_initializer(model: ModelProto, random: Random) -> None:
    model.graph.initializer.remove(_weight(model, random))


def _renamed_initializer(model: ModelProto, random: Random) -> None:
    _weight(model, random).name += "_other"


def _duplicate_initializer(model: ModelProto, random: Random) -> None:
    model.graph.initializer.add().CopyFrom(_weight(model, random))


def _dims(*sizes: int) -> Change:
    def change(model: ModelProto, random: Random) -> None:
        _weight(model, random).dims[:] = sizes

    return change


def _swapped_dims(model: ModelProto, random: Random) -> None:
    tensor = _weight(model, random)
    tensor.dims[:] = list(reversed(tensor.dims))


def _short_data(model: ModelProto, random: Random) -> None:
    tensor = _weight(model, random)
    tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]


def _dtype(element_type: int) -> Change:
    def change(model: ModelProto, random: Random) -> None:
        _weight(model, random).data_type = element_type

    return change


def _cycle(model: ModelProto, random: Random) -> None:
    node = _node(model, random)
    node.input[0] = model.graph.node[-1].output[0]


def _self_loop(model: ModelProto, random: Random) -> None:
    node = _node(model, random)
    node.input[0] = node.output[0]


def _dangling(model: ModelProto, random: Random) -> None:
    _node(model, random).input[0] = "nowhere"


def _empty_input(model: ModelProto, random: Random) -> None:
    _node(model, random).input[0] = ""


def _no_inputs(model: ModelProto, random: Random) -> None:
    del _layer(model, random).input[:]


def _one_input(model: ModelProto, random: Random) -> None:
    del _layer(model, random).input[1:]


def _many_inputs(model: ModelProto, random: Random) -> None:
    node = _layer(model, random)
    node.input.extend([node.input[0]] * 5)


def _duplicate_output(model: ModelProto, random: Random) -> None:
    first, second = _node(model, random), _node(model, random)
    first.output[0] = second.output[0]


def _no_output(model: ModelProto, random: Random) -> None:
    del _node(model, random).output[:]


def _shuffled(model: ModelProto, random: Random) -> None:
    nodes = [deepcopy(node) for node in model.graph.node]
    random.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _attribute(name: str, values: list[int]) -> Change:
    def change(model: ModelProto, random: Random) -> None:
        node = _layer(model, random)
        kept = [deepcopy(one) for one in node.attribute if one.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, values)])

    return change


def _wrong_attribute(model: ModelProto, random: Random) -> None:
    node = random.choice([node for node in model.graph.node if node.attribute])
    node.attribute[0].type = AttributeProto.STRING


def _reference(model: ModelProto, random: Random) -> None:
    node = random.choice([node for node in model.graph.node if node.attribute])
    node.attribute[0].ref_attr_name = "of no function"


def _operator(name: str, domain: str = "") -> Change:
    def change(model: ModelProto, random: Random) -> None:
        node = _node(model, random)
        node.op_type, node.domain = name, domain

    return change


def _opset(version: int) -> Change:
    def change(model: ModelProto, _: Random) -> None:
        model.opset_import[0].version = version

    return change


def _no_opset(model: ModelProto, _: Random) -> None:
    del model.opset_import[:]


def _input_shape(*sizes: int) -> Change:
    def change(model: ModelProto, _: Random) -> None:
        shape = model.graph.input[0].type.tensor_type.shape
        del shape.dim[:]
        for size in sizes:
            shape.dim.add().dim_value = size

    return change


def _cleared(*fields: str) -> Change:
    def change(model: ModelProto, _: Random) -> None:
        for field in fields:
            model.graph.ClearField(field)

    return change


def _odd_input(model: ModelProto, _: Random) -> None:
    model.graph.input[0].type.Clear()
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT


def _body(model: ModelProto, random: Random) -> None:
    node = _node(model, random)
    node.op_type, node.domain = "If", ""
    body = helper.make_graph([deepcopy(one) for one in model.graph.node[:3]], "body", [], [])
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("then_branch", body))


def _function(model: ModelProto, random: Random) -> None:
    node = _node(model, random)
    node.op_type, node.domain = "f", "of.nobody"
    call = helper.make_node("f", ["a"], ["b"], domain="of.nobody")
    imports = [helper.make_opsetid("of.nobody", 1)]
    model.functions.append(helper.make_function("of.nobody", "f", ["a"], ["b"], [call], imports))
    model.opset_import.extend(imports)


def _external(location: str, offset: str = "0", length: str = "16") -> Change:
    def change(model: ModelProto, random: Random) -> None:
        tensor = _weight(model, random)
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return change


def _sparse(model: ModelProto, random: Random) -> None:
    tensor = _weight(model, random)
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(tensor)
    sparse.dims.extend([1 << 40, 1 << 40])
    model.graph.initializer.remove(tensor)


_HUGE = 1 << 40

GRAPH: dict[str, Change] = {
    "missing initializer": _missing_initializer,
    "renamed initializer": _renamed_initializer,
    "duplicate initializer": _duplicate_initializer,
    "rank-0 weight": _dims(),
    "rank-1 weight": _dims(7),
    "empty weight": _dims(0, 3, 3, 3),
    "negative weight": _dims(-4, 3, 3, 3),
    "huge weight": _dims(_HUGE, _HUGE, 3, 3),
    "large weight": _dims(1 << 17, 1 << 17),
    "rank-9 weight": _dims(*[2] * 9),
    "swapped dimensions": _swapped_dims,
    "short data": _short_data,
    "integer weight": _dtype(TensorProto.INT64),
    "text weight": _dtype(TensorProto.STRING),
    "packed weight": _dtype(TensorProto.INT4),
    "complex weight": _dtype(TensorProto.COMPLEX128),
    "unknown type of weight": _dtype(99),
    "undefined type of weight": _dtype(0),
    "cycle": _cycle,
    "self loop": _self_loop,
    "dangling input": _dangling,
    "empty input": _empty_input,
    "no inputs": _no_inputs,
    "one input": _one_input,
    "many inputs": _many_inputs,
    "duplicate output": _duplicate_output,
    "no output": _no_output,
    "shuffled nodes": _shuffled,
    "stride 0": _attribute("strides", [0, 0]),
    "stride of one axis": _attribute("strides", [1]),
    "negative stride": _attribute("strides", [-1, -1]),
    "negative pads": _attribute("pads", [-9, -9, -9, -9]),
    "huge pads": _attribute("pads", [1 << 30] * 4),
    "pads of one axis": _attribute("pads", [1]),
    "dilation 0": _attribute("dilations", [0, 0]),
    "huge dilation": _attribute("dilations", [1 << 30, 1 << 30]),
    "other kernel": _attribute("kernel_shape", [5, 7]),
    "wrong type of attribute": _wrong_attribute,
    "attribute of no function": _reference,
    "unknown operator": _operator("Frobnicate"),
    "unknown domain": _operator("Frobnicate", "com.nobody"),
    "other operator": _operator("LSTM"),
    "quantized operator": _operator("QLinearConv"),
    "loop": _operator("Loop"),
    "opset 0": _opset(0),
    "opset 1": _opset(1),
    "opset of the future": _opset(9999),
    "negative opset": _opset(-1),
    "no opset": _no_opset,
    "input of rank 0": _input_shape(),
    "empty input shape": _input_shape(0, 3, 0, 0),
    "huge input": _input_shape(1, 3, 1 << 30, 1 << 30),
    "large input": _input_shape(1, 3, 1 << 15, 1 << 15),
    "negative input": _input_shape(-1, -3, -8, -8),
    "input of rank 9": _input_shape(*[1] * 9),
    "no graph inputs": _cleared("input"),
    "no graph outputs": _cleared("output"),
    "no nodes": _cleared("node"),
    "no initializers": _cleared("initializer"),
    "input that is a sequence": _odd_input,
    "body without outputs": _body,
    "function that calls itself": _function,
    "weights elsewhere": _external("missing.data"),
    "weights above": _external("../secret.data"),
    "weights at the root": _external("/etc/passwd"),
    "weights of no place": _external(""),
    "weights of negative offset": _external("model.data", "-5"),
    "weights of an offset that is no number": _external("model.data", "x"),
    "weights beyond the end": _external("model.data", str(_HUGE)),
    "weights that are a folder": _external("."),
    "sparse weight": _sparse,
}
