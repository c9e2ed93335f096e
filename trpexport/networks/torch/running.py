"""Running PyTorch networks without a trace left on them or on their caller."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from trpexport.errors import ModelError, PlanError
from trpexport.foreign import told
from trpexport.inputs import Inputs, InputsLike
from trpexport.networks.torch.arguments import Arguments, are_keywords, drawn

# A forward is code of others, which may raise anything, and even exit.
RUN_ERRORS = (Exception, SystemExit)
LOW_PRECISION = (torch.float16, torch.bfloat16)
# How libraries and forwards complain of an input of another shape, and of another type.
_OF_SHAPE = re.compile(
    r"shape|size|dimension|\bdims?\b|channel|unpack|numel|broadcast|length|out of (range|bounds)"
    r"|indices|height|width|divisible|elements|batch|must match|doesn't match",
    re.IGNORECASE,
)
_OF_TYPE = re.compile(r"\bd?type|\bHalf\b|BFloat16|\bDouble\b|\bLong\b|not implemented for '")


_PLAIN = (int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


class StoppedPass(BaseException):
    """Ends a forward pass of which enough is known; no forward takes it for an error of its own."""


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put networks into evaluation mode without gradients, and give all back as it was.

    Attention runs by the modules that it is made of, not by one fused operator in their place.
    Every module has its own mode again behind the block, and the caller's random numbers go on as
    if there had been no block: a forward pass may draw some.
    """
    training = [module for model in models for module in model.modules() if module.training]
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # Most are already: a deep network has hundreds of modules to set.
        if training:
            for model in models:
                model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
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


def example_input(model: nn.Module, inputs: InputsLike, seed: int = 0) -> Arguments:
    """Return drawn inputs on the device of the weights, floats in their dtype.

    Raises:
        PlanError: its forward takes no inputs of these names.
    """
    return arguments_for(model, drawn(Inputs.of(inputs), seed))


def arguments_for(model: nn.Module, tensors: Mapping[str, Tensor]) -> Arguments:
    """Return what a network's forward is called with, for tensors by input.

    Raises:
        PlanError: its forward takes no inputs of these names.
    """
    like = input_like(model)
    placed = {
        name: x.to(like.device, like.dtype if x.is_floating_point() else x.dtype)
        for name, x in tensors.items()
    }
    return Arguments(placed, are_keywords(model, placed))


def input_like(model: nn.Module) -> Tensor:
    """Return a tensor on the device and in the dtype that a network takes: its first real weight.

    Some weights may be complex.
    """
    weights = (weight.detach() for weight in model.parameters() if weight.is_floating_point())
    return next(weights, torch.empty(0))


def run_example(
    model: nn.Module,
    inputs: InputsLike,
    notes: Mapping[nn.Module, Callable[..., None]],
) -> Any:
    """Run ``model`` once on an example input and return its outputs.

    Args:
        model: the network.
        inputs: what it takes, or the shape of its only input, batch first.
        notes: what is called with the arguments and outputs of modules, as in :func:`noting`.

    Raises:
        PlanError: the network can't run such inputs.
    """
    x = example_input(model, inputs)
    try:
        with evaluating(model), noting(notes):
            return x.call(model)
    except RUN_ERRORS as error:
        reason, parameters = _why_not(model, x, error)
        raise PlanError(reason, parameters=parameters) from error


def failure_of(model: nn.Module, inputs: InputsLike) -> str | None:
    """Say why a network can't run an example of its inputs, or return None."""
    try:
        with evaluating(model):
            example_input(model, inputs).call(model)
    except RUN_ERRORS as error:
        return told(error)
    return None


def outputs_of(model: nn.Module, x: Tensor | Arguments) -> Any:
    """Return what ``model`` makes of inputs, in evaluation mode; they are left as they are.

    Raises:
        ModelError: it can't run such inputs.
    """
    x = Arguments.of(x)
    try:
        with evaluating(model):
            return x.clone().call(model)
    except RUN_ERRORS as error:
        reason, parameters = _why_not(model, x, error)
        raise ModelError(reason, parameters=parameters) from error


def _why_not(model: nn.Module, x: Arguments, error: BaseException) -> tuple[str, Sequence[str]]:
    """Say why a network did not run inputs and what mends it, and which parameters do."""
    kind = str(input_like(model).dtype).removeprefix("torch.")
    shapes = Inputs.of({name: tuple(tensor.shape) for name, tensor in x.tensors.items()})
    parameters: Sequence[str] = ()
    if (needed := _other_inputs(model, x)) is not None:
        remedy, parameters = f"give inputs by name, it takes {needed}", ("input_shape",)
    elif isinstance(error, RuntimeError | TypeError) and _OF_TYPE.search(str(error)):
        remedy = f"give a network that runs in {kind}: a forward casts by x.to(weight.dtype)"
    elif isinstance(
        error, RuntimeError | ValueError | IndexError | AssertionError
    ) and _OF_SHAPE.search(str(error)):
        remedy, parameters = "give the shape of one that it takes", ("input_shape",)
    elif isinstance(error, ModuleNotFoundError):
        remedy = f"install {error.name}"
    else:
        remedy = "its forward must run on tensors, in evaluation mode"
    what = f"an input of shape {shapes}" if len(shapes) == 1 else f"inputs of shapes {shapes}"
    return f"the network can't run {what} ({told(error)}): {remedy}", parameters


def _other_inputs(model: nn.Module, x: Arguments) -> str | None:
    """Return the parameters of a network's forward that can't be called with inputs, or None."""
    try:
        signature = inspect.signature(model.forward)
        signature.bind(*x.by_place, **x.by_name)
    except TypeError:
        return ", ".join(signature.parameters)
    except ValueError:  # it has no signature that Python knows
        return None
    return None


def argument(inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> Tensor:
    """Return the tensor that a layer was called with, by place or by name."""
    found: Tensor = inputs[0] if inputs else next(iter(keywords.values()))
    return found


def tensor_leaves(values: Any) -> list[Tensor]:
    """Return the tensors in values, however they are nested, in data classes too."""
    found = []
    for leaf in pytree.tree_leaves(values):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif not isinstance(leaf, _PLAIN):
            # Mappings of a class of their own, and data classes, are leaves to PyTorch.
            inner = vars(leaf) if is_dataclass(leaf) and not isinstance(leaf, type) else leaf
            if isinstance(inner, Mapping):
                found += tensor_leaves(list(inner.values()))
    return found


def noting(notes: Mapping[Any, Callable[..., Any]]) -> AbstractContextManager[None]:
    """Call functions with what modules get and give within the block.

    A function is called as a forward hook is, with (module, arguments, keyword arguments, output);
    what it returns but None is the output instead. Hooks are not told of ``module.forward(x)``.
    """

    def noted(module: nn.Module, forward: Callable[..., Any], *inputs: Any, **keywords: Any) -> Any:
        output = forward(*inputs, **keywords)
        changed = notes[module](module, inputs, keywords, output)
        return output if changed is None else changed

    return forwards_replaced({module: partial(noted, module, module.forward) for module in notes})


def surrounding(
    arounds: Mapping[nn.Module, Callable[[nn.Module, Callable[[], Any]], Any]],
) -> AbstractContextManager[None]:
    """Let functions run modules' forwards within the block, and do what they like around that.

    Scripted modules run as ever: nobody is told what happens in them.
    """

    def surrounded(
        module: nn.Module, forward: Callable[..., Any], *inputs: Any, **keywords: Any
    ) -> Any:
        return arounds[module](module, lambda: forward(*inputs, **keywords))

    return forwards_replaced(
        {
            module: partial(surrounded, module, module.forward)
            for module in arounds
            if not isinstance(module, torch.jit.ScriptModule)
        }
    )


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
