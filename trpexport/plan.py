"""The plan: what happens to each convolution of a network, and why. No torch, no onnx.

A plan is made by :func:`trpexport.make_plan`, written as JSON, edited by hand, read back and
applied with :func:`trpexport.factorize`. In a file, only ``scheme`` and ``rank`` of a layer are
meant to be edited; all the rest is derived, and derived again when the plan is applied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trpexport.errors import PlanError

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ConvSpec:
    """A convolution as its attributes, one entry per spatial dimension in each tuple.

    ``padding`` is a number of pixels on both sides of each dimension, or ``"same"``;
    ``padding_mode`` is PyTorch's (``zeros``, ``reflect``, ``replicate``, ``circular``).
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | Literal["same"]
    dilation: tuple[int, ...]
    groups: int = 1
    bias: bool = False
    padding_mode: str = "zeros"

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions: 2 for an image."""
        return len(self.kernel_size)

    @property
    def is_pointwise(self) -> bool:
        """Whether every kernel dimension is 1."""
        return all(k == 1 for k in self.kernel_size)

    def __str__(self) -> str:
        kernel = "x".join(map(str, self.kernel_size))
        text = f"{self.in_channels}->{self.out_channels} {kernel}"
        if any(s != 1 for s in self.stride):
            text += " /" + "x".join(map(str, self.stride))
        if any(d != 1 for d in self.dilation):
            text += " dil " + "x".join(map(str, self.dilation))
        return text + (f" g{self.groups}" if self.groups > 1 else "")


@dataclass(frozen=True)
class LayerPlan:
    """What happens to one convolution.

    A layer is either rewritten (``scheme``, ``rank`` and ``factors`` are set, ``reason`` is None)
    or kept (``factors`` is empty and ``reason`` says why).

    Attributes:
        name: the module's dotted name.
        conv: the original convolution.
        input_sizes: spatial input size of each call in one forward pass, in pixels.
        full_rank: largest rank that the scheme can give this layer; None where it gives none.
        weight_error: relative Frobenius error of the kernel that the factors stand for: the
            truncated one, or, where they are calibrated, the one that fits the outputs best.
        macs: MACs of the original for one image, all calls together.
        factor_macs: the same for the factors; for a kept layer, equal to ``macs``.
        spectrum: singular values, largest first; where the scheme has several matrices for a
            layer, the largest over them at each place.
    """

    name: str
    conv: ConvSpec
    input_sizes: tuple[tuple[int, ...], ...]
    scheme: str | None
    rank: int | None
    full_rank: int | None
    factors: tuple[ConvSpec, ...]
    reason: str | None
    weight_error: float | None
    macs: int
    factor_macs: int
    spectrum: tuple[float, ...] = ()

    @property
    def is_rewritten(self) -> bool:
        """Whether the layer becomes a pair of factors."""
        return bool(self.factors)


@dataclass(frozen=True)
class Plan:
    """What happens to every convolution of a network.

    Attributes:
        scheme: the scheme that was asked for.
        criterion: the criterion that chose the ranks, as text, or where they came from.
        input_shape: shape of the network's input, batch first.
        layers: one entry a convolution, in the order in which they run.
        other_macs: MACs for one image of what is not a convolution (linear layers).
        architecture: what the network is called, for the reader.
        options: the switches that shaped the plan (``keep_expensive``, ``stride_1_only``, ...).
    """

    scheme: str
    criterion: str
    input_shape: tuple[int, ...]
    layers: tuple[LayerPlan, ...]
    other_macs: int = 0
    architecture: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rewritten(self) -> tuple[LayerPlan, ...]:
        """The layers that become pairs."""
        return tuple(layer for layer in self.layers if layer.is_rewritten)

    @property
    def macs_before(self) -> int:
        """MACs of the original network for one image."""
        return self.other_macs + sum(layer.macs for layer in self.layers)

    @property
    def macs_after(self) -> int:
        """MACs of the factorized network for one image."""
        return self.other_macs + sum(layer.factor_macs for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data, with its schema version."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def parse_plan(data: Any, source: str = "plan") -> Plan:
    """Build a plan from what :meth:`Plan.to_json` gave.

    Raises:
        PlanError: a field is missing, of the wrong type, or the schema is a later one.
    """
    if not isinstance(data, dict) or "layers" not in data:
        raise PlanError(f"{source} is not a plan: it has no 'layers'")
    version = data.get("schema_version")
    if version != SCHEMA_VERSION:
        raise PlanError(
            f"{source} has plan schema version {version!r}, this trpexport reads {SCHEMA_VERSION}: "
            "make the plan again with this version"
        )
    try:
        layers = tuple(_parse_layer(layer) for layer in data["layers"])
        return Plan(
            scheme=_typed(data, "scheme", str),
            criterion=_typed(data, "criterion", str),
            input_shape=_ints(data, "input_shape"),
            layers=layers,
            other_macs=_typed(data, "other_macs", int),
            architecture=data.get("architecture"),
            options=dict(data.get("options", {})),
        )
    except KeyError as error:
        raise PlanError(f"{source} lacks the field {error}") from None
    except (TypeError, ValueError) as error:
        raise PlanError(f"{source}: {error}") from None


def read_plan(path: Path) -> Plan:
    """Read a plan file.

    Raises:
        PlanError: the file can't be read, is not JSON, or is not a plan.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"can't read the plan {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise PlanError(f"the plan {path} is not JSON: {error}") from None
    return parse_plan(data, source=str(path))


def _parse_layer(data: Mapping[str, Any]) -> LayerPlan:
    if not isinstance(data, Mapping):
        raise ValueError(f"a layer must be an object, not {type(data).__name__}")
    name = _typed(data, "name", str)
    try:
        rank = data["rank"]
        if rank is not None:
            rank = _typed(data, "rank", int)
        return LayerPlan(
            name=name,
            conv=_parse_conv(data["conv"]),
            input_sizes=tuple(tuple(map(int, size)) for size in data["input_sizes"]),
            scheme=None if data["scheme"] is None else _typed(data, "scheme", str),
            rank=rank,
            full_rank=data.get("full_rank"),
            factors=tuple(_parse_conv(factor) for factor in data.get("factors", ())),
            reason=data.get("reason"),
            weight_error=data.get("weight_error"),
            macs=_typed(data, "macs", int),
            factor_macs=_typed(data, "factor_macs", int),
            spectrum=tuple(map(float, data.get("spectrum", ()))),
        )
    except KeyError as error:
        raise ValueError(f"layer {name!r} lacks the field {error}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"layer {name!r}: {error}") from None


def _parse_conv(data: Mapping[str, Any]) -> ConvSpec:
    padding = data["padding"]
    return ConvSpec(
        in_channels=_typed(data, "in_channels", int),
        out_channels=_typed(data, "out_channels", int),
        kernel_size=_ints(data, "kernel_size"),
        stride=_ints(data, "stride"),
        padding="same" if padding == "same" else _ints(data, "padding"),
        dilation=_ints(data, "dilation"),
        groups=_typed(data, "groups", int),
        bias=_typed(data, "bias", bool),
        padding_mode=_typed(data, "padding_mode", str),
    )


def _typed(data: Mapping[str, Any], key: str, kind: type) -> Any:
    value = data[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{key!r} must be {kind.__name__}, not {value!r}")
    return value


def _ints(data: Mapping[str, Any], key: str) -> tuple[int, ...]:
    value = data[key]
    if not isinstance(value, list | tuple) or not all(type(item) is int for item in value):
        raise ValueError(f"{key!r} must be a list of whole numbers, not {value!r}")
    return tuple(value)
