"""The loss of distillation, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trpexport.training.distillation import Distillation


class Says(nn.Module):
    """Answers the same, whatever it sees."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Tensor:
        return self.answer.expand(len(images), -1)


IMAGES, LABELS = torch.zeros(1, 1, 1, 1), torch.tensor([0])


def test_two_classes_by_hand() -> None:
    """At T = 2 the teacher is 2/3 sure (odds 2) and the student 1/2 (odds 1)."""
    teacher = Says(torch.tensor([[2 * math.log(2), 0.0]]))
    loss = Distillation(teacher, temperature=2.0, weight=0.25)
    divergence = 2 / 3 * math.log((2 / 3) / 0.5) + 1 / 3 * math.log((1 / 3) / 0.5)
    expected = 0.75 * math.log(2) + 0.25 * 2**2 * divergence
    assert float(loss(torch.zeros(1, 2), LABELS, IMAGES)) == pytest.approx(expected, rel=1e-6)


def test_without_weight_it_is_cross_entropy() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 1, 0])
    loss = Distillation(Says(torch.zeros(1, 3)), weight=0.0)
    found = loss(logits, labels, torch.zeros(5, 1, 1, 1))
    assert torch.allclose(found, cross_entropy(logits, labels))


def test_who_agrees_with_the_teacher_learns_nothing_from_it() -> None:
    answer = torch.tensor([[1.0, -2.0, 0.5]])
    logits = answer.clone().requires_grad_()
    loss = Distillation(Says(answer), weight=1.0)(logits, LABELS, IMAGES)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-6


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    loss = Distillation(teacher)(torch.zeros(1, 2, requires_grad=True), LABELS, IMAGES)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in teacher.parameters())
