"""The layers of an export in one table, and where its MACs, parameters and time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trpexport.cost import parameter_count
from trpexport.plan import LayerPlan, Plan
from trpexport.report.blocks import (
    Bound,
    Change,
    Column,
    Curve,
    Kind,
    Phrase,
    Portion,
    Table,
    Value,
)
from trpexport.report.page import Axis, Part, Plot, Point, Series, Stack
from trpexport.report.views.uncounted import at_most

_MOST_DRAWN = 96  # values of a spectrum


def layers_table(plan: Plan, report: Mapping[str, Any]) -> Table:
    """Return every layer: what it became, what that saved and cost, or why it was kept.

    Args:
        plan: what happened to each layer.
        report: the content of ``report.json``, which knows errors of outputs.
    """
    errors = {layer["name"]: layer.get("output_error") for layer in report["layers"]}
    fitted = (report["calibration"] or {"layers": ()})["layers"]
    errors |= {layer["name"]: layer["error_after"] for layer in fitted}
    largest = max((max(layer.macs, layer.factor_macs) for layer in plan.layers), default=0)
    rows = [_row(layer, errors.get(layer.name), largest) for layer in plan.layers]
    unknown = plan.uncounted
    is_mixed = any(layer.scheme != plan.scheme for layer in plan.rewritten)
    before, after = plan.macs_before, plan.macs_after
    totals = [
        {
            "layer": "all layers",
            "macs": _before_and_after(before, after, "at least" if unknown else None),
            "parameters": _before_and_after(*map(report["parameters"].get, ("before", "after"))),
            "saved": at_most(before / after if after else None, unknown),
        }
    ]
    return Table(
        columns=(
            Column("layer", "layer", Kind.NAME),
            Column("operator", "operator", Kind.NAME, optional=True),
            Column("spectrum", "spectrum", Kind.BARS, optional=True),
            *((Column("scheme", "scheme", Kind.NAME),) if is_mixed else ()),
            Column("rank", "rank", Kind.WHOLE, absent="kept"),
            Column("macs", "MACs", Kind.COUNT),
            Column("saved", "saved", Kind.RATIO),
            Column("parameters", "parameters", Kind.COUNT, optional=True),
            Column("weight_error", "weight error", Kind.SHARE),
            Column("output_error", "output error", Kind.SHARE),
            Column("reason", "kept, because", Kind.PROSE),
        ),
        rows=tuple(rows),
        totals=tuple(totals),
        faint=frozenset(i for i, layer in enumerate(plan.layers) if not layer.is_rewritten),
    )


def _before_and_after(before: int, after: int, bound: Bound = None) -> Phrase:
    return (Value(before, Kind.COUNT, bound=bound), " -> ", Value(after, Kind.COUNT, bound=bound))


def _row(layer: LayerPlan, output_error: float | None, largest: float) -> dict[str, Any]:
    row: dict[str, Any] = {
        "layer": layer.name,
        "operator": str(layer.op),
        "rank": None,
        "macs": Change(layer.macs, layer.factor_macs, largest),
        "reason": layer.reason or "",
    }
    if layer.spectrum:
        row["spectrum"] = Curve(layer.spectrum, layer.rank)
    if not layer.is_rewritten:
        return row
    assert layer.rank is not None and layer.full_rank is not None
    return row | {
        "scheme": layer.scheme,
        "rank": Portion(layer.rank, layer.full_rank),
        "parameters": Change(*_parameters(layer)),
        "saved": layer.macs / layer.factor_macs if layer.factor_macs else None,
        "weight_error": layer.weight_error,
        "output_error": output_error,
    }


def _parameters(layer: LayerPlan) -> tuple[int, int]:
    """Return how many parameters a layer has, before and after."""
    before = parameter_count(layer.op)
    return before, sum(map(parameter_count, layer.factors)) if layer.factors else before


def cost_stacks(plan: Plan) -> tuple[Stack, ...]:
    """Return which layers have the MACs and the parameters, before and after."""
    macs = [(layer, layer.macs, layer.factor_macs) for layer in plan.layers]
    weights = [(layer, *_parameters(layer)) for layer in plan.layers if layer.shares is None]
    return (
        _stack("MACs", macs, plan.other_macs),
        _stack("Parameters of these layers", weights, 0),
    )


def _stack(title: str, layers: Sequence[tuple[LayerPlan, int, int]], others: int) -> Stack:
    rest = (Part("all else", others),) if others else ()
    before = [Part(layer.name, count, layer.is_rewritten) for layer, count, _ in layers]
    after = [Part(layer.name, count, layer.is_rewritten) for layer, _, count in layers]
    bars = (("before", (*before, *rest)), ("after", (*after, *rest)))
    return Stack(title, Kind.COUNT, bars)


def time_stack(profile: Mapping[str, Any]) -> Stack:
    """Return which layers take the time of the first network of a profile, and of the last."""
    rows = profile["comparison"]
    labels = profile["models"][0]["label"], profile["models"][-1]["label"]
    bars = tuple(
        (label, tuple(Part(row["name"], row[key], row["is_rewritten"]) for row in rows))
        for label, key in zip(labels, ("base_seconds", "other_seconds"), strict=True)
    )
    return Stack("Time by layer, under the profiler", Kind.SECONDS, bars)


def spectra_plots(plan: Plan) -> tuple[Plot, ...]:
    """Return the singular values of each layer that has some, with the rank that it was cut to."""
    return tuple(
        spectrum_plot(layer.name, [("", layer.spectrum)], layer.rank, _cut_text(layer))
        for layer in plan.layers
        if any(layer.spectrum)
    )


def _cut_text(layer: LayerPlan) -> Phrase:
    if layer.rank is None:
        return "kept as it is"
    whole = layer.full_rank or layer.rank
    return ("cut to rank ", Value(Portion(layer.rank, whole), Kind.WHOLE))


def spectrum_plot(
    name: str, spectra: Sequence[tuple[str, Sequence[float]]], cut: int | None, note: Phrase
) -> Plot:
    """Return a plot of singular values, relative to the largest of each network.

    Args:
        name: the layer.
        spectra: its singular values, largest first, and of which network they are.
        cut: a rank to draw a line behind.
        note: what that is.
    """
    return Plot(
        title=name,
        x=Axis("rank", Kind.WHOLE, from_zero=True),
        y=Axis("of the largest", Kind.SHARE, from_zero=True),
        series=tuple(Series(label, _relative(values)) for label, values in spectra),
        cut=None if cut is None else cut + 0.5,
        note=note,
        is_small=True,
    )


def _relative(values: Sequence[float]) -> tuple[Point, ...]:
    """Return singular values by their place from 1 on, over the largest; a good many of them."""
    top = max(values, default=0.0) or 1.0
    step = max(1, len(values) / _MOST_DRAWN)
    places = sorted({int(index * step) for index in range(min(len(values), _MOST_DRAWN))})
    places += [len(values) - 1] * (bool(values) and len(values) - 1 not in places)
    return tuple(Point(place + 1, values[place] / top) for place in places)
