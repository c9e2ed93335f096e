"""Profiles as tables: which convolutions gained by their pair, and where the rest goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape

from trpexport.report.tables import Parts, plain_table
from trpexport.report.text import milliseconds, percent, quantity

if TYPE_CHECKING:
    from trpexport.measure.profile.attribution import Attribution
    from trpexport.measure.profile.bench_profile import BenchProfile

_COLOURS = {"faster": "green", "slower": "red"}


def profile_tables(profile: BenchProfile) -> Parts:
    """Show a profile: each convolution's time, everything else, and what the sum is of the wall."""
    parts: list[Any] = []
    if profile.comparison:
        parts += [_comparison_table(profile), ""]
    else:
        for label, attribution in zip(profile.labels, profile.attributions, strict=True):
            parts += [f"[bold]{escape(label)}[/bold]", _layers_table(attribution), ""]
    parts += [_others_table(profile), ""]
    for label, attribution, place in zip(
        profile.labels, profile.attributions, profile.placements, strict=True
    ):
        providers = ", ".join(
            f"{share.provider} {percent(share.node_share)} of the nodes"
            + ("" if share.mac_share is None else f" and {percent(share.mac_share)} of the MACs")
            for share in place.providers
        )
        parts.append(
            escape(
                f"{label}: nodes {milliseconds(attribution.seconds)} of "
                f"{milliseconds(attribution.wall_seconds)} a run under the profiler "
                f"({percent(attribution.coverage)}); {providers}; partitions: {place.partitions}"
            )
        )
    parts.append("The profiler slows each node down by microseconds: this is no latency.")
    return tuple(parts)


def _comparison_table(profile: BenchProfile) -> Any:
    table = plain_table()
    table.add_column("convolution", no_wrap=True)
    table.add_column(escape(profile.labels[0]), justify="right")
    table.add_column(escape(profile.labels[-1]), justify="right")
    table.add_column("speed-up", justify="right")
    table.add_column("verdict")
    for row in profile.comparison:
        verdict = row.verdict if row.is_rewritten else f"kept; {row.verdict}"
        colour = (
            {"faster": "green", "slower": "red"}.get(row.verdict) if row.is_rewritten else "dim"
        )
        table.add_row(
            row.name,
            milliseconds(row.base_seconds),
            milliseconds(row.other_seconds),
            "" if row.speedup is None else f"{row.speedup:.2f}x",
            f"[{colour}]{verdict}[/{colour}]" if colour else verdict,
        )
    sums = [sum(layer.seconds for layer in a.layers) for a in profile.attributions]
    table.add_row(
        "all convolutions",
        milliseconds(sums[0]),
        milliseconds(sums[-1]),
        f"{sums[0] / sums[-1]:.2f}x" if sums[-1] else "",
        style="bold",
    )
    return table


def _layers_table(attribution: Attribution) -> Any:
    table = plain_table()
    table.add_column("convolution", no_wrap=True)
    table.add_column("computed as")
    for name in ("time", "MAD", "share", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in attribution.layers:
        table.add_row(
            escape(layer.name),
            ", ".join(layer.computes),
            milliseconds(layer.seconds),
            milliseconds(layer.mad),
            percent(layer.share),
            "" if layer.macs is None else quantity(layer.macs),
        )
    return table


def _others_table(profile: BenchProfile) -> Any:
    """Show what is in no convolution, an operator a row and a network a column."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for label, attribution in zip(profile.labels, profile.attributions, strict=True):
        for other in attribution.others:
            times = rows.setdefault((other.kind, other.operator), {})
            times[label] = times.get(label, 0.0) + other.seconds
    table = plain_table()
    table.add_column("everything else", no_wrap=True)
    table.add_column("kind")
    for label in profile.labels:
        table.add_column(escape(label), justify="right")
    for (kind, operator), times in rows.items():
        cells = [milliseconds(times[x]) if x in times else "-" for x in profile.labels]
        table.add_row(operator, kind, *cells)
    return table
