"""Running PyTorch networks without a trace left on them or on their caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from trpexport.errors import ModelError, PlanError
from trpexport.tensors import shape_text

# What networks raise of inputs that they were not made for.
RUN_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, AttributeError)


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put networks into evaluation mode without gradients, and give all back as it was.

    Every module has its own mode again behind the block, and the caller's random numbers go on as
    if there had been no block: a forward pass may draw some.
    """
    training = [module for model in models for module in model.modules() if module.training]
    try:
        # Most are already: a deep network has hundreds of modules to set.
        if training:
            for model in models:
                model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def one_thread() -> Iterator[None]:
    """Have PyTorch compute on one thread: what it gives then is the same however many there are.

    Sums that threads share are added up in another order, and differ in their last bits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def example_input(model: nn.Module, shape: Sequence[int], seed: int = 0) -> Tensor:
    """Return standard normal input of ``shape`` on the device and in the dtype of the weights."""
    generator = torch.Generator().manual_seed(seed)
    weight = next(model.parameters(), torch.empty(0))
    return torch.randn(*shape, generator=generator).to(weight)


def run_example(
    model: nn.Module,
    input_shape: Sequence[int],
    hooks: Mapping[nn.Module, Callable[..., None]],
) -> Any:
    """Run ``model`` once on an example input and return its outputs.

    Args:
        model: the network.
        input_shape: shape of its input, batch first.
        hooks: forward hooks to call, with the keyword arguments of the module before its output.

    Raises:
        PlanError: the network can't run an input of ``input_shape``.
    """
    handles = [m.register_forward_hook(hook, with_kwargs=True) for m, hook in hooks.items()]
    try:
        with evaluating(model):
            return model(example_input(model, input_shape))
    except RUN_ERRORS as error:
        shape = "x".join(map(str, input_shape))
        raise PlanError(
            f"the network can't run an input of shape {shape} ({reason_of(error)}): "
            "give the shape of one that it takes",
            parameters=["input_shape"],
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def outputs_of(model: nn.Module, x: Tensor) -> Any:
    """Return what ``model`` makes of an input, in evaluation mode; the input is left as it is.

    Raises:
        ModelError: it can't run such an input.
    """
    try:
        with evaluating(model):
            return model(x.clone())  # a network may change its input in place
    except RUN_ERRORS as error:
        raise ModelError(
            f"the network can't run {str(x.dtype).removeprefix('torch.')}[{shape_text(x.shape)}] "
            f"({reason_of(error)}): give a network that runs in float32, and the input shape that "
            "it takes"
        ) from error


def reason_of(error: BaseException) -> str:
    """Return the first line of what an exception says, or its type's name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def argument(inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> Tensor:
    """Return the tensor that a layer was called with, by place or by name."""
    found: Tensor = inputs[0] if inputs else next(iter(keywords.values()))
    return found


def tensor_leaves(outputs: Any) -> list[Tensor]:
    """Return the tensors of what a network returns, however they are nested."""
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


@contextmanager
def forwards_replaced(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Let modules compute something else within the block; forwards set on them come back."""
    before = {module: vars(module).get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module, own in before.items():
            if own is None:
                vars(module).pop("forward", None)
            else:
                module.forward = own
