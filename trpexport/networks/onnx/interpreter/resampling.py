"""Resizing, and sampling at computed places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import ceil, floor

import torch
from torch import Tensor
from torch.nn import functional

from trpexport.networks.onnx.interpreter.registry import Use, floats, integers, operator

# Beyond so many elements that weigh in, a product with a matrix is cheaper than gathering them.
_MAX_TAPS = 4

_ROUNDINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda places: (places - 0.5).ceil(),
    "round_prefer_ceil": lambda places: (places + 0.5).floor(),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


@dataclass(frozen=True)
class _Axis:
    """One axis that is resized.

    Attributes:
        axis: which.
        size: of the input.
        resized: size of the output.
        scale: what the author says that the one is of the other.
        region: begin and end of what is cut out, as shares of the input.
    """

    axis: int
    size: int
    resized: int
    scale: float
    region: tuple[float, float]

    def places(self, mode: str) -> Tensor:
        """Return which place in the input each element of the output has, in float64."""
        x = torch.arange(self.resized, dtype=torch.float64)
        last, intervals = self.size - 1, self.resized - 1
        if mode == "asymmetric":
            return x / self.scale
        if mode == "tf_half_pixel_for_nn":
            return (x + 0.5) / self.scale
        if mode == "align_corners":
            return x * last / intervals if intervals else x
        if mode == "tf_crop_and_resize":
            start, end = self.region
            if not intervals:
                return x + 0.5 * (start + end) * last
            return start * last + x * (end - start) * last / intervals
        if mode == "pytorch_half_pixel" and not intervals:
            return x
        found = (x + 0.5) / self.scale - 0.5
        if mode == "half_pixel_symmetric":
            adjustment = self.resized / (self.scale * self.size)
            return found + self.size / 2 * (1 - adjustment)
        if mode not in ("half_pixel", "pytorch_half_pixel"):
            raise ValueError(f"resizing by {mode} is not known")
        return found


@operator("Resize", numbers=(1, 2, 3))
def _resize(use: Use, x: Tensor, *given: Tensor | None) -> Tensor:
    if use.opset < 11:
        return _upsample(use, x, *given)
    roi, scales, sizes = [*given, None, None, None][:3]
    axes = [axis % x.ndim for axis in use.get("axes", range(x.ndim))]
    region = (
        floats(roi) if roi is not None and roi.numel() else [0.0] * len(axes) + [1.0] * len(axes)
    )
    found = []
    if scales is not None and scales.numel():
        for i, (axis, scale) in enumerate(zip(axes, floats(scales), strict=True)):
            resized = int(torch.tensor(scale, dtype=torch.float32) * x.shape[axis])
            bounds = (region[i], region[i + len(axes)])
            found.append(_Axis(axis, x.shape[axis], resized, scale, bounds))
    else:
        assert sizes is not None
        wanted, by = _kept_ratio(use, [x.shape[axis] for axis in axes], integers(sizes))
        for i, axis in enumerate(axes):
            bounds = (region[i], region[i + len(axes)])
            found.append(_Axis(axis, x.shape[axis], wanted[i], by[i], bounds))
    return _resized(use, x, found, use.get("coordinate_transformation_mode", "half_pixel"))


def _kept_ratio(
    use: Use, sizes: Sequence[int], wanted: Sequence[int]
) -> tuple[list[int], list[float]]:
    """Return the sizes that are made, and by what each is scaled."""
    policy = use.get("keep_aspect_ratio_policy", "stretch")
    scales = [new / old for old, new in zip(sizes, wanted, strict=True)]
    if policy == "stretch":
        return list(wanted), scales
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [floor(scale * size + 0.5) for size in sizes], [scale] * len(sizes)


@operator("Upsample", numbers=(1,))
def _upsample(use: Use, x: Tensor, given: Tensor | None = None) -> Tensor:
    scales = use.get("scales") if given is None else floats(given)
    axes = [
        _Axis(
            i, x.shape[i], int(torch.tensor(scale, dtype=torch.float32) * x.shape[i]), scale, (0, 1)
        )
        for i, scale in enumerate(scales)
    ]
    attributes = {**use.attributes, "nearest_mode": "floor"}
    return _resized(Use(attributes, use.opset), x, axes, "asymmetric")


def _resized(use: Use, x: Tensor, axes: Sequence[_Axis], mode: str) -> Tensor:
    kind = x.dtype
    axes = [axis for axis in axes if axis.resized != axis.size or mode == "tf_crop_and_resize"]
    how = use.get("mode", "nearest").replace("bilinear", "linear")
    fast = _by_torch(use, x, axes, mode, how)
    if fast is not None:
        return fast
    outside: Tensor | None = None
    for axis in axes:
        places = axis.places(mode)
        if mode == "tf_crop_and_resize":
            beyond = ((places < 0) | (places > axis.size - 1)).to(x.device)
            beyond = beyond.reshape([-1 if i == axis.axis else 1 for i in range(x.ndim)])
            outside = beyond if outside is None else outside | beyond
        x = _along(use, x, axis, places, how)
    if outside is not None:
        fill = torch.tensor(use.get("extrapolation_value", 0.0), dtype=x.dtype, device=x.device)
        x = torch.where(outside, fill, x)
    if kind in (torch.int8, torch.uint8, torch.int32, torch.int64) and x.is_floating_point():
        return x.round().to(kind)
    return x.to(kind)


def _by_torch(use: Use, x: Tensor, axes: Sequence[_Axis], mode: str, how: str) -> Tensor | None:
    """Return what PyTorch's own function gives where it computes the same, or None."""
    is_image = x.ndim == 4 and [axis.axis for axis in axes] == [2, 3] and x.is_floating_point()
    is_exact = all(axis.resized == axis.scale * axis.size for axis in axes)
    if not is_image or not is_exact or use.get("antialias", 0):
        return None
    size = [axis.resized for axis in axes]
    if how == "linear" and mode in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        if min(size) == 1 and mode == "pytorch_half_pixel":
            return None
        return functional.interpolate(
            x, size, mode="bilinear", align_corners=mode == "align_corners"
        )
    rounding = use.get("nearest_mode", "round_prefer_floor")
    repeats = {("asymmetric", "floor")} | {
        (each, f"round_prefer_{side}")
        for each in ("half_pixel", "pytorch_half_pixel")
        for side in ("floor", "ceil")
    }
    is_repeated = all(axis.resized % axis.size == 0 for axis in axes)
    if how == "nearest" and is_repeated and (mode, rounding) in repeats:
        return functional.interpolate(x, size, mode="nearest")
    return None


def _along(use: Use, x: Tensor, axis: _Axis, places: Tensor, how: str) -> Tensor:
    """Resample along one axis."""
    last = axis.size - 1
    if how == "nearest":
        rounded = _ROUNDINGS[use.get("nearest_mode", "round_prefer_floor")](places)
        return x.index_select(axis.axis, rounded.long().clamp(0, last).to(x.device))
    taps, weights = _taps(use, axis, places, how)
    if use.get("exclude_outside", 0):
        weights = torch.where((taps < 0) | (taps > last), 0.0, weights)
        weights = weights / weights.sum(1, keepdim=True)
    taps = taps.clamp(0, last).to(x.device)
    if not x.is_floating_point():
        x = x.float()
    weights = weights.to(x)
    if taps.shape[1] > _MAX_TAPS:
        matrix = x.new_zeros(len(taps), axis.size).scatter_add(1, taps, weights)
        return (x.movedim(axis.axis, -1) @ matrix.T).movedim(-1, axis.axis)
    shape = [-1 if i == axis.axis else 1 for i in range(x.ndim)]
    parts = (
        x.index_select(axis.axis, tap) * weight.reshape(shape)
        for tap, weight in zip(taps.T, weights.T, strict=True)
    )
    found: Tensor = reduce(torch.add, parts)
    return found


def _taps(use: Use, axis: _Axis, places: Tensor, how: str) -> tuple[Tensor, Tensor]:
    """Return which elements weigh in at each place, (places, taps), and how much."""
    shrink = min(1.0, axis.scale) if use.get("antialias", 0) else 1.0
    reach = {"linear": 1, "cubic": 2}[how]
    wide = ceil(reach / shrink)
    base = places.floor()
    offsets = torch.arange(1 - wide, wide + 1, dtype=torch.float64)
    distance = ((base - places)[:, None] + offsets).abs() * shrink
    if how == "linear":
        weights = (1 - distance).clamp(min=0)
    else:
        a = use.get("cubic_coeff_a", -0.75)
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights = torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))
    if shrink < 1:
        weights = weights / weights.sum(1, keepdim=True)
    return (base[:, None] + offsets).long(), weights


@operator("GridSample")
def _grid_sample(use: Use, x: Tensor, grid: Tensor) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(use.get("mode", "linear"))
    return functional.grid_sample(
        x,
        grid,
        mode=mode or use.get("mode"),
        padding_mode=use.get("padding_mode", "zeros"),
        align_corners=bool(use.get("align_corners", 0)),
    )


@operator("AffineGrid", numbers=(1,))
def _affine_grid(use: Use, theta: Tensor, size: Tensor) -> Tensor:
    return functional.affine_grid(
        theta, integers(size), align_corners=bool(use.get("align_corners", 0))
    )
