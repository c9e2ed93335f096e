"""Copies of networks, of those too that hold what can't be copied."""

from __future__ import annotations

import copy
import traceback
import types
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from trpexport.errors import PlanError
from trpexport.foreign import told

# A network rarely holds that many things that can't be copied.
_MAX_SHARED = 1000


def copied(
    model: nn.Module,
    replacements: Mapping[nn.Module, nn.Module] | None = None,
    *,
    reused: Iterable[Tensor] = (),
) -> nn.Module:
    """Return a copy of a network that shares no module, parameter or buffer with it.

    What can't be copied, as a lock, an open file, a module of Python or a generator, is in both.
    Functions that a module keeps refer to the copy where they referred to the network.

    Args:
        model: the network.
        replacements: modules that stand in the copy in the place of others, which are not copied.
        reused: tensors that the copy is to share after all.

    Raises:
        PlanError: it can't be copied.
    """
    replacements = replacements or {}
    shared: dict[int, Any] = {id(old): new for old, new in replacements.items()}
    shared |= {id(tensor): tensor for tensor in reused}
    # The tensors once, not at each attempt.
    copy.deepcopy(list(_tensors(model, set(replacements))), shared)
    for _ in range(_MAX_SHARED):
        memo = dict(shared)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch's, of its own classes
                found = copy.deepcopy(model, memo)
        except Exception as error:  # anything that a network holds may refuse in a way of its own
            culprit = _refusing(error)
            if culprit is None or id(culprit) in shared or isinstance(culprit, nn.Module):
                raise PlanError(f"the network can't be copied ({told(error)})") from error
            is_computed = isinstance(culprit, Tensor)  # as weight norm leaves the last kernel
            shared[id(culprit)] = culprit.detach().clone() if is_computed else culprit
        else:
            _rebind(found, memo)
            uncover_methods(found)
            return found
    raise PlanError("the network can't be copied: it holds too much that can't be")


def uncover_methods(model: nn.Module) -> None:
    """Let methods of modules be called that a value of the same name hides: ``self.modules = []``.

    The value stays what it was, and can be called as well.
    """
    for module in nn.Module.modules(model):
        for name, value in list(vars(module).items()):
            method = getattr(nn.Module, name, None)
            if type(value) in _HIDING and isinstance(method, types.FunctionType):
                found = _HIDING[type(value)](value)
                found.method = partial(method, module)
                vars(module)[name] = found


class _Called:
    """What calls a method of a module."""

    method: Callable[..., Any]

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        return self.method(*inputs, **keywords)


# Plain values, and what they become: the same, but to be called.
_HIDING: dict[type, Any] = {
    kind: type(f"Called{kind.__name__}", (_Called, kind), {})
    for kind in (list, tuple, dict, str, int, float)
}


def _tensors(model: nn.Module, replaced: set[nn.Module]) -> Iterator[Tensor]:
    """Yield parameters and buffers of all modules but those that are replaced."""
    for _, module in nn.Module.named_modules(model, memo=replaced):
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and tensor.is_leaf:
                yield tensor


def _refusing(error: BaseException) -> Any:
    """Return the innermost object that could not be copied, as the traceback tells."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is copy.deepcopy.__code__:
            found = frame.f_locals["x"]
    return found


def _rebind(model: nn.Module, memo: Mapping[int, Any]) -> None:
    """Let functions and weak references that modules keep, hooks among them, mean the copy."""
    seen: set[int] = set()
    for module in nn.Module.modules(model):
        _renewed(vars(module), memo, seen)


def _renewed(value: Any, memo: Mapping[int, Any], seen: set[int]) -> Any:
    """Return a value that refers to copies; lists and mappings are changed in their place."""
    if isinstance(value, types.FunctionType):
        return _rebound(value, memo)
    if isinstance(value, weakref.ref):
        target = value()
        return weakref.ref(memo[id(target)]) if id(target) in memo else value
    if type(value) is tuple:
        return tuple(_renewed(each, memo, seen) for each in value)
    if isinstance(value, list | dict) and id(value) not in seen:
        seen.add(id(value))
        for key, each in list(enumerate(value) if isinstance(value, list) else value.items()):
            new = _renewed(each, memo, seen)
            if new is not each:
                value[key] = new
    return value


def _rebound(function: types.FunctionType, memo: Mapping[int, Any]) -> types.FunctionType:
    """Return a function that has the copies of what its closure and its defaults held."""

    def new(held: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(memo.get(id(each), each) for each in held)

    try:
        contents = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # a name without a value yet
        return function
    cells, defaults = new(contents), new(function.__defaults__ or ())
    held = (*contents, *(function.__defaults__ or ()))
    if all(copy is old for copy, old in zip((*cells, *defaults), held, strict=True)):
        return function
    found = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        defaults or None,
        tuple(map(types.CellType, cells)) or None,
    )
    found.__kwdefaults__ = function.__kwdefaults__
    return found
