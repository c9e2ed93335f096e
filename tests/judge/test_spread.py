"""A cluster that runs a network says what this machine says, whatever the parts are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import trpexport as tx
from tests.ray_clusters import FakeRay
from trpexport.errors import MissingDependencyError, ModelError
from trpexport.judge.examples import open_model
from trpexport.judge.spread import spread


@pytest.fixture
def data(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((100, 3)).astype(np.float32)
    np.savez(tmp_path / "data.npz", input=inputs, target=rng.standard_normal((100, 4)))
    return f"tensors:{tmp_path / 'data.npz'}"


@pytest.mark.parametrize("batch", ["batch", 1, 7])
@pytest.mark.parametrize("at_a_time", [None, 5])
def test_a_cluster_says_the_same(
    batch: int | str,
    at_a_time: int | None,
    linear: Callable[..., Path],
    data: str,
    fake_ray: FakeRay,
) -> None:
    model = linear(batch=batch)
    here = tx.evaluate(model, data, metric="rmse", batch=at_a_time)
    assert not fake_ray.calls
    there = tx.evaluate(model, data, metric="rmse", batch=at_a_time, ray="auto")
    assert there.value == pytest.approx(here.value, rel=1e-6)
    assert there.fingerprint == here.fingerprint
    ran = [len(inputs["input"]) for _, (_, inputs) in fake_ray.calls]
    assert sum(ran) == 100
    assert max(ran) == (at_a_time or 32)


def test_what_fails_there_is_told_as_here(linear: Callable[..., Path], fake_ray: FakeRay) -> None:
    (model,) = [open_model(linear())]
    with spread([model], "auto", None) as those, pytest.raises(ModelError, match="needs the input"):
        those.models[0].session.run({"input": np.zeros((9, 5), np.float32)})


def test_without_ray_it_says_what_to_install(
    linear: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(MissingDependencyError, match=r"clusters need Ray: .*\[ray\]"),
        spread([open_model(linear())], "auto", None),
    ):
        pass
