"""The fastest network within a limit, or the nearest one at a speed, by what is really measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import attrgetter

from trpexport.errors import NothingToDoError
from trpexport.mixed.building import Built
from trpexport.mixed.mix import Mix
from trpexport.mixed.offer import Offer
from trpexport.mixed.times import MixTimer, told

# What is aimed at beyond a speed-up, and what of that a file must reach.
_MARGIN, _FLOOR = 1.015, 1.005
# How far from what was predicted a measured time may lie before another try, and before it is told;
# and how often files and networks without weights are tried.
_NEAR, _AGREES = 0.015, 0.05
_TRIES, _BUILDS = 4, 5
# A share of the time that is so much smaller is another choice.
_STEP = 1e-5
# Shares of the time between what is accepted and what is not that are no longer told apart; and of
# an error how much has to be used up.
_FINE, _USED = 0.03, 0.95
# A network with more to it than int8 alone has to be faster than that by so much.
_WORTH = 1.01


class MixSearch:
    """Looks for the best network in two precisions.

    Args:
        offer: what to choose from.
        timer: times networks.
        build: calibrates, quantizes and measures one.
        say: called with a line on what is going on.

    Attributes:
        offer: as it was given.
        best: the best of the files that keep within the limit so far; None where there is none.
    """

    def __init__(
        self,
        offer: Offer,
        timer: MixTimer,
        build: Callable[[Mix], Built],
        say: Callable[[str], None],
    ) -> None:
        self.offer = offer
        self._timer = timer
        self._make = build
        self._say = say
        self._found: list[Built] = []
        self._speedup: float | None = None
        self._foreseen: dict[tuple[object, ...], float] = {}

    @property
    def best(self) -> Built | None:
        """The best so far: the nearest one of those that are fast enough, or the fastest one."""
        if self._speedup is None:
            return max(self._found, key=lambda one: one.speedup.mid, default=None)
        fast = [one for one in self._found if one.speedup.mid >= self._speedup * _FLOOR]
        return min(fast, key=attrgetter("error"), default=None)

    def to_speedup(self, speedup: float, *others: Built) -> Built:
        """Return the network found that loses least among those that are so much faster.

        Args:
            speedup: how many times faster than the original network.
            others: files that may do as well.

        Raises:
            NothingToDoError: none is that fast.
        """
        self._speedup = speedup
        self._found = list(others)
        share = goal = 1 / (speedup * _MARGIN)
        mix = self._settled(partial(self._least_error, share, speedup))
        for _ in range(_TRIES):
            built = self._built(mix)
            self._found.append(built)
            if built.speedup.mid < speedup * _FLOOR:
                share = min(share * built.speedup.mid * goal, self._predicted(mix) * (1 - _STEP))
            following = self._least_error(share, speedup)
            if following == mix:
                break
            mix = following
        if self.best is None:
            fastest = max(one.speedup.mid for one in self._found)
            raise NothingToDoError(
                f"a speed-up of {speedup:.4g} can't be met: the best measured is {fastest:.2f}x"
            )
        return self.best

    def to_limit(
        self, within: Callable[[Built], bool], error: float | None, *others: Built
    ) -> Built:
        """Return the fastest network found that keeps within a limit.

        Args:
            within: whether one does.
            error: the limit, where it is an error of the outputs: shows the way.
            others: files that may do as well.

        Raises:
            NothingToDoError: none does.
        """
        self._found = [one for one in others if within(one)]
        low, high = self._fastest_share(), min([1.0, *(1 / one.speedup.mid for one in self._found)])
        scale, nearest = 1.0, min((one.error for one in others), default=float("inf"))
        for _ in range(_BUILDS):
            if low >= high * (1 - _FINE):
                break
            share = self._share_within(error, scale, low, high)
            mix = self._settled(partial(self._least_within, share))
            built = self._built(mix)
            nearest = min(nearest, built.error)
            if within(built):
                self._found.append(built)
                high = min(high, 1 / built.speedup.mid)
                if error is not None and built.error >= _USED * error and self.agrees(built):
                    break
            else:
                low = share
            predicted = self.offer.predicted(mix).error
            scale = built.error**2 / predicted if predicted > 0 else scale
        best = self.best
        if best is None:
            raise NothingToDoError(
                "no network that saves time keeps within the limit: the least output error of "
                f"those that were tried is {nearest:.3f}"
            )
        return best

    def preferred(self, best: Built, alone: Built, *, is_admitted: bool) -> Built:
        """Return a network, or int8 alone where that is as fast and keeps within the limit."""
        if best is alone or not is_admitted:
            return best
        (beside,) = self._timer.race([best.file], alone.file)
        self._say(f"{told(beside)} as fast as int8 alone")
        return best if beside.low > 1 and beside.mid >= _WORTH else alone

    def foreseen(self, built: Built) -> float:
        """Return how many times faster than the original a network was predicted to be.

        That is before its file was timed; what was timed before as another network is known.
        """
        return 1 / self._foreseen.get(built.mix.key, self._predicted(built.mix))

    def agrees(self, built: Built) -> bool:
        """Whether a network is about as fast as was predicted."""
        return abs(self.foreseen(built) / built.speedup.mid - 1) <= _AGREES

    def doubts(self, built: Built) -> list[str]:
        """Return what to say of a network that is not as fast as was predicted."""
        if self.agrees(built):
            return []
        return [
            f"the network was predicted to be {self.foreseen(built):.2f}x as fast as the original, "
            f"and is {told(built.speedup)}, after {len(self._foreseen)} networks that were built: "
            "there may be a better one"
        ]

    def _settled(self, choose: Callable[[], Mix]) -> Mix:
        """Return a choice whose network without weights takes what was predicted.

        What is measured corrects the prediction, by which is chosen again; a few times at most.
        """
        mix = choose()
        for _ in range(_TRIES):
            predicted = self._predicted(mix)
            (measured,) = self._timer.speedups([mix])
            self.offer.times.observe(mix, measured)
            self._say(f"{told(measured)} measured, {1 / predicted:.2f}x predicted")
            if abs(predicted * measured.mid - 1) <= _NEAR:
                break
            following = choose()
            if following == mix:
                break
            mix = following
        return mix

    def _share_within(self, error: float | None, scale: float, low: float, high: float) -> float:
        """Return a share of the time to try: what the limit seems to need, or the middle."""
        middle = (low + high) / 2
        if error is None:
            return middle
        try:
            mix = self.offer.least("seconds", error**2 / scale)
        except NothingToDoError:
            return middle
        share = self._predicted(mix) * (1 + 1e-6)
        return share if low < share < high else middle

    def _built(self, mix: Mix) -> Built:
        self._foreseen.setdefault(mix.key, self._predicted(mix))
        built = self._make(mix)
        self.offer.times.observe(mix, built.speedup)
        self.offer.learn(mix, built.alone)
        return built

    def _predicted(self, mix: Mix) -> float:
        return self.offer.predicted(mix).seconds

    def _fastest_share(self) -> float:
        return self._predicted(self.offer.least("seconds", float("inf")))

    def _least_within(self, share: float) -> Mix:
        """Return what loses least within a share of the time, or in the least that any takes.

        What was measured since may have put that above the share.
        """
        return self.offer.least("error", max(share, self._fastest_share() * (1 + 1e-6)))

    def _least_error(self, share: float, speedup: float) -> Mix:
        try:
            return self._least_within(share)
        except NothingToDoError:
            raise NothingToDoError(
                f"a speed-up of {speedup:.4g} can't be met with ranks that the images tell"
            ) from None
