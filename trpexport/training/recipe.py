"""How long and how fast to train: epochs, batch size, and the learning rate of every step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from trpexport.errors import TrainingError
from trpexport.registry import Registry

Schedule = Literal["multistep", "one-cycle", "cosine"]

# The one-cycle schedule of Smith and Topin (arXiv 1708.07120) as PyTorch sets it by default: up
# during 30 % of the steps from a 25th of the peak, then down to a 250,000th of it.
_ONE_CYCLE_RISE, _ONE_CYCLE_START, _ONE_CYCLE_END = 0.3, 1 / 25, 1 / 250_000
_MULTISTEP_FACTOR = 0.1
FLOAT32_MAX = 3.4e38  # a factor beyond it is no number to PyTorch


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with a schedule.

    Attributes:
        name: what it is called.
        epochs: passes over the training images.
        batch_size: images a step, over all workers together.
        lr: the peak learning rate.
        schedule: ``multistep`` divides the rate by ten at each milestone; ``one-cycle`` rises
            during 30 % of the steps and then falls to nearly nothing; ``cosine`` falls to nothing.
        milestones: epochs after which ``multistep`` divides.
        warmup_epochs: epochs of a linear rise from nothing, before ``multistep`` and ``cosine``.
        momentum: of the optimizer.
        nesterov: whether that is Nesterov's.
        weight_decay: of all parameters, as in the original.
        label_smoothing: share of each label that is spread over all classes.
    """

    name: str
    epochs: int
    batch_size: int
    lr: float
    schedule: Schedule
    milestones: tuple[int, ...] = ()
    warmup_epochs: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        total = self.epochs * steps_per_epoch
        if self.schedule == "one-cycle":
            rise = max(1.0, _ONE_CYCLE_RISE * total - 1)
            if step <= rise:
                return self.lr * _cosine(_ONE_CYCLE_START, 1.0, step / rise)
            fall = max(1.0, total - 1 - rise)
            return self.lr * _cosine(1.0, _ONE_CYCLE_END, min(1.0, (step - rise) / fall))
        warmup = self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return self.lr * (step + 1) / warmup
        if self.schedule == "cosine":
            return self.lr * _cosine(1.0, 0.0, (step - warmup) / max(1.0, total - warmup))
        passed = sum(step >= milestone * steps_per_epoch for milestone in self.milestones)
        return self.lr * _MULTISTEP_FACTOR**passed

    def changed(
        self,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
    ) -> Recipe:
        """Return the recipe with other numbers; milestones move along with the epochs.

        Raises:
            TrainingError: a number makes no sense.
        """
        for name, value in (("epochs", epochs), ("batch size", batch_size)):
            if value is not None and value < 1:
                raise TrainingError(f"{name} {value} is too small: give at least 1")
        if lr is not None and not 0 < lr <= FLOAT32_MAX:
            raise TrainingError(f"learning rate {lr} makes no sense: give a number above 0")
        if weight_decay is not None and not 0 <= weight_decay <= FLOAT32_MAX:
            raise TrainingError(f"weight decay {weight_decay} makes no sense: give 0 or more")
        milestones = self.milestones
        if epochs is not None:
            milestones = tuple(round(m * epochs / self.epochs) for m in milestones)
        return replace(
            self,
            epochs=self.epochs if epochs is None else epochs,
            batch_size=self.batch_size if batch_size is None else batch_size,
            lr=self.lr if lr is None else lr,
            weight_decay=self.weight_decay if weight_decay is None else weight_decay,
            milestones=milestones,
        )


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


RECIPES: Registry[Recipe] = Registry("recipe")

for _recipe in (
    # Xu et al., arXiv 2004.14566, section 4.1, and the code that came with it.
    Recipe("original", 164, 128, 0.1, "multistep", milestones=(81, 122)),
    Recipe("one-cycle", 30, 128, 0.2, "one-cycle"),
    Recipe("cosine", 60, 128, 0.1, "cosine", warmup_epochs=2),
    # He et al., arXiv 1512.03385, section 3.4, in the 90 epochs that everyone compares with.
    Recipe("imagenet", 90, 256, 0.1, "multistep", milestones=(30, 60)),
    # The original's --retrain: a short run at a low rate, the factors staying factors.
    Recipe("finetune", 10, 128, 0.01, "cosine"),
):
    RECIPES.register(_recipe.name, _recipe)
