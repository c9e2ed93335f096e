"""Running classifiers over a data set, several at once on the same images. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trpexport import bundle
from trpexport.errors import DataError, ModelError
from trpexport.files import sha256_of
from trpexport.judge.images import Images
from trpexport.judge.outputs import OutputPair, OutputTally, has_last_channels, judged_outputs
from trpexport.judge.pixels import HashedSplit
from trpexport.judge.predictions import Evaluation
from trpexport.onnxfile.recognition import check_onnx_file
from trpexport.runtime.session import Session, open_session, run_in_batches
from trpexport.tensors import Array, Arrays, Shape, has_channels_last, laid_out, shape_text

if TYPE_CHECKING:  # the data sets come from above: a device that only benches has none
    from trpexport.datasets.preprocessing import Preprocessing
    from trpexport.datasets.splits import Split

_BATCH = 32  # images at a time, where the network leaves that open
_UNIT_SUM = 1e-3  # how far a row of probabilities may be from 1: float16 rounds to 5e-4


@dataclass(frozen=True)
class Classifier:
    """A network that takes images, and how they become its input.

    Attributes:
        label: what it is called: what the user typed.
        path: its ONNX file.
        session: the network, open.
        preprocessing: how an image becomes its input.
        output: name of the output with one number a class; None where there is only one.
    """

    label: str
    path: Path
    session: Session
    preprocessing: Preprocessing
    output: str | None = None

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the images that it takes; None where it leaves them open."""
        shape = self.session.inputs[0].shape or ("",) * 4
        channels = len(self.preprocessing.mean)
        height, width = shape[1:3] if has_channels_last(shape, channels) else shape[2:]
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None


@dataclass(frozen=True, eq=False)
class Evaluations:
    """Several classifiers on the same images.

    Attributes:
        classifiers: what each did.
        pairs: where there are two, how far they are from each other, output by output.
        inputs: shape of one image as each classifier took it.
    """

    classifiers: tuple[Evaluation, ...]
    pairs: tuple[OutputPair, ...]
    inputs: tuple[Shape, ...]


def locate(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """Return the ONNX file that a user means, and the manifest of the bundle that it is part of.

    Args:
        path: a bundle, a variant of one as in ``DIR@int8``, or an ONNX file; one that lies in a
            bundle and is named there belongs to it.

    Raises:
        ModelError: there is no such file, or it can't be an ONNX file; a directory is no bundle, or
            the bundle was changed after its export.
    """
    file, named = bundle.locate(path)
    if named is not None:
        return file, named
    check_onnx_file(path)
    if (path.parent / bundle.MANIFEST).is_file():
        manifest = bundle.read_manifest(path.parent)
        if path.name in manifest["files"]:
            return path, manifest
    return path, None


def find_preprocessing(label: str, manifest: dict[str, Any] | None) -> Preprocessing:
    """Return how images become a network's input, as its bundle says.

    Raises:
        DataError: nobody says; it is not guessed, since a wrong one costs accuracy silently.
    """
    from trpexport.datasets.preprocessing import Preprocessing

    known = (manifest or {}).get("preprocessing")
    if known is None:
        raise DataError(
            f"{label} does not say how images become its input: give mean and std as in its "
            "training (and size and resize), or take the data set's own preprocessing",
            parameters=("mean", "std", "size", "resize", "data_preprocessing"),
        )
    return Preprocessing.from_json(known, label)


def open_classifier(
    path: Path,
    *,
    preprocessing: Preprocessing | None = None,
    output: str | None = None,
    **session_options: Any,
) -> Classifier:
    """Open an ONNX file or a bundle as a classifier of images.

    Args:
        path: the file or directory.
        preprocessing: how images become its input; None takes what its bundle says.
        output: name of the output with one number a class, where there are several.
        session_options: those of :func:`trpexport.runtime.session.open_session`.

    Raises:
        ModelError: it can't be opened, or does not take images.
        DataError: nobody says how images become its input.
    """
    label = str(path)
    file, manifest = locate(path)
    preprocessing = preprocessing or find_preprocessing(label, manifest)
    session = open_session(file, **session_options)
    if session.inputs:
        preprocessing.check_input(session.inputs[0].shape, label)
    if len(session.inputs) != 1 or len(session.inputs[0].shape) not in {0, 4}:
        raise ModelError(
            f"{label} has the inputs {', '.join(map(str, session.inputs)) or '(none)'}: "
            "eval needs a network with one input, images x channels x height x width, or with the "
            "channels last"
        )
    if session.inputs[0].dtype.kind != "f":
        raise ModelError(f"{label} takes {session.inputs[0]}: eval needs an input of floats")
    return Classifier(label, file, session, preprocessing, chosen_output(label, session, output))


def chosen_output(label: str, session: Session, output: str | None) -> str | None:
    """Return the name of an output once the network has it; None for none.

    Raises:
        ModelError: it has no such output.
    """
    names = [info.name for info in session.outputs]
    if output is not None and output not in names:
        raise ModelError(f"{label} has no output {output!r}: choose from {', '.join(names)}")
    return output


def cut_to_own_sizes(classifiers: Sequence[Classifier]) -> list[Classifier]:
    """Return classifiers of different image sizes with a preprocessing that cuts each its own.

    For a preprocessing that they have in common, whose one size can't fit all of them. They are
    left as they are where their sizes do not differ, or where that size fits none.
    """
    sizes = {classifier.image_size for classifier in classifiers}
    wanted = classifiers[0].preprocessing.size
    fits = wanted is None or not sizes.isdisjoint({wanted, None})
    if len(sizes) == 1 or not fits:
        return list(classifiers)
    return [
        replace(one, preprocessing=replace(one.preprocessing, size=one.image_size))
        if one.image_size is not None
        else one
        for one in classifiers
    ]


def evaluate(
    classifiers: Sequence[Classifier],
    images: Images,
    *,
    batch: int | None = None,
    advance: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Evaluations:
    """Run classifiers over the same images, in the same order, batch by batch.

    Each image is read and prepared once for all classifiers that prepare it alike. A network
    whose batch size is fixed gets it; a last batch that is not full is filled up and cut again.

    Args:
        classifiers: the networks, at least one.
        images: what to run them on.
        batch: images in memory at a time; also the network's batch, where it leaves that open.
        advance: called with the number of images after each batch.
        clock: returns seconds.

    Raises:
        DataError: the images do not fit a network: number of classes, channels or size.
        ModelError: a network can't be run.
    """
    if batch is not None and batch < 1:
        raise DataError(f"a batch can't be {batch}: choose 1 or more", parameters=("batch",))
    size = _batch_size(classifiers, batch)
    tallies = [_Tally(classifier, images) for classifier in classifiers]
    outputs = OutputTally(has_last_channels(classifiers[0]))
    split = HashedSplit(images.split)
    for start in range(0, len(images.indices), size):
        indices = images.indices[start : start + size]
        prepared: dict[Preprocessing, NDArray[np.float32]] = {}
        for tally in tallies:
            how = tally.classifier.preprocessing
            if how not in prepared:
                prepared[how] = _prepare(how, split, indices)
            tally.run(prepared[how], clock)
        if len(tallies) == 2:
            outputs.add(tallies[0].outputs, tallies[1].outputs, len(indices))
        if advance is not None:
            advance(len(indices))
    pixels = split.sha256(images.indices)
    return Evaluations(
        tuple(tally.result(pixels) for tally in tallies),
        outputs.pairs(),
        tuple(tally.input_shape for tally in tallies),
    )


def check_image_shape(classifier: Classifier, shape: Shape, data: str) -> None:
    """Refuse images, (n, channels, height, width), that are not of a network's size.

    Raises:
        DataError: they are not.
    """
    wanted = classifier.session.inputs[0].shape
    if wanted and not all(
        isinstance(size, str) or size == given
        for size, given in zip(wanted[1:], shape[1:], strict=True)
    ):
        raise DataError(
            f"{classifier.label} takes images of {shape_text(wanted[1:])}, "
            f"{data} gives {shape_text(shape[1:])}: "
            "choose size and resize, or the data set that it was trained on",
            parameters=("size", "resize"),
        )


def _prepare(how: Preprocessing, split: Split, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    return how.normalise(how.prepare_split(split, indices))


def _batch_size(classifiers: Sequence[Classifier], batch: int | None) -> int:
    """Return how many images to hold: what was asked for, in whole batches of fixed networks."""
    wanted = batch or _BATCH
    fixed = max((c.session.batch_size or 1 for c in classifiers), default=1)
    return max(fixed, wanted // fixed * fixed)


class _Tally:
    """What one classifier did so far."""

    def __init__(self, classifier: Classifier, images: Images) -> None:
        self.classifier = classifier
        self._images = images
        self._ranked: list[Array] = []
        self._scores: list[Array] = []
        self._losses: dict[str, list[Array]] = {"logits": [], "probabilities": []}
        self._are_probabilities = True
        self._seconds = 0.0
        self._seen = 0
        self.input_shape: Shape = ()
        self.last: NDArray[np.float64] = np.empty((0, 0))
        self.outputs: Arrays = {}

    def run(self, inputs: NDArray[np.float32], clock: Callable[[], float]) -> None:
        """Run a batch and take its outputs in; scores stay in ``last``, (n, classes)."""
        session = self.classifier.session
        info = session.inputs[0]
        inputs = laid_out(inputs, info.shape)
        self.input_shape = inputs.shape[1:]
        check_image_shape(self.classifier, inputs.shape, self._images.data)
        feed = {info.name: inputs.astype(info.dtype, copy=False)}
        started = clock()
        outputs = run_in_batches(session, feed)
        self._seconds += clock() - started
        self.outputs = judged_outputs(self.classifier, outputs)
        self.last = self._class_scores(outputs, len(inputs))
        self._count(self._images.labels[self._seen : self._seen + len(inputs)])
        self._seen += len(inputs)

    def result(self, pixels: str) -> Evaluation:
        """Return what it did on the images with this hash."""
        kind = "probabilities" if self._are_probabilities else "logits"
        images = self._images
        return Evaluation(
            label=self.classifier.label,
            sha256=sha256_of(self.classifier.path),
            data=images.data,
            split=images.name,
            classes=images.classes,
            indices=images.indices,
            labels=images.labels,
            ranked=np.concatenate(self._ranked),
            scores=np.concatenate(self._scores),
            losses=np.concatenate(self._losses[kind]),
            outputs_are=kind,
            seconds=self._seconds,
            pixels=pixels,
        )

    def _class_scores(self, outputs: dict[str, Array], count: int) -> NDArray[np.float64]:
        """Return the output with one number a class, (n, classes)."""
        name = self.classifier.output
        named = outputs if name is None else {name: outputs[name]}
        wanted = (count, len(self._images.classes))
        flat = {  # a classifier may leave trailing dimensions of 1: n x classes x 1 x 1
            name: array.reshape(array.shape[:2])
            for name, array in named.items()
            if array.ndim >= 2 and array.shape[2:] == (1,) * (array.ndim - 2)
        }
        found = [array for array in flat.values() if array.shape == wanted]
        label = self.classifier.label
        if not found:
            shapes = ", ".join(
                f"{name} {shape_text(array.shape[1:])}" for name, array in named.items()
            )
            raise DataError(
                f"{label} puts out {shapes} an image, {self._images.data} has {wanted[1]} classes: "
                "name the data set that it was trained on"
            )
        if len(found) > 1:
            raise ModelError(
                f"{label} has several outputs with {wanted[1]} numbers: choose one, as in "
                f"{next(iter(flat))}",
                parameters=("output",),
            )
        return found[0].astype(np.float64)

    def _count(self, labels: NDArray[np.int64]) -> None:
        scores = self.last
        broken = np.logical_not(np.isfinite(scores).all(axis=1))
        clean = np.where(broken[:, None], 0.0, scores)
        ranked = np.argsort(-clean, axis=1, kind="stable")[:, :5]
        top = np.take_along_axis(clean, ranked, axis=1)
        ranked[broken], top[broken] = -1, np.nan
        self._ranked.append(ranked.astype(np.int64))
        self._scores.append(top.astype(np.float32))
        right = clean[np.arange(len(labels)), labels]
        peak = clean.max(axis=1)
        total = np.log(np.exp(clean - peak[:, None]).sum(axis=1)) + peak
        tiny = np.finfo(np.float32).tiny  # a probability that was rounded to 0
        for kind, losses in (
            ("logits", total - right),
            ("probabilities", -np.log(np.maximum(right, tiny))),
        ):
            self._losses[kind].append(np.where(broken, np.nan, losses))
        sums = clean[~broken].sum(axis=1)
        if not ((clean >= 0).all() and (np.abs(sums - 1) <= _UNIT_SUM).all()):
            self._are_probabilities = False
