"""What low rank can win of a network's time at most: said before anything is calibrated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from trpexport.errors import NothingToDoError
from trpexport.latency.timer import Timer
from trpexport.latency.timetable import TimeTable
from trpexport.latency.ways import Way
from trpexport.measure.statistics import Interval

# Channels of the widest block that convolutions run by: ranks below may be padded to it, and run
# no faster for that.
_WIDEST_BLOCK = 16
# Kinds of layers with less of the time than this are not named.
_MIN_SHARE = 0.005


def least_ways(ways: Mapping[str, Sequence[Way]]) -> dict[str, list[Way]]:
    """Return of each layer and scheme the ways that are fastest, if any is fast.

    Those of the least rank, and of the least one that fills a block of channels.
    """
    found: dict[str, list[Way]] = {}
    for name, some in ways.items():
        by_scheme: dict[str, list[Way]] = defaultdict(list)
        for way in sorted(some):
            by_scheme[way.scheme].append(way)
        found[name] = [
            way
            for ranked in by_scheme.values()
            for way in ranked
            if way in (ranked[0], next((w for w in ranked if w.rank >= _WIDEST_BLOCK), None))
        ]
    return found


def check_pays(
    timer: Timer, times: TimeTable, wanted: float, say: Callable[[str], None]
) -> Interval:
    """Refuse a network that no choice of ways makes as fast as wanted.

    Args:
        timer: times networks.
        times: of each layer in its fastest ways at least.
        wanted: the speed-up that is asked for; 1 for any.
        say: called with a line on what there is to win.

    Returns:
        How many times faster the network is where each layer is written in its fastest way.

    Raises:
        NothingToDoError: it is such; the message says where the time goes.
    """
    fastest = times.fastest
    where = shares(times)
    if not fastest:
        raise NothingToDoError(
            f"low rank does not pay here{timer.base}: no layer gets faster; {where}"
        )
    _, timed = timer.race([{}, fastest])
    best = timed.speedup
    interval = f"{best.mid:.2f}x ({best.low:.2f} to {best.high:.2f})"
    if best.verdict != "faster":
        raise NothingToDoError(
            f"low rank does not pay here{timer.base}: with each layer in its fastest way the "
            f"network is {best.mid:.2f}x as fast ({best.low:.2f} to {best.high:.2f}); {where}"
        )
    if best.high < wanted:
        raise NothingToDoError(
            f"a speed-up of {wanted:.3g}{timer.base} can't be met: with each layer in its fastest "
            f"way it is {interval}; {where}"
        )
    say(f"at most {interval} can be won{timer.base}: {where}")
    return best


def shares(times: TimeTable) -> str:
    """Say which share of the time layers can be rewritten in, and which not, by kind of layer."""
    can, can_not = (
        _by_kind(times, [name for name in times.ops if (name in times.layers) == is_free])
        for is_free in (True, False)
    )
    said = f"{sum(can.values()):.0%} of the time is in layers that may be rewritten{_list(can)}"
    if not can_not:
        return said
    return f"{said}; {sum(can_not.values()):.0%} is in layers that are kept{_list(can_not)}"


def _by_kind(times: TimeTable, names: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for name in names:
        found[times.ops[name].kind] += times.original[name] / times.whole
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _list(kinds: Mapping[str, float]) -> str:
    named = [f"{share:.0%} in {kind}" for kind, share in kinds.items() if share >= _MIN_SHARE]
    return f": {', '.join(named)}" if named else ""
