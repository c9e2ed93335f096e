"""On how many images factors are trained, and how much of what is kept of runs stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import trpexport as tx
from tests.refining.refined import SHAPE, STEPS, decomposed, facts, network, smooth
from trpexport.datasets.calibration import ArrayImages
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import decompose_network


def test_it_trains_on_more_images_than_are_calibrated_on() -> None:
    inputs = smooth(200, *SHAPE)
    images = ArrayImages(inputs, count=40)
    chooser = tx.ByCriterion("spatial", "fraction:0.25", keep_expensive=True)
    whole = TorchNetwork.open(network(), (1, *SHAPE))

    def images_of(refinement: tx.Refinement) -> tuple[int, tuple[str, ...]]:
        found = decompose_network(whole, chooser, images, refinement=refinement)
        return facts(found)["images"], found.notes

    few = replace(STEPS, steps=1)
    assert images_of(replace(few, images=30)) == (30, images_of(few)[1])
    count, notes = images_of(replace(few, images=100))
    # 160 are left, all of which are held out.
    assert count == 40
    assert notes[-1] == "refined on 40 images, fewer than 100"


@pytest.mark.parametrize(("edge", "count"), [(12, 10_000), (256, 682), (2048, 80)])
def test_as_many_images_are_trained_on_as_fit_into_memory(edge: int, count: int) -> None:
    images: Any = SimpleNamespace(inputs=np.broadcast_to(np.float32(0), (80, 3, edge, edge)))
    assert STEPS._count(images) == count


def test_states_of_runs_before_are_removed_when_they_take_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = replace(STEPS, steps=1, cache=tmp_path)
    decomposed(kept)
    decomposed(replace(kept, seed=1))
    assert len(list((tmp_path / "refining").iterdir())) == 2
    monkeypatch.setattr("trpexport.refining.refinement._KEPT_BYTES", 0)
    decomposed(replace(kept, seed=2))
    assert len(list((tmp_path / "refining").iterdir())) == 1
