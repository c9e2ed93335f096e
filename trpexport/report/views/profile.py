"""Profiles: which layers gained by their factors, and where the rest of the time goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trpexport.report.blocks import Block, Column, Kind, Phrase, Table, Text, Tone, Value
from trpexport.report.views.bench import as_recommended, verdict_of

if TYPE_CHECKING:
    from trpexport.measure.profile.attribution import Attribution
    from trpexport.measure.profile.bench_profile import BenchProfile
    from trpexport.measure.profile.comparison import LayerComparison
    from trpexport.measure.profile.placement import Placement


def profile_view(profile: BenchProfile) -> tuple[Block, ...]:
    """Show a profile: each layer's time, everything else, and what the sum is of the wall."""
    models = list(zip(profile.labels, profile.attributions, profile.placements, strict=True))
    tables = (
        [_comparison(profile)]
        if profile.comparison
        else [_layers(label, attribution) for label, attribution, _ in models]
    )
    return (
        *tables,
        _others(profile),
        *(Text(_sum(label, attribution, place)) for label, attribution, place in models),
        *(
            Text(as_recommended(label, session))
            for label, session in zip(profile.labels, profile.sessions, strict=True)
            if session
        ),
        Text("The profiler slows each node down by microseconds: this is no latency."),
    )


def _comparison(profile: BenchProfile) -> Table:
    base, other = (
        sum(layer.seconds for layer in attribution.layers)
        for attribution in (profile.attributions[0], profile.attributions[-1])
    )
    return Table(
        columns=(
            Column("layer", "layer", Kind.NAME),
            Column("base", profile.labels[0], Kind.SECONDS),
            Column("other", profile.labels[-1], Kind.SECONDS),
            Column("speedup", "speed-up", Kind.RATIO, optional=True),
            Column("verdict", "verdict", Kind.PROSE),
        ),
        rows=tuple(
            {
                "layer": row.name,
                "base": row.base_seconds,
                "other": row.other_seconds,
                "speedup": row.speedup,
                "verdict": _verdict(row),
            }
            for row in profile.comparison
        ),
        totals=(
            {
                "layer": "all layers",
                "base": base,
                "other": other,
                "speedup": base / other if other else None,
            },
        ),
    )


def _verdict(row: LayerComparison) -> Value:
    if row.is_rewritten:
        return verdict_of(row.verdict)
    return Value(f"kept; {row.verdict}", tone=Tone.FAINT)


def _layers(label: str, attribution: Attribution) -> Table:
    return Table(
        columns=(
            Column("layer", "layer", Kind.NAME),
            Column("computed", "computed as", Kind.PROSE, optional=True),
            Column("time", "time", Kind.SECONDS),
            Column("mad", "MAD", Kind.SECONDS, optional=True),
            Column("share", "share", Kind.SHARE),
            Column("macs", "MACs", Kind.COUNT),
        ),
        rows=tuple(
            {
                "layer": layer.name,
                "computed": ", ".join(layer.computes),
                "time": layer.seconds,
                "mad": layer.mad,
                "share": layer.share,
                "macs": layer.macs,
            }
            for layer in attribution.layers
        ),
        title=label,
    )


def _others(profile: BenchProfile) -> Table:
    """Show what is in no layer, an operator a row and a network a column."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for index, attribution in enumerate(profile.attributions):
        for other in attribution.others:
            nothing = dict.fromkeys(map(str, range(len(profile.labels))))
            row = rows.setdefault(
                (other.kind, other.operator),
                {"operator": other.operator, "kind": other.kind, **nothing},
            )
            row[str(index)] = (row[str(index)] or 0.0) + other.seconds
    return Table(
        columns=(
            Column("operator", "everything else", Kind.NAME),
            Column("kind", "kind", Kind.NAME),
            *(
                Column(str(index), label, Kind.SECONDS, absent="-")
                for index, label in enumerate(profile.labels)
            ),
        ),
        rows=tuple(rows.values()),
    )


def _sum(label: str, attribution: Attribution, place: Placement) -> Phrase:
    """Say how much of a run's time the nodes take, and where they ran."""
    parts: list[str | Value] = [
        f"{label}: nodes ",
        Value(attribution.seconds, Kind.SECONDS),
        " of ",
        Value(attribution.wall_seconds, Kind.SECONDS),
        " a run under the profiler (",
        Value(attribution.coverage, Kind.SHARE),
        ")",
    ]
    for number, share in enumerate(place.providers):
        parts += [
            f"{', ' if number else '; '}{share.provider} ",
            Value(share.node_share, Kind.SHARE),
        ]
        parts.append(" of the nodes")
        if share.mac_share is not None:
            parts += [" and ", Value(share.mac_share, Kind.SHARE), " of the MACs"]
    return (*parts, f"; partitions: {place.partitions}")
