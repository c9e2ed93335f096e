"""Operators that work on each element alone: arithmetic, activations, casts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from trpexport.networks.onnx.interpreter.registry import MICROSOFT, Use, operator


def _simple(name: str, function: Callable[..., Tensor]) -> None:
    """Register an operator that has no attributes and is a function of PyTorch."""
    operator(name)(lambda _, *inputs: function(*inputs))


_FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Add": torch.add,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": functional.hardswish,
    "Identity": lambda x: x,
    "Log": torch.log,
    "Mish": functional.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}
for _name, _function in _FUNCTIONS.items():
    _simple(_name, _function)


@operator("Div")
def _div(_: Use, first: Tensor, second: Tensor) -> Tensor:
    if first.is_floating_point():
        return first / second
    return torch.div(first, second, rounding_mode="trunc")


@operator("Mod")
def _mod(use: Use, first: Tensor, second: Tensor) -> Tensor:
    return torch.fmod(first, second) if use.get("fmod", 0) else torch.remainder(first, second)


@operator("Pow")
def _pow(_: Use, base: Tensor, exponent: Tensor) -> Tensor:
    if base.is_floating_point() or not exponent.is_floating_point():
        exponent = exponent.to(base.dtype)
    return torch.pow(base, exponent).to(base.dtype)


@operator("Sum")
def _sum(_: Use, *inputs: Tensor) -> Tensor:
    return reduce(torch.add, inputs)


@operator("Mean")
def _mean(_: Use, *inputs: Tensor) -> Tensor:
    return reduce(torch.add, inputs) / len(inputs)


@operator("Max")
def _max(_: Use, *inputs: Tensor) -> Tensor:
    return reduce(torch.maximum, inputs)


@operator("Min")
def _min(_: Use, *inputs: Tensor) -> Tensor:
    return reduce(torch.minimum, inputs)


@operator("Clip")
def _clip(use: Use, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if use.opset < 11:
        bounds = use.get("min"), use.get("max")
        return x if bounds == (None, None) else x.clamp(*bounds)
    if low is not None:
        x = torch.maximum(x, low.reshape(()))
    return x if high is None else torch.minimum(x, high.reshape(()))


@operator("LeakyRelu")
def _leaky_relu(use: Use, x: Tensor) -> Tensor:
    return functional.leaky_relu(x, use.get("alpha", 0.01))


@operator("PRelu")
def _prelu(_: Use, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


@operator("Elu")
def _elu(use: Use, x: Tensor) -> Tensor:
    return functional.elu(x, use.get("alpha", 1.0))


@operator("Celu")
def _celu(use: Use, x: Tensor) -> Tensor:
    return functional.celu(x, use.get("alpha", 1.0))


@operator("Selu")
def _selu(use: Use, x: Tensor) -> Tensor:
    alpha = use.get("alpha", 1.6732632423543772)
    gamma = use.get("gamma", 1.0507009873554805)
    return gamma * functional.elu(x, alpha)


@operator("HardSigmoid")
def _hard_sigmoid(use: Use, x: Tensor) -> Tensor:
    return (use.get("alpha", 0.2) * x + use.get("beta", 0.5)).clamp(0.0, 1.0)


@operator("Softplus")
def _softplus(_: Use, x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


@operator("ThresholdedRelu")
def _thresholded_relu(use: Use, x: Tensor) -> Tensor:
    return torch.where(x > use.get("alpha", 1.0), x, torch.zeros_like(x))


@operator("Shrink")
def _shrink(use: Use, x: Tensor) -> Tensor:
    bias, limit = use.get("bias", 0.0), use.get("lambd", 0.5)
    shrunk = torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, 0))
    return shrunk.to(x.dtype)


@operator("Gelu")
def gelu(use: Use, x: Tensor) -> Tensor:
    """Return the Gaussian error linear unit."""
    return functional.gelu(x, approximate=use.get("approximate", "none"))


@operator("Gelu", domain=MICROSOFT)
def _exact_gelu(_: Use, x: Tensor) -> Tensor:
    return functional.gelu(x)


@operator("BiasGelu", domain=MICROSOFT)
def _bias_gelu(_: Use, x: Tensor, bias: Tensor) -> Tensor:
    return functional.gelu(x + bias)


@operator("FastGelu", domain=MICROSOFT)
def _fast_gelu(_: Use, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


@operator("QuickGelu", domain=MICROSOFT)
def _quick_gelu(use: Use, x: Tensor) -> Tensor:
    return x * torch.sigmoid(use.get("alpha", 1.702) * x)


@operator("Swish")
def _swish(use: Use, x: Tensor) -> Tensor:
    return x * torch.sigmoid(use.get("alpha", 1.0) * x)


@operator("Dropout", numbers=(1, 2))
def _dropout(use: Use, x: Tensor, *_: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
    return x if use.outputs == 1 else (x, torch.ones_like(x, dtype=torch.bool))


@operator("Cast")
def _cast(use: Use, x: Tensor) -> Tensor:
    return x.to(use.dtype(use.get("to")))


@operator("CastLike")
def _cast_like(_: Use, x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)
