"""Records as plots: latencies, speed-ups, the trade-off between several exports, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trpexport.fronts import front_of
from trpexport.report.blocks import Kind, Range, Value
from trpexport.report.page import Axis, Lane, Lanes, Plot, Point, Series
from trpexport.report.views.latency import tuned_file
from trpexport.report.views.layers import spectrum_plot


def latency_lanes(record: Mapping[str, Any]) -> tuple[Lanes, ...]:
    """Return the distribution of each network's times, for each number of threads of a bench."""
    return tuple(
        Lanes(
            title=f"Time of one run, {_threads(result)}: least to 99th percentile, box: "
            "median and its deviation",
            axis=Axis("time", Kind.SECONDS, from_zero=True),
            lanes=tuple(map(_lane, result["models"])),
        )
        for result in record["results"]
        if result["models"]
    )


def _lane(model: Mapping[str, Any]) -> Lane:
    found = model["seconds"]
    middle, spread = found["median"], found["mad"]
    low, high = min(found["min"], middle), max(found["p99"], middle)
    return Lane(
        label=model["label"],
        middle=middle,
        outer=Range(low, high),
        inner=Range(max(low, middle - spread), min(high, middle + spread)),
        note=(
            "median ",
            Value(middle, Kind.SECONDS),
            ", 99th percentile ",
            Value(found["p99"], Kind.SECONDS),
        ),
    )


def speedup_lanes(record: Mapping[str, Any]) -> tuple[Lanes, ...]:
    """Return the speed-up of each network over the first, with its interval."""
    found = []
    for result in record["results"]:
        ratios = {model["label"]: model["ratio"] for model in result["models"] if model["ratio"]}
        if ratios:
            found.append(ratio_lanes(f"Speed-up, {_threads(result)}", ratios))
    return tuple(found)


def ratio_lanes(title: str, ratios: Mapping[str, Mapping[str, float]]) -> Lanes:
    """Return speed-ups with their 95 % intervals, beside 1.

    Args:
        title: what they are.
        ratios: ``low``, ``mid`` and ``high`` by name.
    """
    return Lanes(
        title=f"{title}: estimate and 95 % interval",
        axis=Axis("times as fast", Kind.RATIO),
        lanes=tuple(
            Lane(
                label=name,
                middle=one["mid"],
                outer=Range(one["low"], one["high"]),
                note=(
                    Value(one["mid"], Kind.RATIO),
                    ", ",
                    Value(Range(one["low"], one["high"]), Kind.RATIO),
                ),
            )
            for name, one in ratios.items()
        ),
        reference=1.0,
    )


def _threads(result: Mapping[str, Any]) -> str:
    return f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"


def pareto_plot(reports: Mapping[str, Mapping[str, Any]]) -> Plot | None:
    """Return what each of several exports saves against what it loses; None for fewer than two.

    Time is what counts where it was measured for all, MACs else.

    Args:
        reports: contents of ``report.json``, by name.
    """
    timed = all("latency" in report for report in reports.values())
    points = [
        point
        for name, report in reports.items()
        if (point := _trade(name, report, timed=timed)) is not None
    ]
    if len(points) < 2:
        return None
    front = [points[place] for place in front_of([(point.x, point.y) for point in points])]
    gain = Axis("times as fast", Kind.RATIO) if timed else Axis("times fewer MACs", Kind.RATIO)
    return Plot(
        title="What is saved, and what is lost",
        x=gain,
        y=Axis("output moves by, of its variation", Kind.SHARE, from_zero=True),
        series=(
            Series("the front", tuple(front)),
            Series("export", tuple(points), mark="dots"),
        ),
        note="right and down is better; the line joins those that no other beats in both",
    )


def output_error(report: Mapping[str, Any]) -> float | None:
    """Return by what share of its variation the worst output moves; None without a bound."""
    calibration = report["calibration"]
    if calibration is not None:
        exam = calibration.get("held_out") or calibration
        return float(exam["output_error"])
    for step in report["steps"]:
        if step["name"] == "decompose" and step["outputs"]:
            found = [output["variation_error"] for output in step["outputs"].values()]
            return None if None in found else max(found)
    return 0.0


def _trade(name: str, report: Mapping[str, Any], *, timed: bool) -> Point | None:
    error, macs = output_error(report), report["macs"]
    if error is None:
        return None
    if timed:
        speedup = tuned_file(report["latency"])["speedup"]
        return Point(speedup["mid"], error, name, Range(speedup["low"], speedup["high"]))
    return Point(macs["ratio"], error, name) if macs["ratio"] else None


def training_plots(epochs: Sequence[Mapping[str, Any]]) -> tuple[Plot, ...]:
    """Return how rank, MACs and accuracy went over training."""
    low_rank = {"mean rank of the full one": "mean_rank_share", "MACs left": "macs_ratio"}
    accuracy = {"test top-1": "test_top1", "training top-1": "top1"}
    return (
        *_over_epochs("Rank and MACs", epochs, low_rank, Axis("share", Kind.SHARE, from_zero=True)),
        *_over_epochs("Accuracy", epochs, accuracy, Axis("top-1", Kind.SHARE), scale=0.01),
    )


def _over_epochs(
    title: str,
    epochs: Sequence[Mapping[str, Any]],
    keys: Mapping[str, str],
    axis: Axis,
    scale: float = 1.0,
) -> tuple[Plot, ...]:
    series = tuple(
        Series(name, points)
        for name, key in keys.items()
        if (points := _points(epochs, key, scale))
    )
    plot = Plot(title, Axis("epoch", Kind.WHOLE), axis, series)
    return (plot,) if series else ()


def _points(epochs: Sequence[Mapping[str, Any]], key: str, scale: float) -> tuple[Point, ...]:
    return tuple(
        Point(epoch["epoch"], epoch[key] * scale) for epoch in epochs if epoch.get(key) is not None
    )


def inspected_plots(
    facts: Mapping[str, Any], name: str, against: Mapping[str, Any] | None = None, other: str = ""
) -> tuple[Plot, ...]:
    """Return the spectrum of each layer of one network, or of two that have layers in common.

    Args:
        facts: what :func:`trpexport.choose.inspection.inspection` returned.
        name: what the network is called.
        against: the facts of another, drawn where layers have the same name.
        other: what that is called.
    """
    others = {} if against is None else {one["name"]: one for one in against["layers"]}
    plots = []
    for layer in facts["layers"]:
        if not any(layer.get("spectrum", ())):
            continue
        spectra = [(name, layer["spectrum"])]
        if beside := others.get(layer["name"], {}).get("spectrum"):
            spectra.append((other, beside))
        best = layer["break_even_rank"] or None
        note = "no rank is cheaper" if best is None else f"cheaper up to rank {best}"
        plots.append(spectrum_plot(layer["name"], spectra, best, note))
    return tuple(plots)
