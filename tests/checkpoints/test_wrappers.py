"""Finding the weights among what was saved with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trpexport.checkpoints.wrappers import unwrap
from trpexport.errors import CheckpointError

W = {"conv.weight": torch.ones(2, 3, 1, 1), "conv.bias": torch.zeros(2)}
OTHER = {"conv.weight": torch.zeros(2, 3, 1, 1), "conv.bias": torch.zeros(2)}
OPTIMIZER = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}


def cyclic() -> dict[str, Any]:
    root: dict[str, Any] = {"epoch": 3}
    root["state"] = root
    return root


def test_a_bare_state_dict() -> None:
    contents = unwrap(W)
    assert contents.tensors == W
    assert contents.notes == ()


@pytest.mark.parametrize(
    ("root", "trail"),
    [
        ({"state_dict": W, "epoch": 3, "optimizer": OPTIMIZER}, "state_dict"),
        ({"model": W, "best_acc": torch.tensor(0.9)}, "model"),
        ({"net": W, "acc": 91.2}, "net"),
        ({"ema": W}, "ema"),
        ({"state_dict": {"model": W, "epoch": torch.tensor(3)}}, "state_dict.model"),
        ({"resnet20": W, "optimizer": OPTIMIZER}, "resnet20"),
        ({"model": "resnet20", "state_dict": W}, "state_dict"),
        ({"model": {"lr": 0.1}, "weights": W}, "weights"),
    ],
)
def test_wrappers(root: dict[str, Any], trail: str) -> None:
    contents = unwrap(root)
    assert contents.tensors == W
    assert contents.notes == (f"took the weights under {trail!r}",)


@pytest.mark.parametrize("plain", ["state_dict", "model"])
@pytest.mark.parametrize("averaged", ["ema", "model_ema", "state_dict_ema"])
def test_plain_weights_are_preferred_to_averaged_ones(plain: str, averaged: str) -> None:
    contents = unwrap({averaged: OTHER, plain: W})
    assert contents.tensors == W
    assert contents.notes[1] == f"left the averaged weights (EMA) under {averaged!r}"


def test_entries_that_are_no_weights_are_left_out_and_said() -> None:
    root = {
        **W,
        "total_ops": torch.zeros(1),
        "conv.total_params": torch.zeros(1),
        "n_averaged": torch.tensor(7),
        "_extra_state": b"...",
        "version": 2,
    }
    contents = unwrap(root)
    assert contents.tensors == W
    assert contents.notes == (
        "ignored counters that are no weights: total_ops, conv.total_params, n_averaged",
        "ignored entries that are no tensors: _extra_state, version",
    )


def test_a_whole_network() -> None:
    network = nn.Conv2d(3, 2, 1)
    contents = unwrap({"model": network, "ema": nn.Conv2d(3, 2, 1)})
    assert contents.module is network
    assert list(contents.tensors) == ["weight", "bias"]


@pytest.mark.parametrize(
    ("root", "says"),
    [
        ({}, "holds no weights"),
        ({"epoch": 3, "optimizer": OPTIMIZER}, "holds no weights"),
        ({1: torch.ones(2)}, "holds no weights"),
        (cyclic(), "holds no weights"),
        ([1, 2], "holds a list, not weights"),
        (torch.ones(2), "holds a Tensor, not weights"),
        (None, "holds a NoneType, not weights"),
        ({"generator": W, "critic": OTHER}, r"several sets of weights \(generator, critic\)"),
    ],
)
def test_nothing_to_take(root: object, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        unwrap(root)


def test_a_cycle_of_wrappers_ends() -> None:
    root: dict[str, Any] = dict(W)
    root["model"] = root
    contents = unwrap(root)
    assert contents.tensors == W
