"""What a checkpoint says of images, and what its network should make of labelled ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trpexport.checkpoints import Checkpoint, examined, expected
from trpexport.datasets.base import Dataset
from trpexport.datasets.calibration import DatasetImages
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.errors import DataError
from trpexport.networks.base import Origin

# Images whose labels an architecture is checked by, and pixels of all of them together.
_EXPECTED, _EXPECTED_PIXELS = 256, 4_000_000


@dataclass(frozen=True)
class Expectation:
    """Images whose classes a checkpoint should tell.

    Attributes:
        dataset: where they come from.
        preprocessing: how they become input; None takes what the checkpoint says.
    """

    dataset: Dataset
    preprocessing: Preprocessing | None = None

    def checked(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint, or the look-alike of it, that tells them.

        Raises:
            ArchitectureError: it is no better than chance.
            DataError: the images can't be read, or do not fit the network.
        """
        shape = checkpoint.known_inputs.first.shape
        known = self.dataset.prepared_by(self.preprocessing)
        preprocessing = stored_preprocessing(checkpoint) if known is None else known
        images = DatasetImages(self.dataset, preprocessing, shape, count=1)
        count = max(1, min(_EXPECTED, _EXPECTED_PIXELS // math.prod(shape[2:])))
        labelled = images.labelled(count)
        inputs = np.concatenate([some for some, _ in labelled.batches()])
        return expected(examined(checkpoint, inputs), labelled)


def stored_preprocessing(source: Origin) -> Preprocessing:
    """Return how images become input, as a source's metadata say.

    Raises:
        DataError: they do not, or make no sense.
    """
    data = source.metadata.get("preprocessing")
    if data is None:
        raise DataError(
            f"{source.path} does not say how images become its input: give mean and standard "
            "deviation as in its training, or take the data set's own preprocessing",
            parameters=["mean", "std", "data_preprocessing"],
        )
    return Preprocessing.from_json(data, str(source.path))
