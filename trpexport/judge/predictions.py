"""What a classifier did on the images of a data set: accuracy, loss, and the file that keeps it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpexport.arrays import read_arrays, write_arrays
from trpexport.errors import DataError
from trpexport.schema import not_negative, text
from trpexport.shown import Shown
from trpexport.text import percent

# What a saved file begins with, and its version. The first one knew nothing of the pixels.
_KIND = "trpexport evaluation 2"
_KIND_WITHOUT_PIXELS = "trpexport evaluation 1"
_REMEDY = "evaluate again, and save that"


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Shown):
    """A classifier's answers, image by image.

    An image on which any output is NaN or infinite is *broken*: it counts as wrong everywhere,
    its classes are -1 and its loss is NaN.

    Attributes:
        label: what the network is called.
        sha256: of its file.
        data: the data set as the user typed it.
        split: which part of it.
        classes: class names, in the order of the labels.
        indices: which images of the split, (n,).
        labels: their classes, (n,).
        ranked: the classes with the largest outputs, largest first, (n, min(5, classes)); of
            equal outputs the lower class comes first.
        scores: the outputs of those, (n, min(5, classes)).
        losses: cross-entropy of each image in nats, (n,).
        outputs_are: ``"logits"``; or ``"probabilities"``, where every row of the output is one
            already, and the loss is ``-log p``.
        seconds: time spent in the network.
        pixels: SHA-256 of the images in their order, before any preprocessing; empty where it is
            not known, as in a file of an earlier version.
    """

    label: str
    sha256: str
    data: str
    split: str
    classes: tuple[str, ...]
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    ranked: NDArray[np.int64]
    scores: NDArray[np.float32]
    losses: NDArray[np.float64]
    outputs_are: str
    seconds: float
    pixels: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the first class is the right one, (n,)."""
        result: NDArray[np.bool_] = self.ranked[:, 0] == self.labels
        return result

    @property
    def correct_top5(self) -> NDArray[np.bool_]:
        """Whether one of the first five classes is the right one, (n,)."""
        result: NDArray[np.bool_] = (self.ranked == self.labels[:, None]).any(axis=1)
        return result

    @property
    def top1(self) -> float:
        """Share of images whose first class is right."""
        return float(self.correct.mean())

    @property
    def top5(self) -> float:
        """Share of images with the right class among the first five."""
        return float(self.correct_top5.mean())

    @property
    def loss(self) -> float | None:
        """Mean loss in nats; None where an image is broken."""
        return None if self.broken else float(self.losses.mean())

    @property
    def broken(self) -> int:
        """Number of images whose outputs are not all finite."""
        return int((self.ranked[:, 0] < 0).sum())

    @property
    def images_per_second(self) -> float:
        """Images that the network takes in a second, reading them not included."""
        return len(self) / self.seconds if self.seconds > 0 else float("inf")

    @property
    def confusion(self) -> NDArray[np.int64]:
        """How often a class (row) was taken for another (column); broken images are left out."""
        count = len(self.classes)
        seen = self.ranked[:, 0] >= 0
        pairs = self.labels[seen] * count + self.ranked[seen, 0]
        return np.bincount(pairs, minlength=count * count).reshape(count, count)

    @property
    def fingerprint(self) -> str:
        """Tells whether two evaluations saw the same images with the same labels.

        Raises:
            DataError: the pixels are not known.
        """
        if not self.pixels:
            raise DataError(
                f"the predictions of {self.label} can't be compared: they were saved by an earlier "
                "version, which did not keep what the images look like; evaluate and save again"
            )
        head = f"{len(self.classes)}:{self.pixels}:".encode()
        return hashlib.sha256(head + self.labels.astype("<i8").tobytes()).hexdigest()

    def to_json(self, *, confusion: bool = False) -> dict[str, Any]:
        """Return the totals as JSON-ready data."""
        speed = self.images_per_second
        facts: dict[str, Any] = {
            "model": self.label,
            "sha256": self.sha256,
            "data": self.data,
            "split": self.split,
            "images": len(self),
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "outputs_are": self.outputs_are,
            "broken_images": self.broken,
            "images_per_second": speed if np.isfinite(speed) else None,
        }
        if confusion:
            facts |= {"classes": list(self.classes), "confusion": self.confusion.tolist()}
        return facts

    def shown(self) -> dict[str, object]:
        """Return what to show of it in a session."""
        return {
            "model": self.label,
            "data": self.data,
            "top1": percent(self.top1),
            "images": len(self.labels),
        }


def save_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write an evaluation as one ``.npz`` file, an array a field; whole or not at all.

    Raises:
        OutputError: the place can't be written.
    """
    arrays: dict[str, Any] = {
        item.name: np.asarray(getattr(evaluation, item.name)) for item in fields(evaluation)
    }
    write_arrays(path, {"kind": np.asarray(_KIND), **arrays}, compressed=True)


def read_evaluation(path: Path) -> Evaluation:
    """Read what :func:`save_evaluation` wrote, in this version or the one before.

    Nothing in the file is executed.

    Raises:
        DataError: the file can't be read, is damaged, or is something else.
    """
    arrays: dict[str, Any] = read_arrays(path, remedy=_REMEDY, error=DataError)
    try:
        kind = str(arrays.pop("kind"))
        if kind not in (_KIND, _KIND_WITHOUT_PIXELS):
            raise ValueError("another kind of file")
        if kind == _KIND_WITHOUT_PIXELS:
            arrays["pixels"] = np.asarray("")
        result = Evaluation(
            **{name: array.item() if array.ndim == 0 else array for name, array in arrays.items()}
            | {"classes": tuple(map(str, arrays["classes"].tolist()))}
        )
        _check(result)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{path} holds no predictions: {_REMEDY}") from error
    return result


_TEXTS = ("label", "sha256", "data", "split", "outputs_are", "pixels")


def _check(evaluation: Evaluation) -> None:
    n, count = len(evaluation.labels), len(evaluation.classes)
    ranked, labels, losses = evaluation.ranked, evaluation.labels, evaluation.losses
    shapes = [evaluation.indices.shape, labels.shape, losses.shape, ranked.shape[:1]]
    sound = n > 0 and all(shape == (n,) for shape in shapes) and ranked.ndim == 2
    sound = sound and ranked.shape == evaluation.scores.shape and ranked.shape[1] == min(5, count)
    sound = sound and all(text(getattr(evaluation, name)) for name in _TEXTS)
    sound = sound and not_negative(evaluation.seconds)
    whole = {array.dtype.kind for array in (evaluation.indices, labels, ranked)}
    real = {array.dtype.kind for array in (losses, evaluation.scores)}
    if not sound or whole != {"i"} or real != {"f"}:
        raise ValueError("arrays that do not fit together")
    if labels.min() < 0 or labels.max() >= count or ranked.min() < -1 or ranked.max() >= count:
        raise ValueError("classes without a name")
    if not np.isfinite(losses[ranked[:, 0] >= 0]).all():
        raise ValueError("a loss that is no number")
