"""Operators that run graphs of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from trpexport.networks.onnx.interpreter.registry import Use, operator


@operator("If", numbers=(0,))
def _if(use: Use, condition: Tensor) -> tuple[Tensor, ...]:
    branch = "then_branch" if bool(condition.reshape(())) else "else_branch"
    return tuple(use.attributes[branch]())


@operator("Loop", numbers=(0, 1))
def _loop(
    use: Use, trips: Tensor | None, condition: Tensor | None, *carried: Tensor
) -> tuple[Tensor, ...]:
    body = use.attributes["body"]
    count = len(carried)
    steps: list[tuple[Tensor, ...]] = []
    goes_on = True if condition is None else bool(condition.reshape(()))
    limit = None if trips is None else int(trips.reshape(()))
    while goes_on and (limit is None or len(steps) < limit):
        found = body(torch.tensor(len(steps)), torch.tensor(goes_on), *carried)
        goes_on, carried = bool(found[0].reshape(())), tuple(found[1 : count + 1])
        steps.append(tuple(found[count + 1 :]))
    if not steps and use.outputs > count:
        raise ValueError("a loop that never runs gives nothing to put together")
    return (*carried, *(torch.stack(parts) for parts in zip(*steps, strict=True)))
