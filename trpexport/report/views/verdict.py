"""What came of a job, in a sentence that everybody reads, and why."""

from __future__ import annotations

from collections.abc import Mapping

from trpexport.report.blocks import Block, Kind, Role, Text, Tone, Value
from trpexport.verdict import TIME, Lost, Outcome, Verdict, why_dear

Parts = tuple[str | Value, ...]

_HEADS = {
    Outcome.PAYS: ("Pays", Tone.GOOD),
    Outcome.HARDLY_PAYS: ("Hardly pays", Tone.PLAIN),
    Outcome.DESTROYED: ("Destroyed", Tone.BAD),
    Outcome.UNKNOWN: ("Not known yet whether it pays", Tone.PLAIN),
}
_RESOURCES = {"macs": "fewer MACs", "parameters": "fewer parameters", "bytes": "fewer bytes"}


def verdict_view(verdict: Verdict | None, name: str = "") -> tuple[Block, ...]:
    """Show whether it pays: what is saved, what is lost on how many inputs, and why.

    Args:
        verdict: None where nothing was rewritten, of which there is nothing to say.
        name: of what it is on, where there are several.
    """
    if verdict is None:
        return ()
    head, tone = _HEADS[verdict.outcome]
    sentence = (
        f"{name}: {head.lower()}: " if name else f"{head}: ",
        *_saved(verdict.saved),
        *_lost(verdict.lost),
    )
    if verdict.lost is not None and verdict.lost.is_real and verdict.outcome is Outcome.UNKNOWN:
        sentence += ("; the output hardly varies over these inputs, so the same top-1 says little",)
    if verdict.is_dear:
        sentence += (f"; {why_dear(verdict.dear_kinds)}",)
    return (Text(sentence, Role.VERDICT, tone),)


def _saved(saved: Mapping[str, float]) -> Parts:
    """Say what is saved: the time first, where that was measured."""
    parts: Parts = ()
    for resource, ratio in sorted(saved.items(), key=lambda item: item[0] != TIME):
        words = "as fast" if resource == TIME else _RESOURCES[resource]
        parts += (", " if parts else "", Value(ratio, Kind.RATIO), f" {words}")
    return parts


def _lost(lost: Lost | None) -> Parts:
    """Say what that cost, and on how many inputs."""
    if lost is None:
        return ("; the loss was not measured",)
    where = f" on {lost.inputs} {lost.on}"
    if lost.metric is not None:
        return (" for ", *_metric(lost), where)
    if not lost.is_real:
        return (
            "; nothing was measured on real inputs",
            *((f"; on {lost.inputs} random ones the output moves by ", _share(lost.rms_error),
               " of its RMS") if lost.rms_error is not None else ()),
        )  # fmt: skip
    parts: Parts = ()
    if lost.agreement is not None:
        parts = ("same top-1 for ", _share(lost.agreement))
    if lost.error is not None:
        parts += (
            ", " if parts else "",
            "the output moves by ",
            _share(lost.error),
            " of its variation",
        )
    return ("; ", *parts, where)


def _metric(lost: Lost) -> Parts:
    """Say how much of a metric is lost, from what to what."""
    kind, digits = (Kind.SHARE, 2) if lost.is_share else (Kind.NUMBER, 4)
    scale, unit = (100, "points of ") if lost.is_share else (1, "of ")
    amount = None if lost.loss is None else scale * lost.loss
    return (
        Value(amount, Kind.NUMBER, digits=2),
        f" {unit}{lost.metric}",
        *(() if lost.before is None else (
            " (", Value(lost.before, kind, digits=digits), " -> ",
            Value(lost.after, kind, digits=digits), ")",
        )),
    )  # fmt: skip


def _share(value: float | None) -> Value | str:
    return "no bound" if value is None or value == float("inf") else Value(value, Kind.SHARE)
