"""Whether it paid follows from what was saved, what was lost, and on which inputs."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trpexport.compare import Comparison
from trpexport.errors import NothingToDoError, TrpexportError
from trpexport.inputs import Inputs
from trpexport.ops import Call, LinearOp, Window
from trpexport.plan import LayerPlan, Plan
from trpexport.verdict import (
    RANDOM,
    REAL,
    Advice,
    Limits,
    Lost,
    Outcome,
    macs_by_kind,
    verdict_of,
)


def report(
    *,
    macs: float = 2.0,
    parameters: float = 2.0,
    error: float = 0.1,
    agreement: float | None = 0.97,
    on: str = REAL,
    calibration: dict[str, Any] | None = None,
    kinds: tuple[tuple[str, float, float], ...] = (),
    speedup: float | None = None,
) -> dict[str, Any]:
    """Return what a report says of a network that became so many times smaller."""
    found = Comparison(40, error, error, 0.9, agreement, variation_error=error, varies=True)
    facts: dict[str, Any] = {
        "layers_rewritten": 3,
        "macs": {
            "before": 1000 * macs,
            "after": 1000,
            "kinds": [dict(zip(("kind", "share", "ratio"), kind, strict=True)) for kind in kinds],
        },
        "parameters": {"before": 100 * parameters, "after": 100},
        "steps": [{"name": "decompose", "outputs": {"output": found.to_json()}}],
        "calibration": calibration,
        "verified_on": on,
    }
    if speedup is not None:
        facts["latency"] = {"files": {"fp32": {"speedup": {"mid": speedup}}}}
    return facts


def judged(before: float, after: float, images: int = 500) -> dict[str, Any]:
    return {
        "held_out": {"images": 40, "split": "held-out", "output_error": 0.2},
        "judged": {
            **{"metric": "top1", "is_share": True, "before": before, "after": after},
            **{"loss": before - after, "images": images, "split": "test"},
        },
    }


@pytest.mark.parametrize(
    ("facts", "outcome"),
    [
        ({}, Outcome.PAYS),
        ({"macs": 1.1, "parameters": 3.0}, Outcome.PAYS),
        ({"macs": 1.16, "parameters": 1.1}, Outcome.HARDLY_PAYS),
        ({"agreement": 0.8, "error": 0.5}, Outcome.HARDLY_PAYS),  # much for what is saved
        ({"agreement": 0.0, "error": 1.2}, Outcome.DESTROYED),
        ({"agreement": 0.6, "error": 0.77}, Outcome.DESTROYED),
        ({"agreement": None, "error": 0.9}, Outcome.DESTROYED),
        ({"agreement": None, "error": math.inf}, Outcome.DESTROYED),
        # The largest of 512 numbers that are no classes says nothing where all are near.
        ({"agreement": 0.6, "error": 0.2}, Outcome.PAYS),
        ({"agreement": 0.85, "error": 0.3}, Outcome.HARDLY_PAYS),  # too many answers differ
        ({"agreement": None, "error": 0.3}, Outcome.PAYS),
        # Answers that are the same for all inputs agree, whatever becomes of the network.
        ({"agreement": 1.0, "error": 1.4}, Outcome.UNKNOWN),
        ({"calibration": judged(0.9, 0.886), "error": 1.4}, Outcome.PAYS),
        ({"calibration": judged(0.9, 0.886)}, Outcome.PAYS),
        ({"calibration": judged(0.886, 0.472)}, Outcome.DESTROYED),
        ({"calibration": judged(0.9, 0.84)}, Outcome.HARDLY_PAYS),
        # Random inputs tell what is destroyed, and not what is well.
        ({"on": RANDOM}, Outcome.UNKNOWN),
        ({"on": RANDOM, "agreement": 0.4, "error": 0.4}, Outcome.UNKNOWN),
        ({"on": RANDOM, "agreement": 0.0, "error": 1.35}, Outcome.DESTROYED),
        ({"on": RANDOM, "macs": 1.05, "parameters": 1.0}, Outcome.HARDLY_PAYS),
        ({"speedup": 1.5}, Outcome.PAYS),
        ({"speedup": 0.9}, Outcome.HARDLY_PAYS),
    ],
)
def test_the_outcome(facts: dict[str, Any], outcome: Outcome) -> None:
    found = verdict_of(report(**facts))
    assert found is not None
    assert found.outcome is outcome
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["outcome"] == outcome.value


@given(
    error=st.floats(0, 3),
    worse=st.floats(0, 3),
    agreement=st.floats(0, 1),
    on=st.sampled_from([RANDOM, REAL]),
)
def test_a_larger_error_is_never_judged_better(
    error: float, worse: float, agreement: float, on: str
) -> None:
    order = [Outcome.PAYS, Outcome.UNKNOWN, Outcome.HARDLY_PAYS, Outcome.DESTROYED]
    near, far = (
        verdict_of(report(error=size, agreement=agreement, on=on))
        for size in (error, error + worse)
    )
    assert near is not None and far is not None
    assert order.index(near.outcome) <= order.index(far.outcome)


def test_nothing_rewritten_and_nothing_to_compare_with() -> None:
    assert verdict_of({"layers_rewritten": 0}) is None
    trained = {**report(), "steps": []}
    found = verdict_of(trained)
    assert found is not None
    assert (found.outcome, found.lost, found.advice) == (
        Outcome.UNKNOWN, None, (Advice.EVALUATE,),
    )  # fmt: skip


def test_what_is_said_to_be_lost_is_of_labels_if_there_were_any() -> None:
    found = verdict_of(report(calibration=judged(0.92, 0.90, images=700)))
    assert found is not None and found.lost is not None
    assert (found.lost.inputs, found.lost.on, found.lost.metric) == (700, "test images", "top1")
    found = verdict_of(report(agreement=None, calibration={**judged(1, 1), "judged": None}))
    assert found is not None and found.lost is not None
    assert (found.lost.inputs, found.lost.error) == (40, 0.2)


@pytest.mark.parametrize(
    ("facts", "advice"),
    [
        ({"on": RANDOM}, [Advice.CALIBRATE, Advice.TRAIN, Advice.CHOOSE]),
        ({"agreement": 0.1, "error": 1.0}, [Advice.CALIBRATE, Advice.TRAIN, Advice.CHOOSE]),
        (
            {"calibration": judged(0.9, 0.1)},
            [Advice.FINETUNE, Advice.TRAIN, Advice.CHOOSE],
        ),
        ({"calibration": judged(0.9, 0.9), "speedup": 2.0}, []),
        ({}, [Advice.BENCH, Advice.EVALUATE]),
        ({"agreement": 1.0, "error": 1.4}, [Advice.EVALUATE]),
        (
            {"macs": 1.16, "parameters": 1.1, "kinds": (("1x1 convolutions", 0.88, 1.16),)},
            [Advice.QUANTIZE],
        ),
        (
            {
                "macs": 1.16,
                "parameters": 1.1,
                "agreement": 0.1,
                "error": 1.0,
                "kinds": (("1x1 convolutions", 0.88, 1.16),),
            },
            [Advice.QUANTIZE],
        ),
    ],
)
def test_the_first_advice_is_calibration(facts: dict[str, Any], advice: list[Advice]) -> None:
    found = verdict_of(report(**facts))
    assert found is not None
    assert list(found.advice) == advice


def test_macs_by_kind() -> None:
    def row(name: str, op: LinearOp, macs: int, after: int) -> LayerPlan:
        return LayerPlan(
            name, op, (Call(1, (8, 8)),), None, None, None, (), "kept", None, macs, after
        )

    square, point = (
        Window((3, 3), (1, 1), ((1, 1),) * 2, (1, 1)),
        Window((1, 1), (1, 1), ((0, 0),) * 2, (1, 1)),
    )
    plan = Plan(
        "auto", "x", Inputs.of((1, 3, 8, 8)),
        (
            row("a", LinearOp(8, 8, window=square), 300, 100),
            row("b", LinearOp(8, 8, window=square), 100, 100),
            row("c", LinearOp(8, 8, groups=8, window=square), 50, 50),
            row("d", LinearOp(8, 8, window=point), 500, 400),
        ),
        other_macs=50,
    )  # fmt: skip
    found = [(kind.kind, kind.share, kind.ratio) for kind in macs_by_kind(plan)]
    assert found == [
        ("1x1 convolutions", 0.5, 1.25),
        ("3x3 convolutions", 0.4, 2.0),
        ("depthwise convolutions", 0.05, 1.0),
        ("other operators", 0.05, 1.0),
    ]
    assert [kind.is_fair for kind in macs_by_kind(plan)] == [True, True, False, False]


def test_limits() -> None:
    lost = Lost(40, "held-out images", is_real=True, error=0.3, agreement=0.9)
    Limits().check(lost)
    Limits(0.9, 0.3).check(lost)
    Limits(0.9, 0.3).check(None)  # of what was not compared there is nothing to say
    with pytest.raises(
        NothingToDoError, match=r"90\.0% on 40 held-out images, and 95% is the limit"
    ):
        Limits(min_agreement=0.95).check(lost)
    with pytest.raises(
        NothingToDoError, match=r"moves by 0\.3 of its variation .* 0\.2 is the limit"
    ):
        Limits(max_error=0.2).check(lost)
    with pytest.raises(TrpexportError, match="no output tells classes"):
        Limits(min_agreement=0.1).check(Lost(40, REAL, is_real=True, error=0.1))


def test_the_time_is_that_of_the_file_whose_loss_is_told() -> None:
    facts = report(speedup=1.5)
    facts["latency"]["files"]["int8"] = {"speedup": {"mid": 2.2}}
    found = verdict_of(facts)
    assert found is not None
    assert found.saved["time"] == 1.5
