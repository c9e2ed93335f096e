"""What speaks for a checkpoint's architecture besides names and shapes: what batch norms recorded.

Networks of different structure may have weights of the same names and shapes. Each is run on the
same images, and the one whose batch norms get what they recorded in training is taken.
"""

from __future__ import annotations

import copy
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trpexport.checkpoints.identify import WithoutRandomNumbers
from trpexport.datasets.dead_leaves import dead_leaves
from trpexport.networks.torch.witness import misfits

if TYPE_CHECKING:  # only for the types: the zoo is loaded by name, see docs/architecture.md
    from models_zoo.family import Architecture

# Mean misfits of networks with their own weights were 0.05 to 0.25 on small artificial images and
# up to 0.64 on large ones (a text detector); with a wrong activation or pooling 0.4 to 2.
_SPEAKS_FOR, _SPEAKS_AGAINST = 0.35, 0.7
# A network fits clearly worse than another from this ratio of misfits on: where zeros, pooling or
# strides differed it was 1.3 to 15, and 0.95 to 1.1 the right way round where artificial images
# can't tell (every other pixel or the mean of 2x2), which real ones do.
_CLEARLY, _CLEARLY_ON_REAL = 1.25, 1.1
_SAME = 1e-3
# Pixels of all images together: artificial and real ones.
_PIXELS, _REAL_PIXELS, _MAX_SIDE = 40_000, 65_000, 128
_FEWEST, _MOST = 4, 16


@dataclass(frozen=True)
class Evidence:
    """What batch norms say of a network.

    Attributes:
        module: the network that fits best: the one that was given, or a look-alike.
        architecture: what it is; None for a network that is not of the zoo.
        notes: what they say, for the reader.
    """

    module: nn.Module
    architecture: Architecture | None
    notes: tuple[str, ...] = ()


def examine(
    module: nn.Module,
    architecture: Architecture | None,
    label: str,
    shape: Sequence[int] | None,
    *,
    is_recognised: bool,
    images: NDArray[Any] | None = None,
) -> Evidence:
    """Say whether a network is the one that its batch norms recorded, or which look-alike is.

    Args:
        module: the network with its weights.
        architecture: what it is taken for; None for a network that is not of the zoo.
        label: what to call it.
        shape: of its input, batch first; None where nobody says.
        is_recognised: whether it was recognised by names and shapes, so that a look-alike that fits
            clearly better takes its place; else it was named, and a note says so.
        images: inputs of the network; artificial ones where it is None.
    """
    nothing = Evidence(module, architecture)
    inputs = _artificial(shape) if images is None else _some(images)
    if inputs is None:
        return nothing
    line_up = _LineUp(module, architecture, label, inputs, is_real=images is not None)
    if not line_up.seen[label]:
        return replace(nothing, notes=_silence(architecture)) if is_recognised else nothing
    best = line_up.best
    verdict, alike = line_up.verdict(best), _too(line_up.alike)
    if best == label:
        return replace(nothing, notes=(verdict, *alike) if is_recognised else (verdict,))
    recorded = f"its batch norms recorded what they get in {best}, not in {label}"
    if not is_recognised:
        warning = f"{recorded}, which was named: check it on labelled images (expect)"
        return replace(nothing, notes=(warning,))
    found = line_up.candidates[best]
    network = found.build().eval()
    network.load_state_dict(module.state_dict())
    taken = f"taken for {best}: {recorded}, which has the same names and shapes"
    return Evidence(network, found, (taken, verdict, *alike))


def fresh(architecture: Architecture, weights: Mapping[str, Any]) -> nn.Module:
    """Return the network of an architecture that shares tensors with another one's state."""
    with torch.device("meta"), WithoutRandomNumbers():
        network = architecture.build().eval()
    network.load_state_dict(weights, assign=True)
    return network


class _LineUp:
    """A network and its look-alikes, on the same images.

    Attributes:
        candidates: by name, the look-alikes that were tried.
        seen: by name, the misfits of each batch norm.
    """

    def __init__(
        self,
        module: nn.Module,
        architecture: Architecture | None,
        label: str,
        inputs: Tensor,
        *,
        is_real: bool,
    ) -> None:
        self.candidates: dict[str, Architecture] = {}
        self._module = module
        self._inputs = inputs
        self.seen: dict[str, dict[str, Tensor]] = {label: self._run_copy(architecture is not None)}
        self._clearly = _CLEARLY_ON_REAL if is_real else _CLEARLY
        self._kind = "the images" if is_real else "artificial images"
        self._is_real = is_real
        self._label = label
        if architecture is not None:
            self.candidates[label] = architecture

    @cached_property
    def best(self) -> str:
        """The one that fits clearly better than the one given, and than what is next to it."""
        best = self._label
        while self.seen[self._label] and self._try_next_to(best):
            found = min(self.seen, key=lambda name: self._ratio(name, best))
            if self._ratio(best, found) < self._clearly:
                break
            best = found
        return best

    @property
    def alike(self) -> list[str]:
        """Those that do not fit clearly worse than the best."""
        best = self.best
        return [
            name for name in self.seen if name != best and self._ratio(name, best) < self._clearly
        ]

    def verdict(self, name: str) -> str:
        """Say what the batch norms have to say of one."""
        misfit = float(torch.stack([values.mean() for values in self.seen[name].values()]).mean())
        off = f"({misfit:.2f} off on {self._kind})"
        if misfit > _SPEAKS_AGAINST:
            other = "another network" if self._is_real else "another network, or for other inputs"
            return (
                f"its recorded batch-norm statistics contradict {name} {off}: it may be "
                f"{other}, check it on labelled images (expect)"
            )
        fits = "match" if misfit <= _SPEAKS_FOR else "do not contradict"
        return f"its recorded batch-norm statistics {fits} {name} {off}"

    def _try_next_to(self, name: str) -> bool:
        """Try the look-alikes that differ in one setting; say whether there was a new one."""
        if name not in self.candidates:
            return False
        centre, is_new = self.candidates[name], False
        for other in next_to(centre):
            if str(other) not in self.seen:
                network = fresh(other, self._module.state_dict())
                self.seen[str(other)] = self._run(network)
                self.candidates[str(other)] = other
                is_new = True
        return is_new

    def _ratio(self, name: str, other: str) -> float:
        """Return how many times the misfit of another one has, where the two differ."""
        mine, others = self.seen[name], self.seen[other]
        both = [
            (float(mine[norm].mean()), float(others[norm].mean()))
            for norm in mine
            if norm in others and float((mine[norm] - others[norm]).abs().mean()) > _SAME
        ]
        wrong, right = sum(a for a, _ in both), sum(b for _, b in both)
        return wrong / right if right else 1.0

    def _run_copy(self, is_stateless: bool) -> dict[str, Tensor]:
        """Run the network itself, or a copy where it may keep something of what it runs."""
        try:
            network = self._module if is_stateless else copy.deepcopy(self._module)
        except Exception:  # foreign code, which is copied for this alone
            return {}
        return self._run(network)

    def _run(self, network: nn.Module) -> dict[str, Tensor]:
        weight = next(network.parameters(), self._inputs)
        return misfits(network, self._inputs.to(weight))


def next_to(architecture: Architecture) -> list[Architecture]:
    """Return the look-alikes that differ in one setting."""
    mine = architecture.config
    return [
        other
        for other in architecture.look_alikes
        if sum(other.config[key] != mine[key] for key in mine) == 1
    ]


def _artificial(shape: Sequence[int] | None) -> Tensor | None:
    """Return images of the shape, at most so large that a look is quick; None for other inputs."""
    if shape is None or len(shape) != 4:
        return None
    _, channels, *size = shape
    height, width = (min(side, _MAX_SIDE) for side in size)
    count = min(_MOST, max(_FEWEST, _PIXELS // (height * width)))
    return torch.from_numpy(dead_leaves(count, channels, height, width))


def _some(images: NDArray[Any]) -> Tensor:
    """Return some of the images: as many as a look at is quick."""
    count = max(_FEWEST, _REAL_PIXELS // max(1, math.prod(images.shape[2:])))
    # A copy: the array may be one that can only be read, which PyTorch warns of.
    return torch.from_numpy(np.array(images[:: max(1, len(images) // count)]))


def _silence(architecture: Architecture | None) -> tuple[str, ...]:
    """Say that nothing but names and shapes speaks for an architecture."""
    if architecture is None:
        return ()
    others = _too(map(str, next_to(architecture)), "nothing in the file tells them apart")
    return others or (
        f"nothing but names and shapes says that it is {architecture}: check it on labelled images "
        "(expect)",
    )


def _too(
    names: Iterable[str], why: str = "its batch norms can't tell them apart"
) -> tuple[str, ...]:
    """Say which others the weights fit, and how to choose; nothing where there are none."""
    listed = ", ".join(shlex.quote(name) for name in names)
    if not listed:
        return ()
    return (
        f"the same names and shapes fit {listed} as well, and {why}: if it is one of those, name "
        "it (arch), or check on labelled images (expect)",
    )
