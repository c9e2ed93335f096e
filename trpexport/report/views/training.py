"""What came of a training run, against the network that it began from or learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trpexport.report.blocks import Kind, Role, Text, Tone, Value
from trpexport.verdict import Lost


def training_view(facts: Mapping[str, Any]) -> tuple[Text, ...]:
    """Say what accuracy was lost against the original network, where that is known.

    Args:
        facts: the last line of the metrics, with ``original_top1`` where that was measured; both in
            percent; with the ``teacher``'s file where there was one.
    """
    teacher = facts.get("teacher")
    told = () if teacher is None else (Text(f"Its teacher was {teacher}.", Role.NOTE),)
    return (_verdict(facts), *told)


def _verdict(facts: Mapping[str, Any]) -> Text:
    now, before = facts.get("test_top1"), facts.get("original_top1")
    if now is None:
        said: tuple[str | Value, ...] = ("Test loss ", Value(facts["test_loss"], Kind.NUMBER))
        return Text(said, Role.VERDICT)
    images = f"{facts['test_images']} test images"
    if before is None:
        said = ("Top-1 ", Value(now / 100, Kind.SHARE), f" on {images}")
        return Text(said, Role.VERDICT)
    drop = before - now
    lost = Lost(
        facts["test_images"], "test images", is_real=True, error=None, metric="top-1",
        before=before / 100, after=now / 100, loss=drop / 100, is_share=True,
    )  # fmt: skip
    tone = Tone.GOOD if lost.is_fair else Tone.PLAIN if lost.is_bearable else Tone.BAD
    said = (
        Value(abs(drop), Kind.NUMBER, digits=2),
        f" points of top-1 {'lost' if drop >= 0 else 'won'} against the original (",
        *(Value(before / 100, Kind.SHARE), " -> ", Value(now / 100, Kind.SHARE)),
        f") on {images}",
    )
    return Text(said, Role.VERDICT, tone)
