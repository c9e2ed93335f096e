"""What a choice of schemes and ranks is, who makes one, and on which images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol

from typing_extensions import TypeVar

from trpexport.choose.calibrate import Calibrated, calibrate, truncations
from trpexport.choose.factorizer import Factorizer
from trpexport.choose.fits import FitStore
from trpexport.choose.gathering import Gatherer
from trpexport.choose.held_out import HeldOut, error_facts
from trpexport.choose.judging import DropLimit
from trpexport.datasets.labelled import LabelledSamples
from trpexport.errors import NothingToDoError
from trpexport.inputs import Inputs
from trpexport.lowrank.chain import Chain
from trpexport.networks.base import Network, Origin
from trpexport.networks.samples import checked_samples
from trpexport.ops import Layer, LinearOp
from trpexport.plan import CALIBRATION, Plan
from trpexport.stages import Stages
from trpexport.tensors import Array, Arrays

if TYPE_CHECKING:
    from trpexport.choose.spectra import Analysis


class NothingCheaperError(NothingToDoError):
    """No layer would get cheaper; ``analysis`` knows which criterion would do.

    Attributes:
        plan: the plan that rewrites nothing.
        analysis: the spectra; None where a plan chose the ranks.
    """

    def __init__(self, message: str, plan: Plan, analysis: Analysis | None = None) -> None:
        super().__init__(message)
        self.plan = plan
        self.analysis = analysis


@dataclass(frozen=True)
class Choice:
    """What is to become of a network.

    Attributes:
        plan: the plan.
        chains: what stands in for each rewritten layer, by name.
        notes: what the reader of a report should know.
        drop: what the network may lose by a metric, where that was the limit; it holds for what is
            done to the chains afterwards as well.
    """

    plan: Plan
    chains: Mapping[str, Chain]
    notes: tuple[str, ...] = ()
    drop: DropLimit | None = None


class CalibrationImages(Protocol):
    """Images to calibrate on, and others to verify on and to judge by."""

    @property
    def inputs(self) -> Array | Arrays:
        """Inputs of the network to calibrate on: by name, or of the only one."""

    @property
    def notes(self) -> Sequence[str]:
        """What the reader of a report should know of them."""

    def facts(self) -> dict[str, Any]:
        """Return where they come from, JSON-ready."""

    def held_out(self) -> tuple[str, Array | Arrays]:
        """Return what inputs that are not calibrated on are, and they: none if there are no others.

        Errors are measured on them, of the same kind as those to calibrate on if there are enough.
        """

    def to_train_on(self, count: int) -> Array | Arrays:
        """Return at most ``count`` inputs to train on without labels, none held out or judged by.

        Those to calibrate on come first.
        """

    def unseen(self) -> Array | Arrays:
        """Return inputs to verify on, none of them calibrated on if there are others."""

    def labelled(self) -> LabelledSamples:
        """Return samples with what should come out, none of them calibrated on.

        Raises:
            DataError: there are none.
        """


N_co = TypeVar("N_co", bound=Network, covariant=True, default=Network)
O_co = TypeVar("O_co", bound=Origin, covariant=True, default=Origin)


@dataclass(frozen=True)
class Ready(Generic[N_co, O_co]):
    """A network that was read, with what it is calibrated on.

    Attributes:
        network: the network.
        images: what it is calibrated on; None for nothing.
        source: where it comes from.
        label: what it is called, for the reader.
    """

    network: N_co
    images: CalibrationImages | None
    source: O_co
    label: str | None


class Chooser(Protocol):
    """Chooses what becomes of each layer of a network."""

    @property
    def label(self) -> str:
        """What names a bundle that was made so."""

    @property
    def inputs(self) -> Inputs | None:
        """The network's inputs, where the choice was made for some; else None."""

    def check(self) -> None:
        """Refuse what can't be before any work is done.

        Raises:
            TrpexportError: something in it is unknown, out of range, or excludes something else.
        """

    def __call__(
        self, network: Network, images: CalibrationImages | None, stages: Stages, label: str | None
    ) -> Choice:
        """Choose for a network.

        Args:
            network: the network.
            images: what to calibrate on; None for the SVD's factors.
            stages: times and announces what is going on.
            label: what the network is called, for the reader of the plan.

        Raises:
            NothingToDoError: no layer would get cheaper, or what was asked for can't be met.
            TrpexportError: the network or the images can't be used.
        """


class Price(Protocol):
    """What is scarce, and how much of it a network needs."""

    resource: str

    def whole(self, network: Network) -> float:
        """Return how much the whole network needs."""

    def of(self, layer: Layer, ops: Sequence[LinearOp]) -> float:
        """Return how much of it ``ops`` need in the place of a layer."""


def applied(
    network: Network,
    plan: Plan,
    images: CalibrationImages | None,
    stages: Stages,
    factorizer: Factorizer,
    *,
    cache: str | Path | None = None,
) -> Choice:
    """Return a plan with its factors: those of the SVD, or fitted to images where there are any.

    Args:
        network: the network.
        plan: which layers are rewritten, how, and at which ranks.
        images: what to fit to, or None.
        stages: times and announces what is going on.
        factorizer: of the same network.
        cache: folder where fitted layers are kept, for a calibration that is stopped; None for
            nowhere.

    Raises:
        NothingCheaperError: the plan rewrites nothing.
        OutputError: the cache can't be written.
        TrpexportError: as :func:`trpexport.choose.calibrate.calibrate`.
    """
    if not plan.rewritten:
        name = plan.architecture or "the network"
        raise NothingCheaperError(
            f"no layer of {name} gets cheaper with {plan.scheme} and {plan.criterion}: nothing was "
            "written",
            plan,
        )
    if images is None:
        with stages("factorize"):
            return Choice(plan, truncations(network, plan, factorizer))
    gatherer = gathered(network, images)
    store = FitStore(cache, network, gatherer.watch.samples)
    with stages("calibrate"):
        found = calibrate(
            network, plan, gatherer, factorizer=factorizer, store=store, announce=stages.say
        )
    held_out = HeldOut.of(network, images)
    return calibrated_choice(network, found, images, held_out, {})


def gathered(network: Network, images: CalibrationImages) -> Gatherer:
    """Return what gathers the moments of a network's layers on images.

    Raises:
        DataError: the images do not fit the network.
    """
    samples = checked_samples(images.inputs, network.inputs)
    return Gatherer(network, network.watch(samples))


def calibrated_choice(
    network: Network,
    found: Calibrated,
    images: CalibrationImages,
    held_out: HeldOut,
    facts: Mapping[str, Any],
) -> Choice:
    """Return calibrated chains with a plan that says what they were calibrated on, and to what.

    Args:
        network: the original network.
        found: the chains.
        images: what they were calibrated on.
        held_out: what their error is measured on besides.
        facts: further ones, JSON-ready.
    """
    calibration = {
        **images.facts(),
        **found.plan.options[CALIBRATION],
        **error_facts(found.errors),
        "held_out": held_out.facts(network.rewritten(found.chains)),
        **facts,
    }
    options = {**found.plan.options, CALIBRATION: calibration}
    notes = (*images.notes, *found.notes)
    return Choice(replace(found.plan, options=options), found.chains, notes)
