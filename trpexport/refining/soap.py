"""SOAP: Adam in the basis in which the gradient of a matrix varies along each axis on its own.

Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam" (arXiv 2409.11321).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_BETA1, _BETA2, _EPSILON = 0.95, 0.95, 1e-8
# Steps between two updates of the bases; sides that are longer than so much keep their own.
_REFRESH, _MAX_SIDE = 10, 512
_SIDES = ("rows", "columns")


class Soap(torch.optim.Optimizer):
    """Adam, for each tensor in the eigenvectors of its gradients' mean square, of rows and columns.

    A tensor counts as a matrix with its first axis as rows. The step of each group is ``lr``, as
    Adam's: about how far each value moves.

    Args:
        groups: what is trained, with a learning rate each.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move each tensor that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    # A bias is one column, which has no basis but its own.
                    gradient = weight.grad.reshape(len(weight), -1)
                    found = _direction(self.state[weight], gradient, is_matrix=weight.ndim > 1)
                    weight.add_(found.reshape(weight.shape), alpha=-group["lr"])


def _direction(state: dict[str, Any], gradient: Tensor, *, is_matrix: bool) -> Tensor:
    """Return where a tensor moves, in values of about one, and update its state.

    Args:
        state: of the tensor: mean gradient and mean square (rows, columns), those of its sides
            (rows, rows) and (columns, columns), and the eigenvectors of these.
        gradient: (rows, columns).
        is_matrix: whether its sides get bases.
    """
    if not state:
        state.update(count=0, mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient))
        for side, size in zip(_SIDES, gradient.shape, strict=True):
            if is_matrix and 1 < size <= _MAX_SIDE:
                state[side] = gradient.new_zeros(size, size)
    state["count"] += 1
    _turn(state, gradient)
    state["mean"].lerp_(gradient, 1 - _BETA1)
    state["square"].lerp_(_to(state, gradient).square(), 1 - _BETA2)
    mean = _to(state, state["mean"] / (1 - _BETA1 ** state["count"]))
    square = state["square"] / (1 - _BETA2 ** state["count"])
    return _back(state, mean / (square.sqrt() + _EPSILON))


def _turn(state: dict[str, Any], gradient: Tensor) -> None:
    """Take a gradient into the mean squares, and now and then turn the bases towards them."""
    for side, rows in zip(_SIDES, (gradient, gradient.T), strict=True):
        if side not in state:
            continue
        square = state[side].lerp_(rows @ rows.T, 1 - _BETA2)
        if state["count"] % _REFRESH == 1:
            state[f"{side}_basis"] = torch.linalg.eigh(square).eigenvectors


def _to(state: dict[str, Any], matrix: Tensor) -> Tensor:
    """Return a matrix in the bases of a tensor."""
    if "rows" in state:
        matrix = state["rows_basis"].T @ matrix
    return matrix @ state["columns_basis"] if "columns" in state else matrix


def _back(state: dict[str, Any], matrix: Tensor) -> Tensor:
    """Return a matrix that is given in the bases of a tensor as it is without them."""
    if "rows" in state:
        matrix = state["rows_basis"] @ matrix
    return matrix @ state["columns_basis"].T if "columns" in state else matrix
