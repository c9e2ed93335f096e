"""How many points of accuracy a file costs."""

from __future__ import annotations

from pathlib import Path

from trpexport.datasets.preprocessing import Preprocessing
from trpexport.judge.classify import evaluate, open_classifier
from trpexport.judge.images import Images


class TopOneJudge:
    """Says how many points of top-1 a file costs against the float32 one, on the same images.

    Args:
        file: the float32 file.
        images: labelled images.
        preprocessing: how they become its input.
        provider: who runs both.

    Raises:
        DataError: the images do not fit the network.
        ModelError: it can't be run.
    """

    def __init__(
        self, file: Path, images: Images, preprocessing: Preprocessing, provider: str = "cpu"
    ) -> None:
        self._images = images
        self._preprocessing = preprocessing
        self._provider = provider
        self._before = self._top1(file)

    def __call__(self, file: Path) -> float:
        """Return the drop of a file in points; below 0 where it is better."""
        return 100 * (self._before - self._top1(file))

    def _top1(self, file: Path) -> float:
        classifier = open_classifier(
            file, preprocessing=self._preprocessing, provider=self._provider
        )
        return evaluate([classifier], self._images).classifiers[0].top1
