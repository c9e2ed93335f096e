"""Learning rates against PyTorch's schedulers and by hand."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from trpexport.errors import TrainingError
from trpexport.training.recipe import RECIPES, Recipe


def rates_of_pytorch(scheduler: str, steps: int, lr: float, **options: object) -> list[float]:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr)
    schedule = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **options)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps of the schedule before the optimizer's
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            if len(rates) < steps:
                schedule.step()
    return rates


@pytest.mark.parametrize(("epochs", "steps"), [(30, 391), (1, 10), (3, 7)])
def test_one_cycle_is_pytorchs(epochs: int, steps: int) -> None:
    recipe = RECIPES["one-cycle"].changed(epochs=epochs)
    ours = [recipe.learning_rate(step, steps) for step in range(epochs * steps)]
    theirs = rates_of_pytorch(
        "OneCycleLR", epochs * steps, 0.2, max_lr=0.2, total_steps=epochs * steps
    )
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_original_divides_after_81_and_122_epochs() -> None:
    recipe, steps = RECIPES["original"], 390
    assert (recipe.epochs, recipe.batch_size, recipe.momentum) == (164, 128, 0.9)
    assert (recipe.weight_decay, recipe.nesterov) == (1e-4, False)
    expected = {0: 0.1, 80: 0.1, 81: 0.01, 121: 0.01, 122: 0.001, 163: 0.001}
    for epoch, rate in expected.items():
        for step in (0, steps - 1):
            assert recipe.learning_rate(epoch * steps + step, steps) == pytest.approx(rate)


def test_cosine_rises_in_a_line_and_falls_to_nothing() -> None:
    recipe = Recipe("x", 10, 128, 0.1, "cosine", warmup_epochs=2)
    rates = [recipe.learning_rate(step, 5) for step in range(50)]
    assert rates[:10] == pytest.approx([0.01 * n for n in range(1, 11)])
    assert rates[10] == pytest.approx(0.1)
    assert rates[30] == pytest.approx(0.05)  # half of the way down
    assert rates[20] == pytest.approx(0.05 * (1 + math.sqrt(0.5)))
    assert 0 < rates[49] < 0.0002
    theirs = rates_of_pytorch("CosineAnnealingLR", 40, 0.1, T_max=40)
    assert rates[10:] == pytest.approx(theirs, abs=1e-12)


def test_milestones_move_with_the_epochs() -> None:
    assert RECIPES["original"].changed(epochs=82).milestones == (40, 61)
    assert RECIPES["original"].changed(lr=0.3).milestones == (81, 122)
    assert RECIPES["original"].changed() == RECIPES["original"]


@pytest.mark.parametrize("recipe", list(RECIPES), ids=str)
def test_every_recipe_has_a_rate_for_every_step(recipe: str) -> None:
    for epochs in (1, 2, 7):
        changed = RECIPES[recipe].changed(epochs=epochs)
        for steps in (1, 2, 9):
            rates = [changed.learning_rate(step, steps) for step in range(epochs * steps)]
            assert all(0 <= rate <= changed.lr * (1 + 1e-12) for rate in rates)
            assert max(rates) > 0


@pytest.mark.parametrize(
    "numbers",
    [
        {"epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"lr": -1.0}, {"lr": math.nan},
        {"lr": math.inf}, {"lr": 1e39}, {"weight_decay": -1.0}, {"weight_decay": math.nan},
        {"weight_decay": 1e39},
    ],
)  # fmt: skip
def test_numbers_that_make_no_sense(numbers: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match="give"):
        RECIPES["original"].changed(**numbers)  # type: ignore[arg-type]
