"""Is a checkpoint the network that it is taken for? Told by images whose classes are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trpexport.checkpoints.evidence import fresh, next_to
from trpexport.checkpoints.loading import Checkpoint
from trpexport.datasets.labelled import LabelledImages
from trpexport.errors import ArchitectureError, DataError
from trpexport.networks.torch.running import outputs_of, tensor_leaves

# What a network must do better than chance, as a share of what can be done better.
_SKILL = 0.1
# A look-alike counts as better from so many points on, and standard errors of the difference.
_BETTER, _ERRORS = 2.0, 3.0


def expected(checkpoint: Checkpoint, images: LabelledImages) -> Checkpoint:
    """Return a checkpoint that classifies images as it should: itself, or a look-alike of it.

    A look-alike is taken only where names and shapes alone said what the checkpoint is, and it is
    clearly better. What was found stands in the checkpoint's evidence.

    Raises:
        ArchitectureError: neither is better than chance; the message has the accuracy of each.
        DataError: the network puts out no number for each class of the data.
    """
    mine = _right(checkpoint.module, images)
    right, others = {checkpoint.label: mine}, {checkpoint.label: checkpoint.architecture}
    best, is_new = checkpoint.label, True
    while is_new:
        is_new = False
        centre = others[best]
        for other in next_to(centre) if centre is not None else ():
            if str(other) not in right:
                right[str(other)] = _right(fresh(other, checkpoint.module.state_dict()), images)
                others[str(other)], is_new = other, True
        found = max(right, key=lambda name: right[name].mean())
        best = found if _is_better(right[found], right[best]) else best
    chance = 1 / images.classes
    where = f"{len(mine)} {images.name} images"
    if right[best].mean() < chance + _SKILL * (1 - chance):
        tried = ", ".join(f"{name} {share.mean():.1%}" for name, share in right.items())
        raise ArchitectureError(
            f"{checkpoint.path}: no better than chance on {where} ({tried} right): give the images "
            "as in its training (mean, standard deviation), or the network that it is"
        )
    note = f"{best} classifies {right[best].mean():.1%} of {where} right"
    if best == checkpoint.label:
        return replace(checkpoint, evidence=(note, *checkpoint.evidence))
    note += f", {checkpoint.label}, of the same names and shapes, {mine.mean():.1%}"
    if not checkpoint.is_recognised:
        return replace(checkpoint, evidence=(f"{note}: is it the one that was named?",))
    architecture = others[best]
    assert architecture is not None
    network = architecture.build().eval()
    network.load_state_dict(checkpoint.module.state_dict())
    return replace(
        checkpoint,
        module=network,
        architecture=architecture,
        label=best,
        evidence=(f"{note}: taken for the former",),
        is_recognised=False,  # labels say what it is
    )


def _right(network: nn.Module, images: LabelledImages) -> NDArray[np.bool_]:
    """Return which images a network classifies right, (images,)."""
    found = []
    weight = next(network.parameters(), torch.empty(0))
    for inputs, labels in images.batches():
        leaves = tensor_leaves(outputs_of(network, torch.from_numpy(inputs).to(weight)))
        wanted = (len(inputs), images.classes)
        scores = [leaf for leaf in leaves if tuple(leaf.shape) == wanted]
        if len(scores) != 1:
            shapes = ", ".join(str(list(leaf.shape[1:])) for leaf in leaves)
            raise DataError(
                f"the network puts out {shapes or 'nothing'} an image, the data has {wanted[1]} "
                "classes: give the data set that it was trained on"
            )
        found.append(scores[0].argmax(1).cpu().numpy() == labels)
    return np.concatenate(found)


def _is_better(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether one network is clearly better on the same images."""
    difference = one.astype(float) - other
    error = difference.std() / len(difference) ** 0.5
    return bool(difference.mean() > max(_BETTER / 100, _ERRORS * error))
