"""Ranks by a criterion on singular values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trpexport.choose.alignment import AlignedSelection
from trpexport.choose.base import CalibrationImages, Choice, NothingCheaperError, applied
from trpexport.choose.factorizer import Factorizer
from trpexport.choose.outlook import outlook_of
from trpexport.choose.spectra import analyse
from trpexport.errors import PlanError
from trpexport.inputs import Inputs
from trpexport.lowrank.criteria import DEFAULT, Criterion, parse_criterion
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.base import Network
from trpexport.stages import Stages


@dataclass(frozen=True)
class ByCriterion(AlignedSelection):
    """Cuts each selected layer to the rank that a criterion finds in its singular values.

    Of the layers of the :class:`AlignedSelection` that it is, which says to what ranks are rounded
    up; its ``rank_multiple`` of 1 gives those of the criterion.

    Attributes:
        scheme: name of the scheme.
        criterion: ``NAME:VALUE``, or a criterion.
        keep_expensive: rewrite a layer even where that does not make it cheaper.
        cache: folder where layers that are fitted to images are kept, so that a job that was
            stopped goes on; None for nowhere.
    """

    scheme: str = "spatial"
    criterion: str | Criterion = DEFAULT
    keep_expensive: bool = False
    cache: str | Path | None = None

    @property
    def label(self) -> str:
        """What names a bundle that was made so."""
        return self.scheme

    @property
    def inputs(self) -> Inputs | None:
        """The network's inputs, where the choice was made for some; else None."""
        return None

    def check(self) -> None:
        """Refuse what can't be before any work is done.

        Raises:
            TrpexportError: the scheme or the criterion is unknown, or the rank multiple.
        """
        if self.scheme == "auto":
            raise PlanError(
                "the scheme auto chooses by output error: give images, and a budget to meet"
            )
        _ = SCHEMES[self.scheme]
        _ = self._criterion
        _ = self.alignment

    def __call__(
        self, network: Network, images: CalibrationImages | None, stages: Stages, label: str | None
    ) -> Choice:
        """Choose for a network.

        Raises:
            NothingCheaperError: no layer would get cheaper.
            TrpexportError: as :meth:`check` and :func:`~trpexport.choose.spectra.analyse`.
        """
        self.check()
        factorizer = Factorizer(network)
        with stages("compute spectra"):
            analysis = analyse(
                network,
                self.scheme,
                self,
                architecture=label,
                factorizer=factorizer,
                alignment=self.alignment,
            )
            plan = analysis.plan(self._criterion, keep_expensive=self.keep_expensive)
        found = outlook_of(network, [analysis], label=label)
        if not found.is_fair:  # said now: a network may take long to write and to verify
            stages.remark(str(found))
        try:
            return applied(network, plan, images, stages, factorizer, cache=self.cache)
        except NothingCheaperError as error:
            raise NothingCheaperError(str(error), plan, analysis) from None

    @property
    def _criterion(self) -> Criterion:
        found = self.criterion
        return parse_criterion(found) if isinstance(found, str) else found
