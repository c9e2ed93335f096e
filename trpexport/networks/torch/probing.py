"""What layers compute whose class has a forward of its own, found out by watching them run.

Libraries have convolutions that pad by themselves, as TensorFlow's "same" does (timm's
``Conv2dSame``, EfficientNet's ``Conv2dStaticSamePadding``). Such a layer is a convolution with
another padding, and may be rewritten as one, if it gives what that convolution gives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from trpexport.errors import ModelError, PlanError
from trpexport.inputs import Inputs, InputsLike
from trpexport.networks.torch.counting import place
from trpexport.networks.torch.modules import (
    CONVOLUTIONS,
    LAYERS,
    FactorChain,
    LinearLayer,
    bare_op_of,
    base_kind,
    computes_otherwise,
    forget_ops,
    is_learned,
    learn_op,
    make_layer,
)
from trpexport.networks.torch.operators import OperatorMode
from trpexport.networks.torch.running import (
    RUN_ERRORS,
    argument,
    evaluating,
    input_like,
    run_example,
    tensor_leaves,
)
from trpexport.ops import LinearOp

# Difference of two ways to add up the same products, relative to the largest output.
_ROUNDING = 1e-4
_DRAWS = 2
# Images, and windows side by side, of what a layer is tried on that nobody says the input of.
_IMAGES, _WINDOWS = 2, 3


@contextmanager
def probed(model: nn.Module, inputs: InputsLike | None) -> Iterator[list[str]]:
    """Know within the block what layers with a forward of their own compute, as :func:`probe`.

    Behind it the network is as it was, which may be somebody's own.

    Args:
        model: the network.
        inputs: what it takes; None where nobody says, and each layer is tried by itself.

    Yields:
        A line on each class of layers that were not understood, as :func:`advice`.
    """
    before = [module for module in model.modules() if is_learned(module)]
    probe(model, inputs)
    try:
        yield advice(model)
    finally:
        forget_ops(model, but=before)


def probe(model: nn.Module, inputs: InputsLike | None) -> dict[str, bool]:
    """Learn what the layers compute that have a forward of their own, as far as it is one operator.

    :func:`~trpexport.networks.torch.modules.op_of` knows it from then on.

    Args:
        model: the network; its layers are marked, and compute what they did.
        inputs: what it takes; None where nobody says: each layer is then tried by itself, and what
            was learned holds but for the padding, which may be another at another size.

    Returns:
        By name of the layers that were understood, whether they hang on the size of their input:
        then what was learned holds at the sizes that they get here.
    """
    names = {
        module: name
        for name, module in model.named_modules()
        if isinstance(module, LAYERS) and computes_otherwise(module) and not _has_state(module)
    }
    if not names:
        return {}
    shapes: dict[nn.Module, list[tuple[int, ...]]] = {}
    if inputs is None:
        shapes = {module: [_shape_alone(bare_op_of(module))] for module in names}
    elif not _note_shapes(model, inputs, names, shapes):
        return {}
    found = {}
    with evaluating(model):
        for module, calls in shapes.items():
            assert isinstance(module, LAYERS)
            op = _op_at(module, calls)
            if op is not None:
                learn_op(module, op)
                found[names[module]] = not _holds_elsewhere(module, op, calls[0])
    return found


def _note_shapes(
    model: nn.Module,
    inputs: InputsLike,
    layers: Iterable[nn.Module],
    shapes: dict[nn.Module, list[tuple[int, ...]]],
) -> bool:
    """Note the shape of each input that some layers get; return whether the network runs."""

    def note(
        module: nn.Module, given: tuple[Any, ...], keywords: Mapping[str, Any], _: Any
    ) -> None:
        shapes.setdefault(module, []).append(tuple(argument(given, keywords).shape))

    try:
        run_example(model, inputs, dict.fromkeys(layers, note))
    except PlanError:  # whoever needs it to run will say so
        return False
    return True


def _shape_alone(op: LinearOp) -> tuple[int, ...]:
    """Return the shape of inputs of some images, large enough for a layer's window."""
    window = op.window
    reaches = zip(window.kernel, window.dilation, window.stride, strict=True)
    sizes = (_WINDOWS * ((taps - 1) * apart + 1) + step for taps, apart, step in reaches)
    return (_IMAGES, op.in_channels, *sizes)


def advice(model: nn.Module) -> list[str]:
    """Return a line on each class of layers that were not understood, and what to write instead."""
    counts = Counter(
        type(module)
        for module in model.modules()
        if isinstance(module, LAYERS) and computes_otherwise(module) and not is_learned(module)
    )
    return [
        f"{count} layer{'s' * (count > 1)} of class {kind.__name__} "
        f"{'stay' if count > 1 else 'stays'}, as its forward computes more than a {base}: write a "
        f"nn.{base} in its place, with the weight and the padding that it works with, and the rest "
        "as a module of its own"
        for kind, count in counts.items()
        for base in [base_kind(kind).__name__]
    ]


def check_open_sizes(model: nn.Module, bound: Sequence[str], inputs: Inputs) -> None:
    """Refuse to leave sizes open where a chain has the padding of one size alone.

    Args:
        model: the network.
        bound: names of the layers whose padding hangs on the size.
        inputs: of what size it was known.

    Raises:
        ModelError: one of them is a chain.
    """
    modules = dict(model.named_modules())
    name = next((name for name in bound if isinstance(modules.get(name), FactorChain)), None)
    if name is not None:
        raise ModelError(
            f"{name} pads by the size of its input, and was rewritten for {inputs}: exclude it, or "
            "leave no size open",
            parameters=("exclude", "dynamic"),
        )


def _has_state(module: nn.Module) -> bool:
    """Whether modules within a layer hold what a rewrite would lose."""
    children = list(module.modules())[1:]
    return any(list(child.parameters()) or list(child.buffers()) for child in children)


def _op_at(module: LinearLayer, calls: Sequence[tuple[int, ...]]) -> LinearOp | None:
    """Return the one operator that a layer is at all sizes of its inputs; None where it is none."""
    op = bare_op_of(module)
    if not _is(module, op, calls[0]):
        pads = _pads(module, calls[0]) if isinstance(module, CONVOLUTIONS) else None
        if pads is None:
            return None
        op = replace(op, window=replace(op.window, pads=pads, pad_mode="zeros"))
    return op if all(_is(module, op, shape) for shape in dict.fromkeys(calls)) else None


def _holds_elsewhere(module: LinearLayer, op: LinearOp, shape: tuple[int, ...]) -> bool:
    """Whether a layer is an operator at other sizes of its input as well."""
    return all(
        _is(
            module,
            op,
            (*shape[: len(shape) - op.ndim], *(size + more for size in shape[-op.ndim :])),
        )
        for more in range(1, 1 + max((2, *op.window.stride)))
        if op.ndim
    )


def _is(module: LinearLayer, op: LinearOp, shape: tuple[int, ...]) -> bool:
    """Whether a layer gives for random inputs what an operator with its weight and bias gives."""
    like = input_like(module)
    plain = make_layer(op).to(like)
    plain.weight.data.copy_(module.weight)
    if plain.bias is not None and module.bias is not None:
        plain.bias.data.copy_(module.bias)
    for _ in range(_DRAWS):
        x = torch.randn(shape).to(like)
        try:
            theirs, ours = module(x.clone()), plain(x)
        except RUN_ERRORS:
            return False
        if not isinstance(theirs, Tensor) or theirs.shape != ours.shape:
            return False
        if not float((theirs - ours).abs().max()) <= _ROUNDING * float(ours.abs().max()):
            return False
    return True


def _pads(module: LinearLayer, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...] | None:
    """Return the zeros (before, after) each axis that a convolution adds to an input of a shape.

    None where it does not run one convolution with its weight.
    """
    like = input_like(module)
    seen = _Convolutions(module.weight)
    try:
        with seen:
            module(torch.ones(shape, device=like.device, dtype=like.dtype))
    except RUN_ERRORS:
        return None
    if len(seen.uses) != 1:
        return None
    (given, padding) = seen.uses[0]
    axes = range(given.ndim - len(padding), given.ndim)
    found = []
    for axis, more in zip(axes, padding, strict=True):
        others = [other for other in range(given.ndim) if other != axis]
        filled = given.abs().sum(others).nonzero().flatten()
        if not len(filled):
            return None
        first, last = int(filled[0]), int(filled[-1])
        found.append((first + more, given.shape[axis] - 1 - last + more))
    return tuple(found)


class _Convolutions(OperatorMode):
    """Notes what is convolved with a weight, and the padding that the operator adds."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._weight = place(weight)
        self.uses: list[tuple[Tensor, list[int]]] = []

    def run(self, operator: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Run an operator."""
        if operator.overloadpacket is torch.ops.aten.convolution:
            tensors = tensor_leaves(args)
            if any(place(tensor) == self._weight for tensor in tensors[1:]):
                self.uses.append((args[0], list(args[4])))
        return operator(*args, **keywords)
