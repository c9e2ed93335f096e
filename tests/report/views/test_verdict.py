"""The sentence that a job ends with."""

from __future__ import annotations

from tests.test_verdict import judged, report
from trpexport.report.blocks import Role, Text, Tone
from trpexport.report.render.markdown import markdown
from trpexport.report.views.verdict import verdict_view
from trpexport.verdict import RANDOM, verdict_of


def sentence(**facts: object) -> tuple[str, Tone]:
    (block,) = verdict_view(verdict_of(report(**facts)))  # type: ignore[arg-type]
    assert isinstance(block, Text)
    assert block.role is Role.VERDICT
    return markdown([block]).strip().removeprefix("### "), block.tone


def test_what_is_saved_and_what_that_costs() -> None:
    assert sentence(calibration=judged(0.917, 0.907), speedup=1.5) == (
        "✅ Pays: 1.50x as fast, 2.00x fewer MACs, 2.00x fewer parameters for 1 points of top1 "
        "(91.70 % -> 90.70 %) on 500 test images",
        Tone.GOOD,
    )


def test_why_it_hardly_pays() -> None:
    kinds = (("1x1 convolutions", 0.79, 1.17), ("depthwise convolutions", 0.09, 1.0))
    text, tone = sentence(
        macs=1.16, parameters=1.1, kinds=(*kinds, ("3x3 convolutions", 0.12, 1.5)),
        calibration=judged(0.886, 0.869),
    )  # fmt: skip
    assert text.startswith("Hardly pays: 1.16x fewer MACs")
    assert "for 1.7 points of top1 (88.60 % -&gt; 86.90 %)".replace("&gt;", ">") in text
    assert text.endswith(
        "88% of the MACs are in what low rank hardly makes cheaper: 1x1 convolutions 79%, "
        "depthwise convolutions 9%"
    )
    assert tone is Tone.PLAIN


def test_what_is_destroyed_is_red() -> None:
    text, tone = sentence(agreement=0.0, error=1.2)
    assert text.endswith(
        "same top-1 for 0.0 %, the output moves by 120.0 % of its variation on 40 real inputs"
    )
    assert tone is Tone.BAD


def test_random_inputs_are_no_real_ones() -> None:
    text, _ = sentence(on=RANDOM)
    assert "nothing was measured on real inputs; on 40 random ones the output moves by" in text
    assert verdict_view(None) == ()
