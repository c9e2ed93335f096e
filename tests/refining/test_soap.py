"""SOAP: what it is beside Adam, and beside itself in other coordinates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trpexport.refining import soap
from trpexport.refining.soap import Soap

RATE, STEPS = 0.01, 25
Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(n: int, seed: int) -> Tensor:
    found: Tensor = torch.linalg.qr(random(n, n, seed=seed)).Q
    return found


def by_soap(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    return Soap([{"params": weights, "lr": RATE}])


def by_adam(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(weights, lr=RATE, betas=(0.95, 0.95))


def steps(optimizer: Optimizer, start: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a tensor after some steps down a loss."""
    weight = nn.Parameter(start.clone())
    moving = optimizer([weight])
    for _ in range(STEPS):
        moving.zero_grad()
        loss(weight).backward()  # type: ignore[no-untyped-call]
        moving.step()
    return weight.detach()


# Much steeper along some rows and columns than along others.
STEEP = torch.logspace(0, -1, 4).double()


def loss(weight: Tensor) -> Tensor:
    return (STEEP[:, None] * (weight.reshape(4, 4) - 1) * STEEP).square().sum()


@pytest.mark.parametrize("shape", [(4, 4), (4, 2, 1, 2)])
def test_it_goes_the_same_way_whatever_the_coordinates(shape: tuple[int, ...]) -> None:
    left, right, start = rotation(4, 1), rotation(4, 2), random(*shape)

    def turned(weight: Tensor) -> Tensor:
        return loss(left.T @ weight.reshape(4, 4) @ right)

    def distance(optimizer: Optimizer) -> float:
        straight = steps(optimizer, start, loss).reshape(4, 4)
        there = (left @ start.reshape(4, 4) @ right.T).reshape(shape)
        found = steps(optimizer, there, turned).reshape(4, 4)
        return float((left.T @ found @ right - straight).abs().max())

    assert distance(by_soap) < 1e-4
    assert distance(by_adam) > 0.01


@pytest.mark.parametrize("start", [random(24), random(1), random(6, 4)])
def test_in_the_basis_that_a_tensor_has_it_is_adam(
    start: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    if start.ndim > 1:
        monkeypatch.setattr(soap, "_MAX_SIDE", 3)  # neither side is so short

    def uneven(weight: Tensor) -> Tensor:
        return (torch.linspace(1, 3, weight.numel()) * (weight.flatten() - 1) ** 2).sum()

    torch.testing.assert_close(steps(by_soap, start, uneven), steps(by_adam, start, uneven))


def test_a_long_side_keeps_its_basis_and_the_other_one_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(soap, "_MAX_SIDE", 4)
    weight = nn.Parameter(random(6, 4))
    optimizer = by_soap([weight])
    weight.square().sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert "columns_basis" in optimizer.state[weight]
    assert "rows_basis" not in optimizer.state[weight]


def test_what_has_no_gradient_stays() -> None:
    weight = nn.Parameter(random(3, 2))
    by_soap([weight]).step()
    assert torch.equal(weight.detach(), random(3, 2))
