"""Which layers may be rewritten at all, and why the others stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol

from trpexport.errors import PlanError
from trpexport.lowrank.schemes import Scheme
from trpexport.ops import Layer

_HEAD = "a head (no layer with weights comes behind it)"


class Layers(Protocol):
    """Layers in the order in which they run, the first and the last ones among them known."""

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers."""

    @property
    def stem(self) -> str | None:
        """Name of the layer that runs first, or None."""

    @property
    def heads(self) -> Sequence[str]:
        """Names of the layers whose outputs leave it without passing another with weights."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The layers that a user leaves to be rewritten.

    The stem (the layer that runs first) and the heads (those whose outputs leave the network
    without passing another layer with weights: a classifier, the outputs of a detector) stay as
    they are, as in the paper, unless ``include`` names them.

    Attributes:
        include: glob patterns; only layers that match one are rewritten. Empty for all.
        exclude: glob patterns of layers that stay, whatever ``include`` says.
        stride_1_only: leave strided convolutions as they are, as the original TRP code does.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    stride_1_only: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """What a plan's options say of it, JSON-ready."""
        return {
            "include": list(self.include),
            "exclude": list(self.exclude),
            "stride_1_only": self.stride_1_only,
        }

    def reasons_to_stay(self, network: Layers, scheme: Scheme) -> dict[str, str | None]:
        """Say of each layer of a network why it stays as it is; None where it may be rewritten.

        Layers that share a weight stay together.

        Raises:
            PlanError: a pattern matches no layer.
        """
        self._check_patterns([layer.name for layer in network.layers])
        special: dict[str | None, str] = dict.fromkeys(network.heads, _HEAD)
        special[network.stem] = "the stem"
        found = {
            layer.name: layer.fixed
            or (None if layer.calls else "the network never runs it")
            or self._excluded(layer, special.get(layer.name))
            or scheme.unsupported_reason(layer.op)
            for layer in network.layers
        }
        return together(network.layers, found)

    def _check_patterns(self, names: Sequence[str]) -> None:
        for option, globs in (("include", self.include), ("exclude", self.exclude)):
            for pattern in globs:
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise PlanError(
                        f"{option} {pattern!r} matches no layer; the names look like "
                        f"{', '.join(names[:3])}",
                        parameters=[option],
                    )

    def _excluded(self, layer: Layer, special: str | None) -> str | None:
        """Say why a layer is not among those to rewrite, or None."""
        included = any(fnmatchcase(layer.name, pattern) for pattern in self.include)
        if any(fnmatchcase(layer.name, pattern) for pattern in self.exclude):
            return "excluded"
        if self.include and not included:
            return "not included"
        if special and not included:
            return f"{special} is left alone unless it is included by name"
        if self.stride_1_only and any(s != 1 for s in layer.op.window.stride):
            return "strided, and only layers of stride 1 were asked for"
        return None


def together(layers: Sequence[Layer], reasons: dict[str, str | None]) -> dict[str, str | None]:
    """Let layers stay that share a weight with one that stays: else it would be there twice."""
    groups: dict[str, list[str]] = {}
    for layer in layers:
        groups.setdefault(layer.shares or layer.name, []).append(layer.name)
    found = dict(reasons)
    for names in groups.values():
        stays = next((name for name in names if reasons[name] is not None), None)
        if stays is not None:
            for name in names:
                found[name] = reasons[name] or f"shares its weight with {stays}, which stays"
    return found
