"""Where a forward pass can be resumed: modules whose output is all that the rest depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from trpexport.inputs import InputsLike
from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.modules import LAYERS
from trpexport.networks.torch.operators import OperatorMode
from trpexport.networks.torch.running import (
    RUN_ERRORS,
    StoppedPass,
    argument,
    evaluating,
    example_input,
    forwards_replaced,
    noting,
    surrounding,
    tensor_leaves,
)

# Operators by which values turn into shapes or into what Python decides on.
_SCALARS = frozenset({"_local_scalar_dense", "is_nonzero", "equal"})
_DECISIONS = _SCALARS | {"nonzero", "masked_select"}


@dataclass(frozen=True)
class Cut:
    """A module whose output is all that the rest of the network needs.

    Attributes:
        name: the module.
        end: when it returned, in ticks of one forward pass.
        skipped: modules that need not run once its output is known, and the shapes of their
            outputs for one image; ``name`` itself is among them. For more images the first
            dimension is as many times as long.
    """

    name: str
    end: int
    skipped: Mapping[str, tuple[int, ...]]

    def images(self, output: Tensor) -> int:
        """Return of how many images this is the output."""
        return len(output) // self.skipped[self.name][0]


@dataclass
class _Calls:
    """When a module ran in a forward pass of one image, in ticks, and what it returned."""

    starts: list[int]
    ends: list[int]
    shapes: list[tuple[int, ...] | None]


class Cuts:
    """Finds, for each layer, the last place before it from which a forward pass can be resumed.

    A place is tried on an example: nothing that the network returns or decides on may depend on
    the outputs of what is skipped. Dependence is followed from operator to operator, not told by
    values, so that it also holds for branches that the example does not take. Where nothing can be
    cut, passes start at the input.

    Args:
        model: the network.
        inputs: what it takes, for one image; for more, where it takes no other number.
    """

    def __init__(self, model: nn.Module, inputs: InputsLike) -> None:
        self._model = model
        self._x, self._other = (example_input(model, inputs, i) for i in (0, 1))
        self._tried: dict[str, Cut | None] = {}
        self._before: dict[str, Cut | None] = {}
        with evaluating(model):
            self._calls, self._reference = self._trace(self._x)
            self._doubled = self._trace_of_two()
        self._shapes = self._shapes_for_one()

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

    def before(self, name: str) -> Cut | None:
        """Return the last cut before the module ``name`` runs; None is the network's input."""
        if name not in self._before:
            self._before[name] = self._find_before(name)
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

    def _find_before(self, name: str) -> Cut | None:
        start = self._calls[name].starts[0]
        earlier = sorted(
            (calls.ends[-1], other)
            for other, calls in self._calls.items()
            if len(calls.ends) == 1 and calls.ends[-1] < start
        )
        for _, other in reversed(earlier):
            if other not in self._tried:
                self._tried[other] = self._try(other)
            cut = self._tried[other]
            if cut is not None:
                return cut
        return None

    def _trace(self, x: Arguments) -> tuple[dict[str, _Calls], list[Tensor]]:
        tick = 0
        found: dict[str, _Calls] = {}
        names = {module: name for name, module in self._model.named_modules() if name}

        def follow(module: nn.Module, run: Callable[[], Any]) -> Any:
            nonlocal tick
            tick += 1
            calls = found.setdefault(names[module], _Calls([], [], []))
            calls.starts.append(tick)
            output = run()
            tick += 1
            calls.ends.append(tick)
            calls.shapes.append(tuple(output.shape) if isinstance(output, Tensor) else None)
            return output

        with surrounding(dict.fromkeys(names, follow)):
            return found, tensor_leaves(x.call(self._model))

    def _trace_of_two(self) -> dict[str, _Calls]:
        try:
            return self._trace(self._x.joined(self._other))[0]
        except RUN_ERRORS:  # it takes one image at a time
            return {}

    def _shapes_for_one(self) -> dict[str, tuple[int, ...]]:
        """Return the output shapes for one image of modules that need not run.

        Those that return one tensor, of the same shape at each call, whose first dimension is
        twice as long for two images.
        """
        found = {}
        for name, calls in self._calls.items():
            (shape, *more) = set(calls.shapes) or {None}
            if not shape or more or name not in self._doubled:
                continue
            if set(self._doubled[name].shapes) == {(2 * shape[0], *shape[1:])}:
                found[name] = shape
        return found

    def _try(self, name: str) -> Cut | None:
        """Return the cut behind the module ``name`` if it is one."""
        end = self._calls[name].ends[-1]
        skipped = {
            other: shape
            for other, shape in self._shapes.items()
            if self._calls[other].ends and self._calls[other].ends[-1] <= end
        }
        if name not in skipped:
            return None
        cut = Cut(name, end, skipped)
        return cut if self._is_all(cut) and self._is_fresh(cut) else None

    def _is_all(self, cut: Cut) -> bool:
        """Whether nothing behind a cut depends on what is skipped, but for the cut's output."""
        marks = _Marks()

        def marked(shape: tuple[int, ...]) -> Tensor:
            return marks.put(output.new_zeros(shape))

        def refuse(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            # Most places are no cuts, and this ends the pass early.
            if marks.any(inputs):
                raise StoppedPass

        later = [name for name, calls in self._calls.items() if calls.starts[0] > cut.end]
        with evaluating(self._model):
            output = output_at(self._model, cut.name, self._x)
            handles = [
                self._model.get_submodule(name).register_forward_pre_hook(refuse) for name in later
            ]
            try:
                with resumed(self._model, cut, output, marked), marks:
                    return not marks.any(self._x.call(self._model))
            except (StoppedPass, *RUN_ERRORS):
                return False
            finally:
                for handle in handles:
                    handle.remove()

    def _is_fresh(self, cut: Cut) -> bool:
        """Whether a resumed pass gives the right outputs, whatever the network last ran on.

        A module may leave tensors on itself for another one: they are those of another image then.
        """
        with evaluating(self._model):
            output = output_at(self._model, cut.name, self._x)
            self._other.call(self._model)
            with resumed(self._model, cut, output, output.new_zeros):
                outputs = tensor_leaves(self._x.call(self._model))
        return len(outputs) == len(self._reference) and all(
            torch.allclose(ours, reference, rtol=1e-4, atol=1e-6, equal_nan=True)
            for ours, reference in zip(outputs, self._reference, strict=True)
        )


class _Marks(OperatorMode):
    """Marks tensors, and all that is computed from them."""

    def __init__(self, decisions: frozenset[str] = _DECISIONS) -> None:
        super().__init__()
        self._decisions = decisions
        # The storages are kept: none is freed, and its address given to another tensor.
        self._marked: dict[int, Any] = {}

    def put(self, tensor: Tensor) -> Tensor:
        """Mark a tensor and all that shares its memory."""
        storage = tensor.untyped_storage()
        self._marked[storage.data_ptr()] = storage
        return tensor

    def any(self, values: Any) -> bool:
        """Whether a tensor among ``values`` is marked."""
        return any(
            tensor.untyped_storage().data_ptr() in self._marked for tensor in tensor_leaves(values)
        )

    def run(self, operator: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Run an operator and mark what it computes from marked tensors."""
        is_marked = self.any((args, keywords))
        if is_marked and operator.overloadpacket.__name__ in self._decisions:
            raise StoppedPass
        output = operator(*args, **keywords)
        if is_marked:
            for tensor in tensor_leaves(output):
                self.put(tensor)
        return output


def decides_by_values(model: nn.Module, x: Tensor | Arguments) -> bool:
    """Whether Python decides, or computes, by values that depend on a network's inputs.

    Such a network can't be told by what one input makes it do.
    """
    marks = _Marks(_SCALARS)
    x = Arguments.of(x).clone().map(marks.put)
    try:
        with evaluating(model), marks:
            x.call(model)
    except StoppedPass:
        return True
    return False


def output_at(model: nn.Module, name: str, x: Tensor | Arguments) -> Tensor:
    """Return the output of the module ``name``; what follows it does not run."""
    found: list[Tensor] = []

    def keep(*noted: Any) -> None:
        found.append(noted[-1].clone())
        raise StoppedPass

    try:
        with evaluating(model), noting({model.get_submodule(name): keep}):
            Arguments.of(x).call(model)
    except StoppedPass:
        pass
    return found[0]


def input_at(model: nn.Module, name: str, x: Tensor | Arguments) -> Tensor:
    """Return the input of the module ``name``; neither it nor what follows runs."""
    found: list[Tensor] = []

    def keep(*inputs: Any, **keywords: Any) -> Any:
        found.append(argument(inputs, keywords))
        raise StoppedPass

    try:
        with evaluating(model), forwards_replaced({model.get_submodule(name): keep}):
            Arguments.of(x).call(model)
    except StoppedPass:
        pass
    return found[0]


@contextmanager
def resumed(
    model: nn.Module, cut: Cut, output: Tensor, filler: Callable[[tuple[int, ...]], Tensor]
) -> Iterator[None]:
    """Let ``cut`` return ``output`` within the block, and all that ran before it a filler.

    Args:
        model: the network.
        cut: where to resume.
        output: what it returns.
        filler: makes an output of a shape that nothing is to read.
    """
    images = cut.images(output)

    def filling(shape: tuple[int, ...]) -> Callable[..., Tensor]:
        return lambda *_, **__: filler((images * shape[0], *shape[1:]))

    forwards = {model.get_submodule(name): filling(shape) for name, shape in cut.skipped.items()}
    # A copy, because what follows may work in place.
    forwards[model.get_submodule(cut.name)] = lambda *_, **__: output.clone()
    with forwards_replaced(forwards):
        yield
