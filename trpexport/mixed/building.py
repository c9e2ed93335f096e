"""Networks in two precisions as files, with what each really loses and takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trpexport.artifact.passes.base import error_of
from trpexport.artifact.reference import OnnxFile
from trpexport.choose.allotment import plan_for, summed
from trpexport.choose.calibrate import Calibrated, calibrate
from trpexport.choose.factorizer import Factorizer
from trpexport.choose.fits import FitStore
from trpexport.choose.gathering import Gatherer
from trpexport.choose.judging import NetworkJudge
from trpexport.choose.selection import Selection
from trpexport.choose.spectra import keep_all
from trpexport.choose.table import SensitivityTable
from trpexport.compare import compare_outputs
from trpexport.inputs import images_of, rows
from trpexport.latency.blanks import Blanks, write_simplified
from trpexport.measure.statistics import Interval
from trpexport.mixed.mix import Mix
from trpexport.mixed.times import MixTimer
from trpexport.networks.base import Network
from trpexport.networks.torch.outputs import picked
from trpexport.plan import Plan
from trpexport.quantization.settings import QuantizationSettings
from trpexport.quantization.static import quantize_static
from trpexport.tensors import Arrays

_BATCH = 32  # images that files are compared on at a time
# Files of which it is told what each unit loses: that of all in int8, and the first with chains.
_RANKED = 2


@dataclass(frozen=True)
class Built:
    """A network in two precisions, as a file.

    Attributes:
        mix: what was chosen.
        calibrated: its chains.
        file: the file.
        error: of its worst output on held-out images, against the original network.
        speedup: how many times faster than that it is.
        drop: how much worse it is by a metric; None where nobody judges.
        alone: by unit, the error of the output where that alone is in int8.
    """

    mix: Mix
    calibrated: Calibrated
    file: Path
    error: float
    speedup: Interval
    drop: float | None = None
    alone: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FileNetwork:
    """A file in the place of the network that is judged.

    Attributes:
        file: it.
        outputs: names of those that count; all where there are none.
    """

    file: OnnxFile
    outputs: Sequence[str]

    def run(self, feeds: Arrays) -> Arrays:
        """Return its outputs."""
        return self.file.run(feeds)


class Builder:
    """Calibrates, quantizes and measures what was chosen.

    Args:
        network: the original network.
        blanks: wrote its file in float32.
        gatherer: of the network, on the calibration images.
        table: what low rank loses.
        quantization: images, and who will run the files.
        timer: times files.
        store: of fitted layers, which are then not fitted again.
        ahead: as for :class:`~trpexport.choose.budget.Budgeter`.
        folder: where they go.
        judge: says what is lost by a metric; None for no such limit.
        scheme: what was asked for.
        criterion: the limit, as text.
        selection: the layers that may be rewritten.
        architecture: what the network is called.
        say: called with a line on what is going on.
    """

    def __init__(
        self,
        network: Network,
        blanks: Blanks,
        gatherer: Gatherer,
        *,
        table: SensitivityTable,
        quantization: QuantizationSettings,
        timer: MixTimer,
        store: FitStore,
        ahead: Callable[[Sequence[Plan]], None],
        folder: Path,
        judge: NetworkJudge | None,
        scheme: str,
        criterion: str,
        selection: Selection,
        architecture: str | None,
        say: Callable[[str], None],
    ) -> None:
        self._network = network
        self._blanks = blanks
        self._gatherer = gatherer
        self._table = table
        self._quantization = quantization
        self._timer = timer
        self._store = store
        self._ahead = ahead
        self._folder = folder
        self._judge = judge
        self._plan: dict[str, Any] = {
            "scheme": scheme,
            "criterion": criterion,
            "selection": selection,
            "architecture": architecture,
        }
        self._factorizer = Factorizer(network)
        self._say = say
        self._built: dict[tuple[object, ...], Built] = {}

    def __call__(self, mix: Mix) -> Built:
        """Return a network as a file; the same one again costs nothing.

        Raises:
            TrpexportError: it can't be written or run.
        """
        if mix.key not in self._built:
            self._built[mix.key] = self._make(mix, self._folder / f"{len(self._built)}.onnx")
        return self._built[mix.key]

    def _make(self, mix: Mix, file: Path) -> Built:
        calibrated = self._calibrated(mix)
        small = self._network.rewritten(calibrated.chains) if mix.ways else self._network
        write_simplified(small, file, dynamic_batch=self._blanks.dynamic_batch)
        alone = {}
        if mix.has_int8:
            self._say(f"quantize: {mix}")
            is_ranked = len(self._built) < _RANKED
            settings = replace(self._quantization, layers=mix.precisions, is_ranked=is_ranked)
            facts = quantize_static(file, file, settings).facts
            alone = {one["layer"]: one["error"] for one in facts["ranking"]}
        opened = OnnxFile(file, self._quantization.provider)
        drop = None
        if self._judge is not None:
            drop = self._judge.loss(FileNetwork(opened, self._network.outputs))
        error = self._error(opened)
        (speedup,) = self._timer.race([file])
        lost = "" if drop is None else f", {drop:.3g} lost"
        self._say(f"{mix}: {speedup.mid:.2f}x, output error {error:.3f}{lost}")
        return Built(mix, calibrated, file, error, speedup, drop, alone)

    def _calibrated(self, mix: Mix) -> Calibrated:
        if mix.ways:
            chosen = {
                layer.name: next(
                    option for option in layer.options if option.way == mix.ways.get(layer.name)
                )
                for layer in self._table.layers
            }
            allotment = summed(self._table, chosen)
            plan = plan_for(self._network, allotment, factorizer=self._factorizer, **self._plan)
        else:
            plan = keep_all(self._network, architecture=self._plan["architecture"])
            plan = replace(plan, criterion=self._plan["criterion"])
        self._ahead([plan])
        return calibrate(
            self._network,
            plan,
            self._gatherer,
            factorizer=self._factorizer,
            store=self._store,
            announce=self._say if mix.ways else None,
        )

    def _error(self, file: OnnxFile) -> float:
        """Return the error of the worst output that counts on images that nothing was fitted to."""
        inputs = self._quantization.held_out or self._quantization.calibration
        original = OnnxFile(self._blanks.original)
        pairs = (
            tuple(
                picked(one.run(rows(inputs, slice(start, start + _BATCH))), self._network.outputs)
                for one in (original, file)
            )
            for start in range(0, images_of(inputs), _BATCH)
        )
        compared = compare_outputs((expected, found) for expected, found in pairs)
        return max(map(error_of, compared.values()))
