"""Trained Rank Pruning goes on where it was stopped, bit by bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.small import SHAPE, Small, train, weights
from trpexport.errors import TrainingError
from trpexport.training.trp import Status, TrainedRankPruning


@pytest.mark.parametrize("target", [None, 0.6])
def test_resuming_is_exact(model: Small, target: float | None) -> None:
    def start(network: nn.Module) -> tuple[TrainedRankPruning, torch.optim.SGD]:
        trp = TrainedRankPruning(
            network, input_shape=SHAPE, period=4, energy=0.9, target_macs=target, total_steps=20
        )
        return trp, torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)

    trp, optimizer = start(model)
    train(model, trp, 10, optimizer)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), trp.state_dict()))
    assert all(isinstance(value, Tensor | int | float) for value in saved[2].values())
    train(model, trp, 9, optimizer, start=10)
    trp.project()

    again = Small()
    trp_again, optimizer_again = start(again)
    again.load_state_dict(saved[0])
    optimizer_again.load_state_dict(saved[1])
    trp_again.load_state_dict(saved[2])
    train(again, trp_again, 9, optimizer_again, start=10)
    trp_again.project()
    assert trp_again.status == trp.status
    for name, weight in weights(model).items():
        assert torch.equal(weight, again.get_parameter(name)), name


def test_a_run_can_be_resumed_before_its_first_step(model: Small) -> None:
    trp = TrainedRankPruning(model)
    state = trp.state_dict()
    assert state == {"step": 0}
    TrainedRankPruning(model).load_state_dict(state)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("step"),
        lambda state: state.pop("two.rank"),
        lambda state: state.update({"two.subgradient": torch.zeros(3)}),
        lambda state: state.update({"two.subgradient": 3}),
        lambda state: state.update({"two.values": torch.zeros(3)}),
        lambda state: state.update({"other.rank": 3}),
        lambda state: state.update({"step": "many"}),
    ],
)
def test_a_foreign_state_is_refused_and_harms_nothing(model: Small, damage: Any) -> None:
    trp = TrainedRankPruning(model, period=2)
    train(model, trp, 2)
    state, status = dict(trp.state_dict()), trp.status
    damage(state)
    with pytest.raises(TrainingError, match="the TRP state belongs to another run"):
        trp.load_state_dict(state)
    assert trp.status == status


def test_another_scheme_is_another_run(model: Small) -> None:
    trp = TrainedRankPruning(model, scheme="channel")
    trp.project()
    with pytest.raises(TrainingError, match="another run"):
        TrainedRankPruning(model, scheme="spatial").load_state_dict(trp.state_dict())


def test_the_same_input_gives_the_same_bits(model: Small) -> None:
    runs = []
    for _ in range(2):
        network = copy.deepcopy(model)
        trp = TrainedRankPruning(network, period=3)
        train(network, trp, 7)
        runs.append((weights(network), trp.status))
    assert runs[0][1] == runs[1][1]
    assert isinstance(runs[0][1], Status)
    assert all(torch.equal(runs[0][0][name], weight) for name, weight in runs[1][0].items())
