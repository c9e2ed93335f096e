"""Where a forward pass can be resumed: modules whose outputs are all that the rest depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from trpexport.inputs import InputsLike
from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.dataflow import Dataflow
from trpexport.networks.torch.layout import channels_last, runs_channels_last
from trpexport.networks.torch.modules import LAYERS
from trpexport.networks.torch.resuming import Cut, Form, outputs_at, resumed
from trpexport.networks.torch.running import (
    RUN_ERRORS,
    evaluating,
    example_input,
    surrounding,
    tensor_leaves,
)

# Layers that a pass may run again before the one that it is for: beyond, the network is cut where
# several tensors are needed.
MOST_REPEATED = 3


@dataclass
class _Calls:
    """When a module ran in a forward pass of one image, in ticks, and what it returned."""

    starts: list[int]
    ends: list[int]
    forms: list[Form | None]


class Cuts:
    """Finds, for each layer, the last place before it from which a forward pass can be resumed.

    That is behind a module whose output is all that the rest depends on; where there is none for
    several layers, as between the ends of a U-Net, behind several modules. A place is tried on an
    example: nothing that the network returns or decides on may depend on the outputs of what is
    skipped. Dependence is followed from operator to operator, not told by values, so that it also
    holds for branches that the example does not take. Where nothing can be cut, passes start at
    the input.

    Args:
        model: the network.
        inputs: what it takes, for one image; for more, where it takes no other number.
    """

    def __init__(self, model: nn.Module, inputs: InputsLike) -> None:
        self._model = model
        self._x, self._other = (example_input(model, inputs, i) for i in (0, 1))
        self._tried: dict[str, Cut | None] = {}
        self._before: dict[str, Cut | None] = {}
        self._flow = Dataflow()
        with evaluating(model):
            self._calls, self._reference = self._trace(self._x, self._flow)
            several, self._doubled, outputs = self._of_two()
        self._forms = self._forms_for_one()
        # By two images where it takes them: of one, more views than of a batch suit either layout.
        self._runs_channels_last = runs_channels_last(model, several, outputs)

    def calls(self, name: str, images: int = 1) -> int:
        """Return how often a forward pass calls the module ``name``.

        A network may go through its batch image by image.
        """
        one, two = (
            len(calls[name].ends) if name in calls else 0 for calls in (self._calls, self._doubled)
        )
        return one + (images - 1) * max(0, two - one)

    @property
    def output_elements(self) -> int:
        """How many numbers the network returns for an image."""
        return sum(output.numel() for output in self._reference)

    def laid_out(self, batch: Arguments) -> Arguments:
        """Return inputs as passes are fastest with them."""
        return channels_last(batch) if self._runs_channels_last else batch

    def before(self, name: str) -> Cut | None:
        """Return the last cut before the layer ``name`` runs; None is the network's input."""
        last = None
        for layer in self.layers if name not in self._before else ():
            if layer not in self._before:
                self._before[layer] = self._find_before(layer, last)
            last = self._before[layer]
            if layer == name:
                break
        return self._before[name]

    def layers_after(self, cut: Cut | None) -> list[str]:
        """Return the layers before which ``cut`` is the last cut, in the order they run."""
        return [name for name in self.layers if self.before(name) == cut]

    def behind(self, cut: Cut | None) -> Cut | None:
        """Return the next cut before a layer behind ``cut``; None where there is none."""
        end = -1 if cut is None else cut.end
        cuts = (self.before(name) for name in self.layers)
        later = [other for other in cuts if other is not None and other.end > end]
        return min(later, key=lambda other: other.end, default=None)

    @cached_property
    def layers(self) -> list[str]:
        """The linear layers that run, in the order in which they first do."""
        found = [
            (calls.starts[0], name)
            for name, calls in self._calls.items()
            if isinstance(self._model.get_submodule(name), LAYERS)
        ]
        return [name for _, name in sorted(found)]

    def _find_before(self, name: str, last: Cut | None) -> Cut | None:
        """Return the last cut before a layer.

        Args:
            name: the layer.
            last: the last cut before the layer that runs before it.
        """
        start, after = self._calls[name].starts[0], -1 if last is None else last.end
        earlier = sorted(
            (calls.ends[-1], other)
            for other, calls in self._calls.items()
            if len(calls.ends) == 1 and after < calls.ends[-1] < start
        )
        for end, other in reversed(earlier):
            if other not in self._tried:
                self._tried[other] = self._behind(end, other)
            cut = self._tried[other]
            if cut is not None:
                return cut
        repeated = sum(after < self._calls[layer].starts[0] < start for layer in self.layers)
        return (self._behind(start) if repeated > MOST_REPEATED else None) or last

    def _behind(self, end: int, only: str | None = None) -> Cut | None:
        """Return the cut behind all modules that returned by ``end``, if there is one.

        Args:
            end: in ticks.
            only: the module whose output alone may be needed, and may decide what runs behind;
                None for any of them, where no values decide.
        """
        skipped = {
            name: form
            for name, form in self._forms.items()
            if self._calls[name].ends and self._calls[name].ends[-1] <= end
        }
        needed, deciding = self._flow.needed(skipped)
        allowed = {only} if only else set()
        if deciding - allowed or (only and needed != allowed):
            return None
        once = all(len(self._calls[name].ends) == 1 for name in needed)
        if not once or not any(any(skipped[name].grow) for name in needed):
            return None
        end = max(self._calls[name].ends[-1] for name in skipped)
        cut = Cut(tuple(sorted(needed)), end, skipped)
        return cut if self._is_fresh(cut) else None

    def _trace(self, x: Arguments, flow: Dataflow) -> tuple[dict[str, _Calls], list[Tensor]]:
        tick = 0
        found: dict[str, _Calls] = {}
        names = {module: name for name, module in self._model.named_modules() if name}

        def follow(module: nn.Module, run: Callable[[], Any]) -> Any:
            nonlocal tick
            tick += 1
            calls = found.setdefault(names[module], _Calls([], [], []))
            calls.starts.append(tick)
            flow.enter(names[module])
            output = run()
            flow.leave(names[module], output)
            tick += 1
            calls.ends.append(tick)
            calls.forms.append(Form.of(output))
            return output

        with surrounding(dict.fromkeys(names, follow)), flow:
            outputs = x.call(self._model)
        flow.end(outputs)
        return found, tensor_leaves(outputs)

    def _of_two(self) -> tuple[Arguments, dict[str, _Calls], list[Tensor]]:
        """Return two images, when modules ran for them, and what the network returned.

        The first one and no modules where it takes one image at a time.
        """
        both = self._x.joined(self._other)
        try:
            return both, *self._trace(both, Dataflow())
        except RUN_ERRORS:
            return self._x, {}, self._reference

    def _forms_for_one(self) -> dict[str, Form]:
        """Return the forms of what modules that need not run return: the same at each call."""
        found = {}
        for name in self._calls.keys() & self._doubled.keys():
            once, twice = self._calls[name].forms, self._doubled[name].forms
            # None where each call raised what the network caught.
            if len(once) != len(twice) or len(set(once)) != 1 or len(set(twice)) != 1:
                continue
            one, two = once[0], twice[0]
            form = None if one is None or two is None else one.beside(two)
            if form is not None:
                found[name] = form
        return found

    def _is_fresh(self, cut: Cut) -> bool:
        """Whether a resumed pass gives the right outputs, whatever the network last ran on.

        A module may leave tensors on itself for another one: they are those of another image then.
        """
        with evaluating(self._model):
            outputs = outputs_at(self._model, cut.names, self._x)
            self._other.call(self._model)
            try:
                with resumed(self._model, cut, outputs, tensor_leaves(outputs)[0].new_zeros):
                    ours = tensor_leaves(self._x.call(self._model))
            except RUN_ERRORS:  # what lies between the skipped modules can't take a filler
                return False
        return len(ours) == len(self._reference) and all(
            torch.allclose(found, reference, rtol=1e-4, atol=1e-6, equal_nan=True)
            for found, reference in zip(ours, self._reference, strict=True)
        )
