"""Running a network up to one layer after the other, without starting over each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trpexport.networks.torch.images import Images
from trpexport.networks.torch.network_error import flat, tensor_leaves
from trpexport.networks.torch.observation import Observation, observe
from trpexport.networks.torch.trace import CONVOLUTIONS, evaluating, example_input


@dataclass(frozen=True)
class Cut:
    """A module whose output is all that the rest of the network needs.

    Attributes:
        name: the module.
        end: when it returned, in ticks of one forward pass.
        skipped: modules that need not run once its output is known, and the shapes of their
            outputs for one image; ``name`` itself is among them.
    """

    name: str
    end: int
    skipped: Mapping[str, tuple[int, ...]]


@dataclass
class _Calls:
    """When a module ran in one forward pass, in ticks, and what it returned."""

    starts: list[int]
    ends: list[int]
    shapes: set[tuple[int, ...] | None]


class Cuts:
    """Finds, for each layer, the last place before it from which a forward pass can be resumed.

    A place is tried on an example: all that ran before it returns NaN, and the network's outputs
    must be the same. So it is right for every network, whatever its forward methods do; where
    nothing can be cut, passes start at the input.

    Args:
        model: the network.
        input_shape: shape of its input, batch first.
    """

    def __init__(self, model: nn.Module, input_shape: Sequence[int]) -> None:
        self._model = model
        self._x = example_input(model, (1, *input_shape[1:]))
        self._calls: dict[str, _Calls] = {}
        self._tried: dict[str, Cut | None] = {}
        self._before: dict[str, Cut | None] = {}
        with evaluating(model):
            self._reference = self._trace()

    def calls(self, name: str) -> int:
        """Return how often a forward pass calls the module ``name``."""
        return len(self._calls[name].ends) if name in self._calls else 0

    @property
    def output_elements(self) -> int:
        """How many numbers the network returns for an image."""
        return sum(output.numel() for output in self._reference)

    def before(self, name: str) -> Cut | None:
        """Return the last cut before the module ``name`` runs; None is the network's input."""
        if name not in self._before:
            self._before[name] = self._find_before(name)
        return self._before[name]

    def convolutions_after(self, cut: Cut | None) -> list[str]:
        """Return the convolutions before which ``cut`` is the last cut, in the order they run."""
        found = [
            (calls.starts[0], name)
            for name, calls in self._calls.items()
            if isinstance(self._model.get_submodule(name), CONVOLUTIONS)
            and self.before(name) == cut
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

    def _trace(self) -> list[Tensor]:
        tick = 0
        handles = []
        for name, module in self._model.named_modules():
            if not name:
                continue

            def enter(module: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
                nonlocal tick
                tick += 1
                self._calls.setdefault(name, _Calls([], [], set())).starts.append(tick)

            def leave(
                module: nn.Module, inputs: tuple[Any, ...], output: Any, name: str = name
            ) -> None:
                nonlocal tick
                tick += 1
                calls = self._calls[name]
                calls.ends.append(tick)
                shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else None
                calls.shapes.add(shape)

            handles += [
                module.register_forward_pre_hook(enter),
                module.register_forward_hook(leave),
            ]
        try:
            return tensor_leaves(self._model(self._x))
        finally:
            for handle in handles:
                handle.remove()

    def _try(self, name: str) -> Cut | None:
        """Return the cut behind the module ``name`` if it is one."""
        end = self._calls[name].ends[-1]
        skipped = {}
        for other, calls in self._calls.items():
            (shape, *more) = calls.shapes or {None}
            if calls.ends and calls.ends[-1] <= end and shape is not None and not more:
                skipped[other] = shape
        if name not in skipped:
            return None
        cut = Cut(name, end, skipped)

        def nan(shape: tuple[int, ...]) -> Tensor:
            return output.new_full(shape, float("nan"))

        def refuse(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            # Most places are no cuts, and this ends the pass early.
            if any(bool(some.isnan().any()) for some in tensor_leaves(inputs)):
                raise ValueError("something else that ran before is needed behind the cut")

        with evaluating(self._model):
            output = output_at(self._model, name, self._x)
            handles = [
                self._model.get_submodule(other).register_forward_pre_hook(refuse)
                for other, calls in self._calls.items()
                if calls.starts[0] > end
            ]
            try:
                with resumed(self._model, cut, output, nan):
                    outputs = tensor_leaves(self._model(self._x))
            except (RuntimeError, ValueError, TypeError, IndexError):
                return None
            finally:
                for handle in handles:
                    handle.remove()
        same = len(outputs) == len(self._reference) and all(
            torch.allclose(ours, reference, rtol=1e-4, atol=1e-6)
            for ours, reference in zip(outputs, self._reference, strict=True)
        )
        return cut if same else None


class Replay:
    """Runs a network on batches of images, each time from the last cut before a layer.

    What comes out of the cut is kept for as many images as a bound on memory allows; the others
    start at the input. The network's layers up to the cut must no longer change.

    Args:
        model: the network; in eval mode while it runs.
        cuts: the cuts of the network, or of the one that it was made from.
        memory: bytes that may be kept.
        is_final: whether no layer behind the cut changes either: layers up to the next cut are
            then observed together, and what they will be asked for is kept as well.
    """

    def __init__(
        self, model: nn.Module, cuts: Cuts, memory: int, *, is_final: bool = False
    ) -> None:
        self.model = model
        self._cuts = cuts
        self._memory = memory
        self._is_final = is_final
        self._cut: Cut | None = None
        self._kept: dict[int, Tensor] = {}
        self._seen: dict[tuple[str, int], Observation] = {}
        self._zeros: dict[tuple[int, ...], Tensor] = {}

    def advance(self, name: str, images: Images) -> None:
        """Move to the last cut before the layer ``name``."""
        cut = self._cuts.before(name)
        if cut == self._cut:
            return
        self._seen = {}
        if cut is None or (self._cut is not None and cut.end < self._cut.end):
            self._cut, self._kept = None, {}
        if cut is None:
            return
        kept, used = {}, 0
        for index in range(images.batches):
            x = images.batch(index)
            with self._resumed(index):
                output = output_at(self.model, cut.name, x)
            self._kept.pop(index, None)
            used += output.numel() * output.element_size()
            if used > self._memory:
                break
            kept[index] = output
        self._cut, self._kept = cut, kept

    def outputs(self, images: Images) -> Iterator[Tensor]:
        """Yield what the network gives, batch after batch: (images, elements), float64."""
        for index in range(images.batches):
            with evaluating(self.model), self._resumed(index):
                outputs = flat(self.model(images.batch(index)))
            yield outputs  # not from within: whoever asks has modes of his own

    def observe(self, name: str, index: int, x: Tensor) -> Observation:
        """Return what the layer ``name`` does to the batch with this index."""
        seen = self._seen.pop((name, index), None)
        if seen is not None:
            return seen
        names = [name]
        if self._is_final and self._used < self._memory:
            together = self._cuts.convolutions_after(self._cut)
            names = together[together.index(name) :]
        convs = {each: self.model.get_submodule(each) for each in names}
        calls = {each: self._cuts.calls(each) for each in names}
        with evaluating(self.model), self._resumed(index):
            found = observe(lambda: self.model(x), convs, calls)
        self._seen |= {(each, index): found[each] for each in names[1:]}
        return found[name]

    @property
    def _used(self) -> int:
        """Bytes that are kept."""
        tensors = tensor_leaves([self._kept, [vars(seen) for seen in self._seen.values()]])
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _resumed(self, index: int) -> AbstractContextManager[None]:
        """Let the network begin at the cut within the block, if its output is kept."""
        output = self._kept.get(index)
        if self._cut is None or output is None:
            return nullcontext()

        def zeros(shape: tuple[int, ...]) -> Tensor:
            # The same for all modules and calls: nothing that counts reads it.
            if shape not in self._zeros:
                self._zeros[shape] = output.new_zeros(shape)
            return self._zeros[shape]

        return resumed(self.model, self._cut, output, zeros)


class _ReachedError(Exception):
    """Ends a forward pass once a module's output is known."""


def output_at(model: nn.Module, name: str, x: Tensor) -> Tensor:
    """Return the output of the module ``name``; what follows it does not run."""
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        found.append(output.clone())
        raise _ReachedError

    handle = model.get_submodule(name).register_forward_hook(keep)
    try:
        with evaluating(model):
            model(x)
    except _ReachedError:
        pass
    finally:
        handle.remove()
    return found[0]


@contextmanager
def resumed(
    model: nn.Module, cut: Cut, output: Tensor, filler: Callable[[tuple[int, ...]], Tensor]
) -> Iterator[None]:
    """Let ``cut`` return ``output`` within the block, and all that ran before it a filler.

    Args:
        model: the network.
        cut: where to resume.
        output: what it returns, (images, *shape).
        filler: makes an output of a shape that nothing is to read.
    """
    modules = {name: model.get_submodule(name) for name in cut.skipped}

    def filling(shape: tuple[int, ...]) -> Any:
        return lambda *_, **__: filler((len(output), *shape))

    try:
        for name, shape in cut.skipped.items():
            modules[name].forward = filling(shape)
        # A copy, because what follows may work in place.
        modules[cut.name].forward = lambda *_, **__: output.clone()
        yield
    finally:
        for module in modules.values():
            vars(module).pop("forward", None)
