"""Calibration of a checkpoint's network: on which images, to which target, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trpexport.checkpoints import Checkpoint
from trpexport.choose.budget import Budgeter, Outcome
from trpexport.choose.gathering import Gatherer
from trpexport.choose.layerwise import Calibrated, calibrate
from trpexport.choose.table import SensitivityTable, sensitivity_table
from trpexport.datasets.base import Dataset, Split
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.errors import DataError, PlanError
from trpexport.files import cache_folder
from trpexport.networks.torch.factorize import CALIBRATION
from trpexport.networks.torch.trace import evaluating
from trpexport.plan import Plan
from trpexport.stages import Stages

# Images that a network is verified on, and those whose labels it is judged by.
_VERIFIED = 256
_LABELLED = 2000
_BATCH = 50


@dataclass(frozen=True)
class Target:
    """What may remain of a network, or how good it must remain.

    Attributes:
        kind: ``macs`` or ``params``, a share of the whole network; ``error``, of its output, RMS
            relative to its variation; ``drop``, in points of top-1.
        value: the limit.

    Raises:
        PlanError: the value is out of range.
    """

    kind: Literal["macs", "params", "error", "drop"]
    value: float

    def __post_init__(self) -> None:
        if self.kind == "drop":
            if not 0 <= self.value < 100:
                raise PlanError(
                    f"--max-drop {self.value:g} is out of range: give points from 0 to below 100"
                )
        elif not 0 < self.value < 1:
            raise PlanError(
                f"--target-{self.kind} {self.value:g} is out of range: it must be between 0 and 1"
            )


@dataclass(frozen=True)
class CalibrationSettings:
    """What a network is calibrated on, and to what.

    Attributes:
        dataset: where the images come from: its training split, else its only one.
        images: how many, spread evenly over the split.
        seed: which ones.
        preprocessing: how they become input; None takes what the checkpoint says.
        target: what ranks, and with ``auto`` schemes, are chosen for; None keeps a plan's.
        rank_multiple: ranks that are chosen are multiples of it.
        cache: folder of sensitivity tables; one in the user's cache folder where it is None.
    """

    dataset: Dataset
    images: int = 512
    seed: int = 0
    preprocessing: Preprocessing | None = None
    target: Target | None = None
    rank_multiple: int = 1
    cache: Path | None = None


class Calibrator:
    """Calibrates the network of a checkpoint.

    Args:
        settings: what to.
        checkpoint: the network.
        input_shape: shape of the network's input, batch first.
        stages: times and announces the stages.

    Attributes:
        checkpoint: the checkpoint, which says how images become input.
        notes: what the reader of a report should know.

    Raises:
        DataError: the images can't be read or do not fit, or nobody says how they become input.
        OutputError: the cache can't be written.
    """

    def __init__(
        self,
        settings: CalibrationSettings,
        checkpoint: Checkpoint,
        input_shape: Sequence[int],
        stages: Stages,
    ) -> None:
        self._settings = settings
        self._shape = tuple(input_shape)
        self._stages = stages
        self._preprocessing = settings.preprocessing or _stored_preprocessing(checkpoint)
        self._cache = cache_folder(settings.cache)
        self.checkpoint = replace(
            checkpoint,
            metadata={**checkpoint.metadata, "preprocessing": self._preprocessing.to_json()},
        )
        self.notes: list[str] = []
        with stages("read calibration images"):
            dataset = settings.dataset
            self._split_name = (
                "train" if "train" in dataset.readers else next(iter(dataset.readers))
            )
            self._split = self._read_split(self._split_name)
            total, wanted = len(self._split), settings.images
            if total < wanted:
                self.notes.append(f"calibrated on all {total} images, {wanted} were asked for")
            self._chosen = spread(total, min(wanted, total), settings.seed)
            images = self._preprocessing.normalise(self._prepared(self._split, self._chosen))
            self._gatherer = Gatherer(checkpoint.module, images, self._shape)

    def keep_ranks(self, plan: Plan) -> Calibrated:
        """Calibrate the factors of a plan.

        Raises:
            TrpexportError: as :func:`trpexport.choose.layerwise.calibrate`.
        """
        with self._stages("calibrate"):
            found = calibrate(
                self.checkpoint.module,
                plan,
                self._gatherer.images.values,
                gatherer=self._gatherer,
                announce=self._stages.say,
            )
        return self._with_facts(found, {"output_error": found.error})

    def meet(self, target: Target, scheme: str, options: Mapping[str, Any]) -> Calibrated:
        """Choose ranks, and for ``auto`` schemes, for a target, and calibrate.

        Args:
            target: the target.
            scheme: name of a scheme, or ``auto``.
            options: ``include``, ``exclude``, ``stride_1_only``.

        Raises:
            NothingToDoError: the target can't be met; the message says what the best is.
            TrpexportError: as :func:`sensitivity_table`, or the labels do not fit the network.
        """
        checkpoint, multiple = self.checkpoint, self._settings.rank_multiple
        labelled = self._labelled() if target.kind == "drop" else None
        with self._stages("measure what each rank costs and loses"):
            table = sensitivity_table(
                checkpoint.module,
                self._gatherer.images.values,
                input_shape=self._shape,
                scheme=scheme,
                rank_multiple=multiple,
                cache=self._cache,
                gatherer=self._gatherer,
                announce=self._stages.say,
                **options,
            )
        budgeter = Budgeter(
            checkpoint.module,
            table,
            self._gatherer,
            input_shape=self._shape,
            scheme=scheme,
            architecture=checkpoint.label,
            announce=self._stages.say,
            **options,
        )
        facts: dict[str, Any] = {"target": asdict(target), "rank_multiple": multiple}
        with self._stages("calibrate"):
            if labelled is not None:
                outcome = budgeter.to_drop(labelled.top1, target.value)
                facts["top1"] = labelled.facts(outcome.calibrated.network)
            elif target.kind == "error":
                outcome = budgeter.to_error(target.value)
            else:
                resource: Literal["macs", "parameters"]
                resource = "macs" if target.kind == "macs" else "parameters"
                outcome = budgeter.to_fraction(target.value, resource)
        facts["output_error"] = outcome.error
        return self._with_facts(outcome.calibrated, facts, _shares(table, outcome))

    def inputs(self) -> NDArray[np.float32]:
        """Return images to verify on, none of them calibrated on if there are others."""
        name, split, indices = self._others(_VERIFIED)
        if not len(indices):
            return self._gatherer.images.values[:_VERIFIED]
        self.notes.append(f"verified on {name} images; golden.npz holds the first of them")
        return self._preprocessing.normalise(self._prepared(split, indices))

    def _labelled(self) -> _Labelled:
        name, split, indices = self._others(_LABELLED)
        dataset = self._settings.dataset
        if not len(indices):
            raise DataError(
                f"{dataset.name} has no images besides those to calibrate on, whose labels "
                "--max-drop could go by: give fewer --calib-images"
            )
        return _Labelled(
            network=self.checkpoint.module,
            preprocessing=self._preprocessing,
            pixels=self._prepared(split, indices),
            labels=np.asarray(split.labels)[indices],
            classes=len(dataset.classes),
            name=name,
        )

    def _others(self, most: int) -> tuple[str, Split, NDArray[np.int64]]:
        """Return test images, or of the only split those that are not calibrated on."""
        if self._split_name != "test" and "test" in self._settings.dataset.readers:
            split = self._read_split("test")
            return "test", split, spread(len(split), min(most, len(split)), self._settings.seed)
        rest = np.setdiff1d(np.arange(len(self._split)), self._chosen)
        chosen = spread(len(rest), min(most, len(rest)), self._settings.seed)
        return f"other {self._split_name}", self._split, rest[chosen]

    def _read_split(self, name: str) -> Split:
        split = self._settings.dataset.split(name)
        if not len(split):
            raise DataError(f"{self._settings.dataset.name} has no {name} images: check the path")
        return split

    def _prepared(self, split: Split, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        pixels = self._preprocessing.prepare_split(split, indices)
        if pixels.shape[1:] != self._shape[1:]:
            found, wanted = ("x".join(map(str, s[1:])) for s in (pixels.shape, self._shape))
            raise DataError(
                f"{self._settings.dataset.name} gives images of {found}, the network takes "
                f"{wanted}: choose --size and --resize, or the data set that it was trained on"
            )
        return pixels

    def _with_facts(
        self,
        found: Calibrated,
        facts: Mapping[str, Any],
        shares: Mapping[str, float] | None = None,
    ) -> Calibrated:
        """Say in the plan what it was calibrated on, and to what."""
        settings, known = self._settings, found.plan.options[CALIBRATION]
        kind, _, place = settings.dataset.name.partition(":")
        layers = known["layers"]
        if shares is not None:
            layers = [{**layer, "error_share": shares[layer["name"]]} for layer in layers]
        calibration = {
            # The last part of a path alone: a bundle is none of another machine's business.
            "data": f"{kind}:{PurePath(place).name}" if place else kind,
            "split": self._split_name,
            "seed": settings.seed,
            **known,
            **facts,
            "layers": layers,
        }
        options = {**found.plan.options, CALIBRATION: calibration}
        return replace(found, plan=replace(found.plan, options=options))


@dataclass(frozen=True)
class _Labelled:
    """Images whose classes are known, and that nothing is calibrated on."""

    network: nn.Module
    preprocessing: Preprocessing
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: int
    name: str

    def top1(self, model: nn.Module) -> float:
        """Return the share of images that a network classifies right, in percent."""
        like = next(self.network.parameters(), torch.empty(0))
        right = 0
        for start in range(0, len(self.pixels), _BATCH):
            some = slice(start, start + _BATCH)
            images = torch.from_numpy(self.preprocessing.normalise(self.pixels[some]))
            with evaluating(model):
                scores = model(images.to(like))
            if not isinstance(scores, Tensor) or scores.shape != (len(images), self.classes):
                found = list(scores.shape[1:]) if isinstance(scores, Tensor) else "no tensor"
                raise DataError(
                    f"the network puts out {found} an image, the data has {self.classes} classes: "
                    "--max-drop needs the data set that it was trained on"
                )
            right += int((scores.argmax(1).cpu().numpy() == self.labels[some]).sum())
        return 100.0 * right / len(self.pixels)

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """Return the accuracy of the original network and of ``model``, JSON-ready."""
        return {
            "before": self.top1(self.network),
            "after": self.top1(model),
            "images": len(self.pixels),
            "split": self.name,
        }


def spread(total: int, count: int, seed: int) -> NDArray[np.int64]:
    """Return the numbers of ``count`` of ``total`` images: one of each of as many equal stretches.

    Many data sets are sorted by class: so all classes are among them.
    """
    edges = np.arange(count + 1, dtype=np.int64) * total // max(1, count)
    drawn: NDArray[np.int64] = edges[:-1] + np.random.default_rng(seed).integers(0, np.diff(edges))
    return drawn


def automatic_multiple() -> int:
    """Return the channel block of ONNX Runtime's convolutions on this machine.

    Raises:
        PlanError: it is known for AVX2 and AVX-512 alone.
    """
    from trpexport.measure.machine import machine_facts

    found = machine_facts()["instruction_sets"]
    for name, block in (("avx512f", 16), ("avx2", 8)):
        if name in found:
            return block
    raise PlanError(
        "--rank-multiple auto knows processors with AVX2 and AVX-512 only, this one has neither: "
        "give a number"
    )


def _shares(table: SensitivityTable, outcome: Outcome) -> dict[str, float]:
    """Return how much of the network's squared error each layer was predicted to make."""
    chosen = outcome.allotment.chosen
    errors = {layer.name: layer.gain * chosen[layer.name].error for layer in table.layers}
    total = sum(errors.values())
    return {name: error / total if total else 0.0 for name, error in errors.items()}


def _stored_preprocessing(checkpoint: Checkpoint) -> Preprocessing:
    known = checkpoint.metadata.get("preprocessing")
    if known is None:
        raise DataError(
            f"{checkpoint.path} does not say how images become its input: give --mean and --std as "
            "in its training (and --size, --resize), or --data-preprocessing to take the data "
            "set's own"
        )
    return Preprocessing.from_json(known, str(checkpoint.path))
