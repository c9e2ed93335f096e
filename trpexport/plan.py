"""The plan: what happens to each layer of a network, and why. No torch, no onnx.

A plan is made by a chooser, written as JSON, edited by hand, read back and applied by
:class:`trpexport.ByPlan`. In a file, only ``scheme`` and ``rank`` of a layer are meant to be
edited; all the rest is derived, and derived again when the plan is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from trpexport.errors import PlanError
from trpexport.files import read_json
from trpexport.inputs import Inputs
from trpexport.ops import Call, LinearOp, Window
from trpexport.schema import each, fits, flag, not_negative, text, whole
from trpexport.shown import Shown, change

SCHEMA_VERSION = 3
# What a plan's options say of how its factors were fitted to images.
CALIBRATION = "calibration"
# And, by layer, which precision each was given, where that was chosen with its rank.
PRECISIONS = "precisions"
_PAD_MODES = ("zeros", "reflect", "replicate", "circular")
_KINDS: Mapping[Any, Callable[[Any], bool]] = {
    **{bool: flag, dict: each(lambda value: True), float: not_negative, int: whole(0), str: text},
    list: lambda value: isinstance(value, (list, tuple)),
}
_SHOWN = 60  # characters of a wrong value in a message


@dataclass(frozen=True)
class LayerPlan:
    """What happens to one layer.

    A layer is either rewritten (``scheme``, ``rank`` and ``factors`` are set, ``reason`` is None)
    or kept (``factors`` is empty and ``reason`` says why).

    Attributes:
        name: the layer's name.
        op: the original operator.
        calls: its uses in one forward pass.
        full_rank: largest rank that the scheme can give this layer; None where it gives none.
        weight_error: relative Frobenius error of the kernel that the factors stand for: the
            truncated one, or, where they are calibrated, the one that fits the outputs best.
        macs: MACs of the original for one image, all calls together.
        factor_macs: the same for the factors; for a kept layer, equal to ``macs``.
        spectrum: singular values, largest first; where the scheme has several matrices for a
            layer, the largest over them at each place.
        shares: the layer before it whose weight this one uses as well, or None.
    """

    name: str
    op: LinearOp
    calls: tuple[Call, ...]
    scheme: str | None
    rank: int | None
    full_rank: int | None
    factors: tuple[LinearOp, ...]
    reason: str | None
    weight_error: float | None
    macs: int
    factor_macs: int
    spectrum: tuple[float, ...] = ()
    shares: str | None = None

    @property
    def is_rewritten(self) -> bool:
        """Whether the layer becomes a chain of factors."""
        return bool(self.factors)


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """What happens to every layer of a network.

    Attributes:
        scheme: the scheme that was asked for.
        criterion: the criterion that chose the ranks, as text, or where they came from.
        inputs: what the network takes.
        layers: one entry a layer, in the order in which they run.
        other_macs: MACs for one image of all else.
        architecture: what the network is called, for the reader.
        options: the switches that shaped the plan (``keep_expensive``, ``stride_1_only``, ...).
        uncounted: how often each operator occurs whose MACs nobody knows: where there are any, the
            MACs are those of the network at least.
    """

    scheme: str
    criterion: str
    inputs: Inputs
    layers: tuple[LayerPlan, ...]
    other_macs: int = 0
    architecture: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    uncounted: Mapping[str, int] = field(default_factory=dict)

    @property
    def rewritten(self) -> tuple[LayerPlan, ...]:
        """The layers that become chains of factors."""
        return tuple(layer for layer in self.layers if layer.is_rewritten)

    @property
    def precisions(self) -> Mapping[str, str]:
        """By layer, the precision that was chosen with its rank; empty where none was."""
        found: Mapping[str, str] = self.options.get(PRECISIONS, {})
        return found if each(text)(found) else {}

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
        data: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
        for entry in fields(self):
            value = getattr(self, entry.name)
            data |= value.to_json() if entry.name == "inputs" else {entry.name: value}
        return {**data, "layers": [asdict(layer) for layer in self.layers]}

    def shown(self) -> dict[str, object]:
        """Return what to show of it in a session."""
        return {
            "network": self.architecture or "network",
            "scheme": self.scheme,
            "criterion": self.criterion,
            "rewritten": f"{len(self.rewritten)} of {len(self.layers)} layers",
            "macs": change(self.macs_before, self.macs_after, self.uncounted),
        }


def parse_plan(data: Any, source: str = "plan") -> Plan:
    """Build a plan from what :meth:`Plan.to_json` gave, in this version or in one before.

    Raises:
        PlanError: a field is missing, of the wrong type, or the schema is a later one.
    """
    if not isinstance(data, dict) or "layers" not in data:
        raise PlanError(f"{source} is not a plan: it has no 'layers'")
    version = data.get("schema_version")
    if version not in range(1, SCHEMA_VERSION + 1) or isinstance(version, bool):
        raise PlanError(
            f"{source} has plan schema version {version!r}, this trpexport reads 1 to "
            f"{SCHEMA_VERSION}: make the plan again with this version"
        )
    counts = "uncounted" if version == SCHEMA_VERSION else "unknown"  # as they were called before
    try:
        layers = tuple(
            _parse_layer(_upgraded(layer) if version == 1 else layer)
            for layer in _typed(data, "layers", list)
        )
        return Plan(
            scheme=_typed(data, "scheme", str),
            criterion=_typed(data, "criterion", str),
            inputs=_inputs(data),
            layers=layers,
            other_macs=_typed(data, "other_macs", int),
            architecture=_optional(data, "architecture", str),
            options=_typed({"options": {}, **data}, "options", dict),
            uncounted=_counts({counts: {}, **data}, counts),
        )
    except KeyError as error:
        raise PlanError(f"{source} lacks the field {error}") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise PlanError(f"{source}: {error}") from None


def read_plan(path: str | Path) -> Plan:
    """Read a plan file.

    Raises:
        PlanError: the file can't be read, is not JSON, or is not a plan.
    """
    try:
        data = read_json(Path(path))
    except OSError as error:
        raise PlanError(f"can't read the plan {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise PlanError(f"the plan {path} is not JSON: {error}") from None
    return parse_plan(data, source=str(path))


def _parse_layer(data: Mapping[str, Any]) -> LayerPlan:
    if not isinstance(data, Mapping):
        raise ValueError(f"a layer must be an object, not {type(data).__name__}")
    name = _typed(data, "name", str)
    try:
        return LayerPlan(
            name=name,
            op=_parse_op(data["op"]),
            calls=tuple(
                Call(_typed(call, "places", int), _ints(call, "size"))
                for call in _typed(data, "calls", list)
            ),
            scheme=_optional(data, "scheme", str),
            rank=_optional(data, "rank", int),
            full_rank=_optional(data, "full_rank", int),
            factors=tuple(map(_parse_op, _typed({"factors": [], **data}, "factors", list))),
            reason=_optional(data, "reason", str),
            weight_error=_optional(data, "weight_error", float),
            macs=_typed(data, "macs", int),
            factor_macs=_typed(data, "factor_macs", int),
            spectrum=_numbers({"spectrum": [], **data}, "spectrum"),
            shares=_optional(data, "shares", str),
        )
    except KeyError as error:
        raise ValueError(f"layer {name!r} lacks the field {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"layer {name!r}: {error}") from None


def _parse_op(data: Mapping[str, Any]) -> LinearOp:
    window = data["window"]
    op = LinearOp(
        in_channels=_typed(data, "in_channels", int),
        out_channels=_typed(data, "out_channels", int),
        groups=_typed(data, "groups", int),
        bias=_typed(data, "bias", bool),
        window=Window(
            kernel=_ints(window, "kernel"),
            stride=_ints(window, "stride"),
            pads=tuple(_ints({"pads": pair}, "pads") for pair in window["pads"]),  # type: ignore[misc]
            dilation=_ints(window, "dilation"),
            pad_mode=_typed(window, "pad_mode", str),
            transposed=_typed(window, "transposed", bool),
            output_pads=_ints(window, "output_pads"),
        ),
    )
    if not op.is_consistent or op.window.pad_mode not in _PAD_MODES:
        raise ValueError(f"there is no operator {op} of {op.groups} groups and {op.window}")
    return op


def _upgraded(layer: Any) -> Any:
    """Return a layer of schema 1 as one of schema 2."""
    if not isinstance(layer, Mapping) or "conv" not in layer:
        return layer
    rest = {key: value for key, value in layer.items() if key not in ("conv", "input_sizes")}
    return {
        **rest,
        "op": _upgraded_op(layer["conv"]),
        "calls": [{"places": 1, "size": size} for size in layer["input_sizes"]],
        "factors": [_upgraded_op(factor) for factor in layer.get("factors", ())],
    }


def _upgraded_op(conv: Mapping[str, Any]) -> dict[str, Any]:
    """Return a convolution of schema 1, whose padding may be ``"same"``, as an operator."""
    kernel, dilation, padding = _ints(conv, "kernel_size"), _ints(conv, "dilation"), conv["padding"]
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = [(total // 2, total - total // 2) for total in totals]
    else:
        pads = [(p, p) for p in _ints(conv, "padding")]
    window = {
        **{"kernel": kernel, "stride": conv["stride"], "pads": pads, "dilation": dilation},
        **{"pad_mode": conv["padding_mode"], "transposed": False, "output_pads": ()},
    }
    kept = ("in_channels", "out_channels", "groups", "bias")
    return {name: conv[name] for name in kept} | {"window": window}


def _typed(data: Mapping[str, Any], key: str, kind: Any) -> Any:
    value = data[key]
    if not _KINDS[kind](value):
        raise ValueError(f"{key!r} must be {kind.__name__}, not {_shown(value)}")
    return value


def _optional(data: Mapping[str, Any], key: str, kind: Any) -> Any:
    return None if data.get(key) is None else _typed(data, key, kind)


def _ints(data: Mapping[str, Any], key: str) -> tuple[int, ...]:
    value = data[key]
    if not fits(value, [whole(0)]):
        raise ValueError(f"{key!r} must be a list of whole numbers, not {_shown(value)}")
    return tuple(value)


def _inputs(data: Mapping[str, Any]) -> Inputs:
    found = Inputs.from_json(data)
    if found is None:
        raise KeyError("input_shape")
    return found


def _numbers(data: Mapping[str, Any], key: str) -> tuple[float, ...]:
    value = data[key]
    if not fits(value, [not_negative]):
        raise ValueError(f"{key!r} must be a list of numbers, not {_shown(value)}")
    return tuple(map(float, value))


def _counts(data: Mapping[str, Any], key: str) -> dict[str, int]:
    value = data[key]
    if not fits(value, each(whole(0))):
        raise ValueError(f"{key!r} must be numbers by name, not {_shown(value)}")
    return dict(value)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
