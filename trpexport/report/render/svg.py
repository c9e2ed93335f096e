"""Plots as SVG for a page: colours and fonts come from its style sheet, hover from its script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from markupsafe import Markup

from trpexport.report.blocks import Change, Curve, Kind, Range, Value
from trpexport.report.page import Axis, Lane, Lanes, Part, Plot, Point, Series, Stack
from trpexport.report.render.scales import Scale, scale, tick_digits
from trpexport.report.render.spans import phrase_spans, plain, printable

_LARGE = (420.0, 270.0)  # of a plot, in units of which the style sheet makes a pixel or less
_SMALL = (230.0, 140.0)
_LANE = 40.0
_LANE_CHARACTERS = 46  # of a label above a lane, also in the larger type of narrow windows
_SPARK = (84.0, 22.0)
_LEGIBLE = 24  # characters of a label inside a plot
_CHARACTER, _LINE = 7.0, 11.0  # about how wide and how high one is, in narrow windows as well
_RADIUS = 5.5  # of a dot

_Place = tuple[float, float, str]  # of a label: across, down, and which end is there


@dataclass(frozen=True)
class _Frame:
    """Where the inside of a plot is: margins left, top, right and bottom."""

    width: float
    height: float
    left: float
    top: float
    right: float
    bottom: float
    x: Scale
    y: Scale

    def across(self, value: float) -> float:
        """Return where a value of the horizontal axis is."""
        return self.left + (self.width - self.left - self.right) * self.x(value)

    def down(self, value: float) -> float:
        """Return where a value of the vertical axis is."""
        return self.height - self.bottom - (self.height - self.top - self.bottom) * self.y(value)

    def holds(self, box: _Box) -> bool:
        """Whether something is seen whole, and is off the numbers of both axes."""
        across = self.left <= box.left and box.right <= self.width
        return across and box.top >= 0 and box.bottom <= self.height - self.bottom


@dataclass(frozen=True)
class _Box:
    """What a mark takes up of a plot."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        """Whether both take up some of the same."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def plot_svg(plot: Plot) -> Markup:
    """Draw series between two axes."""
    points = [point for series in plot.series for point in series.points]
    ends_x = [end for point in points for end in _ends(point.x, point.x_range)]
    ends_y = [end for point in points for end in _ends(point.y, point.y_range)]
    width, height = _SMALL if plot.is_small else _LARGE
    frame = _Frame(
        *(width, height),
        *((34.0, 8.0, 8.0, 20.0) if plot.is_small else (54.0, 30.0, 16.0, 44.0)),
        scale(ends_x, from_zero=plot.x.from_zero),
        scale(ends_y, from_zero=plot.y.from_zero),
    )
    few = 3 if plot.is_small else 6
    inside = [_grid(frame, plot, few)]
    if plot.cut is not None:
        inside.append(_cut(frame, plot.cut))
    inside += [_series(frame, plot, index, one) for index, one in enumerate(plot.series)]
    label = f"{printable(plot.title)}; {plain(phrase_spans(plot.note))}"
    return _svg(width, height, label, inside, "small plot" if plot.is_small else "plot")


def _ends(value: float, interval: Range | None) -> tuple[float, ...]:
    return (value,) if interval is None else (value, interval.low, interval.high)


def _svg(width: float, height: float, label: str, inside: Iterable[Markup], kind: str) -> Markup:
    # A group, not an image: what is in it may have labels of its own and be reached by keyboard.
    return Markup(
        '<svg class="{}" viewBox="0 0 {:g} {:g}" role="group" aria-label="{}">{}</svg>'
    ).format(kind, width, height, label, Markup("").join(inside))


def _grid(frame: _Frame, plot: Plot, few: int) -> Markup:
    """Draw the lines and numbers of both axes, and their titles if there is room."""
    parts = []
    bottom, right = frame.height - frame.bottom, frame.width - frame.right
    for value in frame.y.ticks(few, whole=plot.y.kind is Kind.WHOLE):
        y = frame.down(value)
        parts.append(_line("grid", frame.left, y, right, y))
        parts.append(_text("tick end", frame.left - 5, y + 4, _tick(value, plot.y)))
    for value in frame.x.ticks(few, whole=plot.x.kind is Kind.WHOLE):
        x = frame.across(value)
        parts.append(_line("grid", x, frame.top, x, bottom))
        parts.append(_text("tick middle", x, bottom + 14, _tick(value, plot.x)))
    parts.append(_line("axis", frame.left, bottom, right, bottom))
    if not plot.is_small:
        middle = (frame.left + right) / 2
        parts.append(_text("title middle", middle, frame.height - 8, plot.x.title))
        parts.append(_text("title start", 8, 14, plot.y.title))
    return Markup('<g aria-hidden="true">{}</g>').format(Markup("").join(parts))


def _tick(value: float, axis: Axis) -> str:
    digits = tick_digits(value, axis.kind)
    return plain(phrase_spans((Value(value, axis.kind, digits),)))


def _cut(frame: _Frame, cut: float) -> Markup:
    """Shade what is cut off, and draw a line before it."""
    x, right = frame.across(cut), frame.width - frame.right
    height = frame.height - frame.top - frame.bottom
    return Markup(
        '<rect class="cut-off" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
    ).format(x, frame.top, max(0.0, right - x), height) + _line(
        "cut", x, frame.top, x, frame.height - frame.bottom
    )


def _series(frame: _Frame, plot: Plot, index: int, series: Series) -> Markup:
    """Draw a line through points, or a mark for each with its interval and its label."""
    places = [(frame.across(point.x), frame.down(point.y)) for point in series.points]
    if series.mark == "dots":
        labels = _labels(frame, plot)
        marks = [_dot(frame, plot, index, point, labels.get(point)) for point in series.points]
        return Markup("").join(marks)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    drawn = Markup('<polyline class="line s{}" points="{}"/>').format(index % 6, path)
    if plot.is_small or any(other.mark == "dots" for other in plot.series):
        return drawn
    name = printable(series.name)
    spots = [
        Markup('<circle class="spot s{}" cx="{:.1f}" cy="{:.1f}" r="7" data-tip="{}"/>').format(
            index % 6, x, y, f"{name}: {_told(plot, point)}"
        )
        for (x, y), point in zip(places, series.points, strict=True)
    ]
    return drawn + Markup("").join(spots)


def _labels(frame: _Frame, plot: Plot) -> dict[Point, _Place]:
    """Return where the labels of dots stand: beside them, where neither dots nor labels are.

    Those that a line joins come first. One that finds no room is left out: the dot says it.
    """
    joined = {point for one in plot.series if one.mark != "dots" for point in one.points}
    dots = [point for one in plot.series if one.mark == "dots" for point in one.points]
    centres = [(frame.across(point.x), frame.down(point.y)) for point in dots]
    taken = [_Box(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in centres]
    found: dict[Point, _Place] = {}
    for point, (x, y) in sorted(
        zip(dots, centres, strict=True), key=lambda pair: pair[0] not in joined
    ):
        width = _CHARACTER * len(_short(printable(point.label)))
        sides = (("end", -9.0), ("start", 9.0))
        for (side, gap), rise in product(
            sides if x > frame.width * 0.6 else sides[::-1], (-8.0, 17.0)
        ):
            left = x + gap - (width if side == "end" else 0.0)
            box = _Box(left, y + rise - _LINE, left + width, y + rise + 2)
            if frame.holds(box) and not any(map(box.meets, taken)):
                taken.append(box)
                found[point] = x + gap, y + rise, side
                break
    return found


def _dot(frame: _Frame, plot: Plot, index: int, point: Point, label: _Place | None) -> Markup:
    x, y = frame.across(point.x), frame.down(point.y)
    name = printable(point.label)
    parts = []
    if point.x_range is not None:
        ends = (frame.across(point.x_range.low), frame.across(point.x_range.high))
        parts.append(_line(f"whisker s{index % 6}", ends[0], y, ends[1], y))
    if point.y_range is not None:
        ends = (frame.down(point.y_range.low), frame.down(point.y_range.high))
        parts.append(_line(f"whisker s{index % 6}", x, ends[0], x, ends[1]))
    parts.append(
        Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(
            index % 6, x, y, _RADIUS
        )
    )
    if label is not None:
        across, down, side = label
        parts.append(_text(f"label {side}", across, down, _short(name)))
    told = f"{name}: {_told(plot, point)}"
    return Markup('<g tabindex="0" role="img" aria-label="{0}" data-tip="{0}">{1}</g>').format(
        told, Markup("").join(parts)
    )


def _told(plot: Plot, point: Point) -> str:
    """Say what a point is."""
    x = _with_interval(point.x, point.x_range, plot.x)
    y = _with_interval(point.y, point.y_range, plot.y)
    return plain(phrase_spans((*x, f" {plot.x.title}, {plot.y.title} ", *y)))


def _with_interval(value: float, interval: Range | None, axis: Axis) -> tuple[str | Value, ...]:
    if interval is None:
        return (Value(value, axis.kind),)
    return (Value(value, axis.kind), " (", Value(interval, axis.kind), ")")


def lanes_svg(lanes: Lanes) -> Markup:
    """Draw distributions below each other."""
    ends = [end for lane in lanes.lanes for end in (lane.outer.low, lane.outer.high, lane.middle)]
    ends += [] if lanes.reference is None else [lanes.reference]
    width, height = _LARGE[0], _LANE * len(lanes.lanes) + 46
    across = scale(ends, from_zero=lanes.axis.from_zero, may_be_log=lanes.axis.from_zero)
    frame = _Frame(width, height, 12.0, 4.0, 20.0, 40.0, across, Scale(0, 1))
    bottom = height - frame.bottom
    parts = []
    for value in across.ticks():
        x = frame.across(value)
        parts.append(_line("grid", x, frame.top, x, bottom))
        parts.append(_text("tick middle", x, bottom + 14, _tick(value, lanes.axis)))
    title = f"{lanes.axis.title}{', logarithmic' if across.is_log else ''}"
    parts.append(_text("title middle", width / 2, height - 8, title))
    if lanes.reference is not None:
        x = frame.across(lanes.reference)
        parts.append(_line("cut", x, frame.top, x, bottom))
    drawn = [Markup('<g aria-hidden="true">{}</g>').format(Markup("").join(parts))]
    labels = [f"{_short(printable(lane.label))}: {_note(lane)}" for lane in lanes.lanes]
    if any(len(label) > _LANE_CHARACTERS for label in labels):  # the lane tells its note itself
        labels = [_short(printable(lane.label)) for lane in lanes.lanes]
    rows = zip(lanes.lanes, labels, strict=True)
    drawn += [_lane(frame, index, lane, label) for index, (lane, label) in enumerate(rows)]
    return _svg(width, height, printable(lanes.title), drawn, "plot")


def _note(lane: Lane) -> str:
    return plain(phrase_spans(lane.note))


def _lane(frame: _Frame, index: int, lane: Lane, label: str) -> Markup:
    top = frame.top + _LANE * index
    y = top + 27
    colour = f"s{index % 6}"
    low, high = frame.across(lane.outer.low), frame.across(lane.outer.high)
    parts = [
        _text("label start", frame.left, top + 14, label),
        _line(f"whisker {colour}", low, y, high, y),
        *(_line(f"whisker {colour}", x, y - 5, x, y + 5) for x in (low, high)),
    ]
    if lane.inner is not None:
        start, end = frame.across(lane.inner.low), frame.across(lane.inner.high)
        parts.append(
            Markup(
                '<rect class="box {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="14" rx="2"/>'
            ).format(colour, start, y - 7, max(1.5, end - start))
        )
    middle = frame.across(lane.middle)
    parts.append(
        Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="4.5"/>').format(colour, middle, y)
    )
    return Markup('<g tabindex="0" role="img" aria-label="{0}" data-tip="{0}">{1}</g>').format(
        f"{printable(lane.label)}: {_note(lane)}", Markup("").join(parts)
    )


def stack_svg(stack: Stack) -> Markup:
    """Draw sums as bars of their parts."""
    largest = max((_sum(parts) for _, parts in stack.bars), default=0.0) or 1.0
    width, row = 1000.0, 46.0
    drawn = []
    for index, (_, parts) in enumerate(stack.bars):
        start = 0.0
        for number, part in enumerate(parts):
            size = width * part.size / largest
            kind = f"{'changed' if part.is_changed else 'kept'} {'odd' if number % 2 else 'even'}"
            if size > 0:
                drawn.append(_part(stack, part, kind, (start, index * row, size)))
            start += size
    label = printable(stack.title)
    height = row * len(stack.bars) - 10
    # Stretched to the width of the page: there is no text in it.
    return Markup(
        '<svg class="stack" viewBox="0 0 1000 {:g}" preserveAspectRatio="none" role="group" '
        'aria-label="{}">{}</svg>'
    ).format(height, label, Markup("").join(drawn))


def _part(stack: Stack, part: Part, kind: str, place: tuple[float, float, float]) -> Markup:
    told = plain(phrase_spans((part.label, ": ", Value(part.size, stack.kind))))
    return Markup(
        '<rect class="{}" x="{:.2f}" y="{:g}" width="{:.2f}" height="36" data-tip="{}"/>'
    ).format(kind, *place, told)


def _sum(parts: Sequence[Part]) -> float:
    return sum(part.size for part in parts)


def spark_svg(curve: Curve) -> Markup:
    """Draw a curve as small as a word, what is cut off apart."""
    width, height = _SPARK
    top = max(curve.values, default=0.0) or 1.0
    count = max(1, len(curve.values) - 1)
    step = max(1, len(curve.values) // 60)
    places = [
        (width * index / count, 1 + (height - 2) * (1 - curve.values[index] / top))
        for index in range(0, len(curve.values), step)
    ]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    line = Markup('<polyline class="line s0" points="{}"/>').format(points)
    inside = [line]
    if curve.cut is not None and curve.cut <= count:
        x = width * (curve.cut - 0.5) / count
        shade = Markup('<rect class="cut-off" x="{:.1f}" y="0" width="{:.1f}" height="{:g}"/>')
        inside = [shade.format(x, width - x, height), line, _line("cut", x, 0, x, height)]
    return Markup('<svg class="spark" viewBox="0 0 {:g} {:g}" aria-hidden="true">{}</svg>').format(
        width, height, Markup("").join(inside)
    )


def change_svg(change: Change) -> Markup:
    """Draw a number before and after as two bars, on the scale of its column."""
    top = change.largest or 1.0
    bars = [
        Markup('<rect class="{}" x="0" y="{}" width="{:.1f}" height="7"/>').format(
            kind, y, 48 * max(0.0, min(1.0, value / top))
        )
        for kind, y, value in (("before", 1, change.before), ("after", 10, change.after))
    ]
    return Markup('<svg class="change" viewBox="0 0 48 18" aria-hidden="true">{}</svg>').format(
        Markup("").join(bars)
    )


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        kind, x1, y1, x2, y2
    )


def _text(kind: str, x: float, y: float, text: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, x, y, text)


def _short(text: str) -> str:
    return text if len(text) <= _LEGIBLE else f"{text[: _LEGIBLE - 1]}…"
