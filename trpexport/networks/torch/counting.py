"""What a PyTorch network costs, counted over the operators that one forward pass runs.

Below the level of modules: attention, ``F.conv2d``, ``F.linear`` and ``einsum`` are counted as
the modules of convolutions and linear layers are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import flop_registry

from trpexport.cost import FLOPS_PER_MAC, Cost, OperatorCost
from trpexport.inputs import InputsLike
from trpexport.networks.torch.modules import LAYERS, FactorChain
from trpexport.networks.torch.operators import OperatorMode
from trpexport.networks.torch.running import run_example, surrounding, tensor_leaves

_aten = torch.ops.aten
# Operators that multiply and add, but for those that are counted: nobody knows how much.
_COSTLY = re.compile(
    r"fft|linalg|cdist|pdist|grid_sampler|embedding_bag|cholesky|triangular_solve|matrix_exp|ormqr"
    r"|geqrf|householder|mm$|matmul|attention|rnn|lstm|gru|conv|linear"
)
# What the pattern catches by its name alone: it moves data about, or works elementwise.
_CHEAP = re.compile(r"^(upsample_|_thnn_|_conv_depthwise_backward|_convert)")


def _trilinear(a: Tensor, b: Tensor, c: Tensor, *expand: Sequence[int]) -> int:
    """MACs of a sum over the elementwise product of three tensors, expanded to one shape."""
    sizes = []
    for tensor, axes in zip((a, b, c), expand, strict=False):
        for axis in sorted(axes):
            tensor = tensor.unsqueeze(axis)  # noqa: PLW2901
        sizes.append(tensor.shape)
    return prod(map(max, *sizes))


# MACs by operator, of those that PyTorch's own table of FLOPs does not have.
_FORMULAS: Mapping[Any, Callable[..., int]] = {
    _aten.mv: lambda matrix, _: matrix.numel(),
    _aten.addmv: lambda _, matrix, __, **___: matrix.numel(),
    _aten.dot: lambda vector, _: vector.numel(),
    _aten.vdot: lambda vector, _: vector.numel(),
    _aten.addbmm: lambda _, a, b, **__: a.numel() * b.shape[2],
    _aten._trilinear: lambda a, b, c, *rest: _trilinear(a, b, c, *rest[:3]),
    _aten.mkldnn_rnn_layer: lambda x, w_in, w_state, *_: (
        x.numel() // x.shape[-1] * (w_in.numel() + w_state.numel())
    ),
}


def count_module(model: nn.Module, inputs: InputsLike) -> Cost:
    """Count what a network costs for its inputs.

    Args:
        model: the network; it is not changed.
        inputs: what it takes, or the shape of its only input, batch first.

    Returns:
        The cost of the whole batch. Parameters are counted where they are first multiplied with.

    Raises:
        PlanError: the network can't run such inputs.
    """
    counter = _Counter(model)
    with counter.following(), sdpa_kernel(SDPBackend.MATH), counter:
        run_example(model, inputs, {})
    total = sum(parameter.numel() for parameter in model.parameters())
    return Cost(
        layers=tuple(counter.rows),
        left_out=dict(counter.left_out),
        uncounted=dict(counter.uncounted),
        other_parameters=total - sum(row.parameters for row in counter.rows),
        uncounted_macs=counter.uncounted_macs,
    )


class _Counter(OperatorMode):
    """Notes every operator that runs, and the innermost module that it runs in."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._modules = {module: name for name, module in model.named_modules()}
        self._chains = [module for module in self._modules if isinstance(module, FactorChain)]
        self._inside: list[nn.Module] = []
        self._counted_inside: list[bool] = []
        self._unused: dict[int, int] = {}
        for parameter in model.parameters():
            where = place(parameter)
            self._unused[where] = self._unused.get(where, 0) + parameter.numel()
        self.rows: list[OperatorCost] = []
        self.left_out: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()
        self.uncounted_macs = 0

    def following(self) -> AbstractContextManager[None]:
        """Follow which module runs."""
        return surrounding(dict.fromkeys(self._modules, self._enter))

    def _enter(self, module: nn.Module, run: Callable[[], Any]) -> Any:
        self._inside.append(module)
        self._counted_inside.append(False)
        try:
            return run()
        finally:
            self._inside.pop()
            if not self._counted_inside.pop() and _is_leaf(module):
                self.left_out[type(module).__name__] += 1

    def run(self, operator: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Run an operator and count it."""
        output = operator(*args, **keywords)
        # The network does not run yet; or its forward reads a dtype, say, of a kernel that is there
        # as factors only, and no exported file multiplies them out.
        if not self._inside or any(chain.is_multiplying_out for chain in self._chains):
            return output
        kind = operator.overloadpacket
        name = kind.__name__
        if kind in _FORMULAS:
            self._count(name, args, output, _FORMULAS[kind](*args, **keywords))
        elif kind in flop_registry:
            flops = flop_registry[kind](*args, **keywords, out_val=output)
            self._count(name, args, output, flops // FLOPS_PER_MAC)
        elif operator.namespace != "aten" or _is_costly(name):
            if operator.namespace not in ("prim", "prims"):
                self.uncounted[name] += 1
                self._counted_inside[-1] = True
                longest = max((d for t in tensor_leaves(args) for d in t.shape), default=1)
                self.uncounted_macs += longest * sum(t.numel() for t in tensor_leaves(output))
        elif not operator.is_view and not _is_leaf(self._inside[-1]):
            self.left_out[name] += 1
        return output

    def _count(self, operator: str, args: Sequence[Any], output: Any, macs: int) -> None:
        module = self._inside[-1]
        self._counted_inside[-1] = True
        tensors = tensor_leaves(args)
        moving = [tensor for tensor in tensors if place(tensor) not in self._unused] or tensors
        (result, *_) = tensor_leaves(output)
        self.rows.append(
            OperatorCost(
                name=self._modules[module],
                operator=type(module).__name__ if isinstance(module, LAYERS) else operator,
                input_shape=tuple(moving[0].shape),
                output_shape=tuple(result.shape),
                macs=macs,
                parameters=sum(self._unused.pop(place(tensor), 0) for tensor in tensors),
                activation_bytes=result.numel() * result.element_size(),
            )
        )


def is_product(operator: Any) -> bool:
    """Whether an operator multiplies and adds."""
    kind = operator.overloadpacket
    return kind in _FORMULAS or kind in flop_registry or _is_costly(kind.__name__)


def _is_costly(name: str) -> bool:
    return bool(_COSTLY.search(name)) and not _CHEAP.search(name)


def _is_leaf(module: nn.Module) -> bool:
    return not any(True for _ in module.children())


def place(tensor: Tensor) -> int:
    """Return what a parameter and its views have in common."""
    return tensor.untyped_storage().data_ptr()
