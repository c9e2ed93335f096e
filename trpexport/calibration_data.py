"""Data that a network is calibrated, verified and judged on, as the network takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trpexport.artifact.reference import check_repeats
from trpexport.choose.base import CalibrationImages
from trpexport.choose.judged_images import judged_by
from trpexport.datasets.arrays import pixels_as_input
from trpexport.datasets.base import Dataset
from trpexport.datasets.calibration import ArrayImages, DatasetImages
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.ready import ready_inputs
from trpexport.datasets.tensors import TensorSet
from trpexport.errors import DataError
from trpexport.expectations import stored_preprocessing
from trpexport.inputs import Inputs, images_of, rows
from trpexport.networks.base import Network, Origin
from trpexport.networks.samples import Samples, checked_samples
from trpexport.tensors import Array


@dataclass(frozen=True)
class CalibrationData:
    """A data set to calibrate on.

    Attributes:
        dataset: where the images come from; or raw tensors.
        count: how many; None for all but those that are held out.
        seed: which ones.
        preprocessing: how images become input; None takes what the checkpoint says.
        judged: labelled samples that a drop is told by; None for those of ``dataset`` that are
            not calibrated on.
    """

    dataset: Dataset | TensorSet
    count: int | None = 512
    seed: int = 0
    preprocessing: Preprocessing | None = None
    judged: Dataset | TensorSet | None = None

    def read_for(
        self, source: Origin | None, inputs: Inputs
    ) -> tuple[CalibrationImages, dict[str, Any]]:
        """Return the images as a network takes them, and what its metadata say of that.

        Args:
            source: the network's, which may know how images become input.
            inputs: the network's.

        Raises:
            DataError: they can't be read or do not fit, or nobody says how they become input.
        """
        if self.preprocessing is not None:  # which the bundle keeps, also where nothing needs it
            self.preprocessing.check_input(inputs.first.shape, "the network")
        images: CalibrationImages
        data = self._taken_by(inputs)
        if isinstance(data, TensorSet):
            images = ArrayImages(
                data.given(inputs),
                name=data.name,
                targets=data.known_targets,
                count=self.count,
                seed=self.seed,
            )
        else:
            how = self.prepared(data, source)
            drawn = {} if self.count is None else {"count": self.count}
            images = DatasetImages(data, how, inputs.first.shape, seed=self.seed, **drawn)
        if self.judged is not None and self.judged.name != self.dataset.name:
            how_judged = (
                None if isinstance(self.judged, TensorSet) else self.prepared(self.judged, source)
            )
            images = judged_by(images, self.judged, inputs, how_judged, self.seed)
        known = self.preprocessing
        return images, {} if known is None else {"preprocessing": known.to_json()}

    def inputs_for(self, source: Origin | None, inputs: Inputs) -> dict[str, Array]:
        """Return at most ``count`` of the samples as a network takes them, by input.

        Raises:
            DataError: as :meth:`read_for`.
        """
        data = self._taken_by(inputs)
        how = None if isinstance(data, TensorSet) else self.prepared(data, source)
        shapes = {name: one.shape for name, one in inputs.items()}
        return ready_inputs(data, shapes, how, self.count)

    def _taken_by(self, inputs: Inputs) -> Dataset | TensorSet:
        """Return the data set; its bytes as they are where the network takes bytes."""
        data, first = self.dataset, inputs.first
        if isinstance(data, Dataset) and first.dtype == "uint8":
            return pixels_as_input(data, next(iter(data.readers)), first.shape) or data
        return data

    def prepared(self, dataset: Dataset, source: Origin | None) -> Preprocessing:
        """Return how images of a data set become the input of a network that comes from somewhere.

        Raises:
            DataError: nobody says.
        """
        known = dataset.prepared_by(self.preprocessing)
        if known is not None:
            return known
        if source is None:
            raise DataError(
                f"it is not known how images of {dataset.name} become the network's input: give "
                "preprocessing, the data set's own if the network was trained with that"
            )
        return stored_preprocessing(source)


def check_images(network: Network, images: CalibrationImages) -> Samples:
    """Return what a network is calibrated on, once it is known that it can be.

    Raises:
        DataError: the images do not fit the network, or hold NaN or infinity.
        ModelError: the network gives NaN for them, or something else each time.
    """
    samples = checked_samples(images.inputs, network.inputs)
    few = rows(samples.values, slice(network.inputs.batch))
    if images_of(few) == network.inputs.batch:
        check_repeats(network, few)
    return samples
