"""What networks are judged on: samples, and what should come out for each. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.tensors import TensorSet, are_tensors
from trpexport.errors import DataError, TrpexportError
from trpexport.judge.classify import (
    Classifier,
    check_image_shape,
    chosen_output,
    cut_to_own_sizes,
    locate,
    open_classifier,
)
from trpexport.judge.images import Images, choose_images, spread_evenly
from trpexport.judge.metrics import METRICS, Metric, OwnMetric, find_metric
from trpexport.judge.metrics.base import Values
from trpexport.judge.pixels import HashedSplit
from trpexport.runtime.session import Session, open_session
from trpexport.tensors import Arrays, shape_text

if TYPE_CHECKING:  # the data sets come from above: a device that only benches has none
    from trpexport.datasets.base import Dataset
    from trpexport.datasets.preprocessing import Preprocessing


class Judged(Protocol):
    """A network to be judged: a :class:`Classifier`, or a :class:`Model`."""

    @property
    def label(self) -> str:
        """What it is called: what the user typed."""

    @property
    def path(self) -> Path:
        """Its ONNX file."""

    @property
    def session(self) -> Session:
        """The network, open."""

    @property
    def output(self) -> str | None:
        """Name of the output to judge; all where it is None."""


@dataclass(frozen=True)
class Model:
    """A network that takes raw tensors: see :class:`Judged`."""

    label: str
    path: Path
    session: Session
    output: str | None = None


class Examples(Protocol):
    """What networks are judged on: samples, and what should come out for each."""

    @property
    def data(self) -> str:
        """The data as the user typed them."""

    @property
    def split(self) -> str:
        """Which part of them."""

    @property
    def indices(self) -> NDArray[np.int64]:
        """Which samples, in the order in which they are run."""

    def feeds(self, model: Judged, which: NDArray[np.int64]) -> Arrays:
        """Return the inputs of a network for some samples, by name.

        Raises:
            DataError: they do not fit it.
        """

    def targets(self, model: Judged, which: NDArray[np.int64]) -> Values:
        """Return what should come out for some samples.

        Raises:
            DataError: nobody says.
        """

    def sha256(self) -> str:
        """Return the hash of the samples and of what should come out."""


class ImageExamples:
    """Images with classes.

    Args:
        images: the images.
    """

    def __init__(self, images: Images) -> None:
        self.data, self.split, self.indices = images.data, images.name, images.indices
        self._labels = np.asarray(images.split.labels)
        self._pixels = HashedSplit(images.split)

    def feeds(self, model: Judged, which: NDArray[np.int64]) -> Arrays:
        """Return the images as a network takes them."""
        assert isinstance(model, Classifier)
        how = model.preprocessing
        info = model.session.inputs[0]
        inputs = how.inputs(how.prepare_split(self._pixels, which), info.shape)
        check_image_shape(model, inputs.shape, self.data)
        return {info.name: inputs.astype(info.dtype, copy=False)}

    def targets(self, model: Judged, which: NDArray[np.int64]) -> Values:
        """Return their classes."""
        return self._labels[which]

    def sha256(self) -> str:
        """Return the hash of pixels and classes."""
        labels = self._labels[self.indices].astype("<i8").tobytes()
        return hashlib.sha256(self._pixels.sha256(self.indices).encode() + labels).hexdigest()


class TensorExamples:
    """Raw tensors with targets, or some of them, spread evenly.

    Args:
        tensors: the tensors.
        limit: the number of samples; None, or a number beyond what there is, takes all.
        labelled: whether targets are needed.

    Raises:
        DataError: there are no targets, or the limit is below 1.
    """

    def __init__(
        self, tensors: TensorSet, limit: int | None = None, *, labelled: bool = True
    ) -> None:
        self.data, self.split = tensors.name, "all"
        self.indices = spread_evenly(len(tensors), limit)
        self._tensors = tensors
        if labelled:
            tensors.target(self.indices[:1])

    def feeds(self, model: Judged, which: NDArray[np.int64]) -> Arrays:
        """Return the tensors of a network's inputs, in its types."""
        infos = {info.name: info for info in model.session.inputs}
        feeds = {}
        for name, array in self._tensors.inputs_of(infos).items():
            info = infos[name]
            if not info.accepts((info.shape[0] if info.shape else 1, *array.shape[1:])):  # type: ignore[arg-type]
                raise DataError(
                    f"{model.label} takes {info}, {self.data} holds {name} of "
                    f"{shape_text(array.shape)}: give samples of the network's shape"
                )
            if array.dtype.kind == "f" and info.dtype.kind != "f":
                raise DataError(
                    f"{model.label} takes {info}, {self.data} holds {name} of {array.dtype}: save "
                    f"it as {info.dtype}"
                )
            feeds[name] = np.asarray(array[which]).astype(info.dtype, copy=False)
        return feeds

    def targets(self, model: Judged, which: NDArray[np.int64]) -> Values:
        """Return the targets of the samples."""
        return self._tensors.target(which, model.output)

    def sha256(self) -> str:
        """Return the hash of inputs and targets, by name."""
        total = hashlib.sha256()
        for arrays in (self._tensors.inputs, self._tensors.targets):
            for name in sorted(arrays):
                total.update(f"{name}:{arrays[name].dtype}:{arrays[name].shape[1:]}:".encode())
                for index in self.indices:
                    total.update(np.ascontiguousarray(arrays[name][index]).tobytes())
        return total.hexdigest()


def open_model(path: Path, *, output: str | None = None, **session_options: Any) -> Model:
    """Open an ONNX file or a bundle as a network that takes raw tensors.

    Args:
        path: the file or directory.
        output: name of the output to judge, where there are several.
        session_options: those of :func:`trpexport.runtime.session.open_session`.

    Raises:
        ModelError: it can't be opened.
    """
    file, _ = locate(path)
    session = open_session(file, **session_options)
    return Model(str(path), file, session, chosen_output(str(path), session, output))


def opened(
    paths: Sequence[Path],
    data: Dataset | TensorSet,
    *,
    split: str = "test",
    limit: int | None = None,
    preprocessing: Preprocessing | None = None,
    output: str | None = None,
    labelled: bool = True,
    **session_options: Any,
) -> tuple[list[Judged], Examples]:
    """Open networks and what to judge them on.

    Args:
        paths: ONNX files or bundles.
        data: images with classes, or raw tensors with targets.
        split: which images of a data set.
        limit: how many samples, spread evenly; None for all.
        preprocessing: how images become input; None takes what each bundle says.
        output: name of the output to judge, where there are several.
        labelled: whether it is needed what should come out.
        session_options: those of :func:`trpexport.runtime.session.open_session`.

    Raises:
        ModelError: a network can't be opened, or does not take images.
        DataError: the samples can't be read, or have no targets.
    """
    if isinstance(data, TensorSet):
        examples = TensorExamples(data, limit, labelled=labelled)
        return [open_model(path, output=output, **session_options) for path in paths], examples
    how = {"preprocessing": preprocessing, "output": output, **session_options}
    classifiers = open_classifiers(paths, data, **how)
    return [*classifiers], ImageExamples(choose_images(data, split, limit, labelled=labelled))


def open_classifiers(
    paths: Sequence[Path],
    data: Dataset,
    *,
    preprocessing: Preprocessing | None = None,
    **how: Any,
) -> list[Classifier]:
    """Open networks that take images of a data set, each cut to its own size where sizes differ.

    Args:
        paths: ONNX files or bundles.
        data: the images.
        preprocessing: how they become input; None takes what each bundle says.
        how: as for :func:`trpexport.judge.classify.open_classifier`.

    Raises:
        ModelError: one can't be opened, or does not take images.
        DataError: nobody says how images become its input.
    """
    known = data.prepared_by(preprocessing)
    found = [open_classifier(path, preprocessing=known, **how) for path in paths]
    return found if known is None or data.are_inputs else cut_to_own_sizes(found)


def usual_metric(data: Dataset | TensorSet | None, metric: Any) -> Any:
    """Return the metric that was asked for; of raw tensors with classes top-1 where none was."""
    is_classified = isinstance(data, TensorSet) and data.has_classes
    return "top1" if metric is None and is_classified else metric


def find_judge(
    data: str,
    metric: Metric | Callable[..., Any] | str | None,
    *,
    lower_is_better: bool = False,
) -> Metric | None:
    """Return what networks are judged by; None for images whose class is right, told in full.

    Args:
        data: what they are judged on, as the user typed it.
        metric: a metric, its name, or a user's own function, or its name; None for classes.
        lower_is_better: of a user's own, whether a smaller number is the better one.

    Raises:
        TrpexportError: there is no such metric, or raw tensors come without one.
    """
    if metric is None and (lower_is_better or are_tensors(data)):
        names = ", ".join(METRICS)
        raise TrpexportError(
            f"no metric is given for {data}: choose from {names}, or give a function of your own",
            parameters=("metric",),
        )
    if isinstance(metric, str):
        return find_metric(metric, lower_is_better=lower_is_better)
    if callable(metric):
        return OwnMetric(getattr(metric, "__name__", "metric"), metric, lower_is_better)
    return metric
