"""Limits of every kind are met by what a machine really takes, or it is said what the best is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.choose.networks import smooth
from tests.latency.networks import SHAPE, FakeStopwatch, twins
from trpexport.choose.by_latency import ByLatency
from trpexport.datasets.calibration import ArrayImages
from trpexport.errors import ModelError, NothingToDoError, PlanError
from trpexport.latency.stopwatch import Conditions
from trpexport.measure.profile.profile import NodeTime, Profile
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.reading import OnnxSource, read_model
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.pipeline import Decomposed, decompose_network
from trpexport.plan import Plan

Tune = Callable[..., Decomposed[Any]]
Seconds = dict[tuple[int, ...], float]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> OnnxNetwork:
    """The network as an ONNX file, which takes no export to be timed."""
    path = tmp_path_factory.mktemp("network") / "twins.onnx"
    twins().write_onnx(path, OnnxSettings())
    return OnnxNetwork.open(OnnxSource(path, read_model(path)))


@pytest.fixture
def tune(network: OnnxNetwork) -> Tune:
    def call(stopwatch: FakeStopwatch | None = None, **limit: Any) -> Decomposed[Any]:
        chooser = ByLatency(
            **{"rank_multiple": 2, "scheme": "spatial", **limit},
            stopwatch=stopwatch or FakeStopwatch(profiler_cost=1e-7),
        )
        images = ArrayImages(smooth(40, SHAPE))
        return decompose_network(network, chooser, images, label="twins")

    return call


def seconds(plan: Plan) -> float:
    """Return what the fake machine takes for the convolutions of a plan: 1 ns a weight."""
    ops = [op for layer in plan.layers for op in (layer.factors or (layer.op,)) if op.ndim]
    return 1e-9 * sum(op.out_channels * op.in_channels * op.kernel[0] * op.kernel[1] for op in ops)


BEFORE = 1e-9 * 9 * (16 * 3 + 2 * 16 * 16 + 32 * 16)


@pytest.mark.parametrize("scheme", ["spatial", "auto"])
def test_a_speedup(tune: Tune, scheme: str) -> None:
    small = tune(speedup=1.5, scheme=scheme)
    facts = small.plan.options["calibration"]
    speedup = BEFORE / seconds(small.plan)
    assert 1.5 <= speedup < 1.8
    assert facts["latency"]["speedup"]["mid"] == pytest.approx(speedup)
    assert facts["latency"]["predicted_speedup"] == pytest.approx(speedup, rel=1e-3)
    assert facts["latency"]["device"]["CPU"] == "a processor"
    assert facts["target"] == {"kind": "speedup", "value": 1.5}
    assert facts["held_out"]["images"] == 8


@pytest.mark.parametrize("provider", ["cuda", "xnnpack"])
def test_no_provider_is_another_one(tune: Tune, provider: str) -> None:
    conditions = Conditions(provider, {"an_option": "1"})
    small = tune(FakeStopwatch(profiler_cost=1e-7, conditions=conditions), speedup=1.5)
    facts = small.plan.options["calibration"]["latency"]
    assert (facts["provider"], facts["provider_options"]) == (provider, {"an_option": "1"})
    assert 1.5 <= BEFORE / seconds(small.plan) < 1.8


def test_a_provider_whose_layers_can_not_be_told_apart(tune: Tune) -> None:
    class Compiled(FakeStopwatch):
        def profiles(self, files: Sequence[Path], runs: int) -> list[Profile]:
            whole = NodeTime("subgraph", "Compiled", "An", (), (), (1e-5,) * runs)
            return [replace(one, nodes=(whole,)) for one in super().profiles(files, runs)]

    with pytest.raises(ModelError, match="tells no layer from the others"):
        tune(Compiled(), speedup=1.5)


def test_a_time(tune: Tune) -> None:
    assert seconds(tune(seconds=6e-6).plan) <= 6e-6


def test_an_error_is_bought_with_as_much_time_as_it_can(tune: Tune) -> None:
    near, far = tune(error=0.2), tune(error=0.6)
    for small, limit in ((near, 0.2), (far, 0.6)):
        assert small.plan.options["calibration"]["held_out"]["output_error"] <= limit
    assert seconds(far.plan) < seconds(near.plan) < BEFORE


def test_what_is_slow_for_its_macs_is_not_taken(tune: Tune) -> None:
    # On this machine a chain in the place of `wide` takes ten times as long as the layer itself.
    slow: Seconds = {(32, rank, 1, 3): 1e-4 for rank in range(2, 33, 2)}
    small = tune(FakeStopwatch(slow), speedup=1.2)
    ranks = {layer.name: layer.rank for layer in small.plan.layers}
    assert ranks["wide"] is None
    assert None not in (ranks["first"], ranks["second"])


def test_more_than_there_is_to_gain(tune: Tune) -> None:
    # At rank 2: 9,648 weights before, 432 + 192 + 192 + 288 after.
    with pytest.raises(NothingToDoError, match=r"a speed-up of 50 can't be met: .* it is 8\.74x"):
        tune(speedup=50.0)


@pytest.mark.parametrize("limit", [{"speedup": 1.2}, {"error": 0.5}])
def test_a_machine_on_which_nothing_pays(tune: Tune, limit: dict[str, float]) -> None:
    # Each chain takes longer than what it stands for.
    slow: Seconds = {(r, 16, 3, 1): 1e-3 for r in range(2, 33, 2)}
    with pytest.raises(NothingToDoError, match="low rank does not pay here: no layer gets faster"):
        tune(FakeStopwatch(slow), **limit)


@pytest.mark.parametrize("seed", range(6))
def test_no_difference_is_claimed_that_is_not_there(tune: Tune, seed: int) -> None:
    # All kernels take the same time together, on a clock that is off by 30 %.
    same: Seconds = {(16, 3, 3, 3): 1e-5, (16, 16, 3, 3): 1e-5, (32, 16, 3, 3): 1e-5}
    same |= {(r, 16, 3, 1): 5e-6 for r in range(2, 33, 2)}
    same |= {(out, r, 1, 3): 5e-6 for r in range(2, 33, 2) for out in (16, 32)}
    with pytest.raises(NothingToDoError):
        tune(FakeStopwatch(same, noise=0.3, seed=seed), error=0.9)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({}, "give one"),
        ({"speedup": 2.0, "error": 0.1}, "give one"),
        ({"speedup": 1.0}, "more than 1"),
        ({"speedup": float("nan")}, "more than 1"),
        ({"seconds": 0.0}, "more than 0"),
        ({"error": 1.0}, "between 0 and 1"),
        ({"drop": -1.0}, "out of range"),
        ({"speedup": 2.0, "metric": "miou"}, "says what a drop is of"),
        ({"speedup": 2.0, "rank_multiple": 0}, "at least 1"),
    ],
)
def test_limits_that_can_not_be(limits: dict[str, Any], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        ByLatency(**limits).check()


def test_images_are_needed(network: OnnxNetwork) -> None:
    with pytest.raises(PlanError, match="give some"):
        decompose_network(network, ByLatency(speedup=2.0))
