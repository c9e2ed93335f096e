"""A dry run refuses the data that the run itself would refuse, in the same words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.cli.conftest import Chained
from tests.conftest import QUICK, Run
from trpexport.arrays import write_arrays
from trpexport.tensors import Arrays


def normal(*shape: int) -> Arrays:
    return {"input": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}


UNFIT: dict[str, Arrays] = {
    "channels": normal(24, 1, 16, 16),
    "size": normal(24, 3, 20, 20),
    "rank": normal(24, 3 * 16 * 16),
    "type": {"input": np.ones((24, 3, 16, 16), np.int64)},
    "numbers": {"input": np.full((24, 3, 16, 16), np.nan, np.float32)},
    "name": {"picture": normal(24, 3, 16, 16)["input"], "other": np.zeros(24, np.float32)},
}


@pytest.mark.parametrize("limit", [("decompose", "--target-macs", 0.5), ("tune", "--pareto")])
@pytest.mark.parametrize("what", UNFIT)
def test_images_that_do_not_fit(
    run: Run, chained: Chained, tmp_path: Path, what: str, limit: tuple[object, ...]
) -> None:
    write_arrays(tmp_path / "inputs.npz", UNFIT[what])
    command, *others = limit
    place = ("-o", tmp_path / "out", "--cache", tmp_path / "cache")
    typed = (command, chained(24, 16), "--calib", f"tensors:{tmp_path / 'inputs.npz'}", *place)
    dry = run(*typed, *others, "--dry-run")
    assert dry.code == 2
    assert dry.error == run(*typed, *others).error
    assert dry.out == ""
    assert not (tmp_path / "out").exists()


def test_a_drop_without_labels(
    run: Run, chained: Chained, smooth_tensors: Callable[[int], str], tmp_path: Path
) -> None:
    data = ("--calib", smooth_tensors(16), "--max-drop", 1, "--metric", "miou")
    place = ("-o", tmp_path / "out", "--cache", tmp_path / "cache")
    typed = ("decompose", chained(24, 16), *data, *place)
    dry = run(*typed, "--dry-run")
    assert dry.code == 2
    assert dry.error == run(*typed).error


def test_so_few_that_none_is_held_out(run: Run, tmp_path: Path) -> None:
    """All of them are used, as they lie in the file; PyTorch warns of arrays that are read only."""
    torch.manual_seed(0)
    torch.save(factory().state_dict(), tmp_path / "net.pth")
    np.save(tmp_path / "inputs.npy", normal(12, 3, 16, 16)["input"])
    before = (tmp_path / "inputs.npy").read_bytes()
    own = ("--model", f"{__name__}:factory", "--input-shape", "1x3x16x16")
    typed = ("decompose", tmp_path / "net.pth", *own, "--calib", tmp_path / "inputs.npy")
    for options in (("--dry-run",), ("-o", tmp_path / "out", "--rank-multiple", 1, *QUICK)):
        result = run(*typed, "--criterion", "rank:4", *options)
        assert result.code == 0, result.err
        assert "Warning" not in result.err
    assert (tmp_path / "inputs.npy").read_bytes() == before


class Scaled(nn.Module):
    """Works on its input in place."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x.mul_(0.5))
        return y


def factory() -> nn.Module:
    layers = (nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
    return Scaled(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()
