"""From a network to a bundle that is as fast as was asked for, measured on the file itself."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trpexport import bundle
from trpexport.artifact.build import BundleReport, ExportSettings
from trpexport.artifact.variants import BlankForm
from trpexport.calibration_data import CalibrationData
from trpexport.choose.base import Chooser
from trpexport.choose.by_latency import ByLatency
from trpexport.choose.on_ray import connected_to
from trpexport.conversion import Conversion
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.errors import ModelError, NothingToDoError
from trpexport.files import read_json, sha256_of, write_json
from trpexport.inputs import Inputs
from trpexport.latency.stopwatch import Timed
from trpexport.measure.statistics import Interval
from trpexport.mixed.by_mixed_latency import ByMixedLatency
from trpexport.mixed.facts import would_do
from trpexport.networks.torch.devices import AUTO, device_named
from trpexport.pipeline import Decomposable, decompose_to_bundle, default_directory
from trpexport.quantization.wiring import INT8
from trpexport.refining.refinement import Refinement
from trpexport.requests import told
from trpexport.runtime.session_options import VARIATIONS
from trpexport.stages import Stages
from trpexport.tensors import Array, Arrays
from trpexport.verdict import verdict_of

# Least time that each finished file is timed for, in turns with the original one.
_SECONDS = 2.0
# An option that gains less is measurable, and nothing that a user would set for it.
_WORTH_AN_OPTION = 1.02
# Finished networks, until one is as fast as was asked for; and how many times more is aimed at than
# by how much the one before was slower than what it was chosen by.
_TRIES, _MARGIN = 3, 1.01
FREE = "free"
"""Not a precision: float32 or int8, as each layer is better off."""

LATENCY = "latency"
TUNED = "tuned"  # the manifest's key for what a bundle was asked to be


class TooSlowError(NothingToDoError):
    """A finished network is slower than was asked for.

    Attributes:
        slower: how many times slower it is than what it was chosen by.
    """

    def __init__(self, message: str, slower: float) -> None:
        super().__init__(message)
        self.slower = slower


@dataclass(frozen=True)
class Tuning:
    """How a network is made fast.

    Attributes:
        chooser: the limit, and the device.
        settings: how it is exported; the original network always goes into the bundle as well.
        outputs: globs of the names of the outputs whose errors count; all where there are none.
        inputs: real inputs to verify on.
        refinement: trains the factors of what was chosen further; None to leave them.
        precision: in which ranks are to be fast; the network is written in it. ``free`` chooses
            float32 or int8 for each layer, with its rank.
        device: where it is calibrated: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one.
    """

    chooser: ByLatency
    settings: ExportSettings
    outputs: Sequence[str] = ()
    inputs: Array | Arrays | CalibrationData | None = None
    refinement: Refinement | None = None
    precision: str = bundle.FLOAT32
    device: str = AUTO

    def __call__(
        self,
        source: Decomposable,
        data: CalibrationData,
        out: Path | None = None,
        stages: Stages | None = None,
    ) -> BundleReport:
        """Read a network, choose, verify, export, measure: all of it or nothing.

        Args:
            source: the checkpoint or ONNX file.
            data: what to calibrate on.
            out: the bundle's directory; a name after the file where it is None.
            stages: times and announces the stages.

        Raises:
            NothingToDoError: the network can't be made faster, or the limit can't be met; nothing
                is written.
            TrpexportError: as the steps themselves.
        """
        stages = stages or Stages()
        device_named(self.device)
        out = out or default_directory(source.path, self.chooser.label)
        written = [name for name in self._precisions if self.precision != FREE or name != INT8]
        settings = replace(self.settings, baseline=True, replace=False, precisions=written)
        request = self.request(source, data)
        known = standing(out, request)
        is_replaced = self.settings.replace or (known is not None and known["cut_short"])
        with (
            connected_to(self.chooser.cluster),
            bundle.reserved(out, replace=is_replaced),
            TemporaryDirectory() as folder,
        ):
            report, facts = self._made(source, data, Path(folder), settings, stages)
            place = report.path
            content = {**read_json(place / bundle.REPORT), LATENCY: facts}
            verdict = verdict_of(content)  # the time is known now
            content["verdict"] = None if verdict is None else verdict.to_json()
            added = {TUNED: {"request": request, "cut_short": stages.is_cut_short}}
            if facts["session"] is not None:
                added[bundle.SESSION] = facts["session"]
            _add(place, content, added)
            _deliver(place, out, replace=is_replaced)
        return BundleReport(out, report.plan, content)

    def _made(
        self,
        source: Decomposable,
        data: CalibrationData,
        folder: Path,
        settings: ExportSettings,
        stages: Stages,
    ) -> tuple[BundleReport, dict[str, Any]]:
        """Return a bundle that is as fast as was asked for, and what was measured on it.

        Where it falls short, a choice that aims higher makes another one.

        Raises:
            NothingToDoError: none is fast enough.
        """
        beyond, missed, tries = 1.0, None, 0
        originals: dict[str, Path] | None = None
        while True:
            place = folder / f"tuned-{beyond:g}"
            try:
                report = decompose_to_bundle(
                    source,
                    self._chooser(beyond),
                    place,
                    data,
                    outputs=self.outputs,
                    refinement=self.refinement,
                    device=self.device,
                    settings=settings,
                    inputs=self.inputs,
                    stages=stages,
                )
            except NothingToDoError as error:
                raise missed or error from None
            try:
                if originals is None:
                    originals = self._originals(place, data, folder, stages)
                with stages("time the files"):
                    timing = self._at(report.plan.inputs)
                    facts = timing._measured(place, originals, report.data, stages.is_cut_short)
            except TooSlowError as error:
                tries += 1
                if tries == _TRIES:
                    raise
                missed, beyond = error, _MARGIN * max(beyond, error.slower)
                stages.say(f"{error}: more is aimed at")
            except KeyboardInterrupt as interrupt:
                return report, stages.settle_for(_untimed(report.data), interrupt)
            else:
                return report, facts

    def request(self, source: Decomposable, data: CalibrationData) -> str:
        """Return what tells jobs that are to make the same bundle from others: a hash.

        Raises:
            TrpexportError: the file can't be read, or the machine that times not be reached.
        """
        self._chooser().check()
        facts = {
            "source": [sha256_of(source.path), told(source)],
            "data": told(data),
            "chooser": told(replace(self.chooser, cache=None, stopwatch=None, cluster=None)),
            "settings": told(replace(self.settings, replace=False)),
            "outputs": list(self.outputs),
            "times": self.chooser.timekeeper.facts(),
            "precision": self.precision,
        }
        if self.refinement is not None:
            facts["refinement"] = told(replace(self.refinement, cache=None))
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def _precisions(self) -> list[str]:
        """In what the network is written besides float32, as far as it is in that at all."""
        tuned = INT8 if self.precision == FREE else self.precision
        names = dict.fromkeys([tuned, *self.settings.precisions])
        return [name for name in names if name != bundle.FLOAT32]

    def _chooser(self, beyond: float = 1.0) -> Chooser:
        """Return who goes by times in the precision that is tuned for.

        Args:
            beyond: how many times as fast as the limit says is aimed at.
        """
        chooser = replace(self.chooser, beyond=beyond)
        if self.precision == FREE:
            return ByMixedLatency(chooser)
        if self.precision == bundle.FLOAT32:
            return chooser
        return replace(chooser, form=BlankForm(self.precision))

    def _at(self, inputs: Inputs) -> Tuning:
        """Return the same for files of these inputs, whose sizes may be open."""
        stopwatch = self.chooser.timekeeper.at(inputs)
        return replace(self, chooser=replace(self.chooser, stopwatch=stopwatch))

    def _originals(
        self, place: Path, data: CalibrationData, folder: Path, stages: Stages
    ) -> dict[str, Path]:
        """Write the original network in the other precisions: what low rank has to beat there."""
        if not self._precisions:
            return {}
        told = bundle.read_manifest(place).get("preprocessing")
        if told is not None and data.preprocessing is None:
            data = replace(data, preprocessing=Preprocessing.from_json(told, str(place)))
        settings = replace(self.settings, precisions=self._precisions, replace=False)
        convert = Conversion(settings, data)
        return dict(convert(_original(place), folder / "originals", stages).paths)

    def _measured(
        self,
        place: Path,
        originals: Mapping[str, Path],
        report: Mapping[str, Any],
        is_cut_short: bool,
    ) -> dict[str, Any]:
        """Return how fast the files of a bundle are, beside what was chosen by.

        Args:
            place: the bundle.
            originals: the original network in other precisions.
            report: the content of the bundle's report.
            is_cut_short: whether it is the best of a search that was interrupted, at any speed.

        Raises:
            TooSlowError: none is as fast as was asked for.
            NothingToDoError: none is measurably faster than the original network.
        """
        manifest, chosen = bundle.read_manifest(place), report["calibration"][LATENCY]
        names = [bundle.FLOAT32, *manifest.get("variants", {})]
        files = [place / bundle.variant_name(name) for name in names]
        race = self.chooser.timekeeper.race
        original, *found = race([_original(place), *files, *originals.values()], _SECONDS)
        timed, others = found[: len(files)], found[len(files) :]
        if all(one.speedup.verdict != "faster" for one in timed):
            shown = ", ".join(f"{one.speedup.mid:.2f}x" for one in timed)
            raise NothingToDoError(
                f"the finished network is not measurably faster than the original: {shown}"
            )
        wanted = self.chooser.wanted(original.seconds)
        best = max((one.speedup for one in timed), key=lambda speedup: speedup.mid)
        if best.high < wanted and not is_cut_short:
            raise TooSlowError(
                f"the finished network is {best.mid:.2f}x as fast ({best.low:.2f} to "
                f"{best.high:.2f}), and {wanted:.2f}x is asked for",
                slower=chosen["gain"]["mid"] * chosen["speedup"]["mid"] / best.mid,
            )
        beside = None
        tuned = chosen.get("precision", bundle.FLOAT32)
        if tuned != bundle.FLOAT32:
            file = place / bundle.variant_name(tuned)
            beside = self._beside(originals[tuned], file, report["calibration"])
        fastest = min(zip(names, timed, strict=True), key=lambda pair: pair[1].seconds)[0]
        return {
            **chosen,
            "seconds": original.seconds,
            "files": {name: _facts(one) for name, one in zip(names, timed, strict=True)},
            "originals": {name: _facts(one) for name, one in zip(originals, others, strict=True)},
            "beside": None if beside is None else beside.to_json(),
            "fastest": fastest,
            "session": self._session(place / bundle.variant_name(fastest)),
        }

    def _beside(self, original: Path, file: Path, calibration: Mapping[str, Any]) -> Interval:
        """Return how many times faster than the original in the same precision a file is.

        Args:
            original: that.
            file: the file.
            calibration: what is known of the choice.

        Raises:
            NothingToDoError: it is not measurably faster; or slower, where precisions were chosen
                and the original in int8 alone would do.
        """
        found = self.chooser.timekeeper.race([original, file], _SECONDS)[1].speedup
        shown = f"{found.mid:.2f}x ({found.low:.2f} to {found.high:.2f})"
        if self.precision == FREE:
            if found.verdict == "slower" and would_do(calibration):
                raise NothingToDoError(
                    f"int8 alone does, and the finished network is slower than that: {shown}"
                )
        elif found.verdict != "faster":
            raise NothingToDoError(
                f"in {self.precision} the finished network is not measurably faster than the "
                f"original: {shown}"
            )
        return found

    def _session(self, file: Path) -> dict[str, Any] | None:
        """Return with which options of a session a file runs faster by 2 % or more; None with none.

        All are tried in turns; the best of them once more alone, as it is the luckiest as well.
        """
        timekeeper = self.chooser.timekeeper
        conditions = timekeeper.conditions
        tried = [one for one in VARIATIONS if conditions.threads > 1 or "allow_spinning" not in one]
        timed = timekeeper.race([file] * (1 + len(tried)), _SECONDS, [{}, *tried])[1:]
        options, best = max(zip(tried, timed, strict=True), key=lambda pair: pair[1].speedup.mid)
        if best.speedup.verdict != "faster":
            return None
        _, again = timekeeper.race([file, file], _SECONDS, [{}, options])
        if again.speedup.low < _WORTH_AN_OPTION:
            return None
        return {
            "file": file.name,
            "provider": conditions.provider,
            "threads": conditions.threads,
            "options": dict(options),
            "speedup": again.speedup.to_json(),
        }


def standing(out: Path, request: str) -> Mapping[str, Any] | None:
    """Return what the manifest of a bundle says of the tuning that it comes from.

    None where no bundle stands there, or one that comes from another request or is damaged.
    """
    if not (bundle.is_directory(out) and bundle.is_bundle(out)):
        return None
    try:
        tuned = bundle.read_manifest(out).get(TUNED)
    except ModelError:
        return None
    return tuned if isinstance(tuned, dict) and tuned.get("request") == request else None


def _original(place: Path) -> Path:
    """Return the file of the original network: the bundle's own where no layer was rewritten."""
    baseline = place / bundle.BASELINE
    return baseline if baseline.exists() else place / bundle.MODEL


def _facts(timed: Timed) -> dict[str, Any]:
    return {"seconds": timed.seconds, "speedup": timed.speedup.to_json()}


def _untimed(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a bundle's times before its files are timed: those of the choice."""
    facts = report["calibration"][LATENCY]
    gain = facts["gain"]["mid"]
    speedup = {key: gain * facts["speedup"][key] for key in ("low", "mid", "high")}
    timed = {"seconds": facts["seconds"], "speedup": {**facts["speedup"], **speedup}}
    precision = facts.get("precision", bundle.FLOAT32)
    files = {"files": {precision: timed}, "originals": {}, "beside": None, "session": None}
    return {**facts, "seconds": gain * facts["seconds_before"], **files}


def _add(place: Path, report: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Give a finished bundle another report, and its manifest further facts."""
    manifest = bundle.read_manifest(place)
    kept = {key: value for key, value in manifest.items() if key not in ("schema_version", "files")}
    write_json(place / bundle.REPORT, report)
    bundle.write_manifest(place, {**kept, **facts})


def _deliver(place: Path, out: Path, *, replace: bool) -> None:
    """Put a finished bundle into its place, whole or not at all."""
    with bundle.staged_directory(out, replace=replace) as staging:
        for file in place.iterdir():
            shutil.copyfile(file, staging / file.name)
