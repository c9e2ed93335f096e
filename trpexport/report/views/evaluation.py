"""Evaluations: how a classifier did, and how it differs from an earlier one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trpexport.report.blocks import Block, Column, Kind, Range, Role, Table, Text, Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trpexport.judge.paired import PairedDrop
    from trpexport.judge.predictions import Evaluation
    from trpexport.judge.scoring import Score


def evaluation_view(evaluation: Evaluation, *, confusion: bool = False) -> tuple[Block, ...]:
    """Show how a classifier did.

    Args:
        evaluation: its answers.
        confusion: show which class was taken for which as well.
    """
    count = len(evaluation)
    heading = f"{evaluation.label} on {count} {evaluation.split} images of {evaluation.data}"
    how = "cross-entropy of logits" if evaluation.outputs_are == "logits" else "of probabilities"
    loss = None if evaluation.loss is None else Value(evaluation.loss, digits=4)
    speed = evaluation.images_per_second
    rows = (
        _accuracy("top-1", evaluation.correct),
        _accuracy("top-5", evaluation.correct_top5),
        {"what": "loss", "value": loss, "how": how},
        {"what": "images/s", "value": speed, "how": "in the network; not a benchmark"},
    )
    columns = (
        Column("what", "", Kind.NAME),
        Column("value", "", Kind.NUMBER, absent="-"),
        Column("how", "", Kind.PROSE),
    )
    blocks: list[Block] = [Text(heading), Table(columns, rows)]
    if evaluation.broken:
        broken = f"Outputs that hold NaN or infinity, and count as wrong: {evaluation.broken}"
        blocks.append(Text(broken, Role.WARNING))
    if confusion:
        blocks.append(_confusion(evaluation))
    return tuple(blocks)


def score_view(score: Score) -> tuple[Block, ...]:
    """Show what a metric says of a network."""
    heading = f"{score.label} on {score.samples} samples of {score.data}"
    kind = Kind.SHARE if score.metric.is_share else Kind.NUMBER
    interval = score.interval()
    better = "lower is better" if score.metric.lower_is_better else "higher is better"
    how: Any = f"{better}; no interval: the metric is of all samples at once"
    if interval is not None:
        how = ("95 % interval ", Value(Range(*interval), kind), f"; {better}")
    value = Value(score.value, kind, digits=4 if kind is Kind.NUMBER else None)
    rows = (
        {"what": score.metric.name, "value": value, "how": how},
        {
            "what": "samples/s",
            "value": Value(score.samples_per_second),
            "how": "in the network; not a benchmark",
        },
    )
    columns = (
        Column("what", "", Kind.NAME),
        Column("value", "", Kind.NUMBER, absent="-"),
        Column("how", "", Kind.PROSE),
    )
    return Text(heading), Table(columns, rows)


def _accuracy(name: str, correct: NDArray[np.bool_]) -> dict[str, Any]:
    from trpexport.judge.paired import Share

    share = Share(len(correct), int(correct.sum()))
    interval = Value(Range(*share.interval()), Kind.SHARE)
    return {
        "what": name,
        "value": Value(share.estimate, Kind.SHARE),
        "how": ("95 % interval ", interval),
    }


def _confusion(evaluation: Evaluation) -> Table:
    """Show which class (row) was taken for which (column)."""
    return Table(
        columns=(
            Column("true", "true \\ taken for", Kind.NAME),
            *(
                Column(str(index), name, Kind.WHOLE, absent=".")
                for index, name in enumerate(evaluation.classes)
            ),
        ),
        rows=tuple(
            {"true": name, **{str(index): count or None for index, count in enumerate(row)}}
            for name, row in zip(evaluation.classes, evaluation.confusion.tolist(), strict=True)
        ),
    )


def drop_view(facts: Mapping[str, Any], drop: PairedDrop, p: float) -> Text:
    """Say how an evaluation differs from an earlier one on the same images.

    Args:
        facts: the earlier one.
        drop: what was lost and won against it.
        p: of the exact McNemar test.
    """
    low, high = (100 * end for end in drop.interval())
    return Text(
        (
            f"against {facts['model']}: drop ",
            Value(100 * drop.estimate, Kind.NUMBER, unit="points"),
            " (95 % interval ",
            Value(Range(low, high), Kind.NUMBER),
            f"; {drop.lost:g} lost, {drop.won:g} won, exact McNemar p = ",
            Value(p, Kind.NUMBER, digits=2),
            ")",
        )
    )
