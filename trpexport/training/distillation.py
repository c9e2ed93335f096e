"""Learning from another network's answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax


@dataclass(frozen=True)
class Distillation:
    """The loss of Hinton et al., "Distilling the knowledge in a neural network" (1503.02531).

    ``(1 - weight) * cross-entropy + weight * T^2 * KL(teacher || student)``, both softened by the
    temperature T.

    Attributes:
        teacher: the network whose answers are learnt; in evaluation mode, on the same device.
        temperature: T: the higher, the more the unlikely classes count.
        weight: share of the teacher in the loss, 0 to 1.
        label_smoothing: of the cross-entropy.
    """

    teacher: nn.Module
    temperature: float = 4.0
    weight: float = 0.5
    label_smoothing: float = 0.0

    def __call__(self, logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            logits: the student's, (n, classes).
            labels: class numbers, (n,).
            images: what the student saw, (n, channels, height, width).
        """
        with torch.no_grad():
            answers = self.teacher(images).float()
        soft = kl_div(
            log_softmax(logits / self.temperature, dim=1),
            log_softmax(answers / self.temperature, dim=1),
            log_target=True,
            reduction="batchmean",
        )
        hard = cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return (1 - self.weight) * hard + self.weight * self.temperature**2 * soft
