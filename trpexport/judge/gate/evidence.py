"""What the rules of a gate need to know of two networks: both on the same samples. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trpexport.datasets.tensors import TensorSet
from trpexport.judge.classify import evaluate
from trpexport.judge.examples import open_classifiers, opened
from trpexport.judge.gate.config import Limits
from trpexport.judge.images import choose_images
from trpexport.judge.outputs import compare_networks
from trpexport.judge.scoring import score

if TYPE_CHECKING:  # the data sets come from above: a device that only benches has none
    from trpexport.datasets.base import Dataset

Watching = Callable[[int], AbstractContextManager[Callable[[int], None]]]


def _unwatched(total: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda count: None)


def gathered(
    paths: Sequence[Path],
    data: Dataset | TensorSet,
    limits: Limits,
    *,
    batch: int | None = None,
    watching: Watching = _unwatched,
    **how: Any,
) -> dict[str, Any]:
    """Run two networks on the same samples, as far as limits ask for it.

    Args:
        paths: ONNX files or bundles, the baseline first.
        data: images or raw tensors; labels are read where a rule needs them.
        limits: the rules.
        batch: samples at a time.
        watching: is told how many samples there are, and gives what is told of each batch.
        how: ``split``, ``limit``, ``preprocessing``, ``output`` and options of sessions, as for
            :func:`trpexport.judge.examples.opened`.

    Returns:
        The arguments of :func:`trpexport.judge.gate.check.run_gate` that it takes of that.

    Raises:
        DataError: the samples can't be read or do not fit, or labels are missing.
        ModelError: a network can't be run.
    """
    needs_labels, needs_outputs = bool(limits.of("data")), bool(limits.of("outputs"))
    if needs_labels and limits.metric is None and not isinstance(data, TensorSet):
        split, limit = how.pop("split", "test"), how.pop("limit", None)
        images = choose_images(data, split, limit)
        classifiers = open_classifiers(paths, data, **how)
        with watching(len(images.indices)) as advance:
            return {"evaluations": evaluate(classifiers, images, batch=batch, advance=advance)}
    found: dict[str, Any] = {}
    if needs_labels and limits.metric is not None:
        models, examples = opened(paths, data, **how)
        with watching(len(examples.indices)) as advance:
            found["scores"] = score(models, examples, limits.metric, batch=batch, advance=advance)
    if needs_outputs:
        models, examples = opened(paths, data, labelled=False, **how)
        with watching(len(examples.indices)) as advance:
            found["compared"] = compare_networks(models, examples, batch=batch, advance=advance)
    return found
