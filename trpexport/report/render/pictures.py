"""Plots as files, PNG or SVG: the only file of the library that imports matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from trpexport.errors import MissingDependencyError, TrpexportError
from trpexport.files import write_atomically
from trpexport.installing import install_command
from trpexport.report.blocks import Kind, Range, Value
from trpexport.report.page import Axis, Drawing, Lanes, Plot, Series
from trpexport.report.render.scales import tick_digits
from trpexport.report.render.spans import phrase_spans, plain, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's, which people of all kinds of colour vision tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_STYLES = ("-", "--", ":", "-.")
_SUFFIXES = (".png", ".svg")
_SMALL_SIZE, _LARGE_SIZE = (2.6, 2.0), (6.4, 4.0)  # inches of a plot
_LANE = 0.55  # inches of a distribution
_COLUMNS = 4  # of small plots
_MOST = 60  # of small plots in a file
_NAMED = 30  # characters of a title


def check_picture(place: Path) -> None:
    """Refuse a picture that can't be drawn, before any work.

    Raises:
        TrpexportError: its name does not say of which kind it is.
        MissingDependencyError: matplotlib is not installed.
    """
    if place.suffix.lower() not in _SUFFIXES:
        raise TrpexportError(f"{place} is no picture: it must end in .png or .svg")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"pictures need matplotlib, which is not installed: {install_command('plot')}"
        ) from error


def write_picture(plots: Sequence[Drawing], place: Path, title: str = "") -> int:
    """Draw plots into one file: small ones side by side, large ones below each other.

    Args:
        plots: what to draw, at least one.
        place: the file; what it ends in says which kind it is.
        title: what stands above all.

    Returns:
        How many of the plots there was no room for.

    Raises:
        TrpexportError: there is nothing to draw, or ``place`` is no picture.
        MissingDependencyError: matplotlib is not installed.
        OutputError: the file can't be written.
    """
    check_picture(place)
    if not plots:
        raise TrpexportError("there is nothing to plot: no layer has a spectrum, or nothing ran")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shown = plots[:_MOST]
    is_small = isinstance(shown[0], Plot) and shown[0].is_small
    across = min(len(shown), _COLUMNS) if is_small else 1
    down = math.ceil(len(shown) / across)
    width, _ = _SMALL_SIZE if is_small else _LARGE_SIZE
    heights = [_height(plot) for plot in shown[::across]]
    settings: dict[Any, Any] = {
        **{
            "font.size": 11,
            "axes.titlesize": 11,
            "svg.fonttype": "none",
            "svg.hashsalt": "trpexport",
        },
        **{"text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False},
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(width * across, sum(heights) + 0.5), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False, height_ratios=heights).flatten()
        for place_of, plot in zip(axes, shown, strict=False):
            _draw(plot, place_of)
        for unused in axes[len(shown) :]:
            unused.set_axis_off()
        if title:
            figure.suptitle(printable(title), fontsize=13, fontweight="bold")
        if is_small and len(shown[0].series) > 1:  # type: ignore[union-attr]
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        content = BytesIO()
        kind = place.suffix.lower().removeprefix(".")
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(content, format=kind, dpi=150, metadata=metadata)
    write_atomically(place, content.getvalue())
    return len(plots) - len(shown)


def _height(plot: Drawing) -> float:
    """Return how high a plot is, in inches."""
    if isinstance(plot, Lanes):
        return _LANE * len(plot.lanes) + 1.2
    return (_SMALL_SIZE if plot.is_small else _LARGE_SIZE)[1]


def _draw(plot: Drawing, axes: Axes) -> None:
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    if isinstance(plot, Lanes):
        _draw_lanes(plot, axes)
    else:
        _draw_plot(plot, axes)


def _draw_plot(plot: Plot, axes: Axes) -> None:
    labelled: set[tuple[float, float]] = set()
    for index, series in enumerate(plot.series):
        _draw_series(series, index, axes, labelled)
    if plot.cut is not None:
        axes.axvline(plot.cut, color="#444444", linestyle=(0, (3, 2)), linewidth=1.2)
        axes.axvspan(plot.cut, max(axes.get_xlim()[1], plot.cut), color="#d55e00", alpha=0.08, lw=0)
    note = plain(phrase_spans(plot.note))
    if plot.is_small:
        axes.set_title(f"{_short(plot.title)}\n{note}", fontsize=9.5, loc="left")
    else:
        axes.set_title("\n".join([printable(plot.title), *wrap(note, 70)]), loc="left")
        axes.set_xlabel(plot.x.title)
        axes.set_ylabel(plot.y.title)
        if len(plot.series) > 1:
            axes.legend(frameon=False)
    if plot.x.from_zero:
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]) if _is_negative(plot, "x") else 0.0)
    if plot.y.from_zero:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]) if _is_negative(plot, "y") else 0.0)
    _write_ticks(axes.xaxis, plot.x)
    _write_ticks(axes.yaxis, plot.y)


def _is_negative(plot: Plot, axis: str) -> bool:
    """Whether anything lies below zero along an axis that begins there otherwise."""
    return any(getattr(point, axis) < 0 for series in plot.series for point in series.points)


def _draw_series(
    series: Series, index: int, axes: Axes, labelled: set[tuple[float, float]]
) -> None:
    """Draw a line, or dots with labels: of several in one place the first has one."""
    colour = COLOURS[index % len(COLOURS)]
    x, y = ([getattr(point, name) for point in series.points] for name in "xy")
    name = printable(series.name)
    if series.mark == "line":
        style = _STYLES[index % len(_STYLES)]
        axes.plot(x, y, style, color=colour, linewidth=2, label=name or None)
        return
    middle = (min(x) + max(x)) / 2
    for number, point in enumerate(series.points):
        errors = [_distances(point.x, point.x_range), _distances(point.y, point.y_range)]
        axes.errorbar(
            point.x,
            point.y,
            errors[1],
            errors[0],
            fmt="o",
            color=colour,
            markersize=7,
            capsize=3,
            label=None if number else name or None,
        )
        if (point.x, point.y) in labelled:
            continue
        labelled.add((point.x, point.y))
        # Towards the middle, where there is room.
        gap, side = (-7, "right") if point.x > middle else (7, "left")
        axes.annotate(
            _short(point.label),
            (point.x, point.y),
            (gap, 7),
            textcoords="offset points",
            fontsize=10,
            ha=side,
        )


def _distances(value: float, interval: Range | None) -> Any:
    if interval is None:
        return None
    return [[max(0.0, value - interval.low)], [max(0.0, interval.high - value)]]


def _draw_lanes(lanes: Lanes, axes: Axes) -> None:
    from matplotlib.ticker import LogLocator

    for index, lane in enumerate(lanes.lanes):
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(
            [lane.outer.low, lane.outer.high], [index, index], "|-", color=colour, linewidth=2
        )
        if lane.inner is not None:
            width = lane.inner.high - lane.inner.low
            axes.barh(index, width, 0.35, lane.inner.low, color=colour, alpha=0.4)
        axes.plot([lane.middle], [index], "o", color=colour, markersize=8)
        told = f"{_short(lane.label)}: {plain(phrase_spans(lane.note))}"
        axes.annotate(
            told,
            (0, index),
            (4, 13),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            fontsize=10,
        )
    ends = [end for lane in lanes.lanes for end in (lane.outer.low, lane.outer.high)]
    if lanes.axis.from_zero and min(ends) > 0 and max(ends) / min(ends) > 20:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    elif lanes.axis.from_zero:
        axes.set_xlim(left=0)
    if lanes.reference is not None:
        axes.axvline(lanes.reference, color="#444444", linestyle=(0, (3, 2)), linewidth=1.2)
    axes.set_ylim(len(lanes.lanes) - 0.6, -0.8)
    axes.set_yticks([])
    axes.set_title(printable(lanes.title), loc="left", fontsize=10)
    axes.set_xlabel(lanes.axis.title)
    _write_ticks(axes.xaxis, lanes.axis)


def _write_ticks(axis: Any, of: Axis) -> None:
    """Write numbers as everywhere: shares in percent, times in milliseconds."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    if of.kind is Kind.WHOLE:
        axis.set_major_locator(MaxNLocator(4, integer=True))

    def write(value: float, _: int) -> str:
        shown = int(value) if of.kind is Kind.WHOLE else value
        return plain(phrase_spans((Value(shown, of.kind, tick_digits(value, of.kind)),)))

    axis.set_major_formatter(FuncFormatter(write))
    axis.set_minor_formatter(NullFormatter())


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _NAMED else f"…{text[1 - _NAMED :]}"
