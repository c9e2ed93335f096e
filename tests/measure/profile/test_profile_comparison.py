from __future__ import annotations

import json

import numpy as np
import pytest

from tests.measure.profile.profiled import CONV1, FACTORS, PLAN, layer, plan_of
from trpexport.errors import PlanError
from trpexport.measure.profile.attribution import Attribution, LayerTime
from trpexport.measure.profile.comparison import compare_profiles

ONE = plan_of(layer("conv", CONV1, *FACTORS))


def attributed(
    micros: float, mad: float = 0, *, nodes: int = 1, runs: int = 100, name: str = "conv"
) -> Attribution:
    row = LayerTime(
        name=name,
        nodes=("n",) * nodes,
        computes=(),
        seconds=micros * 1e-6,
        mad=mad * 1e-6,
        share=1,
        reordering_seconds=0,
        macs=None,
    )
    return Attribution("net.onnx", runs, 1.0, (row,), ())


@pytest.mark.parametrize(
    ("base", "other", "verdict"),
    [
        (attributed(100), attributed(50), "faster"),
        (attributed(50), attributed(100), "slower"),
        (attributed(100), attributed(100), "no measurable difference"),
        # a microsecond is cut off each node, more than 3 x 1.858 x MAD / 10 is no noise
        (attributed(6), attributed(4.5, nodes=2), "no measurable difference"),
        (attributed(7), attributed(4.5, nodes=2), "faster"),
        (attributed(100, 10), attributed(94, 0), "no measurable difference"),
        (attributed(100, 10), attributed(93, 0), "faster"),
        (attributed(100, 10, runs=10_000), attributed(97, 0), "faster"),
        (attributed(100), attributed(0, nodes=0), "not measured"),
        (attributed(0, nodes=0), attributed(100), "not measured"),
    ],
)
def test_verdicts(base: Attribution, other: Attribution, verdict: str) -> None:
    (row,) = compare_profiles(base, other, ONE)
    assert row.verdict == verdict


def test_a_row() -> None:
    (row,) = compare_profiles(attributed(100, 4), attributed(80, 3, nodes=3), ONE)
    assert (row.name, row.is_rewritten) == ("conv", True)
    assert row.speedup == pytest.approx(1.25)
    assert row.noise_seconds == pytest.approx(1e-6 * (3 * 1.8581 * 5 / 10 + 3), rel=1e-4)
    assert json.loads(json.dumps(row.to_json()))["speedup"] == pytest.approx(1.25)
    (row,) = compare_profiles(attributed(100), attributed(0, nodes=0), ONE)
    assert row.speedup is None


def test_noise_alone_is_seldom_taken_for_a_difference() -> None:
    """Of 500 pairs of the same distribution, 3 standard errors let 1 or 2 through."""
    generator = np.random.default_rng(0)

    def measured() -> Attribution:
        samples = generator.normal(1000, 50, 60)
        middle = float(np.median(samples))
        return attributed(middle, float(np.median(np.abs(samples - middle))), runs=60)

    verdicts = [compare_profiles(measured(), measured(), ONE)[0].verdict for _ in range(500)]
    assert 500 * 0.98 <= verdicts.count("no measurable difference") < 500


def test_the_rows_follow_the_plan(tmp_path_factory: pytest.TempPathFactory) -> None:
    names = [row.name for row in PLAN.layers]
    base = Attribution("a", 9, 1.0, tuple(attributed(9, name=n).layers[0] for n in names[::-1]), ())
    assert [row.name for row in compare_profiles(base, base, PLAN)] == names


def test_another_plan() -> None:
    with pytest.raises(PlanError, match=r"net\.onnx has no layer stem"):
        compare_profiles(attributed(1), attributed(1), PLAN)
