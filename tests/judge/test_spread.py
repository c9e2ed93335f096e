"""A cluster that runs a network says what this machine says, whatever the parts are."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import trpexport as tx
from trpexport import clusters
from trpexport.errors import MissingDependencyError, ModelError
from trpexport.judge.examples import open_model
from trpexport.judge.spread import spread


class FakeRay:
    """A cluster of three cores in this process: what goes there and back is packed."""

    class RayTaskError(Exception):
        """What Ray raises for an error of a task."""

        def __init__(self, cause: Exception) -> None:
            self.cause = cause

    def __init__(self) -> None:
        self.exceptions = SimpleNamespace(RayTaskError=self.RayTaskError)
        self.ran: list[int] = []

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 3.0}

    def put(self, content: Any) -> Any:
        return pickle.loads(pickle.dumps(content))

    def remote(self, function: Callable[..., Any]) -> Any:
        def run(network: Any, inputs: Any) -> Any:
            (count,) = {len(array) for array in inputs.values()}
            self.ran.append(count)
            return lambda: pickle.loads(pickle.dumps(function(network, inputs)))

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=run))

    def get(self, refs: list[Callable[[], Any]]) -> list[Any]:
        try:
            return [ref() for ref in refs]
        except Exception as error:
            raise self.RayTaskError(error) from error


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(clusters, "_ray", lambda: fake)
    return fake


@pytest.fixture
def data(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((100, 3)).astype(np.float32)
    np.savez(tmp_path / "data.npz", input=inputs, target=rng.standard_normal((100, 4)))
    return f"tensors:{tmp_path / 'data.npz'}"


@pytest.mark.parametrize("batch", ["batch", 1, 7])
@pytest.mark.parametrize("at_a_time", [None, 5])
def test_a_cluster_says_the_same(
    batch: int | str, at_a_time: int | None, linear: Callable[..., Path], data: str, ray: FakeRay
) -> None:
    model = linear(batch=batch)
    here = tx.evaluate(model, data, metric="rmse", batch=at_a_time)
    assert not ray.ran
    there = tx.evaluate(model, data, metric="rmse", batch=at_a_time, ray="auto")
    assert there.value == pytest.approx(here.value, rel=1e-6)
    assert there.fingerprint == here.fingerprint
    assert sum(ray.ran) == 100
    assert max(ray.ran) == (at_a_time or 32)


def test_what_fails_there_is_told_as_here(linear: Callable[..., Path], ray: FakeRay) -> None:
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
